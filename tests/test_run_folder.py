"""What a short training leaves behind, and says."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from short_runs import QUICK, QUIET, SHORT, events, scalars, train_in
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from parsimony import runs
from parsimony.runs import Epoch, Result

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    keys = ("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "optimizer=adam", "data.batch_size=32")
    return train_in(tmp_path_factory.mktemp("finished"), *SHORT, *keys)


def test_result_json_holds_the_contract(finished: Result) -> None:
    path = Path(finished.folder) / "result.json"
    content = json.loads(path.read_text())
    assert content["name"] == "mnist_narrow"
    assert "model=mnist_narrow" in content["overrides"]
    assert (content["seed"], content["status"], content["epochs"]) == (0, "completed", 2)
    assert content["parameters"] == {"total": 5904, "trainable": 5756, "non_trainable": 148}
    assert content["macs"] == 800_896
    assert content["validation"] == "200 images of the training set"
    assert content["final"]["epoch"] == 2
    assert content["best"]["epoch"] in (1, 2)
    for epoch in (content["final"], content["best"]):
        for split in ("train", "validation", "test"):
            assert 0 <= epoch[split]["accuracy"] <= 1
            assert math.isfinite(epoch[split]["loss"])
    assert content["seconds"]["fit"] > content["seconds"]["epoch"] > 0
    assert content["images_per_second"] > 0
    assert "cores" in content["device"]
    assert content["threads"] == 1
    assert content["precision"] in ("32-true", "bf16-mixed")
    assert content["versions"].keys() == {"python", "torch", "pytorch-lightning", "hydra-core", "parsimony"}
    assert content["versions"]["torch"] == torch.__version__
    assert content["commit"] is None or re.fullmatch("[0-9a-f]{40}", content["commit"])
    assert content["data"]["name"] == "digits"
    assert content["data"]["publisher"] is True
    assert len(content["data"]["sha256"]["digits.npz"]) == 64
    assert content["config"]["optimizer"]["_target_"] == "torch.optim.Adam"


def test_result_json_is_read_back(finished: Result) -> None:
    assert Result.read(Path(finished.folder) / "result.json") == finished


def test_history_and_figures_agree(finished: Result) -> None:
    assert [epoch["epoch"] for epoch in finished.history] == [1, 2]
    last = finished.history[-1]
    assert finished.final.train == {"loss": last["train/loss"], "accuracy": last["train/accuracy"]}
    assert finished.final.validation == {"loss": last["val/loss"], "accuracy": last["val/accuracy"]}
    assert finished.best_validation_accuracy == max(epoch["val/accuracy"] for epoch in finished.history)


def test_the_config_is_kept_resolved_but_for_the_folder(finished: Result) -> None:
    text = (Path(finished.folder) / "config.yaml").read_text()
    assert set(re.findall(r"\$\{.*?\}", text)) == {"${folder}"}
    assert finished.folder not in text
    assert finished.config["callbacks"]["last"]["dirpath"] == "${folder}/checkpoints"
    assert OmegaConf.to_container(OmegaConf.create(text)) == finished.config


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoints_load_without_pickles(finished: Result, name: str) -> None:
    path = Path(finished.folder) / "checkpoints" / f"{name}.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["optimizer.lr"] == finished.config["optimizer"]["lr"]
    assert checkpoint["epoch"] + 1 == (finished.final if name == "last" else finished.best).epoch
    assert checkpoint["history"] == finished.history[: checkpoint["epoch"] + 1]


def test_the_folder_holds_nothing_else(finished: Result) -> None:
    names = {path.name for path in Path(finished.folder).iterdir()}
    assert {name for name in names if not name.startswith("events.")} == {
        ".lock", "checkpoints", "config.yaml", "hparams.yaml", "result.json"
    }  # fmt: skip


def test_tensorboard_scalars(finished: Result) -> None:
    found = scalars(finished)
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert found[tag] == pytest.approx([epoch[tag] for epoch in finished.history])
    assert len(found["images_per_second"]) == 2
    assert len(found["lr-Adam"]) == len(found["train/loss_step"]) == len(found["train/accuracy_step"]) == 10
    mean_of_steps = sum(found["train/loss_step"][:5]) / 5
    assert mean_of_steps == pytest.approx(found["train/loss"][0], rel=1e-5)


def test_tensorboard_text_and_images(finished: Result) -> None:
    found = events(finished)
    (layers,) = (found.Tensors(tag)[0] for tag in found.Tags()["tensors"] if tag.startswith("layers"))
    assert b"Total params: 5,904" in layers.tensor_proto.string_val[0]
    images = {tag: found.Images(tag)[0] for tag in found.Tags()["images"]}
    assert images.keys() == {"first_batch", "confusion_matrix", "worst_mistakes"}
    assert images["first_batch"].width == 8 * 29


def test_tensorboard_hparams_come_with_the_final_metrics(finished: Result) -> None:
    found = events(finished)
    plugin = found.SummaryMetadata("_hparams_/session_start_info").plugin_data
    hparams = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert hparams["lr"].number_value == finished.config["optimizer"]["lr"]
    assert hparams["dropout"].number_value == finished.config["model"]["dropout"]
    assert hparams["model"].string_value == "mnist_narrow"
    assert sorted(hparams)[:5] == ["batch_size", "dropout", "epochs", "label_smoothing", "lr"]  # those that it shows
    for split in ("train", "validation", "test"):
        scores = getattr(finished.final, split)
        assert found.Scalars(f"final/accuracy_{split}")[-1].value == pytest.approx(scores["accuracy"])


def test_without_a_terminal_an_epoch_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train_in(tmp_path / "a run", *QUICK, "trainer.max_epochs=2")
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert f"val/accuracy {result.history[0]['val/accuracy']:.4f}" in lines[0]
    assert "Total params: 5,904" in captured.out
    assert result.table() in captured.out
    assert f"tensorboard --logdir '{result.folder}'" in captured.out
    assert "it/s" not in captured.out + captured.err


def test_the_table_shows_final_and_best() -> None:
    epoch = {"loss": 0.5, "accuracy": 0.75}
    result = Result("net", [], 3, "completed", epochs=2, parameters={"total": 1234}, data={"name": "digits"})
    result.seconds = {"fit": 60.0}
    result.final = Epoch(2, train=epoch, validation=epoch, test=epoch)
    result.best = Epoch(1, train=epoch, validation={"loss": 0.25, "accuracy": 0.875})
    title, head, *rows, foot = result.table().splitlines()  # rows: train, validation, test
    assert title == "net on digits, seed 3: completed"
    assert head.split("  ")[-1] == "best validation, epoch 1"
    assert rows[1].split() == ["validation", "75.00", "%", "loss", "0.5000", "87.50", "%", "loss", "0.2500"]
    assert rows[2].split()[-1] == "-"
    assert foot.startswith("1,234 parameters; 2 epochs in 60 s")


@pytest.mark.parametrize(("change", "dirty"), [(None, False), ("new.txt", False), ("kept.txt", True)])
def test_the_commit_and_whether_files_differ(change: str | None, dirty: bool, tmp_path: Path, monkeypatch) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.setattr(runs, "PROJECT", tmp_path)
    assert runs.commit() == (None, None)
    git("init", "-q")
    (tmp_path / "kept.txt").touch()
    git("add", ".")
    git("commit", "-q", "-m", "first")
    if change:
        (tmp_path / change).write_text("changed")
    assert runs.commit() == (git("rev-parse", "HEAD").strip(), dirty)
    monkeypatch.setattr(runs, "PROJECT", tmp_path / "within")
    (tmp_path / "within").mkdir()
    assert runs.commit() == (None, None)  # another project's
