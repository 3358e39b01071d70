"""Small data sets with their files' bytes, and ways to damage a file."""

import gzip
import io
import struct
import tarfile

import numpy as np
from hypothesis import strategies as st

IDX_NAMES = ("a-images.gz", "a-labels.gz", "b-images.gz", "b-labels.gz")  # train, train, test, test
CIFAR_NAMES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CLASSES = ["one", "two", "three"]
RECORDS = 3  # images in each of the small CIFAR files


def idx_arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(256, size=(40, 5, 4), dtype=np.uint8),
        rng.integers(3, size=40, dtype=np.uint8),
        rng.integers(256, size=(20, 5, 4), dtype=np.uint8),
        rng.integers(3, size=20, dtype=np.uint8),
    ]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def idx_files() -> dict[str, bytes]:
    return {name: gzip.compress(idx(a), mtime=0) for name, a in zip(IDX_NAMES, idx_arrays(), strict=True)}


def cifar_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images (18, 3, 32, 32) and labels (18,) of all six files, in their order."""
    rng = np.random.default_rng(1)
    count = 6 * RECORDS
    return rng.integers(256, size=(count, 3, 32, 32), dtype=np.uint8), rng.integers(3, size=count, dtype=np.uint8)


def cifar_files() -> dict[str, bytes]:
    images, labels = cifar_arrays()
    rows = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
    return {name: part.tobytes() for name, part in zip(CIFAR_NAMES, np.split(rows, 6), strict=True)}


def archive(files: dict[str, bytes], *extra: tarfile.TarInfo, folder: str = "bin/") -> bytes:
    """A .tar.gz of the files under `folder`, as the publisher's: a folder entry first; then the extra members."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


@st.composite
def damaged(draw: st.DrawFn, content: bytes, others: list[bytes]) -> bytes:
    """The content cut, flipped, lengthened, emptied, replaced by noise or by another file's."""
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip head", "insert", "append", "empty", "noise", "swap"]))
    end = 40 if kind == "flip head" else len(content)
    where = draw(st.integers(0, min(end, len(content)) - 1))
    if kind == "cut":
        return content[:where]
    if kind.startswith("flip"):
        flipped = bytearray(content)
        for at in {where, *draw(st.lists(st.integers(0, len(content) - 1), max_size=3))}:
            flipped[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if kind == "insert":
        return content[:where] + draw(st.binary(min_size=1, max_size=9)) + content[where:]
    if kind == "append":
        return content + draw(st.binary(min_size=1, max_size=4000))
    if kind == "swap":
        return draw(st.sampled_from(others))
    return b"" if kind == "empty" else draw(st.binary(max_size=4000))
