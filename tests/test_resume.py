"""A run that broke off and went on ends as one that never broke off, bit for bit."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import compose_run
from omegaconf import OmegaConf
from short_runs import QUIET, PowerCut, break_off, train_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._pytree import tree_map

from parsimony.checkpoints import read
from parsimony.classifier import Classifier
from parsimony.errors import InputError
from parsimony.resume import MAY_CHANGE, alone, config_to_run, kept_config, settings
from parsimony.runs import Result, finished

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))

STEPS = 6
RUN = (
    *("data=digits", "model=mnist_narrow", "augment=digits", "trainer=cpu", "trainer.max_epochs=4"),
    *(f"+trainer.limit_train_batches={STEPS}", "trainer.log_every_n_steps=2", "~callbacks.pictures"),
)
RECIPES = {
    "adam, once an epoch": ("scheduler=inverse_time", "optimizer=adam", "callbacks=[default]"),
    "sgd, every step, averaged": ("scheduler=one_cycle", "optimizer=sgd", "callbacks=[default,ema]"),
    "muon, at milestones": ("scheduler=step", "optimizer=muon", "scheduler.milestones=[0.3,0.6]"),
}


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def optimizer_values(checkpoint: dict) -> list:
    states = tree_map(lambda leaf: leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf, checkpoint)
    return states["optimizer_states"]


def untimed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    times = ("seconds", "elapsed", "images_per_second")
    return [{key: value for key, value in entry.items() if key not in times} for entry in history]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if not tag.startswith("images_per_second")
    }


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if "per_second" not in name} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_weights_are_those_of_an_unbroken_run(recipe: tuple[str, ...], tmp_path: Path) -> None:
    unbroken = train_in(tmp_path / "unbroken", *RUN, *recipe)
    break_off(tmp_path / "broken", 1 * STEPS, *RUN, *recipe)  # at an epoch's first step
    break_off(tmp_path / "broken", 2 * STEPS + 3, *RUN, *recipe)
    result = train_in(tmp_path / "broken", *RUN, *recipe)

    kept, new = last(tmp_path / "unbroken"), last(tmp_path / "broken")
    assert kept["state_dict"].keys() == new["state_dict"].keys()
    for name, weights in kept["state_dict"].items():
        assert torch.equal(weights, new["state_dict"][name]), name
    assert optimizer_values(new) == optimizer_values(kept)
    assert new["lr_schedulers"] == kept["lr_schedulers"]
    assert untimed(result.history) == untimed(unbroken.history)
    assert (result.final, result.best) == (unbroken.final, unbroken.best)
    assert (result.epochs, result.resumed, unbroken.resumed) == (4, [1, 2], [])
    assert result.seconds["fit"] > sum(entry["seconds"] for entry in result.history)


def test_nor_do_the_figures_depend_on_how_often_steps_are_logged(tmp_path: Path) -> None:
    seldom = (*RUN, "trainer.log_every_n_steps=10")  # once in two epochs
    unbroken = train_in(tmp_path / "unbroken", *seldom)
    break_off(tmp_path / "broken", 2 * STEPS + 3, *seldom)
    assert untimed(train_in(tmp_path / "broken", *seldom).history) == untimed(unbroken.history)


def test_a_run_that_moved_goes_on_with_its_best_checkpoint(tmp_path: Path) -> None:
    unbroken = train_in(tmp_path / "unbroken", *RUN)
    break_off(tmp_path / "broken", 2 * STEPS + 3, *RUN)
    (tmp_path / "broken").rename(tmp_path / "moved")
    assert train_in(tmp_path / "moved", *RUN).best == unbroken.best
    assert last(tmp_path / "moved")["callbacks"].keys() == last(tmp_path / "unbroken")["callbacks"].keys()


def test_the_curves_have_no_gap_and_no_double_points(tmp_path: Path) -> None:
    train_in(tmp_path / "unbroken", *RUN)
    break_off(tmp_path / "broken", 2 * STEPS + 3, *RUN)
    train_in(tmp_path / "broken", *RUN)
    assert curves(tmp_path / "broken") == curves(tmp_path / "unbroken")


def test_nor_where_it_broke_off_before_its_first_checkpoint(tmp_path: Path) -> None:
    train_in(tmp_path / "unbroken", *RUN)
    break_off(tmp_path / "broken", STEPS - 1, *RUN)
    assert not (tmp_path / "broken" / "checkpoints").exists()
    train_in(tmp_path / "broken", *RUN)
    assert curves(tmp_path / "broken") == curves(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("step", "damage"),
    [
        pytest.param(STEPS - 1, "1,2", id="before its first checkpoint"),
        pytest.param(2 * STEPS + 3, "1,2", id="after its second, amid a line"),
        pytest.param(2 * STEPS + 3, f"{'x,' * 100}x\n{'3.5,' * 100}\n", id="after its second, by lines of no run"),
    ],
)
def test_nor_has_the_csv_file(step: int, damage: str, tmp_path: Path) -> None:
    run = (*RUN, "logger=csv")
    train_in(tmp_path / "unbroken", *run)
    break_off(tmp_path / "broken", step, *run)
    with (tmp_path / "broken" / "metrics.csv").open("a") as file:
        file.write(damage)
    train_in(tmp_path / "broken", *run)
    assert table(tmp_path / "broken") == table(tmp_path / "unbroken")


def test_a_run_that_moved_keeps_its_best_epoch(tmp_path: Path) -> None:
    first = ("callbacks.best.monitor=train/loss", "callbacks.best.mode=max")  # the best is the first one
    unbroken = train_in(tmp_path / "unbroken", *RUN, *first)
    assert unbroken.best.epoch == 1
    break_off(tmp_path / "broken", 3 * STEPS + 2, *RUN, *first)
    assert str(tmp_path).encode() not in (tmp_path / "broken" / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "broken").rename(tmp_path / "moved")
    moved = train_in(tmp_path / "moved", *RUN, *first)
    assert moved.best == unbroken.best
    best = [torch.load(tmp_path / name / "checkpoints" / "best.ckpt")["state_dict"] for name in ("moved", "unbroken")]
    assert all(torch.equal(weights, best[1][name]) for name, weights in best[0].items())


STOPPED = ("callbacks=[default,ema,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12")


@pytest.mark.parametrize(
    "more",
    [(), ("callbacks=[default,ema]", "callbacks.ema.decay=0.9"), STOPPED],
    ids=["", "averaged", "averaged, stopped early"],
)
def test_a_run_that_broke_off_after_its_last_epoch_is_still_tested(
    more: tuple[str, ...], tmp_path: Path, monkeypatch
) -> None:
    run = (*RUN, *more)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            train_in(tmp_path / "broken", *run)
    assert train_in(tmp_path / "broken", *run).final == train_in(tmp_path / "unbroken", *run).final


def test_a_run_that_broke_off_after_its_final_figures_has_them_once(tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("parsimony.training._best", lambda *_: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            train_in(tmp_path / "broken", *RUN)
    for folder in ("broken", "unbroken"):
        train_in(tmp_path / folder, *RUN)
    assert curves(tmp_path / "broken") == curves(tmp_path / "unbroken")


# What a command goes on with


def command(folder: Path, *overrides: str) -> Result | dict:
    """The config that `python train.py OVERRIDES` would train by in `folder`."""
    cfg = compose_run(folder, *overrides)
    return OmegaConf.to_container(config_to_run(cfg), resolve=True)


def test_resume_takes_the_runs_own_config_wherever_it_lies(tmp_path: Path) -> None:
    train_in(tmp_path / "run", *RUN, "optimizer.lr=0.002")
    kept = kept_config(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = command(tmp_path / "moved", f"resume={tmp_path / 'moved'}", "engine.threads=1", "data.root=other")
    assert (resumed["data"].pop("root"), kept["data"].pop("root")) == ("other", "data")
    assert "root" not in resumed["data"]["source"]  # of the digits
    assert resumed["optimizer"]["lr"] == 0.002
    assert resumed["engine"]["threads"] == 1
    assert resumed["folder"] == str(tmp_path / "moved")
    assert resumed["callbacks"]["last"]["dirpath"] == str(tmp_path / "moved" / "checkpoints")
    assert {key: value for key, value in kept.items() if key not in ("folder", "callbacks", "logger", "engine")} == {
        key: value for key, value in resumed.items() if key not in ("folder", "callbacks", "logger", "engine")
    }


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    result = train_in(tmp_path / "run", *RUN, "trainer.max_epochs=1")
    assert finished(tmp_path / "run") == result
    assert finished(tmp_path) is None
    for damaged in ("", "{", "[]", '{"final": 3}'):
        (tmp_path / "result.json").write_text(damaged)
        assert finished(tmp_path) is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("resume={run}", "optimizer.lr=0.1"), "leave out optimizer.lr=0.1. Only engine.threads, "),
        (("resume={nowhere}",), "is no run's folder: it has no config.yaml"),
        (("resume={damaged}",), "config.yaml is damaged"),
        (
            (*RUN, "optimizer.lr=0.1"),
            r"another config \(optimizer.lr\): remove it, or take another name or hydra.run.dir",
        ),
        (("model=mnist_sep",), r"another config \(.*, .*, .* and \d+ more\): remove it"),
    ],
)
def test_what_it_does_not_go_on_with(overrides: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("run", "nowhere", "damaged")}
    for folder in (folders["run"], folders["damaged"]):
        folder.mkdir()
        OmegaConf.save(compose_run(folder, *RUN), folder / "config.yaml")
    (folders["damaged"] / "config.yaml").write_text("{")
    folder = folders[overrides[0][8:-1]] if overrides[0].startswith("resume") else folders["run"]
    with pytest.raises(InputError, match=sentence):
        command(folder, *(override.format(**folders) for override in overrides))


def test_the_same_command_goes_on_whatever_machine_it_is_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    OmegaConf.save(compose_run(tmp_path / "run", *RUN), tmp_path / "run" / "config.yaml")
    assert "engine.threads" in MAY_CHANGE
    assert command(tmp_path / "run", *RUN, "engine.threads=1")["engine"]["threads"] == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer", None, "is no run's folder: its config.yaml is not that of a training, it lacks trainer._target_"),
        ("augment", None, "it lacks augment._target_"),
        ("data.batch_size", "big", r"config.yaml is damaged: data.batch_size takes a whole number .*, not big"),
    ],
)
def test_a_kept_config_is_checked(key: str, value: str | None, message: str, tmp_path: Path) -> None:
    config = compose_run(tmp_path, *RUN)
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, value) if value else config.pop(key)
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(InputError, match=message):
        command(tmp_path, f"resume={tmp_path}")


def test_a_run_goes_on_without_downloading_what_conf_does_not_name(tmp_path: Path) -> None:
    config = compose_run(tmp_path, *RUN)
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert command(tmp_path, f"resume={tmp_path}")["data"]["download"]
    config.data.source._target_ = "a.strangers.Source"
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert not command(tmp_path, f"resume={tmp_path}")["data"]["download"]
    assert command(tmp_path, f"resume={tmp_path}", "data.download=true")["data"]["download"]


def test_a_folder_whose_name_begins_alike_is_no_part_of_the_run() -> None:
    config = {"folder": "/runs/1", "distillation": {"teacher": "/runs/10"}, "logger": {"save_dir": "/runs/1/logs"}}
    assert settings(config) == {"distillation.teacher": "/runs/10"}


def test_a_run_from_before_a_key_came_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    break_off(folder, STEPS + 2, *RUN)
    kept = OmegaConf.load(folder / "config.yaml")
    for key in ("distillation", "label_smoothing"):
        del kept[key]
    del kept.data["augment_epochs"]
    OmegaConf.save(kept, folder / "config.yaml")
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = read(last)
    made_with = checkpoint["hyper_parameters"]
    for key in [
        key for key in made_with if key.startswith(("distillation.", "label_smoothing", "data.augment_epochs"))
    ]:
        del made_with[key]
    torch.save(checkpoint, last)
    assert command(folder, *RUN)["label_smoothing"] == 0
    assert command(folder, f"resume={folder}")["distillation"]["teacher"] is None
    with pytest.raises(InputError, match=r"another config \(label_smoothing\)"):
        command(folder, *RUN, "label_smoothing=0.1")
    assert train_in(folder, *RUN).resumed == [1]


def test_two_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with alone(tmp_path / "run"), pytest.raises(InputError, match=r"Another process trains in .*run: wait for its end"):
        train_in(tmp_path / "run", *RUN)
    assert not (tmp_path / "run" / "result.json").exists()


def test_data_that_moved_are_found(tmp_path: Path) -> None:
    OmegaConf.save(compose_run(tmp_path, "data=mnist", "trainer=cpu"), tmp_path / "config.yaml")
    resumed = command(tmp_path, f"resume={tmp_path}", "data.root=other")
    assert (resumed["data"]["root"], resumed["data"]["source"]["root"]) == ("other", "other")
