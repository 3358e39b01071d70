"""The same command gives the same bits, and `parsimony rerun` says whether a run does."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import SMALL, environment, run, run_forked
from tally import tally
from test_kills import differences

from parsimony.errors import InputError, RunError
from parsimony.rerun import _begin, _read, compare
from parsimony.runs import Result

RECIPES = (
    *(("optimizer=adam",), ("optimizer=sgd", "scheduler=one_cycle"), ("optimizer=muon", "scheduler=step")),
    *(("engine=plain",), ("model=mnist_sep",), ("trainer=ddp_cpu", "data.batch_size=32", "engine.threads=null")),
)


def rerun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parsimony.cli", "rerun", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    ended = run_forked(folder, *SMALL, r"hydra.run.dir='it\'s a run'", "optimizer.lr=0.002")
    assert ended.code == 0, ended.err
    return folder / "it's a run"


def test_a_run_is_made_again(done: Path, tmp_path: Path) -> None:
    again = rerun(tmp_path, str(done), "--folder", "new")
    assert again.returncode == 0, again.stderr
    assert "The same bits: the figures of 8 epochs, the scores, and the " in again.stdout
    assert differences(tmp_path / "new", done, files={"best.ckpt", "last.ckpt", "previous.ckpt"}) == []
    assert Result.read(tmp_path / "new" / "result.json").config["optimizer"]["lr"] == 0.002


def test_other_bits_are_told_with_what_may_explain_them(done: Path, tmp_path: Path) -> None:
    kept = Path(shutil.copytree(done, tmp_path / "kept"))
    new = Result.read(done / "result.json")
    content = json.loads((kept / "result.json").read_text())
    content["history"][1]["val/loss"] += 1e-12
    content["versions"]["torch"] = "1.0"
    (kept / "result.json").write_text(json.dumps(content))
    old, config = _read(kept)
    assert config["folder"] is None
    with pytest.raises(RunError, match=r"Other bits than .*kept: val/loss of epoch 2 is .*torch 2\S*, was 1.0\.$"):
        compare(old, kept, new, done)
    assert compare(new, done, new, done).startswith("The same bits: ")
    (kept / "checkpoints" / "last.ckpt").write_bytes((done / "checkpoints" / "previous.ckpt").read_bytes())
    with pytest.raises(RunError, match=r"in its last checkpoint, and .* more\. Nothing that result.json records"):
        compare(new, kept, new, done)


def test_what_cannot_be_made_again(done: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run's folder"):
        _read(tmp_path)
    kept = Path(shutil.copytree(done, tmp_path / "kept"))
    content = json.loads((kept / "result.json").read_text())
    (kept / "result.json").write_text(json.dumps({**content, "status": "interrupted"}))
    with pytest.raises(InputError, match="is interrupted: only a run that came to its end"):
        _read(kept)
    (kept / "result.json").write_text("{")
    with pytest.raises(InputError, match="is damaged or no result"):
        _read(kept)
    with pytest.raises(InputError, match="is there already and no run"):
        _begin(tmp_path, content["config"])
    _begin(kept, content["config"])  # goes on
    _begin(kept, {key: value for key, value in content["config"].items() if key != "distillation"})  # as if older
    with pytest.raises(InputError, match="holds another run: name another --folder"):
        _begin(kept, {**content["config"], "seed": 7})


@pytest.mark.faults
def test_the_same_command_twice(tmp_path: Path) -> None:
    def lost(i: int) -> str:
        line = [override for override in SMALL if override != "engine.threads=1" or i < 5]
        places = [tmp_path / f"{i}-{again}" for again in (1, 2)]
        for place in places:
            place.mkdir()
            ended = (run if i == 5 else run_forked)(
                place, *line, *RECIPES[i], "hydra.run.dir=run", "trainer.max_epochs=3"
            )
            if ended.code:
                return ended.err[-300:]
        return ", ".join(differences(places[0] / "run", places[1] / "run"))

    with (
        tally(
            "the same command twice",
            "Six recipes (optimizers, schedules, engines, two processes), each trained twice and compared bit for bit.",
        ) as counted,
        ThreadPoolExecutor(2) as pool,
    ):
        for recipe, loss in zip(RECIPES, pool.map(lost, range(len(RECIPES))), strict=True):
            counted.check(not loss, "the same bits", f"{recipe}: {loss}")
