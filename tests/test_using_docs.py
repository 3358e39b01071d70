"""docs/using.md: its commands run, and show what it shows."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from example_run import EXAMPLE, copied, say_errors_in_a_sentence

DOCS = EXAMPLE.parent
spec = importlib.util.spec_from_file_location("using", DOCS / "using.py")
using = importlib.util.module_from_spec(spec)
spec.loader.exec_module(using)

PAGE = using.PAGE.read_text()
COMMANDS = list(using.commands(PAGE))


def shape(text: str) -> list[list[str]]:
    """Its words, without figures: another processor rounds otherwise, and so may count otherwise."""
    return [[re.sub(r"\d[\d.,]*(e-\d+)?|^\.$", "#", word) for word in line.split()] for line in text.splitlines()]


def test_the_page_shows_what_its_commands_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(tmp_path / "runs" / "digits")
    shutil.copytree(EXAMPLE / "pictures", tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    say_errors_in_a_sentence(monkeypatch)
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        shown = PAGE.partition(f"$ {command}\n")[2].partition("```")[0]
        assert shape(using.output(command)) == shape(shown)
    found: dict = {}
    exec(PAGE.partition("```python\n")[2].partition("```")[0], found)  # of the file that a command exported
    assert found["probabilities"].shape == (1, 10)
    assert found["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def test_a_run_is_used_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    found: dict = {}
    exec(PAGE.partition("## In Python")[2].partition("```python\n")[2].partition("```")[0], found)
    assert len(found["answers"]) == 360
    labels = found["Digits"]().load().test.labels.tolist()
    assert sum(answer == str(label) for answer, label in zip(found["answers"], labels, strict=True)) > 300


def test_the_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    using.draw_pictures(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in (EXAMPLE / "pictures").iterdir())
