"""Batch norm over the global batch on CPUs, for which `torch.nn.SyncBatchNorm` has no kernels."""

from typing import Any

import torch
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, distributed, nn

from parsimony.errors import InputError


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


class _Synced(nn.modules.batchnorm._BatchNorm):
    """In training, mean and variance of (n, c, ...) are of all processes' images; gradients pass through them."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        x = input if input.dtype == torch.float64 else input.float()
        others = [dim for dim in range(x.ndim) if dim != 1]
        channels = (-1, *[1] * (x.ndim - 2))  # beside an x
        count = x.new_tensor([x.numel() / x.shape[1]])
        *sums, count = _Sum.apply(torch.cat([x.sum(others), count])).split([x.shape[1], 1])
        mean = sums[0] / count
        centred = x - mean.view(channels)
        var = _Sum.apply(centred.square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale.view(channels) + self.bias.view(channels)).to(input.dtype)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    pass


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    pass


SYNCED: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: SyncedBatchNorm1d, nn.BatchNorm2d: SyncedBatchNorm2d}


def check_shared(net: nn.Module) -> None:
    """Raises InputError for a batch norm in `net` that cannot be over all processes."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            usual = module.affine and module.track_running_stats and module.momentum is not None
            if type(module) not in SYNCED or not usual:
                raise InputError(
                    "trainer.sync_batchnorm on CPUs takes BatchNorm1d and BatchNorm2d, affine and with a momentum "
                    f"for their running statistics, not {module}."
                )


class SyncOnCpu(LayerSync):
    """trainer.sync_batchnorm=true on CPUs, of a network that `check_shared` takes."""

    def __init__(self) -> None:
        self.classes: dict[nn.Module, type[nn.Module]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if type(module) in SYNCED:
                self.classes[module] = type(module)
                module.__class__ = SYNCED[type(module)]  # the same parameters and buffers, another forward
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for module, kind in self.classes.items():
            module.__class__ = kind
        return model
