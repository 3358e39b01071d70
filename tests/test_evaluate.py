"""`parsimony evaluate` and `parsimony summary` on a trained run, and what all commands answer to a wrong folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from example_run import EXAMPLE, copied, typed
from omegaconf import OmegaConf
from PIL import Image
from trained_runs import untrained_run

from parsimony.data.sources import Digits
from parsimony.runs import Result
from parsimony.trained import load
from parsimony.use.views import probabilities


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied(tmp_path / "run")


@pytest.fixture
def parsimony(monkeypatch: pytest.MonkeyPatch):
    return lambda *words: typed(monkeypatch, *words)


def scores(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["evaluate", "explain"])
def test_data_are_found_from_another_working_directory(
    command: str, made_up_data: Path, tmp_path: Path, parsimony, monkeypatch
) -> None:
    monkeypatch.chdir(made_up_data.parent)
    keys = ("data=mnist", "data.validation=20", f"data.root={made_up_data.name}")
    run = untrained_run(tmp_path / "run", *keys, "model=mnist_narrow")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert parsimony(command, run, "--data-root", made_up_data) == 0
    assert list(Path().iterdir()) == []


def test_it_finds_what_the_run_itself_found(folder: Path, parsimony, capsys) -> None:
    assert parsimony("evaluate", folder, "--json") == 0
    found, then = scores(capsys), Result.read(EXAMPLE / "result.json").final.test
    assert found["accuracy"] == pytest.approx(then["accuracy"])
    assert found["loss"] == pytest.approx(then["loss"], rel=1e-4)
    assert (found["data"], found["images"], found["weights"]) == ("digits/test", 360, "final weights, of epoch 20")
    assert found["interval"][0] < found["accuracy"] < found["interval"][1]
    labels = Digits().load().test.labels
    assert [sum(row) for row in found["confusion"]] == labels.bincount().tolist()
    assert [score["images"] for score in found["classes"]] == labels.bincount().tolist()
    assert sum(found["confusion"][i][i] for i in range(10)) == round(360 * found["accuracy"])


def test_its_text_and_its_files(folder: Path, parsimony, capsys) -> None:
    assert parsimony("evaluate", folder) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "mnist_narrow, final weights, of epoch 20"
    for part in ("95 % interval", "calibration error", "precision", "confusion matrix"):
        assert part in out
    written = folder / "evaluation" / "digits-test"
    assert sorted(path.name for path in written.iterdir()) == ["confusion.png", "evaluation.json", "mistakes.png"]
    for picture in written.glob("*.png"):
        with Image.open(picture) as image:
            assert image.size > (300, 300)
    assert json.loads((written / "evaluation.json").read_text())["images"] == 360


def test_other_splits_and_views(folder: Path, parsimony, capsys, tmp_path: Path) -> None:
    found = {}
    for data in ("train", "validation", "digits/test"):
        assert parsimony("evaluate", folder, "--data", data, "--json", "--out", tmp_path / "out") == 0
        found[data] = scores(capsys)
    assert [entry["images"] for entry in found.values()] == [1237, 200, 360]
    final = Result.read(EXAMPLE / "result.json").final
    assert found["validation"]["accuracy"] == pytest.approx(final.validation["accuracy"])
    assert parsimony("evaluate", folder, "--tta", "--json", "--out", tmp_path / "out") == 0
    averaged, test, trained = scores(capsys), Digits().load().test, load(folder)
    answers = probabilities(trained.logits, test.images, averaged=True).argmax(1)
    assert averaged["accuracy"] == pytest.approx((answers == test.labels).float().mean().item())
    assert averaged["views"].startswith("5 views")
    assert averaged["loss"] != found["digits/test"]["loss"]


def test_the_best_weights(folder: Path, parsimony, capsys) -> None:
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    zeros = {name: value * 0 if name.startswith("net.") else value for name, value in kept["state_dict"].items()}
    torch.save({**kept, "epoch": 6, "state_dict": zeros}, folder / "checkpoints" / "best.ckpt")
    assert parsimony("evaluate", folder, "--best", "--json") == 0
    found = scores(capsys)
    assert found["weights"] == "best weights on validation, of epoch 7"
    assert found["accuracy"] < 0.2  # and they are those that answer
    assert (folder / "evaluation" / "digits-test-best").is_dir()


def test_a_network_without_mistakes_has_no_picture_of_them(folder: Path, parsimony, monkeypatch, capsys) -> None:
    monkeypatch.setattr("parsimony.use.evaluate.WORST", 0)
    (folder / "evaluation" / "digits-test").mkdir(parents=True)
    (folder / "evaluation" / "digits-test" / "mistakes.png").touch()  # of before
    assert parsimony("evaluate", folder) == 0
    assert not (folder / "evaluation" / "digits-test" / "mistakes.png").exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("minst", "There is no data set 'minst'; there are cifar10, digits, fashion_mnist, mnist."),
        ("digits/tset", "there is no split 'tset'; there are train, validation, test."),
        ("mnist/validation", "only the run's own data set, digits, has a validation split."),
        ("cifar10", "cifar10 has images of 3 x 32 x 32, and mnist_narrow takes 1 x 28 x 28"),
        ("fashion_mnist", "fashion_mnist's classes (T-shirt/top, "),
    ],
)
def test_data_that_do_not_fit(data: str, sentence: str, folder: Path, parsimony) -> None:
    answer = parsimony("evaluate", folder, "--data", data)
    assert str(answer).startswith("error: ")
    assert sentence in str(answer)
    assert not (folder / "evaluation").exists()


COMMANDS = [("evaluate",), ("predict", "x.png"), ("export",), ("summary",), ("card",)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_folder_that_is_no_run(command: tuple[str, ...], parsimony, tmp_path: Path) -> None:
    name, *rest = command
    (tmp_path / "empty").mkdir()
    answer = str(parsimony(name, tmp_path / "empty", *rest))
    assert answer.startswith("error: ")
    assert "no run's folder" in answer or "There is no result" in answer


@pytest.mark.parametrize("command", COMMANDS[:3], ids=lambda command: command[0])
def test_a_run_that_cannot_be_used(command: tuple[str, ...], folder: Path, parsimony) -> None:
    name, *rest = command
    assert "has no checkpoints/best.ckpt: the run ended" in str(parsimony(name, folder, *rest, "--best"))
    shutil.copy(EXAMPLE / "config.yaml", folder / "checkpoints" / "last.ckpt")
    assert "last.ckpt is damaged or no checkpoint" in str(parsimony(name, folder, *rest))
    config = OmegaConf.load(folder / "config.yaml")
    config.data.validation = 0
    OmegaConf.save(config, folder / "config.yaml")
    assert "without a validation split a run keeps only its last" in str(parsimony(name, folder, *rest, "--best"))
    config.model._target_ = "os.system"
    OmegaConf.save(config, folder / "config.yaml")
    assert "would run os.system" in str(parsimony(name, folder, *rest))
    assert "add --allow os.system" in str(parsimony(name, folder, *rest))
    (folder / "config.yaml").write_text("name: another program's\n")
    assert "config.yaml is not that of a training" in str(parsimony(name, folder, *rest))


# parsimony summary


def test_one_network_is_its_layer_table(parsimony, capsys) -> None:
    assert parsimony("summary", "model=mnist_narrow") == 0
    table = capsys.readouterr().out
    assert "Total params: 5,904" in table
    assert parsimony("summary", EXAMPLE) == 0
    assert capsys.readouterr().out == table


def test_two_networks_side_by_side(parsimony, capsys) -> None:
    assert parsimony("summary", "model=mnist_sep", "model=mnist_narrow", "model.dropout=0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mnist_sep", "mnist_narrow", "model.dropout=0"]
    first, second = lines[2].split(" | ")
    assert first.split() == ["Conv2d", "3x3,", "ReLU", "16x26x26", "160", "3", "97,344"]
    assert second.split() == ["Conv2d", "3x3,", "ReLU", "8x26x26", "72", "3", "48,672"]
    assert "Dropout 0.098" not in "\n".join(lines)
    assert lines[-3].split() == ["parameters", "13,794", "5,904", "2.34"]
    assert lines[-1].split() == ["MACs", "an", "image", "3,287,744", "800,896", "4.11"]
    assert parsimony("summary", "model=mnist_sep", "model=mnist_sep") == 0
    assert "1.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("mnist_sep",), "for the network of that name: model=mnist_sep"),
        (("model=mnist_spe",), "Did you mean mnist_sep"),
        (("model=mnist_sep", "model.drpout=0"), "Did you mean model.dropout?"),
        (("model=mnist_sep", "data=cifar10"), "cannot take 3x32x32 images"),
        (("model=a", "model=b", "model=c"), "One network, or two side by side, not 3."),
        ((EXAMPLE, "model.dropout=0"), "has its own config: leave out model.dropout=0."),
        (("~model",), "A summary needs model and data.source"),
        (("model._target_=os.system",), "would run os.system"),
    ],
)
def test_a_network_that_does_not_exist(words: tuple, sentence: str, parsimony) -> None:
    answer = str(parsimony("summary", *words))
    assert answer.startswith("error: ")
    assert sentence in answer


@pytest.mark.parametrize("part", ["augment", "data"])
def test_a_strangers_data_are_not_built(part: str, folder: Path, parsimony) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config[part]["x"] = {"_target_": "torch.os.mkdir", "path": str(folder / "proof")}
    OmegaConf.save(config, folder / "config.yaml")
    assert "would run torch.os.mkdir" in str(parsimony("evaluate", folder, "--data", "train"))
    assert not (folder / "proof").exists()


def test_another_data_sets_splits(made_up_data: Path, folder: Path, parsimony, capsys) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config.data.root = str(made_up_data)
    OmegaConf.save(config, folder / "config.yaml")
    for data, split, images in (("mnist", "test", 20), ("mnist/test", "test", 20), ("mnist/train", "train", 100)):
        assert parsimony("evaluate", folder, "--data", data, "--json") == 0
        found = scores(capsys)
        assert (found["data"], found["images"]) == (f"mnist (unverified files)/{split}", images)


def test_the_rows_of_the_picture_are_the_true_classes(drawn_confusion, parsimony, tmp_path: Path) -> None:
    assert parsimony("evaluate", EXAMPLE, "--out", tmp_path) == 0
    assert torch.equal(drawn_confusion[0], Digits().load().test.labels)
