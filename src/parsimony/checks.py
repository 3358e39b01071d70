"""What cannot be trained together: networks, data, batches and devices. Each raises InputError with the mend."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from parsimony.data.datamodule import ImageData
from parsimony.errors import InputError
from parsimony.summary import Summary


def check_devices(accelerator: str, devices: int | str | list[int]) -> None:
    """The machine has them."""
    gpus = torch.cuda.device_count()
    wants_gpu = accelerator in ("gpu", "cuda")
    if (wants_gpu and not gpus) or (accelerator == "mps" and not torch.backends.mps.is_available()):
        raise InputError(
            f"trainer.accelerator={accelerator} needs a GPU that PyTorch {torch.__version__} can use and this machine "
            "shows none: leave it out, or take trainer.accelerator=cpu."
        )
    on_gpu = wants_gpu or (accelerator == "auto" and gpus > 0)
    cores = os.cpu_count() or 1  # several processes on one are slow, but compute the same
    most, there = (gpus, f"{gpus} GPUs") if on_gpu else (8 * cores, f"{cores} CPU cores, for at most 8 processes each")
    if isinstance(devices, int) and not 1 <= devices <= most:
        raise InputError(f"trainer.devices={devices} is out of range: this machine has {there}.")


def check_clipping(precision: str, clip: float | None, optimizer: Mapping[str, Any]) -> None:
    """float16's gradients are scaled until a fused optimizer steps, too late for what clips them."""
    if precision == "16-mixed" and clip and optimizer.get("fused"):
        raise InputError(
            "trainer.gradient_clip_val does not go with a fused optimizer in engine.precision=16-mixed: add "
            "optimizer.fused=false, or take bf16-mixed."
        )


def check_averaging(precision: str, callbacks: Sequence[Callback]) -> None:
    """In 16 bits an average would stay where it is: its steps are smaller than what is rounded."""
    if precision in ("bf16-true", "16-true") and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise InputError(
            f"Averaged weights do not go with engine.precision={precision}: take "
            f"{precision.replace('true', 'mixed')}, or leave out callbacks=ema."
        )


def check_outputs(summary: Summary, data: ImageData, name: str) -> None:
    """One output a class, for the network that is called `name`."""
    classes = len(data.source.classes)
    if summary.output != (classes,):
        outputs = "x".join(map(str, summary.output))
        raise InputError(
            f"{name} gives {outputs} outputs on the images of {data.source.name}, which has {classes} classes: "
            "take a network made for these images."
        )


def check_batches(net: nn.Module, data: ImageData, processes: int) -> None:
    """No process may be left with a last batch that is empty, or too small for a batch norm's statistics."""
    images = len(data.train.labels)
    smallest = images % data.batch_size or data.batch_size
    normalises = any(isinstance(module, _BatchNorm) for module in net.modules())
    needed = 2 if normalises else 1
    if smallest // processes < needed:
        among = f" for {processes} processes" if processes > 1 else ""
        each = f"{'batch norm needs two' if normalises else 'it takes one'}{' in each' if among else ''}"
        raise InputError(
            f"data.batch_size={data.batch_size} leaves a batch of {smallest} of the {images:,} training images{among}, "
            f"and {each}: take another batch size."
        )
