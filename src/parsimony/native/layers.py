"""Layers that run kernels.c where they can, and PyTorch's own code elsewhere: on GPUs, in other precisions, in double.

In bfloat16 only what follows a convolution is native, and pooling: PyTorch's convolutions use what such a CPU has in
hardware.

They add no state and share PyTorch's classes, so that a network takes them on and off without anything else changing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parsimony.native import functions
from parsimony.native.library import Tail, library
from parsimony.nets.layers import FastDropout

NO_RELU, RELU_FIRST, NORM_FIRST = range(3)  # as in kernels.c
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Of these classes themselves: a subclass may compute something else.
_KNOWN = (nn.ReLU, *_NORMS, nn.Dropout, FastDropout)


def use(net: nn.Module) -> None:
    """Has `net` use the native layers. Raises library.Unavailable where there are none."""
    library()
    for module in net.modules():
        if type(module) is nn.Sequential:
            module.__class__ = Sequential
        elif type(module) is nn.Conv2d and _supported(module):
            module.__class__ = Conv2d
        elif type(module) is nn.MaxPool2d and _halves(module):
            module.__class__ = MaxPool2d


class Conv2d(nn.Conv2d):
    """Square kernels with stride 1; depthwise ones of 3x3."""

    def forward(self, input: Tensor) -> Tensor:
        if not self._fits(input):
            return super().forward(input)
        function = functions.Depthwise if self.groups > 1 else functions.Conv
        return function.apply(input, self.weight, self.bias, self.padding[0])

    def _fits(self, input: Tensor) -> bool:
        known = _on_cpu(input, torch.float32) and not torch.is_autocast_enabled("cpu")
        if not known or input.ndim != 4 or not _readable(self.weight, self.bias):
            return False
        large_enough = min(input.shape[2:]) + 2 * self.padding[0] >= self.kernel_size[0]  # type: ignore[operator]
        return large_enough and input.shape[1] == self.in_channels


class MaxPool2d(nn.MaxPool2d):
    """Of 2x2 with stride 2."""

    def forward(self, input: Tensor) -> Tensor:
        known = _on_cpu(input, torch.float32, torch.bfloat16) and input.ndim == 4 and min(input.shape[2:]) > 1
        return functions.Pool.apply(input) if known else super().forward(input)


class Sequential(nn.Sequential):
    """What follows a convolution (ReLU, batch norm, dropout) in one pass over the tensor."""

    def forward(self, input: Tensor) -> Tensor:
        modules = list(self._modules.values())
        while modules:
            tail = _Tail.at_start_of(modules)
            if tail and tail.fits(input):
                input = tail(input)
                del modules[: len(tail.modules)]
            else:
                input = modules.pop(0)(input)
        return input


@dataclass(frozen=True)
class _Tail:
    """Consecutive modules that one kernel computes."""

    modules: list[nn.Module]
    relu: int
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None
    dropout: nn.Dropout | None

    @classmethod
    def at_start_of(cls, modules: list[nn.Module]) -> "_Tail | None":
        """ReLU, norm, dropout, in this order or with the norm first; None if there is neither norm nor dropout."""
        taken: list[nn.Module] = []
        relu, norm, dropout = NO_RELU, None, None
        for module in modules:
            if type(module) not in _KNOWN:
                break
            if module._forward_hooks or module._forward_pre_hooks:  # somebody looks into the layer
                break
            if module._backward_hooks or module._backward_pre_hooks:
                break
            if isinstance(module, nn.ReLU) and relu == NO_RELU:
                relu = NORM_FIRST if norm else RELU_FIRST
            elif isinstance(module, _NORMS) and not norm:
                norm = module
            elif isinstance(module, nn.Dropout) and module.p < 1:
                dropout = module
                taken.append(module)
                break
            else:
                break
            taken.append(module)
        return cls(taken, relu, norm, dropout) if norm or dropout else None

    def fits(self, input: Tensor) -> bool:
        if not _on_cpu(input, torch.float32, torch.bfloat16):
            return False
        if input.ndim == 4:
            dense = input.is_contiguous(memory_format=torch.channels_last)
        else:
            dense = input.ndim == 2 and input.is_contiguous()
        if not dense or not self.norm:
            return dense
        norm = self.norm
        usual = norm.affine and norm.track_running_stats and norm.momentum is not None and norm.eps > 0
        usual = usual and _readable(norm.weight, norm.bias, norm.running_mean, norm.running_var)
        expected = 4 if isinstance(norm, nn.BatchNorm2d) else 2
        trains = norm.training and input.numel() > input.shape[1]  # one value a channel: PyTorch's own complaint
        frozen = not norm.training and not torch.is_grad_enabled()
        return usual and input.ndim == expected and input.shape[1] == norm.num_features and (trains or frozen)

    def __call__(self, input: Tensor) -> Tensor:
        drop = min(round(self.dropout.p * 2**16), 2**16 - 1) if self.dropout and self.dropout.training else 0
        # A forward pass takes one number from torch's own generator: whatever seeds torch repeats the masks too.
        seed = int(torch.randint(2**63 - 1, ())) if drop else 0
        bf16, norm = input.dtype == torch.bfloat16, self.norm
        tail = Tail(input.numel(), input.shape[1], self.relu, bf16, drop, seed)
        if not norm:
            return functions.Tails.apply(input, None, None, None, tail)
        output = functions.Tails.apply(input, norm.weight, norm.bias, norm, tail)
        if norm.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        return output


def _halves(pool: nn.MaxPool2d) -> bool:
    usual = pool.padding == 0 and pool.dilation == 1 and not pool.ceil_mode and not pool.return_indices
    return usual and pool.kernel_size in (2, (2, 2)) and pool.stride in (2, (2, 2))


def _supported(conv: nn.Conv2d) -> bool:
    kernel, padding = conv.kernel_size[0], conv.padding
    square = conv.kernel_size == (kernel, kernel) and padding in [(p, p) for p in range(kernel)]
    simple = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    depthwise = conv.groups == conv.in_channels == conv.out_channels and kernel == 3 and conv.bias is None
    return square and simple and (conv.groups == 1 or depthwise)


def _on_cpu(input: Tensor, *types: torch.dtype) -> bool:
    return input.device.type == "cpu" and input.dtype in types and input.numel() > 0


def _readable(*parameters: Tensor | None) -> bool:
    """By the kernels, which take float32 on a CPU, and vectors without gaps."""
    return all(
        each is None
        or (each.dtype == torch.float32 and each.device.type == "cpu" and (each.ndim > 1 or each.is_contiguous()))
        for each in parameters
    )
