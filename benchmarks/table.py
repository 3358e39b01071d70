"""Writes the tables of README.md from committed results: `python benchmarks/table.py`."""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from start_up import FOUND

from parsimony.published.pages import filled
from parsimony.published.rows import read_runs
from parsimony.runs import Result

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PRECISION = HERE / "precision"
ENGINES = {
    "fast": HERE.parent / "results" / "reproduce" / "mnist_narrow",
    "plain": HERE.parent / "results" / "engine_plain" / "mnist_narrow",
}


def render(results: list[dict[str, Any]]) -> str:
    """Markdown: where the figures were measured, then a row a network."""
    if not results:
        return "Nothing measured yet."
    lines = [
        *_places(results),
        "| network | batch | data | images/s | share of limit | against Keras + TensorFlow | against bare loop "
        "| against stock way | peak MB: ours, Keras, bare, stock | commit |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    return "\n".join(lines + [_row(result) for result in results])


def render_accuracy(engines: dict[str, list[Result]]) -> str:
    """Markdown: a row an engine, of `mnist_narrow`'s published recipe at its final epoch."""
    lines = ["| engine | test accuracy at the final epoch | seeds | each |", "|---|--:|--:|---|"]
    means, errors = {}, []
    for engine, results in engines.items():
        accuracies = [100 * result.final.test["accuracy"] for result in results if result.final and result.final.test]
        if len(accuracies) < 2:
            return "Not measured yet."
        means[engine] = statistics.mean(accuracies)
        errors.append(statistics.stdev(accuracies) / math.sqrt(len(accuracies)))
        each = " ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        spread = f"{means[engine]:.3f} % (sd {statistics.stdev(accuracies):.3f})"
        lines.append(f"| `{engine}` | {spread} | {len(accuracies)} | {each} |")
    difference = (
        f"{means['fast'] - means['plain']:+.3f} points (fast - plain; standard error {math.hypot(*errors):.3f})"
    )
    return "\n".join([*lines, "", f"The means differ by {difference}."])


def render_precision(results: list[dict[str, Any]]) -> str:
    """Markdown: a row a network, of the precision that the engine takes against the other one."""
    if not results:
        return "Nothing measured yet."
    lines = [
        *_places(results),
        "| network | the engine takes | images/s | against the other |",
        "|---|---|--:|--:|",
    ]
    for result in results:
        ours = result["contenders"]["ours"]
        ((other, ratio),) = result["ratios"].items()
        speed = _spread(ours["images_per_second"], ",.0f")
        lines.append(
            f"| `{result['network']}` | {ours['precision']} | {speed} | {_spread(ratio, '.2f', 'x')} {other} |"
        )
    return "\n".join(lines)


def render_start_up(found: dict[str, Any]) -> str:
    """Markdown: a row a figure of start_up.json."""
    lines = [
        f"{found['machine']}, {found['date']}, medians of {found['rounds']} runs.",
        "",
        "| what | measured | aim |",
        "|---|--:|--:|",
        f"| `python train.py --help` | {found['help']:.2f} s | 1 s |",
        f"| from the command to the end of the first step, `mnist_sep` | {found['first_step']:.1f} s | 6 s |",
        f"| scoring the 10,000 test images, `mnist_sep` | {found['test']:.2f} s | 1.5 s |",
        f"| most memory that a training and test of `cifar_sep` held | {found['peak_mb'] / 1000:.2f} GB | 2.5 GB |",
    ]
    return "\n".join(lines)


def tables() -> tuple[str, str, str, str]:
    engines = {engine: read_runs(folder) for engine, folder in ENGINES.items()}
    return (
        render(read()),
        render_precision(read(PRECISION)),
        render_start_up(json.loads(FOUND.read_text())),
        render_accuracy(engines),
    )


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _places(results: list[dict[str, Any]]) -> list[str]:
    places: dict[str, list[str]] = {}
    for result in results:
        places.setdefault(_place(result), []).append(result["network"])
    lines = []
    for place, networks in places.items():
        lines += [f"{', '.join(networks)}: {place}" if len(places) > 1 else place, ""]
    return lines


def _place(result: dict[str, Any]) -> str:
    limits = ", ".join(f"{limit:,.0f} GFLOP/s in {kind}" for kind, limit in result["matmul_gflops"].items())
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['machine']}, {result['threads']} threads, {result['date']}, medians of {result['rounds']} runs "
        f"(min to max); matrix products: {limits}; {versions}."
    )


def _row(result: dict[str, Any]) -> str:
    ours = result["contenders"]["ours"]
    shares = ", ".join(f"{100 * share:.0f} % {kind}" for kind, share in ours["share_of_limit"].items())
    peaks = [result["contenders"].get(name, {}).get("peak_mb") for name in ("ours", "keras", "bare", "stock")]
    cells = [
        f"`{result['network']}`",
        str(result["batch"]),
        f"{result['images_per_slice']:,} of {result['data']}",
        _spread(ours["images_per_second"], ",.0f"),
        shares,
        *(_spread(result["ratios"].get(name), ".2f", "x") for name in ("keras", "bare", "stock")),
        ", ".join(f"{peak:,}" if peak else "-" for peak in peaks),
        f"`{result['commit'][:10]}`{', files changed' if result['dirty'] else ''}" if result["commit"] else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: dict[str, Any] | None, form: str, unit: str = "") -> str:
    if values is None:
        return "-"
    return f"{values['median']:{form}}{unit} ({values['min']:{form}} to {values['max']:{form}})"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = HERE / "README.md"
    path.write_text(filled(path.read_text(), *tables()))
