"""Batch norm over the global batch on CPUs, for which `torch.nn.SyncBatchNorm` has no kernels."""

from typing import Any

import torch
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, distributed, nn


class _Sum(torch.autograd.Function):
    """Over all processes. Each one's part moves every process's loss, so the gradient is a sum over all, too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """In training, mean and variance of (n, c, h, w) are of all processes' images; gradients pass through them."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        x = input if input.dtype == torch.float64 else input.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        *sums, count = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count])).split([x.shape[1], 1])
        mean = sums[0] / count
        centred = x - mean[:, None, None]
        var = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class SyncOnCpu(LayerSync):
    """trainer.sync_batchnorm=true on CPUs."""

    def __init__(self) -> None:
        self.classes: dict[nn.Module, type[nn.Module]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                self.classes[module] = type(module)
                module.__class__ = SyncedBatchNorm2d  # the same parameters and buffers, another forward
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for module, kind in self.classes.items():
            module.__class__ = kind
        return model
