"""Files in, tensors out: the right tensors or one clear sentence, whatever the files hold."""

import gzip
import hashlib
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from damage import (
    CIFAR_NAMES,
    CLASSES,
    IDX_NAMES,
    RECORDS,
    archive,
    cifar_arrays,
    cifar_files,
    damaged,
    idx,
    idx_arrays,
    idx_files,
)
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from parsimony.data.sources import MOST_BYTES, Cifar10, Digits, Idx, ImageSet, Source
from parsimony.errors import InputError

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[1]
HUNDRED = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def small_idx(root: Path, **changes: object) -> Idx:
    files = {name: md5(content) for name, content in idx_files().items()}
    values = {"name": "small", "folder": "small", "mirrors": [], "files": files, "classes": CLASSES, "shape": [1, 5, 4]}
    return Idx(root=str(root), **values | changes)


def small_cifar(root: Path, **changes: object) -> Cifar10:
    values = {
        "name": "cifar10",
        "folder": "bin",
        "mirrors": [],
        "archive": "bin.tar.gz",
        "checksum": md5(archive(cifar_files())),
        "classes": CLASSES,
        "known_copies": {},
        "records": RECORDS,
    }
    return Cifar10(root=str(root), **values | changes)


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def attempt(action: Callable[[], T]) -> tuple[T | None, str]:
    """What the action gives and "", or None and the sentence of its InputError; any other exception fails the test."""
    try:
        return action(), ""
    except InputError as error:
        return None, str(error)


def assert_same(found: ImageSet, images: tuple[np.ndarray, np.ndarray], labels: tuple[np.ndarray, np.ndarray]) -> None:
    for split, pixels, classes in zip((found.train, found.test), images, labels, strict=True):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert np.array_equal(split.images.numpy(), pixels)
        assert np.array_equal(split.labels.numpy(), classes)


def assert_small_idx(found: ImageSet) -> None:
    train, train_labels, test, test_labels = idx_arrays()
    assert_same(found, (train[:, None], test[:, None]), (train_labels, test_labels))


def assert_small_cifar(found: ImageSet) -> None:
    images, labels = cifar_arrays()
    cut = 5 * RECORDS
    assert_same(found, (images[:cut], images[cut:]), (labels[:cut], labels[cut:]))


# Digits


def test_digits_split_is_fixed_and_stratified() -> None:
    found = Digits().load()
    assert found.name == "digits"
    assert found.train.images.shape == (1437, 1, 28, 28)
    assert found.test.images.shape == (360, 1, 28, 28)
    share = torch.bincount(found.test.labels) / torch.bincount(torch.cat([found.train.labels, found.test.labels]))
    assert ((share - 0.2).abs() < 0.005).all()
    # Golden: the split and the scaling must never change under published figures.
    parts = [part.numpy().tobytes() for split in (found.train, found.test) for part in (split.images, split.labels)]
    golden = "24c7395b3155ac990282fa65b06944e15c06162317024bb90773637ac936fd63"
    assert hashlib.sha256(b"".join(parts)).hexdigest() == golden


def test_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")  # no dependency of ours: checked where it happens to be
    with np.load(REPOSITORY / "src/parsimony/data/digits.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], datasets.load_digits().images)
        assert np.array_equal(arrays["labels"], datasets.load_digits().target)


def test_digits_fill_the_range_and_look_like_their_originals() -> None:
    found = Digits().load()
    with np.load(REPOSITORY / "src/parsimony/data/digits.npz", allow_pickle=False) as arrays:
        small, labels = torch.from_numpy(arrays["images"]).float(), torch.from_numpy(arrays["labels"])
    assert found.train.images.max() == 255
    assert found.train.images.min() == 0
    # 28 / 8 = 3.5 pixels of ours to one of theirs: averaged back, each is nearest to one of its class, mostly itself
    for split in (found.train, found.test):
        back = torch.nn.functional.adaptive_avg_pool2d(split.images.float(), 8) / 255 * 16
        distances, nearest = torch.cdist(back.flatten(1), small.flatten(1)).min(dim=1)
        assert torch.equal(labels[nearest], split.labels)
        assert distances.max() < 20


# IDX


def test_idx_gzipped(tmp_path: Path) -> None:
    write(tmp_path / "small", idx_files())
    found = small_idx(tmp_path).load()
    assert_small_idx(found)
    assert (found.name, found.publisher, found.classes) == ("small", True, tuple(CLASSES))
    assert found.sha256 == {name: hashlib.sha256(content).hexdigest() for name, content in idx_files().items()}


def test_idx_gunzipped_is_read_but_not_the_publishers(tmp_path: Path) -> None:
    raw = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in idx_files().items()}
    write(tmp_path / "small", raw)
    source = small_idx(tmp_path)
    source.download()  # nothing is missing, so no mirror is asked
    found = source.load()
    assert_small_idx(found)
    assert (found.name, found.publisher) == ("small (unverified files)", False)
    assert set(found.sha256) == set(raw)


def test_idx_of_unknown_checksum_is_unverified(tmp_path: Path) -> None:
    write(tmp_path / "small", idx_files())
    found = small_idx(tmp_path, files=dict.fromkeys(IDX_NAMES)).load()
    assert_small_idx(found)
    assert found.name == "small (unverified files)"


@HUNDRED
@given(which=st.integers(0, 3), data=st.data())
def test_damaged_idx(tmp_path_factory: pytest.TempPathFactory, which: int, data: st.DataObject) -> None:
    root, files = tmp_path_factory.getbasetemp() / "damaged_idx", idx_files()
    name = IDX_NAMES[which]
    original = files[name]
    files[name] = data.draw(damaged(original, [files[other] for other in IDX_NAMES if other != name]))
    write(root / "small", files)
    found, told = attempt(small_idx(root).load)
    if found:
        assert_small_idx(found)  # as when a bit flips in gzip's time stamp
        assert found.publisher == (files[name] == original)
    else:
        assert str(root / "small" / name[0]) in told  # names the file, or the other one of its split


@HUNDRED
@given(which=st.integers(0, 3), data=st.data())
def test_damaged_gunzipped_idx_raises_nothing_but_input_error(
    tmp_path_factory: pytest.TempPathFactory, which: int, data: st.DataObject
) -> None:
    root = tmp_path_factory.getbasetemp() / "damaged_gunzipped"
    files = {name.removesuffix(".gz"): idx(array) for name, array in zip(IDX_NAMES, idx_arrays(), strict=True)}
    name = list(files)[which]
    original = files[name]
    files[name] = data.draw(damaged(original, [content for other, content in files.items() if other != name]))
    write(root / "small", files)
    found, _ = attempt(small_idx(root).load)
    if found:  # a raw file has no checksum of its own: a flipped pixel is a pixel
        assert len(files[name]) == len(original)
        assert files[name][:8] == original[:8]
        assert found.name == "small (unverified files)"


@pytest.mark.parametrize(
    ("which", "content", "told"),
    [
        (0, idx(idx_arrays()[1]), "a file of labels, expected a file of images"),
        (1, idx(idx_arrays()[0]), "a file of images, expected a file of labels"),
        (0, idx(idx_arrays()[2]), "20 images .* 40 labels"),
        (0, idx(np.zeros((40, 4, 5), np.uint8)), r"shape \[4, 5\], expected \[5, 4\]"),
        (1, idx(np.full(40, 3, np.uint8)), "label 3, expected 0 to 2"),
        (1, idx(np.zeros(0, np.uint8)), "promises 0 bytes"),
        (1, idx(idx_arrays()[1])[:-1], "does not end after the 40 bytes"),
        (1, idx(idx_arrays()[1]) + b"\0", "does not end after the 40 bytes"),
        (1, b"", "ends after 0 bytes"),
        (0, b"<!DOCTYPE html> not found", "no IDX file"),
    ],
)
def test_idx_that_does_not_fit_is_told(tmp_path: Path, which: int, content: bytes, told: str) -> None:
    write(tmp_path / "small", idx_files() | {IDX_NAMES[which]: gzip.compress(content)})
    with pytest.raises(InputError, match=told) as error:
        small_idx(tmp_path).load()
    assert str(tmp_path / "small" / IDX_NAMES[which]) in str(error.value)


@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[:-1], lambda packed: packed[:-8], lambda packed: packed + b"x"]
)
def test_all_of_the_content_but_not_of_the_gzip_file(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    files = idx_files()
    write(tmp_path / "small", files | {IDX_NAMES[1]: spoil(files[IDX_NAMES[1]])})
    with pytest.raises(InputError, match="does not end after the 40 bytes"):
        small_idx(tmp_path).load()


def test_gzip_bomb_is_not_expanded(tmp_path: Path) -> None:
    bomb = gzip.compress(idx(idx_arrays()[0]) + bytes(50_000_000), compresslevel=1)
    write(tmp_path / "small", idx_files() | {IDX_NAMES[0]: bomb})
    tracemalloc.start()
    with pytest.raises(InputError, match="does not end after"):
        small_idx(tmp_path).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(bomb) + 1_000_000


def test_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">4I", 0x0803, 2**32 - 1, 5, 4)
    write(tmp_path / "small", idx_files() | {IDX_NAMES[0]: gzip.compress(header)})
    with pytest.raises(InputError, match=f"expected 1 to {MOST_BYTES}"):
        small_idx(tmp_path).load()


def test_missing_file_and_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a-images\.gz.*No such file"):
        small_idx(tmp_path).load()
    (tmp_path / "small" / IDX_NAMES[0]).mkdir(parents=True)
    with pytest.raises(InputError, match=r"a-images\.gz.*regular file"):
        small_idx(tmp_path).load()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"files": {"one.gz": None}}, "four files"),
        ({"shape": [3, 5, 4]}, r"shape \[1, height, width\]"),
        ({"files": dict.fromkeys(IDX_NAMES, "md5:abc")}, "no checksum"),
    ],
)
def test_idx_config_is_checked(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        small_idx(tmp_path, **changes)


# CIFAR-10


def test_cifar_of_unknown_origin_and_known_copy(tmp_path: Path) -> None:
    write(tmp_path / "bin", cifar_files())
    source = small_cifar(tmp_path)
    source.download()  # nothing is missing, so no mirror is asked
    found = source.load()
    assert_small_cifar(found)
    assert (found.name, found.publisher) == ("cifar10 (unverified files)", False)
    copy = small_cifar(tmp_path, known_copies={"other": {"x": "y"}, "jpeg-75 copy": found.sha256}).load()
    assert (copy.name, copy.publisher) == ("cifar10 (jpeg-75 copy)", False)


def test_a_sums_file_of_someone_else_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "bin", cifar_files())
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in cifar_files().items()]
    (tmp_path / "bin" / "SHA256SUMS").write_text("\n".join(["# my own", *lines]) + "\n")
    assert small_cifar(tmp_path).load().name == "cifar10 (unverified files)"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it has 0 bytes, expected 9219"),
        (cifar_files()["test_batch.bin"][:-1], "it has 9218 bytes"),
        (cifar_files()["test_batch.bin"][:3073], "it has 3073 bytes"),
        (cifar_files()["test_batch.bin"] + bytes(3073), "it has 12292 bytes"),
        (b"\x03" + cifar_files()["test_batch.bin"][1:], "label 3, expected 0 to 2"),
    ],
)
def test_cifar_that_does_not_fit_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    write(tmp_path / "bin", cifar_files() | {"test_batch.bin": content})
    with pytest.raises(InputError, match=rf"test_batch.bin is damaged: .*{told}"):
        small_cifar(tmp_path).load()


@HUNDRED
@given(name=st.sampled_from([*CIFAR_NAMES, "SHA256SUMS"]), data=st.data())
def test_damaged_cifar(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    root = tmp_path_factory.getbasetemp() / "damaged_cifar"
    write(root, {"bin.tar.gz": archive(cifar_files())})
    for path in (root / "bin").glob("*"):
        path.unlink()
    source = small_cifar(root)
    source.download()
    original = (root / "bin" / name).read_bytes()
    changed = data.draw(damaged(original, [cifar_files()["data_batch_1.bin"], cifar_files()["test_batch.bin"]]))
    (root / "bin" / name).write_bytes(changed)
    found, told = attempt(source.load)
    if found:
        assert_small_cifar(found)
        assert changed == original or name == "SHA256SUMS"
    else:
        assert name in told


# The config files


def source_of(data: str, *overrides: str) -> Source:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return instantiate(compose(overrides=[f"+data={data}", *overrides]).data.source)


@pytest.mark.parametrize("data", ["digits", "mnist", "fashion_mnist", "cifar10"])
def test_configs_build_their_sources(data: str, tmp_path: Path) -> None:
    source = source_of(data, *([] if data == "digits" else [f"++data.root={tmp_path}"]))
    assert source.name == data
    assert len(source.classes) == len(set(source.classes)) == 10
    assert all(type(name) is str for name in source.classes)
    assert source.shape == ((3, 32, 32) if data == "cifar10" else (1, 28, 28))
    if data != "digits":
        assert source.path.parent == tmp_path


@pytest.mark.parametrize(
    ("data", "file", "names", "shapes"),
    [
        ("mnist", "mnist/train-images-idx3-ubyte.gz", ["mnist"], ((60000, 1, 28, 28), (10000, 1, 28, 28))),
        (
            "cifar10",
            "cifar-10-batches-bin/test_batch.bin",
            ["cifar10", "cifar10 (jpeg-75 copy)"],
            ((50000, 3, 32, 32), (10000, 3, 32, 32)),
        ),
    ],
)
def test_real_files(data: str, file: str, names: list[str], shapes: tuple[tuple[int, ...], ...]) -> None:
    roots = [root for root in (REPOSITORY / "data", REPOSITORY.parent / "shared" / "data") if (root / file).exists()]
    if not roots:
        pytest.skip(f"{data} is not in data/")
    root = roots[0]
    found = source_of(data, f"++data.root={root}").load()
    assert found.name in names
    assert found.publisher == (found.name == data)
    assert (tuple(found.train.images.shape), tuple(found.test.images.shape)) == shapes
    assert found.train.images.is_contiguous()
    assert torch.bincount(found.train.labels).min() >= 5000
