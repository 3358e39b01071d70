"""Runs for the tests of `parsimony report`: folders with the files that ours and other programs leave."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from parsimony.runs import Epoch, Result

EPOCHS, STEPS = 3, 10


def our_run(
    folder: Path, accuracy: float | None = 0.99, *, seed: int = 0, events: bool = True, typed: bool = True, **given: Any
) -> Result:
    """A run that train.py left: `accuracy` on validation at the last epoch; `given` are other fields of Result.

    Keyword arguments with a double underscore are hyperparameters, `typed` in the command or not: model__dropout=0.1.
    """
    hyperparameters = {key.replace("__", "."): given.pop(key) for key in list(given) if "__" in key}
    config: dict[str, Any] = {
        "name": given.get("name", "mnist_narrow"),
        "folder": str(folder),
        "seed": seed,
        "model": {"_target_": "parsimony.nets.mnist.mnist_narrow", "dropout": 0.0},
        "optimizer": {"lr": 0.003},
        "data": {"root": "data", "source": {"name": "mnist"}},
        "callbacks": {"last": {"dirpath": str(folder / "checkpoints")}},
        "trainer": {"max_epochs": EPOCHS},
    }
    for key, value in hyperparameters.items():
        group, _, name = key.partition(".")
        config.setdefault(group, {})[name] = value
    validation = None if accuracy is None else {"loss": 1 - accuracy, "accuracy": accuracy}
    epoch = Epoch(
        EPOCHS, train={"loss": 0.1, "accuracy": 0.97}, validation=validation, test={"loss": 0.1, "accuracy": 0.99}
    )
    fields: dict[str, Any] = {
        "name": "mnist_narrow",
        "overrides": [*(f"{key}={value}" for key, value in hyperparameters.items() if typed), f"seed={seed}"],
        "status": "completed",
        "epochs": EPOCHS,
        "parameters": {"total": 5904},
        "validation": "5,000 images of the training set" if accuracy else "test set, watched each epoch",
        "final": epoch,
        "best": epoch,
        "images_per_second": 2500.0,
        "data": {"name": "mnist"},
        "config": config,
    }
    result = Result(seed=seed, **{**fields, **given})
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder)
    if events:
        write_events(folder, our_scalars(0.99 if accuracy is None else accuracy, "val" if accuracy else "watched_test"))
    return result


def our_scalars(accuracy: float, tag: str = "val") -> dict[str, dict[int, float]]:
    """tag -> step -> value, as the classifier logs."""
    ends = [epoch * STEPS - 1 for epoch in range(1, EPOCHS + 1)]
    rising = {step: accuracy - 0.01 * (ends[-1] - step) / STEPS for step in ends}
    return {
        "lr-Adam": {step: 0.001 * (1 + step) for step in range(0, EPOCHS * STEPS, 5)},
        "train/loss_step": dict.fromkeys(range(0, EPOCHS * STEPS, 5), 2.0),
        f"{tag}/accuracy": rising,
        f"{tag}/loss": {step: 1 - value for step, value in rising.items()},
        "train/accuracy": {step: value - 0.01 for step, value in rising.items()},
        "train/loss": {step: 1.01 - value for step, value in rising.items()},
        "images_per_second": dict.fromkeys(ends, 2500.0),
        "epoch": {step: epoch for epoch, step in enumerate(ends)},
    }


def write_events(folder: Path, scalars: Mapping[str, Mapping[int, float]], **writer: Any) -> Path:
    """An event file in `folder` with these scalars; `writer` are arguments of SummaryWriter."""
    before = set(folder.glob("events*"))
    with SummaryWriter(str(folder), **writer) as summaries:
        for tag, points in scalars.items():
            for step, value in points.items():
                summaries.add_scalar(tag, value, step)
    (path,) = set(folder.glob("events*")) - before
    return path
