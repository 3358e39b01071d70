"""The blocks that every network is built of.

Initial weights, batch-norm constants and parameter counts are Keras's, since the seeds' figures were made with them.
"""

from collections import OrderedDict

from torch import nn


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    same: bool = False,
    bias: bool = True,
    norm: bool = True,
    activation: bool = True,
    norm_first: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Convolution, then ReLU, batch norm and dropout; `norm_first` puts the norm before the ReLU."""
    kernels = {"conv": nn.Conv2d(in_channels, out_channels, kernel, padding=_padding(kernel, same), bias=bias)}
    return _block(kernels, _norm2d(out_channels) if norm else None, activation, norm_first, dropout)


def separable(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    same: bool = False,
    bias: bool = True,
    norm: bool = True,
    activation: bool = True,
    norm_first: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """`conv` with its kernel split in two: depthwise (k x k, no bias), then pointwise (1 x 1, the one bias)."""
    padding = _padding(kernel, same)
    kernels = {
        "depthwise": nn.Conv2d(in_channels, in_channels, kernel, padding=padding, groups=in_channels, bias=False),
        "pointwise": nn.Conv2d(in_channels, out_channels, 1, bias=bias),
    }
    return _block(kernels, _norm2d(out_channels) if norm else None, activation, norm_first, dropout)


def dense(
    in_features: int,
    out_features: int,
    *,
    norm: bool = False,
    activation: bool = True,
    norm_first: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layer, then what follows it as in `conv`."""
    kernels = {"linear": nn.Linear(in_features, out_features)}
    batch_norm = nn.BatchNorm1d(out_features, eps=1e-3, momentum=0.01) if norm else None
    return _block(kernels, batch_norm, activation, norm_first, dropout)


def global_average_pool() -> nn.Sequential:
    """(n, c, h, w) -> (n, c)."""
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


def keras_init(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases; meant for `net.apply(keras_init)`.

    Keras counts a depthwise kernel's fans the other way round than PyTorch, but their sum, and so the range, agrees.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _padding(kernel: int, same: bool) -> int:
    return kernel // 2 if same else 0


def _norm2d(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # Keras's momentum 0.99 is PyTorch's 0.01


def _block(
    kernels: dict[str, nn.Conv2d] | dict[str, nn.Linear],
    norm: nn.Module | None,
    activation: bool,
    norm_first: bool,
    dropout: float,
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(kernels)
    if norm and norm_first:
        layers["norm"] = norm
    if activation:
        layers["relu"] = nn.ReLU()
    if norm and not norm_first:
        layers["norm"] = norm
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    block = nn.Sequential(layers)
    return block.apply(keras_init)
