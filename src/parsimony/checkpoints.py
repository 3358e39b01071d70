"""A run's checkpoints, read back without running any code in them. Imports no Lightning, which takes seconds."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from parsimony.errors import InputError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
# What Lightning and the classifier write, of which a resumed run needs every one.
KEYS = {
    "epoch",
    "global_step",
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "history",
    "resumed",
}


def load(path: Path) -> Any:
    """What the file holds, on the CPU. Raises InputError for what is damaged or would run code."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load compares no checksums
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged archive can raise any
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"{path} is damaged or no checkpoint: {reason or type(error).__name__}.") from error


def read(path: Path) -> dict[str, Any]:
    """The checkpoint, on the CPU. Raises InputError for what is damaged, incomplete or would run code."""
    checkpoint = load(path)
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= KEYS:
        raise InputError(f"{path} is no checkpoint of a run.")
    return checkpoint


def newest(folder: Path) -> tuple[Path | None, int]:
    """The newest sound checkpoint of the run in `folder` and the epochs trained by then; (None, 0) without one."""
    for path in _paths(folder):
        try:
            return path, len(read(path)["history"])
        except InputError:
            continue
    return None, 0


def to_resume(
    folder: Path, net: nn.Module, settings: dict[str, Any], *, defaults: dict[str, Any], teacher: str | None
) -> tuple[Path, int] | None:
    """The newest sound checkpoint of the run in `folder` and the steps taken by then; None if it has none yet.

    It must have the tensors of `net` and have been made with `settings`, of which those of `defaults` may have come
    since, and by the `teacher` with this sha256, if any. Raises InputError if no checkpoint is sound.
    """
    problems = []
    for path in _paths(folder):
        try:
            checkpoint = read(path)
            _check_belongs(checkpoint, path, net, settings, defaults)
            if checkpoint.get("teacher", teacher) != teacher:
                raise InputError(f"{path} was taught by other weights than distillation.teacher has now.")
        except InputError as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]} Going on from the one before, of epoch {len(checkpoint['history'])}.", flush=True)
        return path, checkpoint["global_step"]
    if problems:
        raise InputError(f"{' '.join(problems)} Remove {folder / 'checkpoints'} to begin again.")
    return None


def drop_unsound(taken: Path | None) -> None:
    """Removes the unsound last.ckpt if `to_resume` took the one before: the next save would move it over that."""
    if taken and taken.name == PREVIOUS:
        taken.with_name(LAST).unlink(missing_ok=True)


def _paths(folder: Path) -> list[Path]:
    return [path for path in (folder / "checkpoints" / name for name in (LAST, PREVIOUS)) if path.exists()]


def _check_belongs(
    checkpoint: dict[str, Any], path: Path, net: nn.Module, settings: dict[str, Any], defaults: dict[str, Any]
) -> None:
    shapes = {f"net.{name}": tensor.shape for name, tensor in net.state_dict().items()}
    found = {name: getattr(tensor, "shape", None) for name, tensor in checkpoint["state_dict"].items()}
    if any(found.get(name) != shape for name, shape in shapes.items()):
        raise InputError(f"{path} is of another network.")
    made_with = checkpoint.get("hyper_parameters")
    if not isinstance(made_with, dict) or {**defaults, **made_with} != settings:
        raise InputError(f"{path} is of a run with other settings.")
