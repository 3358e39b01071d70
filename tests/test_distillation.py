"""Learning from a trained network's answers."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import compose_run
from omegaconf import OmegaConf
from short_runs import QUICK, QUIET, break_off, train_in, weights
from torch import nn

from parsimony import hparams
from parsimony.checkpoints import read
from parsimony.data.augment import Augment
from parsimony.data.datamodule import ImageData
from parsimony.distillation import Teacher, teacher_of
from parsimony.errors import InputError
from parsimony.published.cards import card
from parsimony.published.rows import Row, recipe
from parsimony.runs import Result
from parsimony.targets import build

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))

IMAGES, LOGITS = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).split([4, 3], dim=1)


def make_teacher(weight: float, temperature: float = 2.0) -> Teacher:
    return Teacher(nn.Linear(4, 3).double(), weight=weight, temperature=temperature, origin={})


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_by_hand(temperature: float) -> None:
    teacher = make_teacher(0.3, temperature)
    expected, answered = ((logits / temperature).softmax(dim=1) for logits in (teacher.net(IMAGES).detach(), LOGITS))
    divergence = (expected * (expected / answered).log()).sum(dim=1).mean()
    by_hand = 0.7 * 5.0 + 0.3 * temperature**2 * divergence
    torch.testing.assert_close(teacher.loss(IMAGES, LOGITS, of_labels=torch.tensor(5.0).double()), by_hand)


def test_without_weight_the_labels_alone_count() -> None:
    assert make_teacher(0.0).loss(IMAGES, LOGITS, of_labels=torch.tensor(5.0)) == 5


def test_a_student_that_answers_alike_has_nothing_to_learn() -> None:
    teacher = make_teacher(1.0)
    logits = teacher.net(IMAGES).detach().requires_grad_()
    loss = teacher.loss(IMAGES, logits, of_labels=torch.tensor(0.0))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    torch.testing.assert_close(logits.grad, torch.zeros_like(LOGITS))


def test_bfloat16_logits_are_compared_in_float32() -> None:
    teacher = Teacher(nn.Linear(4, 3).bfloat16(), weight=1.0, temperature=2.0, origin={})
    loss = teacher.loss(IMAGES.bfloat16(), LOGITS.bfloat16(), of_labels=torch.tensor(0.0))
    assert loss.dtype == torch.float32


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train_in(tmp_path_factory.mktemp("teacher") / "run", *QUICK, "seed=3", "model.dropout=0.1")


def test_a_student_learns_its_teachers_answers(teacher_run: Result, tmp_path: Path) -> None:
    """From these alone."""
    before = weights(teacher_run)
    keys = (
        *QUICK,
        "engine.precision=32-true",
        "trainer.max_epochs=3",
        "model.dropout=0",
        "trainer.limit_train_batches=1.0",
    )
    taught = (f"distillation.teacher={teacher_run.folder}", "distillation.weight=1", "distillation.temperature=1")
    student = train_in(tmp_path / "student", *keys, *taught)
    assert student.history[-1]["train/loss"] < 0.5 * student.history[0]["train/loss"]
    assert student.teacher == {
        "name": "mnist_narrow",
        "seed": 3,
        "parameters": 5904,
        "test_accuracy": teacher_run.final.test["accuracy"],
        "sha256": hashlib.sha256((Path(teacher_run.folder) / "checkpoints" / "last.ckpt").read_bytes()).hexdigest(),
    }
    assert weights(student).keys() == before.keys()  # the teacher is in no checkpoint
    assert all(torch.equal(value, before[key]) for key, value in weights(teacher_run).items())
    assert Result.read(Path(student.folder) / "result.json").teacher == student.teacher


def test_a_run_does_not_go_on_with_a_changed_teacher(teacher_run: Result, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(teacher_run.folder, tmp_path / "teacher"))
    keys = (*QUICK, "trainer.max_epochs=2", f"distillation.teacher={folder}")
    break_off(tmp_path / "run", 7, *keys)
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = read(last)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("net."))
    checkpoint["state_dict"][name].mul_(2)
    torch.save(checkpoint, last)
    before = (tmp_path / "run" / "result.json").read_text()
    with pytest.raises(InputError, match=r"last\.ckpt was taught by other weights than distillation\.teacher has now"):
        train_in(tmp_path / "run", *keys)
    assert (tmp_path / "run" / "result.json").read_text() == before
    shutil.copy(Path(teacher_run.folder) / "checkpoints" / "last.ckpt", last)
    assert train_in(tmp_path / "run", *keys).resumed == [1]


def test_evaluation_asks_no_teacher(teacher_run: Result, tmp_path: Path) -> None:
    keys = (*QUICK, "optimizer.lr=1e-9")
    alone = train_in(tmp_path / "alone", *keys)
    taught = train_in(tmp_path / "taught", *keys, f"distillation.teacher={teacher_run.folder}")
    assert alone.teacher is None
    assert alone.final.train["loss"] != taught.final.train["loss"]
    assert alone.final.test == pytest.approx(taught.final.test, rel=1e-3)


def test_a_card_and_tensorboard_tell_of_the_teacher(teacher_run: Result) -> None:
    config = {**teacher_run.config, "distillation": {"teacher": "elsewhere", "weight": 0.9, "temperature": 4.0}}
    of = {"name": "wide", "seed": 3, "parameters": 1234567, "test_accuracy": 0.995, "sha256": ""}
    text = card(Row("net", [replace(teacher_run, config=config, teacher=of)], seeds=1))
    assert "| distilled from | wide, seed 3 (1,234,567 parameters, 99.50 %), weight 0.9, temperature 4.0 |" in text
    assert "distilled" not in card(Row("net", [teacher_run], seeds=1))
    assert hparams.compared(config)["train.distillation.weight"] == 0.9
    assert not any("distillation" in name for name in hparams.compared(teacher_run.config))


def test_a_teachers_weight_is_part_of_a_recipe_that_has_one(tmp_path: Path) -> None:
    def of(*overrides: str) -> object:
        return recipe(OmegaConf.to_container(compose_run(tmp_path, *overrides)))["distillation"]

    assert of() == of("distillation.weight=0.1") is None
    assert of("distillation.teacher=a") != of("distillation.teacher=a", "distillation.weight=0.1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("distillation.teacher=nowhere", "nowhere is no finished run: train that network first"),
        ("data=mnist", "trained on other images than mnist's or on other classes"),
        ("data.validation=100", "images that this run holds out to choose by.*data.validation=100"),
        ("data.train_images=500", "images that this run holds out to choose by"),
    ],
)
def test_teachers_that_are_refused(overrides: str, message: str, teacher_run: Result, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train_in(tmp_path / "run", *QUICK, f"distillation.teacher={teacher_run.folder}", *overrides.split())
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_other_files_may_have_seen_what_is_held_out(teacher_run: Result, tmp_path: Path) -> None:
    shutil.copytree(teacher_run.folder, tmp_path / "teacher")
    replace(teacher_run, data={**teacher_run.data, "sha256": {"digits.npz": "another"}}).write(tmp_path / "teacher")
    keys = (*QUICK, f"distillation.teacher={tmp_path / 'teacher'}")
    with pytest.raises(InputError, match="was trained on other files of digits than these, so perhaps on images that"):
        train_in(tmp_path / "run", *keys)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    assert train_in(tmp_path / "run", *keys, "data.validation=0").status == "completed"


def test_a_teacher_answers_in_the_precision_of_its_student(teacher_run: Result, tmp_path: Path) -> None:
    taught = (f"distillation.teacher={teacher_run.folder}", "engine.precision=64-true")
    assert train_in(tmp_path / "run", *QUICK, *taught).status == "completed"


def test_weight_and_temperature_are_the_configs(teacher_run: Result, tmp_path: Path) -> None:
    keys = (f"distillation.teacher={teacher_run.folder}", "distillation.weight=0.3", "distillation.temperature=5")
    cfg = compose_run(tmp_path, *QUICK, *keys)
    data = build(cfg.data, ImageData, augment=Augment(), seed=0)
    teacher = teacher_of(OmegaConf.to_container(cfg, resolve=True), data, [])
    assert (teacher.weight, teacher.temperature) == (0.3, 5)


def test_without_images_held_out_any_teacher_will_do(teacher_run: Result, tmp_path: Path) -> None:
    taught = train_in(tmp_path / "run", *QUICK, f"distillation.teacher={teacher_run.folder}", "data.validation=0")
    assert taught.status == "completed"
