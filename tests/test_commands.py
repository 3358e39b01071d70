"""`python train.py ...` as a user runs it: in a process of its own, timed, its exit code and its two outputs read."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from parsimony.runs import Result

TRAIN = Path(__file__).parents[1] / "train.py"
SHORT = ("data=digits", "model=mnist_narrow", "trainer.max_epochs=1", "+trainer.limit_train_batches=3")
PATIENCE = 3.0  # seconds of processor time on a busy machine for what takes one on an idle one


@dataclass
class Ended:
    code: int
    out: str
    err: str
    seconds: float


@pytest.fixture
def command(tmp_path: Path):
    """Runs `python train.py OVERRIDES` in tmp_path."""

    def command(*overrides: str, **environment: str) -> Ended:
        private = {"HYDRA_FULL_ERROR", "PARSIMONY_ONE_SENTENCE", "RUN_ID"}
        inherited = {name: value for name, value in os.environ.items() if name not in private}
        before = os.times()
        done = subprocess.run(
            [sys.executable, TRAIN, *overrides],
            cwd=tmp_path,
            env={**inherited, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        after = os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        return Ended(done.returncode, done.stdout, done.stderr, seconds)

    return command


def results(folder: Path) -> list[Result]:
    return [Result.read(path) for path in sorted(folder.rglob("result.json"))]


def test_help_lists_the_groups(command) -> None:
    done = command("--help")
    assert done.code == 0
    assert done.err == ""
    assert done.seconds < PATIENCE
    for line in ("optimizer: adam, adamw, muon, rmsprop, sgd", "trainer: cpu, ddp, ddp_cpu, default, gpu"):
        assert line in done.out.splitlines()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model=mnist_spe", "There is no model=mnist_spe. Did you mean mnist_sep"),
        ("optimizer.lrr=0.1", "There is no key 'optimizer.lrr'. Did you mean optimizer.lr"),
        ("optimizer.lr=fast", "optimizer.lr takes a number above 0, not fast."),
        ("model.dropout=0,0.1", "'model.dropout=0,0.1' names several values: add -m"),
        ("optimizer=null", "A group takes the name of one of its options"),
        ("model=[]", "model takes one option, not the list []."),
        ("optimizer=[adam,sgd]", "optimizer takes one option, not the list [adam,sgd]."),
        (
            "callbacks=ema",
            "callbacks=ema would leave out those that keep a run's checkpoints: take 'callbacks=[default,ema]'",
        ),
        ("+experiment=plus", "experiment is given already: leave out the +, as in experiment=OPTION."),
        ("trainer.use_distributed_sampler=true", "trainer.use_distributed_sampler takes false: the data module"),
        ("foo", "Cannot read 'foo': expected KEY=VALUE"),
        ("callbacks.ema.decay=0.9", "callbacks.ema.decay is a key of 'callbacks=[default,ema]': choose that as well."),
        ("sweep.seeds=3", "sweep.seeds is a key of sweep=seeds: choose that as well."),
        ("optimizer.adamw_lr=1", "optimizer.adamw_lr is a key of optimizer=muon: choose that as well."),
        ("~callbacks.last.dirpath", "Cannot take '~callbacks.last.dirpath': the key's value comes from other keys"),
    ],
)
def test_a_mistake_is_answered_at_once_in_one_sentence(override: str, sentence: str, command, tmp_path: Path) -> None:
    done = command(override)
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith(f"error: {sentence}")
    assert done.err.count("\n") == 1
    assert done.seconds < PATIENCE
    assert list(tmp_path.iterdir()) == []


def test_resume_names_the_folder_of_a_published_recipe_too(command, tmp_path: Path) -> None:
    done = command("resume=there", "experiment=record/mnist_5k")
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"error: {tmp_path / 'there'} is no run's folder: it has no config.yaml."


def test_a_changed_recipe_does_not_take_the_folder_of_the_published_one(command, tmp_path: Path) -> None:
    changed = ("experiment=reproduce/mnist_narrow", "data=digits", "trainer.max_epochs=1", "model.dropout=0.2")
    done = command(*changed)
    assert done.code == 1
    assert done.err.startswith("error: experiment=reproduce/mnist_narrow is changed (")
    assert done.err.strip().endswith("give it a name, as in name=mine, which is its folder's too.")
    assert list(tmp_path.iterdir()) == []
    assert command(*changed, "name=mine").code == 0
    assert (tmp_path / "runs" / "mine" / "seed-0" / "result.json").exists()


def test_resume_takes_no_file(command, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    done = command("resume=last.ckpt")
    assert (done.code, done.err) == (1, "error: last.ckpt is a file: resume takes the folder of its run.\n")


def test_hydra_full_error_shows_the_traceback(command) -> None:
    done = command("model=mnist_spe", HYDRA_FULL_ERROR="1")
    assert done.code == 1
    assert "Traceback" in done.err


def test_a_folder_that_cannot_be_made(command, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the runs should go")
    done = command(*SHORT)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert str(Path("runs")) in done.err.splitlines()[-1]


def test_two_processes_make_one_run(command, tmp_path: Path) -> None:
    done = command(*SHORT, "trainer=ddp_cpu", "data.batch_size=32")
    assert done.code == 0, done.err
    assert done.err == ""
    assert done.out.count("completed") == done.out.count("epoch 1/1") == 1
    (result,) = results(tmp_path)
    assert result.status == "completed"
    assert result.device.startswith("2 x ")
    assert len(result.history) == 1
    assert [path.name for path in (tmp_path / "runs" / "mnist_narrow").iterdir()] == [Path(result.folder).name]
    assert {path.name for path in (Path(result.folder) / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_installed_without_conf_a_command_says_so(tmp_path: Path) -> None:
    shutil.copytree(TRAIN.parent / "src" / "parsimony", tmp_path / "parsimony")  # as a wheel has it
    command = [sys.executable, "-m", "parsimony.cli", "report", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: Parsimony was installed without its conf/. Install it from a clone, with pip install -e ."
    )
