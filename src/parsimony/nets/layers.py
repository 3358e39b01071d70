"""The blocks that every network is built of.

Initial weights, batch-norm constants and parameter counts are Keras's, which made the originals' figures.
"""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

_MASK_PART = 2**18  # elements that one thread draws at a time


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


class Residual(nn.Module):
    """Adds its input to what `layers` make of it, in the same shape (He et al., arXiv 1512.03385)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return images + self.layers(images)


class FastDropout(nn.Dropout):
    """Dropout whose mask on a CPU takes four 16-bit draws from one 64-bit number, so that p is exact to 1/65536.

    PyTorch draws one element after another, which in a small network takes longer than its convolutions. The numbers
    that seed a mask are taken from torch's own generator: whatever seeds torch repeats the masks too.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or input.device.type != "cpu":
            return super().forward(input)
        mask = torch.from_numpy(_dropout_mask(input.numel(), self.p)).to(input.dtype)
        return input * mask.as_strided(input.size(), _dense_strides(input))


def _dropout_mask(count: int, p: float) -> np.ndarray:
    """`count` values, 0 with probability `p` rounded to 1/65536, below 1; else what keeps their mean at 1."""
    drop = min(round(p * 2**16), 2**16 - 1)
    mask = np.empty(count, np.float32)
    # Parts of a fixed size with a seed each, so that a mask does not depend on the number of threads that draw it.
    parts = [mask[start : start + _MASK_PART] for start in range(0, count, _MASK_PART)]
    left = iter(zip(parts, torch.randint(2**63 - 1, (len(parts),)).tolist(), strict=True))

    def draw() -> None:
        for part, seed in left:
            words = np.random.SFC64(seed).random_raw(-(-len(part) // 4))
            keep = words.view(np.uint16)[: len(part)] >= drop
            np.multiply(keep, np.float32(2**16 / (2**16 - drop)), out=part)

    # This thread draws as well: waking another one can take as long as a part.
    others = [_pool().submit(draw) for _ in range(min(torch.get_num_threads(), len(parts)) - 1)]
    draw()
    for other in others:
        other.result()
    return mask


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "dropout")


def _dense_strides(input: Tensor) -> tuple[int, ...]:
    """The strides of a dense tensor laid out as `input` is."""
    return torch.empty_like(input, device="meta").stride()


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
        layers["relu"] = nn.ReLU(inplace=True)  # what it overwrites no gradient needs
    if norm and not norm_first:
        layers["norm"] = norm
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    block = nn.Sequential(layers)
    return block.apply(keras_init)
