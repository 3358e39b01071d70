"""The blocks that every network is built of.

Initial weights, batch-norm constants and parameter counts are Keras's, since the seeds' figures were made with them.
"""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MASK_PART = 2**18  # elements that one thread draws at a time
_CACHE_LINE = 16  # floats
_MANY = 2**16  # elements, above which a wait for memory outweighs the cost of a few more calls


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


class FastDropout(nn.Dropout):
    """Dropout whose mask on a CPU takes four 16-bit draws from one 64-bit number, so that p is exact to 1/65536.

    PyTorch draws one element after another, which in a small network takes longer than its convolutions. A forward
    pass takes one number from torch's own generator, to seed its mask: whatever seeds torch repeats the masks too.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        mask = torch.from_numpy(_dropout_mask(input.numel(), self.p)).to(input.dtype)
        return input * mask.as_strided(input.size(), _dense_strides(input))


def _dropout_mask(count: int, p: float) -> np.ndarray:
    """`count` values, 0 with probability `p`, else 1 / (1 - p)."""
    mask = np.empty(count, np.float32)
    # Parts of a fixed size with a seed each, so that a mask does not depend on the number of threads that draw it.
    parts = [mask[start : start + _MASK_PART] for start in range(0, count, _MASK_PART)]
    left = iter(zip(parts, torch.randint(2**63 - 1, (len(parts),)).tolist(), strict=True))

    def draw() -> None:
        for part, seed in left:
            words = np.random.SFC64(seed).random_raw(-(-len(part) // 4))
            keep = words.view(np.uint16)[: len(part)] >= round(p * 2**16)
            np.multiply(keep, np.float32(1 / (1 - p)), out=part)

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


class FastBatchNorm2d(nn.BatchNorm2d):
    """Batch norm for few channels in channels_last on a CPU.

    PyTorch's kernel gives each thread a row of sums, one float a channel. Where the channels do not fill whole cache
    lines, the threads' rows share one and wait for each other, up to six times as long as the arithmetic takes.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self._is_faster(input):
            return super().forward(input)
        output, mean, variance = _BatchNorm.apply(input, self.weight, self.bias, self.eps)
        values = input.numel() / input.shape[1]
        with torch.no_grad():
            for running, batch in ((self.running_mean, mean), (self.running_var, variance * values / (values - 1))):
                running.lerp_(batch, self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        return output

    def _is_faster(self, input: Tensor) -> bool:
        usual = self.training and self.affine and self.track_running_stats and self.momentum is not None
        plain = input.device.type == "cpu" and input.dtype == torch.float32
        few = input.shape[1] % _CACHE_LINE != 0 and input.numel() >= _MANY
        return usual and plain and few and input.is_contiguous(memory_format=torch.channels_last)


class _BatchNorm(torch.autograd.Function):
    """(images, weight, bias, eps) -> (normalised images, mean, biased variance), over rows of several pixels each.

    Rows as wide as a few cache lines are what PyTorch's sums and products are fast on, whatever the channels.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, pixels = _pixel_rows(images)
        count = images.numel() // len(weight)
        mean = _channel_sums(rows, pixels) / count
        variance = _channel_sums((rows - mean.repeat(pixels)).square_(), pixels) / count
        inverse_deviation = (variance + eps).rsqrt()
        scale = weight * inverse_deviation
        output = torch.addcmul((bias - mean * scale).repeat(pixels), rows, scale.repeat(pixels))
        ctx.save_for_backward(images, mean, inverse_deviation, scale)
        ctx.mark_non_differentiable(mean, variance)
        return output.as_strided(images.size(), images.stride()), mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        images, mean, inverse_deviation, scale = ctx.saved_tensors
        rows, pixels = _pixel_rows(images)
        grad, _ = _pixel_rows(grads[0].contiguous(memory_format=torch.channels_last))
        count = images.numel() // len(mean)
        grad_bias = _channel_sums(grad, pixels)
        grad_weight = (_channel_sums(grad * rows, pixels) - mean * grad_bias) * inverse_deviation
        # scale * (grad - mean(grad) - normalised images * mean(grad * normalised images)), as one product a tensor
        slope = -scale * inverse_deviation * grad_weight / count
        offset = -scale * grad_bias / count - slope * mean
        grad_rows = torch.addcmul(offset.repeat(pixels), rows, slope.repeat(pixels))
        grad_rows.addcmul_(grad, scale.repeat(pixels))
        return grad_rows.as_strided(images.size(), images.stride()), grad_weight, grad_bias, None


def _pixel_rows(images: Tensor) -> tuple[Tensor, int]:
    """(n, c, h, w) in channels_last -> a view (rows, pixels * c), and the pixels of a row."""
    total, channels = images.numel(), images.shape[1]
    pixels = 1
    while pixels * channels < 256 and total // channels % (2 * pixels) == 0:
        pixels *= 2
    return images.permute(0, 2, 3, 1).reshape(-1, pixels * channels), pixels


def _channel_sums(rows: Tensor, pixels: int) -> Tensor:
    return rows.sum(0).view(pixels, -1).sum(0)


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
