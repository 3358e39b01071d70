"""Checkpoints that were damaged, swapped or crafted; what is left where nothing can be written."""

import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from short_runs import QUIET, break_off, train_in
from test_resume import RUN, last

from parsimony.checkpoint_files import CheckpointFiles
from parsimony.checkpoints import read
from parsimony.errors import InputError

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))

STEPS = 6


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit of a tensor."""
    with zipfile.ZipFile(path) as archive:
        tensor = max(
            (info for info in archive.infolist() if "/data/" in info.filename), key=lambda info: info.file_size
        )
    content = bytearray(path.read_bytes())
    content[tensor.header_offset + 200 + tensor.file_size // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """For another network's."""
    torch.save({**read(path), "state_dict": {"net.0.weight": torch.zeros(3)}}, path)


def other_settings(path: Path) -> None:
    checkpoint = read(path)
    checkpoint["hyper_parameters"]["optimizer.lr"] = 7.0
    torch.save(checkpoint, path)


def half(path: Path) -> None:
    torch.save({"state_dict": read(path)["state_dict"]}, path)


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that broke off in its third epoch."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    break_off(folder, 2 * STEPS + 1, *RUN)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(broken_off: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in broken_off.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train_in(folder, *RUN)
    return last(folder)


@pytest.mark.parametrize("damage", [cut, empty, scramble, flip, swap, other_settings, half])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[Path], None], folder: Path, unbroken: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / "checkpoints" / "last.ckpt")
    result = train_in(folder, *RUN, f"hydra.run.dir={folder}")
    assert "Going on from the one before, of epoch 1." in capsys.readouterr().out
    assert result.resumed == [1]
    weights = last(folder)["state_dict"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in unbroken["state_dict"].items())


def test_the_next_checkpoint_does_not_put_a_damaged_one_in_the_place_of_the_sound(folder: Path) -> None:
    cut(folder / "checkpoints" / "last.ckpt")
    break_off(folder, 2 * STEPS + 1, *RUN)
    assert [len(read(folder / "checkpoints" / name)["history"]) for name in ("last.ckpt", "previous.ckpt")] == [2, 1]


def test_a_kill_between_the_two_renames_leaves_the_one_before(folder: Path, unbroken: dict) -> None:
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert train_in(folder, *RUN).resumed == [1]
    weights = last(folder)["state_dict"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in unbroken["state_dict"].items())


def test_without_a_sound_checkpoint_nothing_goes_on(folder: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        cut(folder / "checkpoints" / name)
    with pytest.raises(InputError, match=r"last.ckpt is damaged .*previous.ckpt is damaged .* to begin again"):
        train_in(folder, *RUN)


class Crafted:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.proof),)


def test_a_crafted_checkpoint_runs_nothing(folder: Path, tmp_path: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / "checkpoints" / name
        torch.save({**read(path), "history": Crafted(tmp_path / "proof")}, path)
    with pytest.raises(InputError, match=r"last.ckpt is damaged or no checkpoint: Weights only load failed"):
        train_in(folder, *RUN)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["last.ckpt", "epoch=[3].ckpt"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(name: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / name
    (tmp_path / f".{name}.1").write_text("of a process that was killed")
    files = CheckpointFiles()
    files.save_checkpoint({"epoch": 0}, path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            files.save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 0}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    files.save_checkpoint({"epoch": 1}, path)
    if name == "last.ckpt":
        assert torch.load(tmp_path / "previous.ckpt", weights_only=True) == {"epoch": 0}
