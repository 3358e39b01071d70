"""The published results: their recipes, the runs in results/, and the tables written from them.

`python -m parsimony.published` (make results) writes the tables into README.md and the docs, the cards in docs/cards/,
the pictures of docs/records.md and what to expect into the header of each recipe.
"""

import json
import shlex
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from parsimony.config import CONF
from parsimony.noise import TEST_IMAGES, of_one_more_run
from parsimony.runs import PROJECT, Result, replace_file

RESULTS = PROJECT / "results"
README, PAGE, CARDS = PROJECT / "README.md", PROJECT / "docs" / "results.md", PROJECT / "docs" / "cards"
RECORDS = PROJECT / "docs" / "records.md"
SWEEPS, EXAMPLE = PROJECT / "docs" / "sweeps.md", RESULTS / "sweeps" / "mnist_narrow"  # a page, and the sweep it shows
BEGIN, END = "<!-- begin: generated -->", "<!-- end -->"

# What defines a recipe. All else (folders, loggers, threads) may change without making its results stale.
RECIPE = (
    *("model", "augment", "optimizer", "scheduler", "label_smoothing", "distillation", "trainer.max_epochs"),
    "callbacks.ema.decay",
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
    def command(self) -> str:
        return shlex.join(["python", "train.py", f"experiment={self.experiment}", *self.overrides, "seed=0"])

    def accuracies(self, at: str = "final") -> list[float]:
        """Each run's test accuracy in %, at its `final` epoch or at its `best` on the test set."""
        return [100 * getattr(run, at).test["accuracy"] for run in self.runs]

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
        noise = of_one_more_run([accuracy / 100 for accuracy in self.accuracies()], images)
        if lead and abs(lead) <= 100 * noise:
            verdict += ", within noise"
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
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"experiment={experiment}", *overrides])


def changes(run: Result, row: Row) -> list[str]:
    """The keys in which `run` differs from the row's recipe as it is now.

    The precision is one of them where the recipe does not leave it to the hardware.
    """
    config = current_config(row.experiment, row.overrides)
    now, then = recipe(config), recipe(run.config)
    precision = [] if config.engine.precision in ("auto", run.precision) else ["engine.precision"]
    return [key for key in RECIPE if now[key] != then[key]] + precision


def short_table(rows: Iterable[Row]) -> str:
    """For README.md."""
    lines = [
        "| network | data | parameters | epochs | reported | ours: mean ± sd (runs) | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        facts = [*_facts(row), str(row.runs[0].epochs)] if row.runs else ["-"] * 3
        ours = [spread(row.accuracies()), row.verdict] if row.runs else ["not run yet", ""]
        lines.append(_line(f"`{row.network}`", *facts, _percent(row.reported), *ours))
    return "\n".join(lines)


def full_table(rows: Iterable[Row]) -> str:
    """For docs/results.md."""
    lines = [
        "| network | data | parameters | MACs | epochs | batch | reported | ours: mean ± sd (runs) | verdict "
        "| each run, by seed | best epoch on the test set | seconds an epoch | machine, precision |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|---|--:|--:|---|",
    ]
    for row in rows:
        if not row.runs:
            lines.append(_line(f"`{row.network}`", *["-"] * 5, _percent(row.reported), "not run yet", *["-"] * 5))
            continue
        run = row.runs[0]
        machines: dict[str, list[float]] = {}  # and the seconds an epoch of each run there
        for each in row.runs:
            machines.setdefault(f"{each.device}, {_threads(each)}, {each.precision}", []).append(each.seconds["epoch"])
        lines.append(
            _line(
                f"`{row.network}`",
                *_facts(row),
                f"{run.macs:,}",
                str(run.epochs),
                str(run.config["data"]["batch_size"]),
                _percent(row.reported),
                spread(row.accuracies()),
                row.verdict or "-",
                " ".join(f"{accuracy:.2f}" for accuracy in row.accuracies()),
                spread(row.accuracies("best")),
                " and ".join(f"{statistics.median(seconds):.0f}" for seconds in machines.values()),
                " and ".join(machines),
            )
        )
    return "\n".join(lines)


def keras_table(rows: Iterable[Row], results: Path = RESULTS) -> str:
    """The recipes trained in Keras itself by benchmarks/keras_training.py, beside ours: a line for each length."""
    lines = [
        "| network | after epoch | in Keras: mean ± sd (runs) | ours: mean ± sd (runs) | each run in Keras, by seed |",
        "|---|--:|--:|--:|---|",
    ]
    for row in rows:
        keras = [json.loads(path.read_text()) for path in sorted((results / "keras" / row.network).glob("seed-*.json"))]
        for epochs in sorted({len(run["test_accuracy"]) for run in keras}) if row.runs else []:
            theirs = [100 * run["test_accuracy"][epochs - 1] for run in keras if len(run["test_accuracy"]) >= epochs]
            ours = [100 * run.history[epochs - 1]["watched_test/accuracy"] for run in row.runs]
            each = " ".join(f"{accuracy:.2f}" for accuracy in theirs)
            lines.append(_line(f"`{row.network}`", str(epochs), spread(theirs), spread(ours), each))
    return "\n".join(lines) if len(lines) > 2 else "Not run yet."


def notes(rows: Iterable[Row]) -> str:
    """Where each figure comes from and what to know of it, with the command that trains it."""
    lines = []
    for row in rows:
        parts = [row.source[:1].upper() + row.source[1:] + "." if row.source else "", row.note]
        lines += [f"- `{row.network}`: {' '.join(filter(None, parts))}  ", f"  `{row.command}`"]
    return "\n".join(lines)


def sweep_table(folder: Path) -> str:
    """A sweep's report in short: which setting wins, what went on after it broke off, a line a run."""
    from parsimony.report.read import read_runs as read_reported  # TensorBoard's reader, which the others do without
    from parsimony.report.settings import group, verdicts
    from parsimony.report.table import as_markdown

    runs, warnings = read_reported([folder])
    settings = group(runs, warnings)
    assert not warnings, warnings
    broken = {path.parent.name: Result.read(path).resumed for path in sorted(folder.glob("*/result.json"))}
    told = [f"`{name}` after epoch {epochs[0]}" for name, epochs in broken.items() if epochs]
    went_on = f"Went on from its checkpoint: {', '.join(told)}." if told else ""
    return "\n\n".join(filter(None, [" ".join(verdicts(settings)), went_on, as_markdown(settings)]))


def filled(text: str, *tables: str) -> str:
    """`text` with its tables, in order, written anew."""
    parts = text.split(BEGIN)
    assert len(parts) == len(tables) + 1, "a table and its place in the text belong together"
    rest = (f"{BEGIN}\n{table}\n{END}{part.partition(END)[2]}" for table, part in zip(tables, parts[1:], strict=True))
    return "".join([parts[0], *rest])


def pages(results: Path = RESULTS) -> dict[Path, str]:
    """Each file that tells of published results, as it should read: pages, model cards, the recipes' headers."""
    from parsimony.cards import card  # these build on the rows
    from parsimony.records import TIME, ablation_rows, ablation_table, record_rows, record_table, time_table

    found, records = rows(results), record_rows(results)
    return {
        README: filled(README.read_text(), short_table(found)),
        PAGE: filled(PAGE.read_text(), full_table(found), keras_table(found, results), notes(found)),
        **{CARDS / f"{row.network}.md": card(row) for row in found if row.runs},
        **{CONF / "experiment" / f"{row.experiment}.yaml": header(row) for row in (*found, *records)},
        SWEEPS: filled(SWEEPS.read_text(), sweep_table(EXAMPLE)),
        RECORDS: filled(
            RECORDS.read_text(),
            record_table(records),
            time_table(results / TIME.name),
            ablation_table(records, ablation_rows(results)),
        ),
    }


def header(row: Row) -> str:
    """The recipe's file with what to expect at the end of the line that gives its command."""
    lines = (CONF / "experiment" / f"{row.experiment}.yaml").read_text().splitlines(keepends=True)
    line = next(i for i, line in enumerate(lines) if line.startswith("# python train.py "))
    ours = f"; ours {spread(row.accuracies())}{_minutes(row)}" if row.runs else ""
    lines[line] = f"{lines[line].rstrip().partition('; ours ')[0]}{ours}\n"
    return "".join(lines)


def _minutes(row: Row) -> str:
    """Of training, from the fastest run to the slowest, where each was on one core."""
    if any(run.threads != 1 or "cores" not in run.device for run in row.runs):
        return ""
    minutes = sorted(max(1, round(run.epochs * run.seconds["epoch"] / 60)) for run in row.runs)
    shown = f"{minutes[0]}" if minutes[0] == minutes[-1] else f"{minutes[0]} to {minutes[-1]}"
    return f" in {shown} min on one core"


def write(texts: dict[Path, str], cards: Path = CARDS) -> None:
    """Writes each page, and removes the cards in `cards` that are none of them: their results are gone."""
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text)
    for card in set(cards.glob("*.md")) - texts.keys():
        card.unlink()


def draw_pictures() -> None:
    from parsimony.records import ablation_rows, record_rows, save_pareto

    found = [*rows(), *record_rows(), *ablation_rows()]
    for task in ("mnist", "cifar"):
        save_pareto(task, found, PROJECT / "docs" / "images" / f"pareto_{task}.svg")


def _facts(row: Row) -> list[str]:
    names = sorted({run.data["name"] for run in row.runs})
    return [" and ".join(names), f"{row.runs[0].parameters['total']:,}"]


def spread(accuracies: list[float]) -> str:
    """Mean, standard deviation and n, of percentages."""
    mean = f"{statistics.mean(accuracies):.2f}"
    if len(accuracies) == 1:
        return f"{mean} % (n=1)"
    return f"{mean} ± {statistics.stdev(accuracies):.2f} % (n={len(accuracies)})"


def _percent(reported: float | None) -> str:
    return "-" if reported is None else f"{reported:.2f} %"


def _threads(run: Result) -> str:
    return f"{run.threads} thread{'' if run.threads == 1 else 's'}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    write(pages())
    draw_pictures()
