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
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
    return 0
