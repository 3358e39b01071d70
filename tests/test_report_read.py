"""Event files and results of every origin, whole, half-written and damaged, as `parsimony report` reads them."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from report_runs import EPOCHS, our_run, our_scalars, write_events
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

from parsimony.errors import InputError
from parsimony.report import read
from parsimony.report.events import read_log
from parsimony.report.read import read_runs
from parsimony.report.run import ALIVE, Run
from parsimony.report.settings import group
from parsimony.report.tags import LEARNING_RATE, meaning
from parsimony.resume import default_settings, own_keys
from parsimony.runs import Epoch

KERAS = Path(__file__).parent / "files" / "keras"  # what Keras 3.15 on TensorFlow wrote in three epochs


def only(folder: Path) -> Run:
    (run,), warnings = read_runs([folder])
    assert [warning for warning in warnings if "may still be running" not in warning] == []
    return run


def grow_old(folder: Path) -> None:
    for path in folder.rglob("events*"):
        os.utime(path, (time.time() - 2 * ALIVE,) * 2)


@pytest.mark.parametrize(
    ("tag", "part", "what"),
    [
        ("val/accuracy", "", "validation/accuracy"),
        ("watched_test/accuracy", "", "watched test/accuracy"),
        ("test/accuracy", "", "test/accuracy"),
        ("val_acc", "", "validation/accuracy"),
        ("valid/acc_epoch", "", "validation/accuracy"),
        ("Accuracy/val", "", "validation/accuracy"),
        ("valAcc", "", "validation/accuracy"),
        ("val_top1", "", "validation/accuracy"),
        ("val/MulticlassAccuracy", "", "validation/accuracy"),
        ("epoch_sparse_categorical_accuracy", "validation", "validation/accuracy"),
        ("epoch_loss", "train", "train/loss"),
        ("train_loss_epoch", "", "train/loss"),
        ("loss", "", "train/loss"),
        ("lr-Adam", "", "learning rate"),
        ("epoch_learning_rate", "train", "learning rate"),
        ("images_per_second", "", "images/s"),
        ("train/accuracy_step", "", None),  # of one batch
        ("evaluation_accuracy_vs_iterations", "validation", None),
        ("val_acc_top5", "", None),
        ("epoch_top_k_categorical_accuracy", "validation", None),
        ("test_at_best_validation/accuracy", "", None),
        ("final/test_accuracy", "", None),
        ("epoch", "", None),
        ("gradient_norm", "", None),
    ],
)
def test_what_a_tag_means(tag: str, part: str, what: str | None) -> None:
    assert meaning(tag, part) == what


def test_a_run_of_ours(tmp_path: Path) -> None:
    result = our_run(tmp_path / "a", 0.9912, model__dropout=0.1)
    run = only(tmp_path)
    assert (run.path, run.name, run.status, run.ended, run.seed, run.unit) == (
        "a",
        result.name,
        "completed",
        True,
        0,
        "epoch",
    )
    assert run.final["validation/accuracy"] == run.best == 0.9912
    assert run.series["validation/accuracy"] == pytest.approx({1: 0.9712, 2: 0.9812, 3: 0.9912})
    assert list(run.series["images/s"].values()) == [2500] * EPOCHS
    assert list(run.series["learning rate"]) == pytest.approx([0.1, 0.6, 1.1, 1.6, 2.1, 2.6])  # in epochs
    assert run.hyperparameters["model.dropout"] == 0.1
    assert not [key for key in run.hyperparameters if "dir" in key or "folder" in key or "root" in key or "seed" in key]


def test_a_run_from_before_a_key_came_has_its_default(tmp_path: Path) -> None:
    before = our_run(tmp_path / "before")
    our_run(tmp_path / "now", config={**before.config, **own_keys(), "data": before.config["data"]})
    assert only(tmp_path / "before").hyperparameters == only(tmp_path / "now").hyperparameters
    assert only(tmp_path / "before").hyperparameters["distillation.weight"] == 0.5


def test_a_run_without_event_files_has_the_curves_of_its_history(tmp_path: Path) -> None:
    history = [{"epoch": epoch, "val/accuracy": 0.9 + epoch / 100, "val/loss": None} for epoch in (1, 2)]
    our_run(tmp_path, events=False, history=history)
    assert only(tmp_path).series == {"validation/accuracy": {1: 0.91, 2: 0.92}}


def test_what_keras_wrote() -> None:
    run = only(KERAS)
    assert (run.name, run.unit, run.epochs, run.ended) == ("keras", "epoch", 3, True)
    assert run.series["validation/accuracy"] == pytest.approx({1: 0.5, 2: 0.5625, 3: 0.625})
    assert run.series["train/loss"] == pytest.approx({1: 1.1390457, 2: 0.91583, 3: 0.7376084})
    assert list(run.series["learning rate"].values()) == pytest.approx([0.05] * 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_scalars_that_are_tensors(dtype: type, tmp_path: Path) -> None:
    """Only the first of a tag says that it is a scalar; tensors that are none are passed over."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    (tmp_path / "validation").mkdir()
    with (tmp_path / "validation" / "events.out.tfevents.1.v2").open("wb") as file:
        writer = RecordWriter(file)
        for step, value in enumerate((0, 1)):
            tensor = make_tensor_proto(np.array(value, dtype))
            scalar = Summary.Value(tag="epoch_accuracy", tensor=tensor, metadata=None if step else metadata)
            image = Summary.Value(tag="image", tensor=make_tensor_proto([b"640", b"480"]))
            writer.write(Event(step=step, summary=Summary(value=[scalar, image])).SerializeToString())
    assert only(tmp_path).series == {"validation/accuracy": {1: 0, 2: 1}}


def test_what_another_lightning_wrote(tmp_path: Path) -> None:
    """Its names, a hp_metric, hyperparameters in the event file and in hparams.yaml; accuracy in %."""
    logger = TensorBoardLogger(str(tmp_path), name="lightning_logs", version=3)
    logger.log_hyperparams({"lr": 0.01, "net": {"width": 32}, "seed": 7, "optimizer": None, "steps": [1, 2]})
    for epoch, accuracy in enumerate((91.0, 93.5)):
        logger.log_metrics(
            {"val_acc": accuracy, "val_loss": 0.3, "train_loss_epoch": 0.2, "epoch": epoch}, 100 * epoch + 99
        )
        logger.log_metrics({"train_loss_step": 0.2, "lr-SGD": 0.1, "epoch": epoch}, 100 * epoch + 49)
    logger.save()
    logger.finalize("success")
    run = only(tmp_path)
    assert (run.path, run.name, run.seed, run.epochs, run.unit) == ("lightning_logs/version_3", "", 7, 2, "epoch")
    assert run.hyperparameters == {"lr": 0.01, "net/width": 32, "optimizer": "None", "steps": "[1, 2]"}
    assert run.series["validation/accuracy"] == {1: 0.91, 2: 0.935}
    assert run.series["learning rate"] == pytest.approx({0.5: 0.1, 1.5: 0.1})


def test_percentages_of_a_network_that_has_hardly_learned(tmp_path: Path) -> None:
    write_events(tmp_path, {"val_acc": {1: 1.0, 2: 1.3}, "train_acc": {1: 3.0, 2: 8.0}})
    run = only(tmp_path)
    assert list(run.series["validation/accuracy"].values()) == pytest.approx([0.01, 0.013])
    assert list(run.series["train/accuracy"].values()) == pytest.approx([0.03, 0.08])


def test_hyperparameters_that_are_only_in_hparams_yaml(tmp_path: Path) -> None:
    write_events(tmp_path, {"val_acc": {1: 0.9}})
    (tmp_path / "hparams.yaml").write_text(yaml.dump({"lr": 0.01, "net": {"width": 32}}))
    assert only(tmp_path).hyperparameters == {"lr": 0.01, "net.width": 32}
    (tmp_path / "hparams.yaml").write_text("net: !!python/object:torch.nn.Linear {}\nlr: 0.1\n")
    (run,), (warning, _) = read_runs([tmp_path])
    assert run.hyperparameters == {}
    assert warning.startswith(f"{tmp_path / 'hparams.yaml'} cannot be read: could not determine a constructor")


def test_a_plain_summary_writer(tmp_path: Path) -> None:
    """add_scalars and add_hparams make folders of their own, which are not runs of their own."""
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for step in (500, 1000):
            writer.add_scalars("Accuracy", {"train": 0.8, "val": step / 2000}, step)
        writer.add_scalar("lr", 0.1, 500)
        writer.add_hparams({"lr": 0.1, "bn": True}, {"hparam/accuracy": 0.5})
    run = only(tmp_path)
    assert (run.path, run.unit, run.epochs) == ("a", "step", None)
    assert run.hyperparameters == {"lr": 0.1, "bn": 1}
    assert run.series["validation/accuracy"] == {500: 0.25, 1000: 0.5}
    assert list(run.series["train/accuracy"]) == [500, 1000]


def test_folders_called_by_a_tag_are_runs(tmp_path: Path) -> None:
    for name, accuracy in (("", 0.6), ("lr_0.1", 0.8), ("lr_0.01", 0.9)):
        write_events(tmp_path / "runs" / name, {"val_acc": {1: accuracy}, "lr": {1: 0.1}})
    runs, _ = read_runs([tmp_path])
    assert sorted(run.final["validation/accuracy"] for run in runs) == pytest.approx([0.6, 0.8, 0.9])


@pytest.mark.parametrize(
    "content", ["data: cifar10", "data: {source: cifar10}", "data:", "data: {source: {}}\ntrainer: gpu"]
)
def test_a_config_of_another_program(content: str, tmp_path: Path) -> None:
    write_events(tmp_path, {"val_acc": {1: 0.9}})
    (tmp_path / "config.yaml").write_text(f"name: a\nfolder: b\nseed: 1\n{content}\n")
    assert only(tmp_path).status == "event files only"


def test_yaml_that_json_does_not_know(tmp_path: Path) -> None:
    for name, month in (("a", "01"), ("b", "02")):
        write_events(tmp_path / name, {"val_acc": {1: 0.9}})
        (tmp_path / name / "hparams.yaml").write_text(
            f"when: 2024-{month}-01\nlayers: [{{1: a, b: c}}, {{2024-01-01: d}}]\nkinds: !!set {{b, a}}\n"
        )
    runs, warnings = read_runs([tmp_path])
    assert runs[0].hyperparameters == {
        "when": "2024-01-01",
        "layers": [{"1": "a", "b": "c"}, {"2024-01-01": "d"}],
        "kinds": ["a", "b"],
    }
    assert [setting.label() for setting in group(runs, warnings)] == ["when=2024-01-01", "when=2024-02-01"]
    (tmp_path / "a" / "hparams.yaml").write_text("&a [*a]: 1\nb: &b [*b]\n")
    _, warnings = read_runs([tmp_path])
    assert any("hparams.yaml cannot be read" in warning for warning in warnings)


def test_what_is_counted_in_steps_beside_epochs_is_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, {"epoch_accuracy": {0: 0.5, 1: 0.6}, "epoch_loss": {0: 2, 1: 1}, "lr": {0: 0.1, 200: 0.2}})
    run = only(tmp_path)
    assert (run.unit, run.epochs) == ("epoch", 2)
    assert LEARNING_RATE not in run.series


def test_an_experiment_called_test_is_a_run_of_its_own(tmp_path: Path) -> None:
    for name in ("test", "other"):
        write_events(tmp_path / name, {"train/loss": {1: 0.1}, "val/accuracy": {1: 0.9}})
    runs, _ = read_runs([tmp_path])
    assert sorted(run.path for run in runs) == ["other", "test"]


def test_what_a_resumed_run_logged_again_counts_once(tmp_path: Path) -> None:
    """The first process got to step 12 and died; the second went on from the checkpoint after step 9."""
    write_events(tmp_path, {"val/accuracy": {9: 0.5, 12: 0.1}, "epoch": {9: 0, 12: 1}})
    os.rename(next(tmp_path.glob("events*")), tmp_path / "events.out.tfevents.1.first")
    path = write_events(tmp_path, {"val/accuracy": {19: 0.6}, "epoch": {19: 1}}, purge_step=10)
    os.rename(path, tmp_path / "events.out.tfevents.2.second")
    assert only(tmp_path).series["validation/accuracy"] == pytest.approx({1: 0.5, 2: 0.6})


def test_a_file_cut_off_anywhere_shows_what_is_before(tmp_path: Path) -> None:
    whole = write_events(tmp_path / "whole", {"val/accuracy": dict.fromkeys(range(5), 0.5)}).read_bytes()
    (tmp_path / "cut").mkdir()
    path = tmp_path / "cut" / "events.out.tfevents.1"
    seen, between_records = [], 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        log = read_log(path.parent, [path.name])
        seen.append(len(log.scalars["val/accuracy"]))
        between_records += not log.warnings
        assert log.warnings == [] or "ends within a record" in log.warnings[0]
    assert seen == sorted(seen)
    assert set(seen) == set(range(5))
    assert between_records == 6  # after none, the head and each of the first four
    path.write_bytes(whole)  # the rest was still to come
    assert len(read_log(path.parent, [path.name]).scalars["val/accuracy"]) == 5


def test_a_damaged_byte_anywhere_hides_only_what_follows(tmp_path: Path) -> None:
    whole = write_events(tmp_path / "whole", {"val/accuracy": dict.fromkeys(range(5), 0.5)}).read_bytes()
    (tmp_path / "damaged").mkdir()
    path = tmp_path / "damaged" / "events.out.tfevents.1"
    seen = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        log = read_log(path.parent, [path.name])
        assert set(log.scalars["val/accuracy"].values()) <= {0.5}
        (warning,) = log.warnings
        assert "is damaged" in warning
        seen.append(len(log.scalars["val/accuracy"]))
    assert seen == sorted(seen)


@pytest.mark.parametrize("content", [b"", b"\x00", b"this is no event file" * 50])
def test_a_file_that_is_none_stands_in_no_other_ones_way(content: bytes, tmp_path: Path) -> None:
    our_run(tmp_path / "a")
    (tmp_path / "a" / "events.out.tfevents.9").write_bytes(content)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "events.out.tfevents.lost").symlink_to(tmp_path / "nowhere")
    runs, warnings = read_runs([tmp_path])
    assert len(runs[0].series["validation/accuracy"]) == EPOCHS
    expected = [tmp_path / "a" / "events.out.tfevents.9"] if content else []
    assert [warning.partition(": ")[0] for warning in warnings] == list(
        map(str, [*expected, tmp_path / "b" / "events.out.tfevents.lost"])
    )


def test_a_record_that_is_no_event(tmp_path: Path) -> None:
    with (tmp_path / "events.out.tfevents.1").open("wb") as file:
        RecordWriter(file).write(b"\xff\xff\xff")
    _, (warning, *_) = read_runs([tmp_path])
    assert "a record holds no event" in warning


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"accuracy": 0.9}', "null", '{"final": 3, "best": null}', "[" * 100_000],
    ids=range(8),
)
def test_a_result_that_is_not_ours_or_damaged(content: str, tmp_path: Path) -> None:
    our_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result.json").write_text(content)
    (run,), (warning,) = read_runs([tmp_path])
    assert run.path == "a"
    assert warning.startswith(f"{tmp_path / 'b' / 'result.json'} is damaged or no result of a run")


def test_a_result_with_fields_of_other_types(tmp_path: Path) -> None:
    our_run(tmp_path)
    content = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**content, "history": 3, "config": [], "data": None}))
    (run,), warnings = read_runs([tmp_path])
    assert run.status == "event files only"
    assert "is damaged or no result of a run" in warnings[0]


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (5, "still running: epoch 3 of 20, last written 5 s ago"),
        (7200, "broke off: epoch 3 of 20, last written 2 h ago"),
    ],
)
def test_a_run_of_ours_that_has_not_ended(age: int, status: str, tmp_path: Path) -> None:
    config = {
        "name": "mnist_sep",
        "folder": "x",
        "seed": 4,
        "trainer": {"max_epochs": 20},
        "data": {"source": {"name": "mnist"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.dump({**config, "model": {"dropout": 0.2}}))
    path = write_events(tmp_path, our_scalars(0.98))
    path.write_bytes(path.read_bytes()[:-7])
    os.utime(path, (time.time() - age,) * 2)
    (run,), (warning,) = read_runs([tmp_path])
    assert (run.name, run.seed, run.data, run.ended, run.status) == ("mnist_sep", 4, "mnist", False, status)
    kept = {"model.dropout": 0.2, "trainer.max_epochs": 20, "data.source.name": "mnist"}
    defaults = {k: v for k, v in default_settings().items() if k.partition(".")[0] not in ("seed", "budget")}
    assert run.hyperparameters == {**defaults, **kept}
    assert run.final["validation/accuracy"] == pytest.approx(0.98)
    assert "ends within a record" in warning


def test_a_run_of_ours_in_its_first_epoch(tmp_path: Path) -> None:
    config = {"name": "a", "folder": "x", "seed": 4, "trainer": {"max_epochs": 20}, "data": {"source": {}}}
    (tmp_path / "config.yaml").write_text(yaml.dump(config))
    write_events(tmp_path, {"lr-Adam": {0: 0.1, 50: 0.2}})
    assert only(tmp_path).status.startswith("still running: epoch 0 of 20")


def test_a_young_run_of_another_program_may_still_be_running(tmp_path: Path) -> None:
    shutil.copytree(KERAS, tmp_path / "keras", copy_function=shutil.copyfile)
    assert read_runs([tmp_path])[1] == ["keras: written to 0 s ago, so it may still be running"]
    grow_old(tmp_path)
    assert read_runs([tmp_path])[1] == []


def test_several_processes_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        our_run(tmp_path / str(seed), seed=seed)
    alone = read_runs([tmp_path])
    monkeypatch.setattr(read, "POOL", 2)
    assert read_runs([tmp_path]) == alone


def test_folders_within_each_other_count_once(tmp_path: Path) -> None:
    our_run(tmp_path / "a" / "b")
    runs, _ = read_runs([tmp_path, tmp_path / "a", tmp_path / "a" / "b"])
    assert len(runs) == 1


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^There is no run in .*: expected TensorBoard event files or a result.json"):
        read_runs([tmp_path])
    with pytest.raises(InputError, match=r"nowhere is no folder: name one that holds runs"):
        read_runs([tmp_path / "nowhere"])


def test_names_cannot_command_a_terminal(tmp_path: Path) -> None:
    our_run(tmp_path / "red\x1b[31m\nname", status="failed: \x1b]0;title\x07")
    (run,), _ = read_runs([tmp_path])
    assert (run.path, run.status) == ("red?[31m name", "failed: ?]0;title?")


def test_a_run_is_judged_by_its_last_epoch(tmp_path: Path) -> None:
    best = Epoch(2, validation={"loss": 0.02, "accuracy": 0.9950}, test={"loss": 0.02, "accuracy": 0.9960})
    our_run(tmp_path / "a", 0.9912, best=best)
    run = only(tmp_path)
    assert (run.final["validation/accuracy"], run.final["test/accuracy"], run.best) == (0.9912, 0.99, 0.9950)


def test_the_best_and_the_last_epoch_of_another_programs_run(tmp_path: Path) -> None:
    write_events(tmp_path, {"val_acc": {1: 0.7, 2: 0.9, 3: 0.8}})
    run = only(tmp_path)
    assert (run.best, run.final["validation/accuracy"]) == pytest.approx((0.9, 0.8))
