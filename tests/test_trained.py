"""Networks read back from their runs' folders."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RECORDS, compose_run
from omegaconf import OmegaConf
from short_runs import QUICK, QUIET, train_in

from parsimony.data.sources import Digits
from parsimony.errors import InputError
from parsimony.resume import may_download
from parsimony.runs import Result
from parsimony.trained import load

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """In float32, as the network answers later: in bfloat16 an image at the edge of two classes may change sides."""
    keys = ("trainer.max_epochs=2", "engine.precision=32-true")
    return train_in(tmp_path_factory.mktemp("trained") / "run", *QUICK, *keys)


@pytest.fixture
def folder(finished: Result, tmp_path: Path) -> Path:
    """A copy, elsewhere."""
    return Path(shutil.copytree(finished.folder, tmp_path / "moved"))


def test_it_answers_as_it_did_in_the_final_test(folder: Path, finished: Result) -> None:
    trained = load(folder)
    test = Digits().load().test
    with torch.no_grad():
        logits = trained.logits(test.images)
    assert (logits.argmax(1) == test.labels).float().mean().item() == pytest.approx(finished.final.test["accuracy"])
    assert (trained.name, trained.shape, trained.classes) == ("mnist_narrow", (1, 28, 28), tuple("0123456789"))
    assert trained.history == finished.history
    assert not trained.net.training


def test_the_initial_network_is_the_one_that_training_began_with(tmp_path: Path) -> None:
    """A step at a learning rate that no weight notices leaves them as they were."""
    keys = ("seed=7", "optimizer=sgd", "optimizer.lr=1e-30", "optimizer.weight_decay=0", "scheduler=constant")
    trained = load(Path(train_in(tmp_path / "run", *QUICK, *keys).folder))
    before = torch.get_rng_state()
    initial = trained.initial()
    assert torch.equal(torch.get_rng_state(), before)
    assert not initial.training
    for (name, kept), drawn in zip(trained.net.named_parameters(), initial.parameters(), strict=True):
        assert torch.allclose(kept, drawn, rtol=0, atol=1e-25), name  # the zeros among them do notice


def test_it_is_read_without_lightning(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from parsimony.trained import load; load(Path(sys.argv[1])).initial()"
    code += "; print('pytorch_lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_its_data_are_those_it_was_trained_on(folder: Path) -> None:
    data = load(folder).data()
    data.setup()
    assert len(data.watched.labels) == 200


@pytest.mark.parametrize("network", ["mnist_narrow", "cifar_sep"])
def test_a_data_set_in_files_is_found_again(network: str, made_up_data: Path, tmp_path: Path) -> None:
    """Its config has a folder of its own, which the run's must not be taken for."""
    short = ("trainer=cpu", "trainer.max_epochs=1", "data.validation=10", "data.batch_size=20", "~callbacks.pictures")
    records = (f"+data.source.records={RECORDS}",) if network == "cifar_sep" else ()
    result = train_in(tmp_path / "run", f"model={network}", f"data.root={made_up_data}", *short, *records)
    data = load(Path(result.folder)).data()
    data.setup()
    assert data.images is not None
    assert data.images.sha256 == result.data["sha256"]


def test_files_that_a_strangers_config_names_are_not_downloaded(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("parsimony.data.sources.fetch", lambda *_: pytest.fail("it downloads"))
    config = OmegaConf.load(folder / "config.yaml")
    source = {"_target_": "parsimony.data.sources.Idx", "name": "theirs", "root": str(tmp_path / "home"), "folder": ""}
    files = {".profile": None, "a": None, "b": None, "c": None}
    config.data.source = {**source, "mirrors": ["http://127.0.0.1"], "files": files, "shape": [1, 28, 28]}
    config.data.source.classes = [*"0123456789"]
    OmegaConf.save(config, folder / "config.yaml")
    data = load(folder).data()
    data.prepare_data()
    with pytest.raises(InputError, match=r"Nothing was downloaded, .* data\.source is in no file of conf/data"):
        data.setup()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "digits"])
def test_what_conf_names_is_downloaded(name: str, tmp_path: Path) -> None:
    config = OmegaConf.to_container(compose_run(tmp_path, f"data={name}", "data.root=elsewhere"), resolve=True)
    assert may_download(config)
    assert not may_download({**config, "data": {**config["data"], "download": False}})


def test_names_hold_nothing_that_a_terminal_would_obey(folder: Path) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config.name = "a\x1b]0;owned\x07b"
    OmegaConf.save(config, folder / "config.yaml")
    assert load(folder).name == "a?]0;owned?b"
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**content, "device": "a CPU\x9b\nof 2\ud800"}))
    assert Result.read(folder / "result.json").device == "a CPU? of 2?"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 1, 28, 28), 255.0), r"Images as floats lie in \[0, 1\]: divide by 255"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.int64), r"Images are uint8 or floats in \[0, 1\], not torch.int64"),
        (torch.zeros(1, 28, 28), r"mnist_narrow takes a tensor of images, n x 1 x 28 x 28, not \(1, 28, 28\)"),
        (torch.zeros(2, 1, 8, 8), r"n x 1 x 28 x 28, not \(2, 1, 8, 8\)"),
        (torch.zeros(2, 1, 28, 28).numpy(), "n x 1 x 28 x 28, not ndarray"),
    ],
)
def test_what_are_no_images(images: Any, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(folder).logits(images)


def test_what_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty is no run's folder: it has no config.yaml"):
        load(tmp_path / "empty")
    with pytest.raises(InputError, match=r"Runs lie in it: name one, such as .*moved"):
        load(folder.parent)
    with pytest.raises(InputError, match=r"result.json is a file: name the folder of its run"):
        load(folder / "result.json")
    with pytest.raises(InputError, match=r"A run keeps last.ckpt and best.ckpt, not first.ckpt"):
        load(folder, "first.ckpt")
    config = OmegaConf.load(folder / "config.yaml")
    config.model._target_ = "parsimony.nets.mnist.mnist_sep"
    del config.model["dropout"], config.model["dropout_7x7"]
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(InputError, match=r"last.ckpt is of another network than .*config.yaml describes"):
        load(folder)
    config.model._target_ = "os.system"
    OmegaConf.save(config, folder / "config.yaml")
    with pytest.raises(InputError, match=r"would run os.system"):
        load(folder)
