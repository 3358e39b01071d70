"""`python -m parsimony.published` (make results) writes all that is made of results/.

The tables of README.md and the docs, the cards in docs/cards/, the pictures of docs/records.md, and what to expect into
the header of each recipe.
"""

import argparse

from parsimony.published.pages import pages, write
from parsimony.published.pareto import save_pareto
from parsimony.published.rows import ablation_rows, record_rows, rows
from parsimony.runs import PROJECT

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(pages())
    found = [*rows(), *record_rows(), *ablation_rows()]
    for task in ("mnist", "cifar"):
        save_pareto(task, found, PROJECT / "docs" / "images" / f"pareto_{task}.svg")
