"""`parsimony rerun`: a run once more, from its folder or its result.json, and whether its bits are the same."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from parsimony.config import quoted
from parsimony.errors import InputError, RunError
from parsimony.resume import default_settings, kept_config, settings
from parsimony.runs import PROJECT, Result, cores, portable, replace_file
from parsimony.use.arguments import add_allow, add_data_root

TIMES = ("seconds", "elapsed", "images_per_second")  # of an epoch's figures, those that no two runs share

EPILOG = """
examples:
  parsimony rerun runs/mnist_sep/TIME
  parsimony rerun results/reproduce/mnist_narrow/seed-0.json --folder again
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="parsimony rerun",
        description="Train a run once more in a new folder, by its own config, and say whether every figure of every\n"
        "epoch and every weight is the same, bit for bit. Exit code 1 where they are not.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its result.json by any name")
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where it trains; default: the run's folder and -rerun"
    )
    add_data_root(parser)
    add_allow(parser)
    typed = parser.parse_args(arguments)
    old, config = _read(typed.run)
    folder = typed.folder or Path(f"{typed.run.with_suffix('') if typed.run.is_file() else typed.run}-rerun")
    _begin(folder, config)
    overrides = [f"resume={quoted(folder)}"]
    if old.threads and old.threads <= len(cores()):
        overrides.append(f"engine.threads={old.threads}")
    if typed.data_root:
        overrides.append(f"data.root={quoted(typed.data_root)}")
    if typed.allow:
        overrides.append(f"allow_targets=[{','.join(typed.allow)}]")
    if code := _train(overrides):
        sys.exit(code)
    print(f"\n{compare(old, typed.run, _result(folder / 'result.json'), folder)}")


def compare(old: Result, old_folder: Path, new: Result, new_folder: Path) -> str:
    """What is the same, bit for bit. Raises RunError, which says what may explain it, where anything is not."""
    differ = list(_differences(old, old_folder, new, new_folder))
    if not differ:
        weights = _weights(old_folder)
        kept = f", and the {len(weights)} tensors of its last checkpoint" if weights else ""
        return f"The same bits: the figures of {new.epochs} epochs, the scores{kept} are those of {old_folder}."
    causes = [f"{what} {now}, was {then}" for what, then, now in _circumstances(old, new) if then != now]
    why = f"Other than then: {'; '.join(causes)}." if causes else "Nothing that result.json records is other than then."
    more = f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    raise RunError(f"Other bits than {old_folder}: {differ[0]}{more}. {why}")


def _read(path: Path) -> tuple[Result, dict[str, Any]]:
    """A run's result and config. Raises InputError where there is none, or it has not come to its end."""
    if path.is_file():
        old = _result(path)
        config = old.config
    else:
        config = kept_config(path)
        config = portable(config, config["folder"])
        old = _result(path / "result.json")
    if old.status != "completed":
        raise InputError(f"{path} is {old.status}: only a run that came to its end can be compared with.")
    return old, config


def _result(path: Path) -> Result:
    try:
        return Result.read(path)
    except FileNotFoundError:
        raise InputError(f"There is no {path}: name the folder of a run that has ended, or its result.json.") from None


def _begin(folder: Path, config: dict[str, Any]) -> None:
    """A folder that holds nothing but the config, from which `resume` begins; one that is there goes on."""
    path = folder / "config.yaml"
    if path.exists():
        if _without_places(portable(kept_config(folder), str(folder))) != _without_places(config):
            raise InputError(f"{folder} holds another run: name another --folder.")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and no run: name another --folder.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, OmegaConf.to_yaml(OmegaConf.create(config)))


def _train(overrides: Sequence[str]) -> int:
    """The exit code of `python train.py OVERRIDES`, which is sent the signals that this process gets."""
    process = subprocess.Popen([sys.executable, str(PROJECT / "train.py"), *overrides])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both: the run ends as it should
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    code = process.wait()
    return code if code >= 0 else 128 - code


def _differences(old: Result, old_folder: Path, new: Result, new_folder: Path) -> Iterator[str]:
    if old.data.get("sha256") != new.data.get("sha256"):
        yield "it read other data"
    if old.epochs != new.epochs:
        yield f"it trained {new.epochs} epochs, not {old.epochs}"
    for then, now in zip(old.history, new.history, strict=False):
        for name in now:  # earlier versions kept learning rates as well
            if name not in TIMES and then.get(name) != now[name]:
                yield f"{name} of epoch {then['epoch']} is {now[name]}, was {then.get(name)}"
    for name in ("final", "best"):
        if getattr(old, name) != getattr(new, name):
            yield f"the scores at its {name} epoch"
    before, after = _weights(old_folder), _weights(new_folder)
    for name, tensor in before.items():
        if name not in after or not tensor.equal(after[name]):
            yield f"{name} in its last checkpoint"


def _weights(folder: Path) -> dict[str, Any]:
    """Those of the last checkpoint; none where only result.json was kept."""
    from parsimony.checkpoints import LAST, read  # with torch, which --help does without

    path = folder / "checkpoints" / LAST
    return read(path)["state_dict"] if path.exists() else {}


def _circumstances(old: Result, new: Result) -> Iterator[tuple[str, Any, Any]]:
    for name in {**old.versions, **new.versions}:  # in the same order each time
        yield name, old.versions.get(name), new.versions.get(name)
    for name in ("device", "threads", "precision", "layers", "commit"):
        yield name, getattr(old, name), getattr(new, name)
    yield "the teacher's sha256", (old.teacher or {}).get("sha256"), (new.teacher or {}).get("sha256")
    yield "changed files", old.dirty, new.dirty
    yield "data", old.data.get("name"), new.data.get("name")


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    return {**default_settings(), **settings({**config, "folder": "${folder}"})}
