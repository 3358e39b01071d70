"""The files that tell of published results, as they should read: pages, model cards, the recipes' headers."""

from pathlib import Path

from parsimony.config import CONF
from parsimony.published.cards import card
from parsimony.published.rows import RESULTS, TIME, Row, ablation_rows, record_rows, rows
from parsimony.published.tables import (
    ablation_table,
    full_table,
    keras_table,
    minutes_on_one_core,
    notes,
    record_table,
    short_table,
    smallest,
    spread,
    surpassed,
    sweep_table,
    teachers,
    time_table,
)
from parsimony.runs import PROJECT, replace_file

README, PAGE, CARDS = PROJECT / "README.md", PROJECT / "docs" / "results.md", PROJECT / "docs" / "cards"
RECORDS = PROJECT / "docs" / "records.md"
SWEEPS, EXAMPLE = PROJECT / "docs" / "sweeps.md", RESULTS / "sweeps" / "mnist_narrow"  # a page, and the sweep it shows
BEGIN, END = "<!-- begin: generated -->", "<!-- end -->"


def filled(text: str, *tables: str) -> str:
    """`text` with its tables, in order, written anew."""
    parts = text.split(BEGIN)
    assert len(parts) == len(tables) + 1, "a table and its place in the text belong together"
    rest = (f"{BEGIN}\n{table}\n{END}{part.partition(END)[2]}" for table, part in zip(tables, parts[1:], strict=True))
    return "".join([parts[0], *rest])


def pages(results: Path = RESULTS) -> dict[Path, str]:
    """Each file that tells of published results, as it should read: pages, model cards, the recipes' headers."""
    found, records, ablations = rows(results), record_rows(results), ablation_rows(results)
    both = [*found, *records]
    of_records = (record_table(records), surpassed(records, both), smallest(both, at_least=99.40))
    return {
        README: filled(README.read_text(), short_table(found)),
        PAGE: filled(PAGE.read_text(), full_table(found), keras_table(found, results), notes(found)),
        **{CARDS / f"{row.network}.md": card(row) for row in found if row.runs},
        **{CONF / "experiment" / f"{row.experiment}.yaml": header(row) for row in both},
        SWEEPS: filled(SWEEPS.read_text(), sweep_table(EXAMPLE)),
        RECORDS: filled(
            RECORDS.read_text(),
            "\n\n".join(filter(None, of_records)),
            time_table(results / TIME.name),
            "\n\n".join(filter(None, (ablation_table(records, ablations), teachers(ablations)))),
        ),
    }


def header(row: Row) -> str:
    """The recipe's file with what to expect at the end of the line that gives its command."""
    lines = (CONF / "experiment" / f"{row.experiment}.yaml").read_text().splitlines(keepends=True)
    line = next(i for i, line in enumerate(lines) if line.startswith("# python train.py "))
    took = f" in {minutes} min on one core" if (minutes := minutes_on_one_core(row)) else ""
    ours = f"; ours {spread(row.accuracies())}{took}" if row.runs else ""
    lines[line] = f"{lines[line].rstrip().partition('; ours ')[0]}{ours}\n"
    return "".join(lines)


def write(texts: dict[Path, str], cards: Path = CARDS) -> None:
    """Writes each page, and removes the cards in `cards` that are none of them: their results are gone."""
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text)
    for gone in set(cards.glob("*.md")) - texts.keys():
        gone.unlink()
