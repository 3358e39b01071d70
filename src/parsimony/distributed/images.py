"""One copy of the images on each machine, in memory that its processes share and that ends with them.

Linux's memfd: no file to be left behind, nor the small limit that containers set for /dev/shm. Elsewhere each process
reads its own copy.
"""

import ctypes
import json
import os
import platform
import secrets
from typing import Any

import torch
from torch import Tensor

from parsimony.data.datamodule import ImageData
from parsimony.data.sources import ImageSet, Split

ALIGNMENT = 64  # bytes
PARTS = ("images", "labels")


def publish(data: ImageData) -> str:
    """Moves the images of `data` to shared memory; what `attach` needs to have them in another process."""
    assert data.images
    if not hasattr(os, "memfd_create"):
        return json.dumps({"path": None})
    tensors = {f"{name}.{part}": getattr(split, part) for name, split in _splits(data).items() for part in PARTS}
    offsets, size = {}, 0
    for name, tensor in tensors.items():
        offsets[name] = size
        size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    name = f"parsimony-{secrets.token_hex(8)}"
    file = os.memfd_create(name)  # stays open as long as the process: others open it by its path
    os.ftruncate(file, size)
    about = {
        "path": f"/proc/{os.getpid()}/fd/{file}",
        "memfd": name,
        "size": size,
        "tensors": {
            name: [offsets[name], str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
            for name, tensor in tensors.items()
        },
        "set": [data.images.name, data.images.classes, data.images.sha256, data.images.publisher],
    }
    shared = _tensors(about)
    for name, tensor in tensors.items():
        shared[name].copy_(tensor)
    _take(data, about, shared)
    del tensors, tensor
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # the engine has freed memory kept, here that of all the images
    return json.dumps(about)


def attach(data: ImageData, published: str) -> None:
    """Gives `data` the images that another process of this machine published."""
    about = json.loads(published)
    try:
        there = bool(about["path"]) and about["memfd"] in os.readlink(about["path"])
    except OSError:
        there = False
    if there:
        _take(data, about, _tensors(about))
    else:  # another system than Linux, or processes that do not see each other
        print("This process reads its own copy of the images: it cannot see those of the first one.", flush=True)
        data.prepare_data()
        data.setup()


def _splits(data: ImageData) -> dict[str, Split]:
    """Those that are not the same as another."""
    assert data.images
    splits = {"train": data.train, "test": data.images.test}
    if data.watched is not None and data.watched is not data.images.test:
        splits["watched"] = data.watched
    return splits


def _tensors(about: dict[str, Any]) -> dict[str, Tensor]:
    whole = torch.from_file(about["path"], shared=True, size=about["size"], dtype=torch.uint8)
    tensors = {}
    for name, (offset, kind, shape) in about["tensors"].items():
        dtype = getattr(torch, kind)
        count = torch.Size(shape).numel() * dtype.itemsize
        tensors[name] = whole[offset : offset + count].view(dtype).view(shape)
    return tensors


def _take(data: ImageData, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    splits = {
        name: Split(*(tensors[f"{name}.{part}"] for part in PARTS))
        for name in ("train", "test", "watched")
        if f"{name}.images" in tensors
    }
    watched = splits.get("watched", splits["test"] if data.validation == "test" else None)
    name, classes, sha256, publisher = about["set"]
    data.images = ImageSet(name, tuple(classes), splits["train"], splits["test"], sha256, publisher)
    data.train, data.watched = splits["train"], watched
