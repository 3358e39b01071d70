"""What makes training fast: allocator, threads, memory format, precision. `engine=plain` turns all of it off."""

import ctypes
import platform
from dataclasses import dataclass

import torch
from torch import nn

from parsimony.errors import InputError
from parsimony.native import layers as native
from parsimony.native.library import Unavailable, library
from parsimony.nets.layers import FastDropout

# Lightning's short names of what a Trainer reports by the long ones
SHORT_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
# glibc's mallopt parameters (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class Engine:
    """The engine group of the config; its comments say what each key does."""

    allocator: bool
    threads: int | None
    channels_last: bool
    precision: str | int
    layers: str

    def start(self) -> None:
        """Once a process, before the first big tensor."""
        if self.allocator and platform.libc_ver()[0] == "glibc":
            keep_freed_memory()
        if self.threads:
            torch.set_num_threads(self.threads)
        if torch.cuda.is_available() and self.layers != "torch":
            torch.backends.cudnn.benchmark = True

    def prepare(self, net: nn.Module, layers: str) -> nn.Module:
        """The same network with `layers` (native, fast or torch), in the memory format that it trains in."""
        if layers != "torch":
            for module in net.modules():
                if type(module) is nn.Dropout:
                    module.__class__ = FastDropout  # it adds no state, only another forward
        if layers == "native":
            native.use(net)
        return net.to(memory_format=torch.channels_last) if self.channels_last else net  # type: ignore[call-overload]

    def layers_on(self, on_gpu: bool) -> str:
        """`layers` with "auto" resolved: "native" on a CPU in float32 or bfloat16 with a C compiler, else "fast".

        Raises InputError where native ones are asked for and there are none.
        """
        if self.layers not in ("auto", "native"):
            return self.layers
        if self.layers == "native" and on_gpu:
            raise InputError("engine.layers=native is for CPUs: take auto or fast on a GPU.")
        known = self.lightning_precision(on_gpu) in ("32-true", "bf16-mixed")
        if self.layers == "auto" and (on_gpu or not known):
            return "fast"
        try:
            library()
        except Unavailable as error:
            if self.layers == "native":
                raise InputError(f"engine.layers=native cannot be had: {error}.") from error
            print(f"Training goes on with PyTorch's layers, which are slower: {error}.")
            return "fast"
        return "native"

    def lightning_precision(self, on_gpu: bool) -> str:
        """The Trainer's `precision`, "auto" resolved for the device. Raises InputError for one it does not have."""
        precision = SHORT_PRECISIONS.get(str(self.precision), str(self.precision))
        if precision == "16-mixed" and not on_gpu and not torch.backends.mps.is_available():
            raise InputError(f"engine.precision={self.precision} is for GPUs: take bf16-mixed or 32-true on a CPU.")
        if precision != "auto":
            return precision
        if on_gpu:
            return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        # With avx512_bf16 alone the native layers in float32 are faster on MNIST: see benchmarks/README.md.
        return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"


def keep_freed_memory() -> None:
    """Has glibc keep freed blocks in the process.

    By default it takes every tensor above 32 MB from the kernel as fresh pages and gives them back at once; the page
    faults of that cost more than the arithmetic on the tensor.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_TOP_PAD, 256 * 2**20)
