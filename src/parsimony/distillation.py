"""Knowledge distillation: to learn a trained network's answers beside the labels.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (arXiv 1503.02531).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from parsimony.data.datamodule import ImageData
from parsimony.errors import InputError
from parsimony.resume import own_keys
from parsimony.runs import finished
from parsimony.targets import TRAINING_OPTION
from parsimony.trained import load


class Teacher:
    """A trained network, which answers the student's own augmented images.

    `weight`, 0 to 1, is its part of the loss; `temperature`, above 0, softens both networks' answers. `origin` tells
    which run it comes from, for the student's result.json; `files` the sha256 of the data that it was trained on.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        weight: float,
        temperature: float,
        origin: dict[str, Any],
        files: dict[str, str] | None = None,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.weight = weight
        self.temperature = temperature
        self.origin = origin
        self.files = files

    def loss(self, images: Tensor, logits: Tensor, of_labels: Tensor) -> Tensor:
        """The weighted mean of the loss `of_labels` and the divergence of the student's `logits` (n, classes) from the
        teacher's on `images`; the divergence times temperature squared, so that its gradients keep their size."""
        with torch.no_grad():
            expected = self._soft(self.net(images))
        divergence = kl_div(self._soft(logits), expected, reduction="batchmean", log_target=True)
        return (1 - self.weight) * of_labels + self.weight * self.temperature**2 * divergence

    def _soft(self, logits: Tensor) -> Tensor:
        precise = torch.promote_types(logits.dtype, torch.float32)  # autocast's bfloat16 has three digits
        return log_softmax(logits / self.temperature, dim=1, dtype=precise)


def teacher_of(config: dict[str, Any], data: ImageData, allow: Sequence[str]) -> Teacher | None:
    """The teacher that a run's `config` names, if any.

    Raises InputError where that is no finished run, one of other images or classes, or one that has been trained on
    images which this run holds out to choose by.
    """
    chosen = config["distillation"]
    if chosen["teacher"] is None:
        if idle := [key for key, value in own_keys()["distillation"].items() if chosen[key] != value]:
            raise InputError(f"distillation.{idle[0]} does nothing without distillation.teacher: name a run's folder.")
        return None
    folder, named = Path(str(chosen["teacher"])), f"distillation.teacher={chosen['teacher']}"
    result = finished(folder)
    if result is None:
        raise InputError(f"{named} is no finished run: train that network first, or name another run's folder.")
    trained = load(folder, allow=allow, option=TRAINING_OPTION)
    if trained.source().name != data.source.name or (trained.shape, trained.classes) != (
        data.source.shape,
        tuple(data.source.classes),
    ):
        raise InputError(
            f"{named} was trained on other images than {data.source.name}'s or on other classes: "
            "name a run on the same data."
        )
    if isinstance(data.validation, int) and data.validation and not _same_split(trained.config["data"], config["data"]):
        raise InputError(
            f"{named} was trained on images that this run holds out to choose by: take a teacher with the same "
            f"data.validation={data.validation} and data.train_images."
        )
    assert result.final is not None
    assert result.final.test is not None
    sha256 = hashlib.sha256((folder / "checkpoints" / trained.checkpoint).read_bytes()).hexdigest()
    origin = {
        "name": result.name,
        "seed": result.seed,
        "parameters": result.parameters["total"],
        "test_accuracy": result.final.test["accuracy"],
        "sha256": sha256,
    }
    return Teacher(
        trained.net,
        weight=chosen["weight"],
        temperature=chosen["temperature"],
        origin=origin,
        files=result.data.get("sha256"),
    )


def check_files(teacher: Teacher, data: ImageData) -> None:
    """Of loaded `data`. Raises InputError where other files, in another order, were split for the teacher."""
    assert data.images is not None
    if isinstance(data.validation, int) and data.validation and teacher.files != data.images.sha256:
        raise InputError(
            f"distillation.teacher was trained on other files of {data.source.name} than these, so perhaps on images "
            "that this run holds out to choose by: take a teacher trained on these, or data.validation=0."
        )


def _same_split(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    return all(theirs[key] == ours[key] for key in ("validation", "train_images"))
