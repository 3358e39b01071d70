"""The tables of README.md and the docs, in Markdown, from the rows."""

import json
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from parsimony.noise import of_mean
from parsimony.published.rows import RESULTS, Row, records
from parsimony.runs import Result


def short_table(rows: Iterable[Row]) -> str:
    """For README.md."""
    lines = [
        "| network | data | parameters | epochs | min on one core | reported | ours: mean ± sd (runs) | |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        facts = [*_facts(row), str(row.runs[0].epochs), minutes_on_one_core(row) or "-"] if row.runs else ["-"] * 4
        ours = [spread(row.accuracies()), row.verdict] if row.runs else ["not run yet", ""]
        lines.append(_line(f"`{row.network}`", *facts, _percent(row.reported), *ours))
    return "\n".join(lines)


def minutes_on_one_core(row: Row) -> str:
    """From the fastest run to the slowest, each epoch's scoring included; empty unless each was on one core.

    An epoch counts as the median one: others ran beside other work.
    """
    if any(run.threads != 1 or "cores" not in run.device for run in row.runs):
        return ""
    minutes = sorted({max(1, round(run.epochs * _epoch(run) / 60)) for run in row.runs})
    return " to ".join(map(str, minutes[:1] + minutes[1:][-1:]))


def _epoch(run: Result) -> float:
    """Seconds."""
    ends = [0.0, *(epoch["elapsed"] for epoch in run.history)]
    return statistics.median(end - begin for begin, end in pairwise(ends))


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


def record_table(rows: Sequence[Row]) -> str:
    lines = [
        "| record | within | aim | parameters (trainable) | MACs | epochs | ours: mean ± sd (runs) | | each, by seed |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        cells = [f"`{row.network}`", row.source, f"{row.reported:.2f} %"]
        if row.runs:
            run = row.runs[0]
            size = f"{run.parameters['total']:,} ({run.parameters['trainable']:,})"
            verdict = row.verdict.replace("beaten by", "exceeded by").replace("met", "reached")
            each = " ".join(f"{accuracy:.2f}" for accuracy in row.accuracies())
            cells += [size, f"{run.macs:,}", str(run.epochs), spread(row.accuracies()), verdict, each]
        else:
            cells += ["-", "-", "-", "not run yet", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def smallest(rows: Iterable[Row], at_least: float, seeds: int = 5) -> str:
    """Which MNIST network with a mean of `at_least` (%) over `seeds` or more is the smallest, in a sentence."""
    enough = [row for row in rows if len(row.runs) >= seeds and row.network.startswith("mnist")]
    reach = [row for row in enough if _mean(row) >= at_least]
    if not reach:
        return f"No network here has a mean of {at_least:.2f} % over {seeds} seeds."
    row = min(reach, key=lambda row: row.parameters)
    return (
        f"The smallest network here with a mean of at least {at_least:.2f} % of MNIST over {seeds} seeds is that of "
        f"`{row.network}`: {row.parameters:,} parameters, {spread(row.accuracies())}."
    )


def _mean(row: Row) -> float:
    """As it is printed."""
    return round(statistics.mean(row.accuracies()), 2)


def surpassed(records: Iterable[Row], rows: Iterable[Row]) -> str:
    """A line for each record whose mean another of `rows`, within its limits and over as many seeds, exceeds."""
    candidates = [row for row in rows if row.runs]
    lines = []
    for record in filter(lambda record: record.runs, records):
        first, limits = record.runs[0], record.runs[0].config["budget"]
        rivals = [
            row
            for row in candidates
            if row.runs[0].data["name"] == first.data["name"] and len(row.runs) >= record.seeds
            if row.parameters <= limits["parameters"] and row.runs[0].epochs <= limits["epochs"]
        ]
        best = max((record, *rivals), key=_mean)  # of equal ones the first
        if best is not record:
            lines.append(f"Within the limits of `{record.network}`, `{best.name}` has {spread(best.accuracies())}.")
    return "\n".join(lines)


def ablation_table(rows: Sequence[Row], ablations: Sequence[Row]) -> str:
    """What one change does to each record, in points, over the seeds that both have."""
    lines = [
        "| record | change | by | parameters | test accuracy: mean ± sd (runs) | difference, seed by seed: 95 % |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in rows:
        changed = [ablation for ablation in ablations if ablation.network == row.network and ablation.runs]
        whole = {run.seed: accuracy for run, accuracy in zip(row.runs, row.accuracies(), strict=True)}
        if changed and whole:
            lines.append(f"| `{row.network}` | none | | {row.parameters:,} | {spread([*whole.values()])} | |")
        for ablation in changed:
            found = {run.seed: accuracy for run, accuracy in zip(ablation.runs, ablation.accuracies(), strict=True)}
            both = [found[seed] - whole[seed] for seed in found.keys() & whole.keys()]
            difference = f"{round(statistics.mean(both), 2) + 0.0:+.2f}" if both else "-"
            if len(both) > 1:
                difference += f" ± {of_mean(both):.2f}"
            by = f"`{' '.join(ablation.overrides)}`"
            cells = [
                ablation.change.replace("_", " "),
                by,
                f"{ablation.parameters:,}",
                spread([*found.values()]),
                difference,
            ]
            lines.append(f"| | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not run yet."


def teachers(ablations: Iterable[Row]) -> str:
    """A line for each network that some of `ablations` learn from."""
    told = {(row.network, taught_by(run)) for row in ablations for run in row.runs if run.teacher}
    return "\n".join(f"The teacher of `{network}` is {teacher}." for network, teacher in sorted(told))


def taught_by(run: Result) -> str:
    """The network of `run.teacher`, and how its answers were weighed."""
    assert run.teacher
    told = run.config["distillation"]
    return (
        f"{run.teacher['name']}, seed {run.teacher['seed']} ({run.teacher['parameters']:,} parameters, "
        f"{100 * run.teacher['test_accuracy']:.2f} %), weight {told['weight']}, temperature {told['temperature']}"
    )


def time_table(path: Path) -> str:
    """Seconds from the command to the prompt, against the record's aim."""
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    seconds = [run["seconds"] for run in found["runs"]]
    accuracies = [100 * run["accuracy"] for run in found["runs"]]
    aim, median = records()[found["record"]]["seconds"], statistics.median(seconds)
    return "\n".join(
        [
            f"On {found['machine']}, {found['date']}, with nothing beside it:",
            "",
            "| record | median | aim | each | test accuracy: mean ± sd (runs) |",
            "|---|--:|--:|---|--:|",
            f"| `{found['record']}` | {median:.0f} s | {aim} s | {' '.join(f'{each:.0f}' for each in seconds)} "
            f"| {spread(accuracies)} |",
        ]
    )


def spread(accuracies: list[float]) -> str:
    """Mean, standard deviation and n, of percentages."""
    mean = f"{statistics.mean(accuracies):.2f}"
    if len(accuracies) == 1:
        return f"{mean} % (n=1)"
    return f"{mean} ± {statistics.stdev(accuracies):.2f} % (n={len(accuracies)})"


def _facts(row: Row) -> list[str]:
    names = sorted({run.data["name"] for run in row.runs})
    return [" and ".join(names), f"{row.parameters:,}"]


def _percent(reported: float | None) -> str:
    return "-" if reported is None else f"{reported:.2f} %"


def _threads(run: Result) -> str:
    return f"{run.threads} thread{'' if run.threads == 1 else 's'}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
