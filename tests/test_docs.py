"""The pages of the docs: every command is composed, parsed or run, what they add is added, their tables are fresh."""

import argparse
import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import open_dict

from parsimony.cli import COMMANDS
from parsimony.config import CONF, check
from parsimony.runs import PROJECT, Result
from parsimony.sentences import EXTRAS
from parsimony.sweeps.start import check_any, planned

DOCS = PROJECT / "docs"
ADDING = DOCS / "adding.md"
ADDED = re.compile(r"(At the end of|new file) `([^`]+)`[^`]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("cd", "source", "ls", "cat", "echo", "git", "find", "printf")
# For words that the reader replaces
STAND_INS = {"NAME": "mnist_narrow", "MODEL": "mnist_narrow", "COMMAND": "report"}


def script(name: str) -> dict[str, Any]:
    """What docs/NAME.py defines."""
    return runpy.run_path(str(DOCS / f"{name}.py"))


OF_DOCS = script("commands")
ALL = OF_DOCS["commands"]()
ONCE = {command.text: command for command in ALL}


def test_the_tables_of_the_groups_are_those_of_the_configs() -> None:
    groups = script("groups")
    assert groups["page"]() == (DOCS / "groups.md").read_text(), "run python docs/groups.py"
    described = groups["HEADING"].findall((DOCS / "groups.md").read_text())
    assert sorted(described) == sorted(path.name for path in CONF.iterdir() if path.is_dir())


def test_what_needs_other_hardware_is_listed_and_marked() -> None:
    assert OF_DOCS["index"]() == (DOCS / "README.md").read_text(), "run python docs/commands.py"
    for command in ALL:
        if command.hardware and command.page != "docs/README.md":  # whose list names it in a column of its own
            assert command.hardware in command.said, f"{command.page}: say '{command.hardware}' beside {command.text}"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} <= set(re.findall(r"\]\((\w+\.md)\)", index))


class Parsed(BaseException):
    """A command's arguments were accepted."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argparse parser stops with Parsed where it would hand its arguments on."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments: Any, **keywords: Any) -> Any:
        parse(self, *arguments, **keywords)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.parametrize("command", ONCE.values(), ids=ONCE)
def test_a_command_is_one_that_works(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> None:
    if command.page == "docs/adding.md":
        pytest.skip("is run on a copy, to which its page has added what it adds")
    for words in command.words():
        words = [re.sub(rf"\b({'|'.join(STAND_INS)})\b", lambda word: STAND_INS[word[0]], word) for word in words]
        if "train.py" in words:  # after python, or torchrun and the like
            compose(words[words.index("train.py") + 1 :], tmp_path)
            continue
        match words:
            case ["python", "-m", module, *arguments]:
                assert find_spec(module)
                parse(Path(find_spec(module).origin), arguments, monkeypatch, request)
            case ["python", path, *arguments]:
                parse(PROJECT / path, arguments, monkeypatch, request)
            case ["parsimony", "--help"]:
                pass
            case ["parsimony", name, *arguments]:
                request.getfixturevalue("parse_only")
                with pytest.raises((Parsed, SystemExit)) as ended:
                    importlib.import_module(COMMANDS[name][0]).main(arguments)
                assert ended.type is Parsed or ended.value.code == 0  # --help
            case ["make", *arguments]:
                targets = re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
                assert {word for word in arguments if "=" not in word} <= set(targets)
            case ["pip", "install", "-e", what]:
                extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
                assert set(re.findall(r"\w+", what)) <= extras.keys()
            case ["tensorboard", *arguments]:
                parser = argparse.ArgumentParser()
                importlib.import_module("tensorboard.plugins.core.core_plugin").CorePluginLoader().define_flags(parser)
                parser.parse_args(arguments)
            case [program, *_]:
                assert program in SHELL, f"{program} has no test here: add how to check it"


def compose(arguments: list[str], tmp_path: Path) -> None:
    """What `python train.py ARGUMENTS` does before it trains. Of a grid, its first run and its last."""
    typed = get_args_parser().parse_args(arguments)
    if typed.help:
        return
    sweeps = typed.multirun or any(override.startswith("sweep=") for override in typed.overrides)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        mode = RunMode.MULTIRUN if sweeps else RunMode.RUN
        try:
            config = loader.load_configuration("config", typed.overrides, run_mode=mode)
        except MissingConfigException as error:
            if error.missing_cfg_file in EXTRAS:
                pytest.skip(f"the extra [{EXTRAS[error.missing_cfg_file]}] is not installed")
            raise
        if sweeps:
            _, jobs, _ = planned(config)
            for job in (jobs[0], jobs[-1]):
                check_any(config, [job], tmp_path)
            return
        with open_dict(config):
            config.hydra.runtime.output_dir = str(tmp_path)
            HydraConfig.instance().set_config(config)
            del config["hydra"]
        check(config)


def parse(path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """The script is there and takes these arguments. One that parses none is given none."""
    if "parse_args" not in path.read_text():
        assert arguments == []
        return
    request.getfixturevalue("parse_only")
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


@pytest.fixture(scope="module")
def added_to(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all that docs/adding.md adds."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("src", "conf"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "train.py", copy)
    blocks = ADDED.findall(ADDING.read_text())
    assert len(blocks) == 6
    for where, path, text in blocks:
        assert (copy / path).exists() == (where == "At the end of"), path
        with (copy / path).open("a") as file:
            file.write(f"\n\n{text}" if where == "At the end of" else text)
    return copy


@pytest.mark.parametrize("command", [c.text for c in ALL if c.page == "docs/adding.md"])
def test_what_is_added_trains(command: str, added_to: Path) -> None:
    python, *arguments = shlex.split(command)
    assert python == "python"
    quick = ("trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=3", "~callbacks.pictures")
    environment = {**os.environ, "PYTHONPATH": str(added_to / "src")}
    done = subprocess.run(
        [sys.executable, *arguments, *quick], cwd=added_to, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = [Result.read(path) for path in added_to.glob("runs/*/*/result.json")]
    assert any(set(arguments[1:]) <= set(result.overrides) for result in results)
    assert {result.status for result in results} == {"completed"}
