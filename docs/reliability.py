"""Writes the figures of docs/reliability.md from results/faults.json: `python docs/reliability.py`."""

import argparse
import json
from pathlib import Path
from typing import Any

from parsimony.published.pages import filled
from parsimony.runs import PROJECT, replace_file

FIGURES = PROJECT / "results" / "faults.json"
PAGE = Path(__file__).with_suffix(".md")


def table(kinds: dict[str, dict[str, Any]]) -> str:
    """A row a kind of fault, a sum, what was done in each, and where."""
    lines = ["| | tried | survived | lost | how it ended |", "|---|--:|--:|--:|---|"]
    for kind, row in kinds.items():
        ended = ", ".join(f"{count} {outcome}" for outcome, count in row["outcomes"].items())
        lines.append(f"| {kind} | {row['tried']} | {row['survived']} | {row['lost']} | {ended} |")
    tried, survived, lost = (sum(row[key] for row in kinds.values()) for key in ("tried", "survived", "lost"))
    lines.append(f"| **all** | **{tried}** | **{survived}** | **{lost}** | |")
    what = [f"- *{kind}*: {row['what']}" for kind, row in kinds.items()]
    machines = " and ".join(sorted({row["machine"] for row in kinds.values()}))
    versions = " and ".join(
        sorted({f"Python {row['versions']['python']}, PyTorch {row['versions']['torch']}" for row in kinds.values()})
    )
    minutes = round(sum(row["seconds"] for row in kinds.values()) / 60)
    return "\n".join([*lines, "", *what, "", f"On {machines}; {versions}; {minutes} minutes in all."])


def page() -> str:
    """As it should read."""
    return filled(PAGE.read_text(), table(json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    replace_file(PAGE, page())
