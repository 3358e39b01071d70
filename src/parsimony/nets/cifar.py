"""Networks for 3 x 32 x 32 pictures. Each reads like its table; the comments give the output's height and width."""

from functools import partial

from torch import nn

from parsimony.nets.layers import Residual, conv, dense, global_average_pool, separable


def cifar_base(dropout: float = 0.25, dropout_dense: float = 0.5) -> nn.Sequential:
    """1,172,410 parameters, 81.5 % (original 3, third task): the network to beat."""
    return nn.Sequential(
        conv(3, 48, same=True, norm=False),  # 32
        conv(48, 48, norm=False),  # 30
        nn.MaxPool2d(2),  # 15
        nn.Dropout(dropout),
        conv(48, 96, same=True, norm=False),  # 15
        conv(96, 96, norm=False),  # 13
        nn.MaxPool2d(2),  # 6
        nn.Dropout(dropout),
        conv(96, 192, same=True, norm=False),  # 6
        conv(192, 192, norm=False),  # 4
        nn.MaxPool2d(2),  # 2
        nn.Dropout(dropout),
        nn.Flatten(),
        dense(768, 512, dropout=dropout_dense),
        dense(512, 256, dropout=dropout_dense),
        dense(256, 10, activation=False),
    )


def cifar_sep(dropout: float = 0.1, dropout_dense: float = 0.25) -> nn.Sequential:
    """92,901 parameters, 82.78 % (original 3, third task; it does not state its dropout). Norm before ReLU."""
    block = partial(separable, norm_first=True, dropout=dropout)
    return nn.Sequential(
        block(3, 64, same=True),  # 32
        block(64, 64),  # 30
        nn.MaxPool2d(2),  # 15
        block(64, 64, same=True),  # 15
        block(64, 128),  # 13
        nn.MaxPool2d(2),  # 6
        block(128, 128, same=True),  # 6
        block(128, 128),  # 4
        global_average_pool(),
        dense(128, 256, norm=True, norm_first=True, dropout=dropout_dense),
        dense(256, 10, activation=False),
    )


def cifar_plain(dropout: float = 0.0) -> nn.Sequential:
    """98,626 parameters: our own. Nothing but 3x3 convolutions, norm before ReLU; no bias in them."""
    block = partial(conv, same=True, bias=False, norm_first=True, dropout=dropout)
    return nn.Sequential(
        block(3, 24),  # 32
        block(24, 24),
        block(24, 24),
        nn.MaxPool2d(2),  # 16
        block(24, 40),
        block(40, 40),
        block(40, 40),
        nn.MaxPool2d(2),  # 8
        block(40, 56),
        block(56, 56),
        global_average_pool(),
        dense(56, 10, activation=False),
    )


def cifar_convnext(dropout: float = 0.0) -> nn.Sequential:
    """98,218 parameters: our own, of ConvNeXt's blocks (Liu et al., arXiv 2201.03545) in 3x3 and with batch norm."""
    block = partial(separable, same=True, bias=False, norm_first=True, dropout=dropout)
    narrow = partial(conv, kernel=1, bias=False, norm_first=True, activation=False)
    return nn.Sequential(
        conv(3, 24, same=True, bias=False, norm_first=True),  # 32
        *(Residual(block(24, 48), narrow(48, 24)) for _ in range(2)),
        block(24, 48),
        nn.MaxPool2d(2),  # 16
        *(Residual(block(48, 96), narrow(96, 48)) for _ in range(4)),
        block(48, 72),
        nn.MaxPool2d(2),  # 8
        *(Residual(block(72, 144), narrow(144, 72)) for _ in range(2)),
        global_average_pool(),
        dense(72, 10, activation=False),
    )


def cifar_resnet9(dropout: float = 0.0) -> nn.Sequential:
    """1,648,362 parameters: D. Page's ResNet-9 ("How to train your ResNet") at half its width. Norm before ReLU."""
    block = partial(conv, same=True, bias=False, norm_first=True, dropout=dropout)
    return nn.Sequential(
        block(3, 32),  # 32
        block(32, 64),
        nn.MaxPool2d(2),  # 16
        Residual(block(64, 64), block(64, 64)),
        block(64, 128),
        nn.MaxPool2d(2),  # 8
        block(128, 256),
        nn.MaxPool2d(2),  # 4
        Residual(block(256, 256), block(256, 256)),
        global_average_pool(),
        dense(256, 10, activation=False),
    )
