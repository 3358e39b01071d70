"""Data sets as their publishers lay them out: files in, two uint8 tensors a split out.

`digits` is in the package: the 1,797 test images of "Optical Recognition of Handwritten Digits" (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0), 8x8 pixels of 0..16, unchanged, as scikit-learn's
`load_digits` gives them. digits.npz was made by
    digits = sklearn.datasets.load_digits()
    numpy.savez_compressed("digits.npz", images=digits.images.astype("uint8"), labels=digits.target.astype("uint8"))
"""

import math
import os
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from parsimony.data.download import check, check_checksums, digest, fetch, matches, members, writing
from parsimony.errors import InputError

MOST_BYTES = 2**31  # of one file's content: what claims more is no set for small networks, or a gzip bomb


@dataclass(frozen=True)
class Split:
    images: Tensor  # uint8 (n, c, h, w)
    labels: Tensor  # int64 (n,), each an index into `classes`


@dataclass(frozen=True)
class ImageSet:
    name: str  # as shown everywhere; "mnist (unverified files)" when the files are not known to be the publisher's
    classes: tuple[str, ...]
    train: Split
    test: Split
    sha256: dict[str, str]  # file name -> hex digest of each file read
    publisher: bool  # every file is the publisher's, byte for byte


@runtime_checkable
class Source(Protocol):
    """What the `source` node of conf/data/*.yaml builds."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # (c, h, w) of an image, known before any file is there

    def download(self) -> None:
        """Makes sure that the files are there; several processes may ask at once. Raises InputError."""

    def load(self) -> ImageSet:
        """Reads and checks the files. Raises InputError."""


class Digits:
    """1,437 train and 360 test images, scaled from 8x8 to 28x28: every fifth image of each class is for the test."""

    name = "digits"
    classes = tuple("0123456789")
    shape = (1, 28, 28)
    sha256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"

    def download(self) -> None:
        """Nothing to do: the file is in the package."""

    def load(self) -> ImageSet:
        path = Path(__file__).with_name("digits.npz")
        raw = _read(path)
        if digest(raw) != self.sha256:
            raise InputError(f"{path} is damaged: install parsimony again.")
        with np.load(BytesIO(raw), allow_pickle=False) as arrays:
            small, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
        large = torch.nn.functional.interpolate(small[:, None].double(), self.shape[1:], mode="bilinear") * (255 / 16)
        images = large.round(decimals=6).round().to(torch.uint8)  # 127.5 must be a tie on every machine
        test = torch.zeros(len(labels), dtype=torch.bool)
        test[labels.argsort(stable=True)[::5]] = True
        return ImageSet(
            self.name,
            self.classes,
            train=Split(images[~test], labels[~test]),
            test=Split(images[test], labels[test]),
            sha256={path.name: self.sha256},
            publisher=True,
        )


@dataclass
class Idx:
    """Four files in MNIST's IDX format under root/folder, gzipped or, the same name without .gz, gunzipped.

    `files` names train images, train labels, test images and test labels, in this order, each with the checksum of
    the publisher's file ("md5:..." or "sha256:..."; null where none is known). IDX knows no colours: c is 1.
    """

    name: str
    root: str
    folder: str
    mirrors: Sequence[str]
    files: Mapping[str, str | None]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        self.path = Path(self.root).expanduser() / self.folder
        self.classes = tuple(self.classes)
        self.shape = (self.shape[0], self.shape[1], self.shape[2])
        if len(self.files) != 4 or self.shape[0] != 1:
            raise InputError(
                f"{self.name} has {len(self.files)} files and images of shape {list(self.shape)}; an IDX set has four "
                "files (train images, train labels, test images, test labels) and images of shape [1, height, width]."
            )
        check_checksums(self.files.values())

    def download(self) -> None:
        if self._missing():
            with writing(self.path):
                for name in self._missing():  # asked again: another process may have fetched them meanwhile
                    fetch(self.path / name, self.mirrors, self.files[name])

    def load(self) -> ImageSet:
        paths = [self._find(name) for name in self.files]
        contents = [_read(path) for path in paths]
        publisher = all(map(matches, contents, self.files.values()))
        return ImageSet(
            self.name if publisher else f"{self.name} (unverified files)",
            self.classes,
            train=self._split(paths[:2], contents[:2]),
            test=self._split(paths[2:], contents[2:]),
            sha256={path.name: digest(raw) for path, raw in zip(paths, contents, strict=True)},
            publisher=publisher,
        )

    def _split(self, paths: Sequence[Path], contents: Sequence[bytes]) -> Split:
        images = read_idx(paths[0], contents[0], self.shape[1:])
        labels = read_idx(paths[1], contents[1], ())
        if len(images) != len(labels):
            raise InputError(
                f"{paths[0]} holds {len(images)} images and {paths[1]} {len(labels)} labels: they do not belong "
                "together. Delete both to download them again."
            )
        _check_labels(paths[1], labels, self.classes)
        return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())

    def _find(self, name: str) -> Path:
        gunzipped = self.path / name.removesuffix(".gz")
        return gunzipped if os.path.exists(gunzipped) and not os.path.exists(self.path / name) else self.path / name

    def _missing(self) -> list[str]:
        return [name for name in self.files if not os.path.exists(self._find(name))]


@dataclass
class Cifar10:
    """CIFAR-10's binary version: six files of `records` images each under root/folder.

    Files that are there are used as they are. Files that were extracted here from the publisher's archive come with
    a SHA256SUMS; only the files it lists count as the publisher's. `known_copies`, {name: {file: sha256}}, tells
    other versions of the data apart from files that nobody knows.
    """

    name: str
    root: str
    folder: str
    mirrors: Sequence[str]
    archive: str
    checksum: str
    classes: tuple[str, ...]
    known_copies: Mapping[str, Mapping[str, str]]
    records: int = 10_000

    shape = (3, 32, 32)
    names = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

    def __post_init__(self) -> None:
        self.path = Path(self.root).expanduser() / self.folder
        self.classes = tuple(self.classes)
        self.sums = self.path / "SHA256SUMS"
        self.origin = f"# from {self.archive}, {self.checksum}"  # the first line of a SHA256SUMS that we wrote
        self.file_size = self.records * (1 + math.prod(self.shape))
        check_checksums([self.checksum])

    def download(self) -> None:
        if self._missing():
            with writing(self.path):
                if missing := self._missing():  # asked again: another process may have fetched them meanwhile
                    archive = self.path.parent / self.archive
                    if archive.exists():
                        check(archive, self.checksum)
                    else:
                        fetch(archive, self.mirrors, self.checksum)
                    self._extract(archive, missing)

    def load(self) -> ImageSet:
        listed, sha256 = self._listed(), {}
        images = np.empty((len(self.names) * self.records, *self.shape), np.uint8)
        labels = np.empty(len(images), np.uint8)
        for i, name in enumerate(self.names):
            raw = _read(self.path / name)
            if len(raw) != self.file_size:
                _damaged(self.path / name, f"it has {len(raw)} bytes, expected {self.file_size}")
            sha256[name] = digest(raw)
            if listed.get(name, sha256[name]) != sha256[name]:
                raise InputError(
                    f"{self.path / name} is not the file that {self.sums.name} beside it lists: delete the file to "
                    f"have it again, or {self.sums.name} to use it as it is."
                )
            rows = np.frombuffer(raw, np.uint8).reshape(self.records, -1)
            part = slice(i * self.records, (i + 1) * self.records)
            labels[part], images[part] = rows[:, 0], rows[:, 1:].reshape(-1, *self.shape)
            _check_labels(self.path / name, labels[part], self.classes)
        publisher = listed == sha256
        copies = (copy for copy, known in self.known_copies.items() if sha256 == dict(known))
        cut = 5 * self.records
        return ImageSet(
            self.name if publisher else f"{self.name} ({next(copies, 'unverified files')})",
            self.classes,
            train=Split(torch.from_numpy(images[:cut]), torch.from_numpy(labels[:cut]).long()),
            test=Split(torch.from_numpy(images[cut:]), torch.from_numpy(labels[cut:]).long()),
            sha256=sha256,
            publisher=publisher,
        )

    def _missing(self) -> list[str]:
        return [name for name in self.names if not os.path.exists(self.path / name)]

    def _listed(self) -> dict[str, str]:
        """SHA256SUMS as {file: sha256}; empty unless we wrote it, from the archive that the config names."""
        lines = _read(self.sums).decode(errors="replace").splitlines() if os.path.exists(self.sums) else []
        return {line[66:]: line[:64] for line in lines[1:]} if lines[:1] == [self.origin] else {}

    def _extract(self, archive: Path, missing: Sequence[str]) -> None:
        """Places the missing files. SHA256SUMS lists all six, so that none of another version goes with them."""
        parts = {name: self.path / f"{name}.part" for name in (self.sums.name, *missing)}
        lines = [self.origin]
        try:
            for name, content in members(archive, self.folder, dict.fromkeys(self.names, self.file_size)):
                lines.append(f"{digest(content)}  {name}")
                if name in parts:
                    parts[name].write_bytes(content)
            parts[self.sums.name].write_text("\n".join(lines) + "\n")
            for name, part in parts.items():  # SHA256SUMS first: who sees all six files sees it too
                part.replace(self.path / name)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)


def read_idx(path: Path, raw: bytes, item: tuple[int, ...]) -> np.ndarray:
    """The uint8 array (n, *item) in the content of an IDX file, gzipped or not; `item` is () for labels.

    Raises InputError for whatever else the content is. Never expands more than what the header promises.
    """
    start = struct.Struct(f">{2 + len(item)}I")  # magic, n, *item
    magic = 0x0801 + len(item)  # unsigned bytes, 1 + len(item) dimensions
    gunzip = zlib.decompressobj(wbits=31) if raw[:2] == b"\x1f\x8b" else None
    try:
        head = gunzip.decompress(raw, start.size) if gunzip else raw[: start.size]
        if len(head) < start.size:
            _damaged(path, f"it ends after {len(head)} bytes")
        found, n, *rest = start.unpack(head)
        if found != magic:
            kinds = {0x0801: "a file of labels", 0x0803: "a file of images"}
            _damaged(path, f"it is {kinds.get(found, 'no IDX file')}, expected {kinds[magic]} ({magic:#06x})")
        if tuple(rest) != item:
            raise InputError(f"{path} holds images of shape {rest}, expected {list(item)}: it is of another data set.")
        size = n * math.prod(item)
        if not 0 < size <= MOST_BYTES:
            _damaged(path, f"its header promises {size} bytes, expected 1 to {MOST_BYTES}")
        body = gunzip.decompress(gunzip.unconsumed_tail, size + 1) if gunzip else raw[start.size :]
    except zlib.error as error:
        _damaged(path, f"gunzip fails: {error}")
    if len(body) != size or (gunzip and (not gunzip.eof or gunzip.unused_data)):
        _damaged(path, f"it does not end after the {size} bytes that its header promises")
    return np.frombuffer(bytearray(body), np.uint8).reshape(n, *item)  # a copy: torch wants memory it may write


def _read(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise InputError(f"{path} is no data file: expected a regular file of at most {MOST_BYTES} bytes.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}).") from error


def _damaged(path: Path, why: str) -> NoReturn:
    raise InputError(f"{path} is damaged: {why}. Delete it to download it again.")


def _check_labels(path: Path, labels: np.ndarray, classes: Sequence[str]) -> None:
    if (highest := labels.max()) >= len(classes):
        _damaged(path, f"it holds the label {highest}, expected 0 to {len(classes) - 1}")
