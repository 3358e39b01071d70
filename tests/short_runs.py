"""Short trainings, as `python train.py` runs them, for the tests of what they compute, leave, refuse and say."""

from pathlib import Path

import pytest
import torch
from conftest import compose_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from parsimony.classifier import Classifier
from parsimony.config import check
from parsimony.runs import Result
from parsimony.training import train

SHORT = ("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=5")
QUICK = (*SHORT, "~callbacks.pictures")

# Of Lightning's insides, or of choices made on purpose
QUIET = ("LeafSpec", "logging interval", "many workers", "length of `list`", "Experiment logs directory")


def train_in(folder: Path, *overrides: str) -> Result:
    cfg = compose_run(folder, *overrides)
    check(cfg)
    return train(cfg)


def events(result: Result) -> EventAccumulator:
    return EventAccumulator(result.folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalars(result: Result) -> dict[str, list[float]]:
    found = events(result)
    return {tag: [event.value for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def weights(result: Result, name: str = "last") -> dict[str, Tensor]:
    path = Path(result.folder) / "checkpoints" / f"{name}.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("net.")}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class PowerCut(Exception):
    pass


def break_off(folder: Path, step: int, *overrides: str) -> None:
    """Trains in `folder` until the power goes in training step `step`."""
    training_step = Classifier.training_step

    def until(self: Classifier, *arguments: object) -> torch.Tensor:
        if self.global_step == step:
            raise PowerCut
        return training_step(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", until)
        with pytest.raises(PowerCut):
            train_in(folder, *overrides)
