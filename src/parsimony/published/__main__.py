"""`python -m parsimony.published` (make results) writes all that is made of results/.

The tables of README.md and the docs, the cards in docs/cards/, the pictures of docs/records.md, and what to expect into
the header of each recipe.
"""

import argparse

from matplotlib import rc_context

from parsimony.published.curves import curves
from parsimony.published.pages import pages, write
from parsimony.published.pareto import pareto
from parsimony.published.rows import ablation_rows, record_rows, rows
from parsimony.report.plots import STYLE
from parsimony.runs import PROJECT

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(pages())
    found = [*rows(), *record_rows(), *ablation_rows()]
    with rc_context(STYLE):
        pictures = {f"pareto_{task}": pareto(task, found) for task in ("mnist", "cifar")}
        pictures["curves"] = curves(record_rows())
        for name, picture in pictures.items():
            picture.savefig(PROJECT / "docs" / "images" / f"{name}.svg", metadata={"Date": None})
