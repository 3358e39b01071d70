"""The published recipes and their runs in results/: reproductions, records, and the records' ablations."""

import re
import shlex
import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from parsimony.config import composed
from parsimony.noise import TEST_IMAGES, of_one_more_run
from parsimony.runs import PROJECT, Result

RESULTS = PROJECT / "results"
TIME = RESULTS / "record_time.json"  # written by benchmarks/record_time.py
Records = dict[str, dict[str, Any]]

# What defines a recipe. All else (folders, loggers, threads) may change without making its results stale.
RECIPE = (
    *("model", "augment", "optimizer", "scheduler", "label_smoothing", "distillation", "trainer.max_epochs"),
    *("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.limit_train_batches"),
    *("callbacks.ema.decay", "callbacks.early_stopping"),
    *("data.source.name", "data.batch_size", "data.validation", "data.train_images", "data.augment_epochs"),
)


@dataclass(frozen=True)
class Row:
    """A published recipe and its runs. `reported` is the original's test accuracy in %, or a record's aim, if any.

    An ablation is a recipe with one `change`: `overrides` make it.
    """

    network: str
    runs: list[Result]
    seeds: int
    reported: float | None = None
    source: str = ""
    note: str = ""
    group: str = "reproduce"  # or record
    change: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def experiment(self) -> str:
        return f"{self.group}/{self.network}"

    @property
    def name(self) -> str:
        """What its runs are called, and their folder."""
        return f"ablation/{self.network}/{self.change}" if self.change else self.experiment

    @property
    def teacher(self) -> tuple[str, int] | None:
        """The experiment and the seed of the run that it learns from, if any: distillation.teacher=runs/NAME/seed-N."""
        found = re.search(r"distillation\.teacher=runs/(\S+)/seed-(\d+)", " ".join(self.overrides))
        return (found[1], int(found[2])) if found else None

    @property
    def command(self) -> str:
        return shlex.join(["python", "train.py", f"experiment={self.experiment}", *self.overrides, "seed=0"])

    def accuracies(self, at: str = "final") -> list[float]:
        """Each run's test accuracy in %, at its `final` epoch or at its `best` on the test set."""
        return [100 * getattr(run, at).test["accuracy"] for run in self.runs]

    @property
    def parameters(self) -> int:
        """All of its network, as its runs counted them."""
        return self.runs[0].parameters["total"]

    @property
    def verdict(self) -> str:
        """Our mean beside the reported figure, both as they are printed.

        An original's is of a single run, on the publisher's data: what one more run of ours may differ by from our mean
        is within noise.
        """
        if not self.runs or self.reported is None:
            return ""
        lead = round(round(statistics.mean(self.accuracies()), 2) - self.reported, 2)
        verdict = "met" if lead == 0 else f"beaten by {lead:.2f}" if lead > 0 else f"below by {-lead:.2f}"
        if self.group != "reproduce":
            return verdict
        data = self.runs[0].data
        images = TEST_IMAGES.get(data["name"].partition(" ")[0])
        noise = 100 * of_one_more_run([accuracy / 100 for accuracy in self.accuracies()], images)
        if lead and abs(lead) <= noise:
            verdict += f", within noise (± {noise:.2f})"
        return verdict if data["publisher"] else f"{verdict}, on a copy"


def rows(results: Path = RESULTS) -> list[Row]:
    """In the order of results/reported.yaml; `results` is the folder of the runs."""
    reported: Any = OmegaConf.to_container(OmegaConf.load(RESULTS / "reported.yaml"))
    return [Row(network, runs=read_runs(results / "reproduce" / network), **row) for network, row in reported.items()]


def read_runs(folder: Path) -> list[Result]:
    """Those of a recipe, by seed."""
    return sorted(map(Result.read, folder.glob("seed-*.json")), key=lambda run: run.seed)


def recipe(config: Any) -> dict[str, Any]:
    """What of a run's config defines its recipe."""
    whole = OmegaConf.create(config)
    parts = {key: OmegaConf.select(whole, key) for key in RECIPE}
    if not (parts["distillation"] or {}).get("teacher"):
        parts["distillation"] = None  # what it would weigh is no part of a recipe without a teacher
    return {
        key: OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
        for key, part in parts.items()
    }


@cache
def current_config(experiment: str, overrides: tuple[str, ...] = ()) -> DictConfig:
    """The experiment's config as it is now."""
    return composed([f"experiment={experiment}", *overrides])


def changes(run: Result, row: Row) -> list[str]:
    """The keys in which `run` differs from the row's recipe as it is now.

    The precision is one of them where the recipe does not leave it to the hardware.
    """
    config = current_config(row.experiment, row.overrides)
    now, then = recipe(config), recipe(run.config)
    precision = [] if config.engine.precision in ("auto", run.precision) else ["engine.precision"]
    return [key for key in RECIPE if now[key] != then[key]] + precision


def records() -> Records:
    """results/records.yaml: its comments say what each key is."""
    found: Any = OmegaConf.to_container(OmegaConf.load(RESULTS / "records.yaml"))
    return found


def record_rows(results: Path = RESULTS) -> list[Row]:
    return [
        Row(
            name,
            read_runs(results / "record" / name),
            record["seeds"],
            reported=record["aim"],
            source=record["budget"],
            note=record.get("note", ""),
            group="record",
        )
        for name, record in records().items()
    ]


def ablation_rows(results: Path = RESULTS) -> list[Row]:
    """Each record's recipe with one change at a time."""
    return [
        Row(
            name,
            read_runs(results / "ablation" / name / change),
            record["ablation_seeds"],
            group="record",
            change=change,
            overrides=tuple(overrides),
        )
        for name, record in records().items()
        for change, overrides in record.get("ablations", {}).items()
    ]
