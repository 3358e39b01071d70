"""The committed run that the tests of using a network use: 20 epochs of mnist_narrow on the embedded digits."""

import shutil
import sys
from pathlib import Path

import pytest

from parsimony import cli

EXAMPLE = Path(__file__).parents[1] / "docs" / "example"


def copied(folder: Path) -> Path:
    """A copy of it, as `folder`."""
    return Path(shutil.copytree(EXAMPLE, folder))


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> str | int | None:
    """Runs `parsimony WORDS` in this process; its exit code, or the sentence that it ends with."""
    monkeypatch.setattr(sys, "argv", ["parsimony", *map(str, words)])
    say_errors_in_a_sentence(monkeypatch)
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
    return 0


def say_errors_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets in the environment of its process, set here so that it ends with the test."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("PARSIMONY_ONE_SENTENCE", "1")
