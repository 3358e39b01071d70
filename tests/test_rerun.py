"""`parsimony rerun`: what it trains with, and what it calls the same bits. faults/test_repeats.py has real ones."""

from dataclasses import replace
from pathlib import Path

import pytest
from example_run import EXAMPLE, copied

from parsimony.config import quoted
from parsimony.errors import RunError
from parsimony.rerun import compare, main
from parsimony.runs import Result


@pytest.mark.parametrize("epoch", ["final", "best"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_scores_are_other_bits(epoch: str, split: str) -> None:
    run = Result.read(EXAMPLE / "result.json")
    other = replace(run, **{epoch: replace(getattr(run, epoch), **{split: {"loss": 0.1, "accuracy": 0.5}})})
    assert compare(run, EXAMPLE, run, EXAMPLE).startswith("The same bits")
    with pytest.raises(RunError, match=f"the scores at its {epoch} epoch"):
        compare(run, EXAMPLE, other, EXAMPLE)


def test_what_may_explain_other_bits_is_told() -> None:
    run = replace(Result.read(EXAMPLE / "result.json"), layers="fast")
    other = replace(run, layers="torch", teacher={"sha256": "ab"}, data={**run.data, "sha256": "cd"})
    told = r"it read other data\. Other than then: layers torch, was fast; the teacher's sha256 ab, was None\."
    with pytest.raises(RunError, match=told):
        compare(run, EXAMPLE, other, EXAMPLE)


def test_a_rerun_trains_on_as_many_threads_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("parsimony.rerun._train", lambda overrides: told.extend(overrides) or 3)
    replace(Result.read(EXAMPLE / "result.json"), threads=1).write(copied(tmp_path / "run"))
    new = tmp_path / "new"
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "run"), "--folder", str(new), "--data-root", "there", "--allow", "mine"])
    assert ended.value.code == 3
    assert told == [f"resume={quoted(new)}", "engine.threads=1", f"data.root={quoted('there')}", "allow_targets=[mine]"]
