"""The settings as a table: for a terminal, as CSV, Markdown or JSON."""

import csv
import io
import json
import math
from collections.abc import Collection, Sequence
from typing import Any

from parsimony.report.run import Run
from parsimony.report.settings import Mean, Setting, short, shown

WIDEST = 60  # characters of a cell on a terminal


def columns(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Heading -> a cell for each setting that ended; accuracies in %, at the last epoch."""
    ended = [setting for setting in settings if setting.runs]
    keys = list(ended[0].values) if ended else []
    measured = _measured(ended)
    table = {_apart(short(key, keys), measured): [shown(setting.values[key]) for setting in ended] for key in keys}
    if not keys:
        table["name"] = [setting.label() for setting in ended]
    table |= measured
    return {heading: cells for heading, cells in table.items() if set(cells) != {"-"} and cells}


def _apart(key: str, measured: Collection[str]) -> str:
    """A hyperparameter's name, beside those of what was measured."""
    return f"hparam {key}" if key in measured else key


def _measured(ended: Sequence[Setting]) -> dict[str, list[str]]:
    table = {}
    for split in ("validation", "test"):
        means = [setting.mean(f"{split}/accuracy") for setting in ended]
        table[f"{split} %"] = [f"{100 * mean.mean:.2f}" if mean else "-" for mean in means]
        table[f"{split} sd"] = [f"{100 * mean.sd:.2f}" if mean and mean.sd is not None else "-" for mean in means]
        if split == "validation":
            bests = [Mean.of(run.best for run in setting.runs) for setting in ended]
            table["best epoch %"] = [f"{100 * best.mean:.2f}" if best else "-" for best in bests]
    if not any(setting.accuracy for setting in ended):
        losses = [setting.mean("validation/loss") for setting in ended]
        table["validation loss"] = [f"{loss.mean:.4f}" if loss else "-" for loss in losses]
    table["n"] = [f"{s.n}" if s.n == len(s.runs) else f"{s.n} of {len(s.runs)}" for s in ended]
    table["parameters"] = [f"{n:,}" if (n := setting.first.parameters) else "-" for setting in ended]
    table["epochs"] = [" to ".join(map(str, setting.epochs)) or "-" for setting in ended]
    paces = [Mean.of(run.images_per_second for run in setting.runs) for setting in ended]
    table["images/s"] = [f"{pace.mean:,.0f}" if pace else "-" for pace in paces]
    return table


def not_in_table(runs: Sequence[Run]) -> list[str]:
    """A line for each run that did not come to its end, and why."""
    lines = []
    for run in runs:
        if not run.ended:
            accuracy = run.final.get("validation/accuracy", run.final.get("test/accuracy"))
            so_far = "" if accuracy is None else f"; {100 * accuracy:.2f} % by then"
            lines.append(f"{run.path}: {run.status}{so_far}")
    return lines


def as_text(settings: Sequence[Setting]) -> str:
    table = columns(settings)
    numeric = {heading: heading not in ("name",) and all(map(_is_number, cells)) for heading, cells in table.items()}
    lines = []
    for row in [list(table), *zip(*table.values(), strict=True)]:
        cells = []
        for heading, cell in zip(table, row, strict=True):
            width = max(len(_cut(text)) for text in (heading, *table[heading]))
            cells.append(_cut(cell).rjust(width) if numeric[heading] else _cut(cell).ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(settings: Sequence[Setting]) -> str:
    table = columns(settings)
    if not table:
        return ""
    aligned = ["--:" if all(map(_is_number, cells)) else "---" for cells in table.values()]
    rows = [list(table), aligned, *zip(*table.values(), strict=True)]
    return "\n".join(f"| {' | '.join(map(_markdown, row))} |" for row in rows)


def records(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """The table's rows with every digit: accuracies from 0 to 1, hyperparameters by their whole keys."""
    rows = []
    for setting in settings:
        if not setting.runs:
            continue
        row: dict[str, Any] = {}
        for what in ("validation/accuracy", "validation/loss", "test/accuracy", "test/loss"):
            mean, name = setting.mean(what), what.replace("/", "_")
            row[name], row[f"{name}_sd"] = (mean.mean, mean.sd) if mean else (None, None)
        best, pace = (Mean.of(getattr(run, name) for run in setting.runs) for name in ("best", "images_per_second"))
        row["best_epoch_validation_accuracy"] = best and best.mean
        row["n"] = setting.n
        row["parameters"] = setting.first.parameters
        row["epochs"] = setting.epochs[0] if len(setting.epochs) == 1 else " to ".join(map(str, setting.epochs)) or None
        row["images_per_second"] = pace and pace.mean
        row["runs"] = [run.path for run in setting.runs]
        values = {_apart(key, row): value for key, value in setting.values.items()} or {"name": setting.label()}
        rows.append({**values, **row})
    return rows


def as_csv(settings: Sequence[Setting]) -> str:
    rows = [{**row, "runs": " ".join(row["runs"])} for row in records(settings)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_json(settings: Sequence[Setting], runs: Sequence[Run], verdicts: Sequence[str], warnings: Sequence[str]) -> str:
    unfinished = [{"run": run.path, "status": run.status, **run.final} for run in runs if not run.ended]
    content = {"settings": records(settings), "unfinished": unfinished, "verdicts": verdicts, "warnings": warnings}
    return json.dumps(_plain(content), indent=1)


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return cell == "-"
    return True


def _cut(cell: str) -> str:
    half = WIDEST // 2 - 1
    return cell if len(cell) <= WIDEST else f"{cell[:half]}..{cell[-half:]}"


def _markdown(cell: str) -> str:
    for character in "\\|<>`*_[]":
        cell = cell.replace(character, f"\\{character}")
    return cell
