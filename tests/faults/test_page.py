"""docs/reliability.md says what results/faults.json holds, and that nothing was lost."""

import json
import runpy

from parsimony.runs import PROJECT


def test_the_page_is_written_from_the_figures() -> None:
    script = runpy.run_path(str(PROJECT / "docs" / "reliability.py"))
    assert script["PAGE"].read_text() == script["page"](), "make test-faults, or python docs/reliability.py, writes it"
    kinds = json.loads(script["FIGURES"].read_text())
    assert len(kinds) == 13
    for kind, row in kinds.items():
        assert row["tried"] == row["survived"] == sum(row["outcomes"].values()), kind
        assert (row["lost"], row["losses"]) == (0, []), kind
