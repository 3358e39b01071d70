"""What the tests of whole runs share: one thread, configs composed as a command composes them, made-up data."""

import gzip
import importlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from parsimony import pictures

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: processes that share a machine get in each other's way
os.environ.setdefault("RUN_ID", "test")

import numpy as np
import pytest
import torch
from damage import CIFAR_NAMES, idx
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from tensorboard.summary.writer import event_file_writer

from parsimony.config import CONF
from parsimony.native.library import Unavailable, library

# Event files are read in the order of their names, which end in this count: .10 would come before .9.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts in a shell's background ignores Ctrl-C
torch.set_num_threads(1)
with suppress(Unavailable):
    library()  # compiled now, so that no test waits for it


@pytest.fixture(autouse=True)
def own_errors() -> Iterator[None]:
    """What a command sets, to end in a sentence, does not outlast its test: the commands of later ones inherit it."""
    names = ("HYDRA_FULL_ERROR", "PARSIMONY_ONE_SENTENCE")
    before = {name: os.environ[name] for name in names if name in os.environ}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture
def drawn_confusion(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What is given as the true labels of each confusion matrix that is drawn."""
    found, draw = [], pictures.confusion_matrix
    monkeypatch.setattr(pictures, "confusion_matrix", lambda labels, *rest: found.append(labels) or draw(labels, *rest))
    return found


@pytest.fixture
def powerless() -> Iterator[None]:
    """root may write anywhere: be nobody during the test."""
    if os.geteuid() != 0:
        yield
        return
    importlib.import_module("filelock")  # while still root, who alone may be able to read it
    os.seteuid(65534)
    yield
    os.seteuid(0)


# Runs of an earlier record's recipe that are an ablation of the present one, and the name they were trained under.
EARLIER = {
    "ablation/mnist_15k/mnist_squeeze": "record/mnist_15k",
    "ablation/mnist_15k/mnist_squeeze_by_adamw": "ablation/mnist_15k/adamw",
}
RECORDS = 20  # images in each of the made-up CIFAR files


def compose_run(folder: Path, *overrides: str) -> DictConfig:
    """The config that `python train.py OVERRIDES` hands to main(), with its run in `folder`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.hydra.mode = RunMode.RUN
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    OmegaConf.resolve(cfg)  # now: the next call changes what ${hydra:...} means
    return cfg


def group_options(group: str) -> Sequence[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="session")
def made_up_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data.root with small files of noise in the shapes of MNIST, Fashion-MNIST and, RECORDS a file, CIFAR-10."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("mnist", "fashion_mnist"):
        (root / name).mkdir()
        for split, count in (("train", 100), ("t10k", 20)):
            images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
            labels = np.arange(count, dtype=np.uint8) % 10
            (root / name / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
            (root / name / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    (root / "cifar-10-batches-bin").mkdir()
    for name in CIFAR_NAMES:
        rows = rng.integers(256, size=(RECORDS, 1 + 3072), dtype=np.uint8)
        rows[:, 0] = np.arange(RECORDS) % 10
        (root / "cifar-10-batches-bin" / name).write_bytes(rows.tobytes())
    return root
