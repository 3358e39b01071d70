"""The contenders in PyTorch: `ours`, also in one precision, a `bare` loop with our engine, and the `stock` way."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from worker import EPOCHS, Turns

from parsimony.config import composed
from parsimony.data.sources import ImageSet, Split
from parsimony.targets import build
from parsimony.training import train


class Saved:
    """A source of the images that bench.py saved in `folder`."""

    def __init__(self, folder: str) -> None:
        images, labels = (torch.from_numpy(np.load(Path(folder) / f"{name}.npy")) for name in ("images", "labels"))
        self.name, self.classes, self.shape = "bench", tuple("0123456789"), tuple(images.shape[1:])
        self.images = ImageSet(self.name, self.classes, Split(images, labels), Split(images[:1], labels[:1]), {}, False)

    def download(self) -> None:
        """They are there."""

    def load(self) -> ImageSet:
        return self.images


class Slices(pl.Callback):
    """Waits for the parent before every epoch. Needs a module that keeps a history with each epoch's seconds."""

    turns: Turns

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.history:
            self.turns.next(seconds=pl_module.history[-1]["seconds"])
        else:
            self.turns.next(precision="bfloat16" if "bf16" in str(trainer.precision) else "float32")


def config(network: str, batch: int, folder: Path, threads: int | None, callback: str) -> DictConfig:
    """That of `python train.py model=NETWORK`, on the saved images, unaugmented, with one more callback."""
    overrides = [
        *(f"model={network}", f"name={network}", f"folder={folder}", f"data.batch_size={batch}"),
        *("data.validation=0", "augment=none", "trainer=cpu", f"trainer.max_epochs={EPOCHS}"),
        f"engine.threads={threads or 'null'}",
        "allow_targets=[torch_ways,__main__]",
        f"+callbacks.bench._target_={callback}",
    ]
    cfg = composed(overrides)
    cfg.data.source = {"_target_": "torch_ways.Saved", "folder": str(folder)}
    return cfg


def ours(task: dict[str, Any], turns: Turns) -> None:
    """What `python train.py` runs."""
    Slices.turns = turns
    train(_config(task))


def float32(task: dict[str, Any], turns: Turns) -> None:
    """`ours` in float32 throughout."""
    ours(task | {"precision": "32-true"}, turns)


def bfloat16(task: dict[str, Any], turns: Turns) -> None:
    """`ours` with products in bfloat16."""
    ours(task | {"precision": "bf16-mixed"}, turns)


def bare(task: dict[str, Any], turns: Turns) -> None:
    """The shortest loop that trains the same network with the same engine."""
    cfg = _config(task)
    engine = build(cfg.engine)
    engine.start()
    net = engine.prepare(build(cfg.model), engine.layers_on(on_gpu=False)).train()
    optimizer = torch.optim.Adam(net.parameters(), eps=1e-7, fused=True)
    bf16 = "bf16" in engine.lightning_precision(on_gpu=False)
    split = Saved(task["folder"]).images.train
    message: dict[str, Any] = {"precision": "bfloat16" if bf16 else "float32"}
    while True:
        turns.next(**message)
        started = time.perf_counter()
        for index in torch.randperm(len(split.labels)).split(task["batch"]):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = cross_entropy(net(split.images[index].float().div_(255)), split.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        message = {"seconds": time.perf_counter() - started}


def stock(task: dict[str, Any], turns: Turns) -> None:
    """PyTorch and Lightning as their tutorials have them: images one by one, float32, NCHW, metrics every step."""
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    Slices.turns = turns
    loader = DataLoader(_OneByOne(Saved(task["folder"]).images.train), task["batch"], shuffle=True, num_workers=0)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, callbacks=[Slices()], enable_progress_bar=False, default_root_dir=task["folder"]
    )
    trainer.fit(_Stock(build(_config(task).model)), loader)


class _OneByOne(Dataset[tuple[Tensor, int]]):
    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images, split.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float().div(255), self.labels[index]


class _Stock(pl.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.accuracy = MulticlassAccuracy(10, average="micro")
        self.history: list[dict[str, float]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())

    def on_train_epoch_start(self) -> None:
        self.started = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = cross_entropy(logits, labels)
        self.accuracy(logits, labels)
        self.log("loss", loss)
        self.log("accuracy", self.accuracy)
        return loss

    def on_train_epoch_end(self) -> None:
        self.history.append({"seconds": time.perf_counter() - self.started})


def _config(task: dict[str, Any]) -> DictConfig:
    cfg = config(task["network"], task["batch"], Path(task["folder"]), task["threads"], "torch_ways.Slices")
    cfg.folder = f"{task['folder']}/{task['contender']}"  # a folder has one training at a time
    cfg.engine.precision = task.get("precision", cfg.engine.precision)
    return cfg
