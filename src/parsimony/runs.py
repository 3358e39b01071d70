"""A run's folder: config.yaml, result.json, checkpoints/, event files. Writing it and reading it back."""

import json
import math
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from parsimony.config import all_printable
from parsimony.errors import InputError
from parsimony.interrupts import remove_made

PROJECT = Path(__file__).resolve().parents[2]
VERSIONS = ("torch", "pytorch-lightning", "hydra-core", "parsimony")

Scores = dict[str, float] | None  # {"loss": ..., "accuracy": ...}; accuracy from 0 to 1


@dataclass
class Epoch:
    """The scores after one epoch's training; `epoch` counts from 1."""

    epoch: int
    train: Scores = None
    validation: Scores = None
    test: Scores = None


@dataclass
class Result:
    """What result.json holds: the contract between a run and every table. Times are in seconds."""

    name: str
    overrides: list[str]
    seed: int
    status: str = "failed: it ended before it trained"  # or completed, interrupted, failed: why
    epochs: int = 0
    resumed: list[int] = field(default_factory=list)  # the epochs after which it broke off and went on
    parameters: dict[str, int] = field(default_factory=dict)  # total, trainable, non_trainable
    macs: int | None = None
    validation: str | None = None  # what each epoch was scored on: validation split, or test set (watched each epoch)
    final: Epoch | None = None
    best: Epoch | None = None  # the epoch of the best checkpoint, by validation accuracy unless said otherwise
    seconds: dict[str, float] = field(default_factory=dict)  # fit, epoch (median)
    images_per_second: float | None = None
    device: str = ""
    threads: int | None = None
    precision: str = ""
    layers: str | None = None  # native, fast or torch (conf/engine); not known of runs before there was a choice
    teacher: dict[str, Any] | None = None  # distilled from: name, seed, parameters, test_accuracy, sha256 of checkpoint
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    data: dict[str, Any] = field(default_factory=dict)  # name, publisher (its files, byte for byte?), sha256
    history: list[dict[str, float]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    folder: str = ""

    @property
    def best_validation_accuracy(self) -> float | None:
        """None without a validation split: nothing may be chosen on the test set."""
        if self.best is None or self.best.validation is None:
            return None
        return self.best.validation["accuracy"]

    def write(self, folder: Path) -> None:
        """result.json in `folder`, whole or not at all."""
        content = asdict(self)
        del content["folder"]  # it may move
        replace_file(folder / "result.json", json.dumps(_strict(content), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Raises FileNotFoundError, and InputError for what no run wrote."""
        try:
            content = all_printable(json.loads(path.read_text()))
            for name in ("final", "best"):
                content[name] = Epoch(**content[name]) if content[name] else None
            return cls(**content, folder=str(path.parent))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # RecursionError: [[[[...
            raise InputError(f"{path} is damaged or no result of a run.") from error

    def table(self) -> str:
        """For the terminal: a row a split, at the final epoch and at the best one."""
        best = "best validation" if self.best_validation_accuracy is not None else "best on the test set"
        columns = [("final", self.final), (best, self.best)]
        shown = [(f"{label}, epoch {epoch.epoch}", epoch) for label, epoch in columns if epoch]
        width = max(26, *(len(label) + 2 for label, _ in shown))
        lines = [" " * 12 + "".join(f"{label:>{width}}" for label, _ in shown)]
        for split in ("train", "validation", "test"):
            scores = [getattr(epoch, split) for _, epoch in shown]
            if any(scores):
                lines.append(f"{split:<12}" + "".join(f"{_shown(score):>{width}}" for score in scores))
        title = f"{self.name} on {self.data['name']}, seed {self.seed}: {self.status}"
        planned = self.config.get("trainer", {}).get("max_epochs", self.epochs)
        epochs = f"{self.epochs} of {planned} epochs" if self.epochs < planned else counted(self.epochs, "epoch")
        pace = f"{self.parameters['total']:,} parameters; {epochs} in {self.seconds['fit']:.0f} s"
        if self.images_per_second:
            pace += f", {self.images_per_second:,.0f} images/s"
        return "\n".join([title, *lines, f"{pace}, on {self.device}"])


def finished(folder: Path) -> Result | None:
    """The result of the run in `folder`, if it has come to its end."""
    try:
        result = Result.read(folder / "result.json")
    except (FileNotFoundError, InputError):  # damaged: its last checkpoint is tested once more
        return None
    return result if result.status == "completed" else None


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def curves(folder: Path) -> str:
    """The end of a line: the command that shows the curves of the runs in `folder`; "" where there are none to see."""
    if not any(folder.rglob("events.out.tfevents.*")):
        return ""
    return f"; to see the curves: tensorboard --logdir {shlex.quote(str(folder))}"


def portable(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """`config` with `${folder}` in the place of the run's folder, which may move and is of no use elsewhere."""

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: moved(value) for key, value in node.items()}
        if isinstance(node, list):
            return [moved(value) for value in node]
        return "${folder}" + node.removeprefix(folder) if inside(node, folder) else node

    return {**moved(config), "folder": None}


def inside(value: Any, folder: str) -> bool:
    """Whether `value` is the path of `folder` or of something in it."""
    return isinstance(value, str) and (value == folder or value.startswith(f"{folder}/"))


def _strict(node: Any) -> Any:
    """What JSON has no number for becomes null."""
    if isinstance(node, dict):
        return {key: _strict(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_strict(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def _shown(scores: Scores) -> str:
    return f"{100 * scores['accuracy']:.2f} %  loss {scores['loss']:.4f}" if scores else "-"


@contextmanager
def refusal_recorded(cfg: DictConfig) -> Iterator[None]:
    """A run refused for bad input leaves nothing behind; in a sweep it leaves a result.json that says why."""
    try:
        yield
    except InputError as error:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            overrides = list(HydraConfig.get().overrides.task)
            seed = cfg.seed if isinstance(cfg.seed, int) else 0  # what is refused may be the seed
            Result(str(cfg.name), overrides, seed, status=f"failed: {error}").write(folder)
        else:
            remove_made()
        raise
    except KeyboardInterrupt:
        remove_made()
        raise


def replace_file(path: Path, text: str) -> None:
    """Writes beside `path` and renames, so that a reader sees the old file or the new one, never half of one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # of a full disk Python does not tell the path
    finally:
        beside.unlink(missing_ok=True)  # a full disk leaves it there, empty


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def commit() -> tuple[str | None, bool | None]:
    """The project's git commit and whether its files differ from it; (None, None) outside a checkout."""
    if (top := _git("rev-parse", "--show-toplevel")) is None or Path(top) != PROJECT.resolve():
        return None, None
    head, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return head, None if status is None else bool(status)


def cpu_name() -> str:
    """The processor's model and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def cores() -> list[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
