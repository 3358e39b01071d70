"""docs/glossary.md is what its command makes of the run beside it."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"\d[\d,]*\.?\d*")


def test_the_glossary_is_up_to_date(tmp_path: Path) -> None:
    """But for what the last bits of a sum on another machine may change."""
    runpy.run_path(str(DOCS / "glossary.py"))["write"](tmp_path)
    kept, made = ((folder / "glossary.md").read_text() for folder in (DOCS, tmp_path))
    assert NUMBER.sub("", made).split() == NUMBER.sub("", kept).split()
    numbers = [[float(text.replace(",", "")) for text in NUMBER.findall(document)] for document in (made, kept)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02)
    pictures = [sorted(path.name for path in (folder / "images").glob("glossary-*.png")) for folder in (tmp_path, DOCS)]
    assert pictures[0] == pictures[1]
    assert set(pictures[0]) == set(re.findall(r"glossary-[-\w]+\.png", kept))
    for name in pictures[0]:
        drawn, before = (imread(folder / "images" / name) for folder in (tmp_path, DOCS))
        if "epochs" not in name:  # that is matplotlib's, whose fonts and lines change with its version
            assert drawn.shape == before.shape
            assert np.abs(drawn - before).max() < 0.03, name
