"""Networks for 1 x 28 x 28 digits. Each reads like its table; the comments give the output's height and width."""

from functools import partial

from torch import nn

from parsimony.nets.layers import Residual, conv, dense, global_average_pool, separable


def mnist_wide(dropout: float = 0.0) -> nn.Sequential:
    """208,970 parameters, 99.13 % (original 1, first task). Plain and wide: what small ones are measured against."""
    plain = partial(conv, norm=False, dropout=dropout)
    return nn.Sequential(
        plain(1, 32),  # 26
        plain(32, 64),  # 24
        plain(64, 128),  # 22
        nn.MaxPool2d(2),  # 11
        plain(128, 32, kernel=1),
        plain(32, 64),  # 9
        plain(64, 128),  # 7
        plain(128, 32, kernel=1),
        conv(32, 10, kernel=7, norm=False, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_plain(dropout: float = 0.0) -> nn.Sequential:
    """21,656 parameters, 99.01 % (original 2, first task)."""
    plain = partial(conv, norm=False, dropout=dropout)
    return nn.Sequential(
        plain(1, 32),  # 26
        plain(32, 32),  # 24
        nn.MaxPool2d(2),  # 12
        plain(32, 32),  # 10
        nn.MaxPool2d(2),  # 5
        plain(32, 10, kernel=1),
        conv(10, 10, kernel=5, norm=False, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_sep(dropout: float = 0.0) -> nn.Sequential:
    """13,794 parameters, 99.42 % (original 1, second task). Separable convolutions stand in for dropout."""
    return nn.Sequential(
        conv(1, 16, dropout=dropout),  # 26
        conv(16, 32, dropout=dropout),  # 24
        conv(32, 16, kernel=1, norm=False),
        nn.MaxPool2d(2),  # 12
        separable(16, 16, dropout=dropout),  # 10
        conv(16, 16, norm=False),  # 8
        separable(16, 16, dropout=dropout),  # 6
        conv(16, 16, dropout=dropout),  # 4
        conv(16, 10, kernel=4, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_dropout(dropout: float = 0.1) -> nn.Sequential:
    """14,060 parameters, 99.45 % (original 2, second task). Dropout after every norm, the last one's included."""
    return nn.Sequential(
        conv(1, 16, dropout=dropout),  # 26
        conv(16, 16, dropout=dropout),  # 24
        conv(16, 10, kernel=1, norm=False),
        nn.MaxPool2d(2),  # 12
        conv(10, 16, dropout=dropout),  # 10
        conv(16, 16, dropout=dropout),  # 8
        conv(16, 16, dropout=dropout),  # 6
        conv(16, 16, dropout=dropout),  # 4
        conv(16, 10, kernel=4, activation=False, dropout=dropout),  # 1
        nn.Flatten(),
    )


def mnist_taper(dropout: float = 0.1) -> nn.Sequential:
    """14,750 parameters, 99.49 % (original 3, second task, reconstructed)."""
    return nn.Sequential(
        conv(1, 16, dropout=dropout),  # 26
        conv(16, 32, dropout=dropout),  # 24
        nn.MaxPool2d(2),  # 12
        conv(32, 10, kernel=1, norm=False),
        conv(10, 16, dropout=dropout),  # 10
        conv(16, 16, dropout=dropout),  # 8
        conv(16, 16, dropout=dropout),  # 6
        conv(16, 10, dropout=dropout),  # 4
        conv(10, 10, kernel=4, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_taper_small(dropout: float = 0.05) -> nn.Sequential:
    """9,928 parameters, "99.4 %, but barely" (original 3, second task, reconstructed; "less dropout" is all)."""
    return nn.Sequential(
        conv(1, 16, dropout=dropout),  # 26
        conv(16, 32, dropout=dropout),  # 24
        nn.MaxPool2d(2),  # 12
        conv(32, 10, kernel=1, norm=False),
        conv(10, 10, dropout=dropout),  # 10
        conv(10, 10, dropout=dropout),  # 8
        conv(10, 8, dropout=dropout),  # 6
        conv(8, 8, dropout=dropout),  # 4
        conv(8, 10, kernel=4, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_narrow(dropout: float = 0.098, dropout_7x7: float = 0.092) -> nn.Sequential:
    """5,904 parameters, 99.43 % (original 4, first net). No bias anywhere."""
    block = partial(conv, bias=False, dropout=dropout)
    return nn.Sequential(
        block(1, 8),  # 26
        block(8, 8),  # 24
        block(8, 8),  # 22
        nn.MaxPool2d(2),  # 11
        conv(8, 8, kernel=1, bias=False, norm=False),
        block(8, 10),  # 9
        conv(10, 10, bias=False, dropout=dropout_7x7),  # 7
        block(10, 10),  # 5
        block(10, 10),  # 3
        conv(10, 10, bias=False, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_narrow_early_pool(dropout: float = 0.1) -> nn.Sequential:
    """6,570 parameters, 99.40 % (original 4, second net). No bias anywhere."""
    block = partial(conv, bias=False, dropout=dropout)
    return nn.Sequential(
        block(1, 10),  # 26
        block(10, 10),  # 24
        nn.MaxPool2d(2),  # 12
        conv(10, 10, kernel=1, bias=False, norm=False),
        block(10, 10),  # 10
        block(10, 10),  # 8
        block(10, 10),  # 6
        block(10, 10),  # 4
        conv(10, 10, kernel=4, bias=False, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_squeeze(dropout: float = 0.2, dropout_first: float = 0.1) -> nn.Sequential:
    """14,568 parameters, 99.40 % (original 5). A 1x1 convolution squeezes after each of the first three; no bias."""
    squeeze = partial(conv, kernel=1, bias=False, norm=False)
    block = partial(conv, bias=False, dropout=dropout)
    return nn.Sequential(
        conv(1, 32, bias=False, dropout=dropout_first),  # 26
        squeeze(32, 10),
        block(10, 32),  # 24
        squeeze(32, 10),
        nn.MaxPool2d(2),  # 12
        block(10, 16),  # 10
        squeeze(16, 10),
        block(10, 16),  # 8
        block(16, 16),  # 6
        block(16, 16),  # 4
        conv(16, 10, kernel=4, bias=False, activation=False),  # 1
        nn.Flatten(),
    )


def mnist_micro(width: int = 16, dropout: float = 0.0) -> nn.Sequential:
    """2,394 parameters: our own, for the records. Separable, all layers but the first as wide; no bias but the last."""
    if not isinstance(width, int) or width < 2:
        raise ValueError(f"width takes a whole number of at least 2, not {width}")
    block = partial(separable, bias=False, dropout=dropout)
    return nn.Sequential(
        conv(1, width // 2, bias=False, dropout=dropout),  # 26
        block(width // 2, width),  # 24
        nn.MaxPool2d(2),  # 12
        block(width, width),  # 10
        block(width, width),  # 8
        block(width, width),  # 6
        block(width, width),  # 4
        global_average_pool(),
        dense(width, 10, activation=False),
    )


def mnist_residual(dropout: float = 0.0) -> nn.Sequential:
    """117,210 parameters: our own, for the small ones to learn from. Norm before ReLU; no bias in convolutions."""
    block = partial(conv, same=True, bias=False, norm_first=True, dropout=dropout)
    return nn.Sequential(
        block(1, 16),  # 28
        block(16, 32),
        nn.MaxPool2d(2),  # 14
        Residual(block(32, 32), block(32, 32)),
        block(32, 64),
        nn.MaxPool2d(2),  # 7
        Residual(block(64, 64), block(64, 64)),
        global_average_pool(),
        dense(64, 10, activation=False),
    )
