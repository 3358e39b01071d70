"""Sweeps as a user runs them: real processes, killed and gone on with. A run of one starts in about 5 s of CPU time."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from parsimony.runs import PROJECT, Epoch, Result, cores
from parsimony.sweeps.job import _prepare
from parsimony.sweeps.plan import LONGEST_NAME, Plan, folder_name
from parsimony.sweeps.running import best_figure
from parsimony.sweeps.sharing import gpus, share, slot
from parsimony.sweeps.start import _share_machine

SHORT = (
    *("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1"),
    *("+trainer.limit_train_batches=2", "~callbacks.pictures"),
)
LONG = (*SHORT, "trainer.max_epochs=40")  # long enough to be stopped in its middle

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python train.py OVERRIDES` in tmp_path; none outlives the test."""
    private = {"HYDRA_FULL_ERROR", "PARSIMONY_ONE_SENTENCE", "RUN_ID"}
    inherited = {name: value for name, value in os.environ.items() if name not in private}
    started = []

    def start(*overrides: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, PROJECT / "train.py", *overrides],
            cwd=tmp_path,
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """Its exit code and the lines of its two outputs."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out.splitlines(), err.splitlines()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def the_sweep(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    return folder


def results(sweep: Path) -> dict[str, Result]:
    return {path.parent.name: Result.read(path) for path in sorted(sweep.glob("*/result.json"))}


def test_two_processes_share_a_runs_folder_and_bad_runs_fail_alone(start: Start, tmp_path: Path) -> None:
    name = "a/name " + "x" * 300
    several = ("model.dropout=1.5,0", "budget.parameters=10,null", f"name=choice('{name}')")
    code, out, err = end(start("-m", *SHORT, "trainer=ddp_cpu", "data.batch_size=32", *several))
    sweep = the_sweep(tmp_path)
    runs = results(sweep)
    assert [path[:40] for path in runs] == [
        "000_model.dropout=1.5,budget.parameters=",
        "001_model.dropout=1.5,budget.parameters=",
        "002_model.dropout=0,budget.parameters=10",
        "003_model.dropout=0,budget.parameters=nu",
    ]
    refused = "model.dropout takes a number from 0 to below 1, not 1.5"
    over = "Over budget: 5,904 parameters are 5,894 more than budget.parameters=10; spend less, or raise the budget"
    statuses = [run.status for run in runs.values()]
    assert statuses == [f"failed: {refused}.", f"failed: {refused}.", f"failed: {over}.", "completed"]
    assert code == 1
    first, _, third, good = runs
    reasons = f"{refused} ({first}); {over} ({third})"
    assert err == [f"error: 3 of 4 runs failed: {reasons}. Results in {sweep.relative_to(tmp_path)}"]
    assert [line.split()[0] for line in out] == ["sweep", "1/4", "2/4", "3/4", "4/4"]

    result = runs[good]
    assert (result.name, len(result.history)) == (name, 1)
    assert result.device.startswith("2 x ")
    assert "sweep" not in result.config
    assert list((tmp_path / "runs").iterdir()) == [sweep.parent]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == set(runs)
    assert (sweep / good / "output.log").read_text().count("epoch 1/1") == 1


def test_a_seed_that_is_none_is_told_of_too(start: Start, tmp_path: Path) -> None:
    code, _, err = end(start("-m", *SHORT, "seed=[1],0", "budget.parameters=1"))
    assert code == 1, err
    first, second = results(the_sweep(tmp_path)).values()
    assert first.status == "failed: seed takes a whole number from 0 to 4294967295, not [1]."
    assert second.status.startswith("failed: Over budget")
    assert "2 of 2 runs failed: seed takes a whole number" in err[-1]


def test_a_sweep_that_is_stopped_and_then_killed_goes_on(start: Start, tmp_path: Path) -> None:
    process = start("sweep=seeds", "sweep.seeds=2", *LONG)
    wait_for(tmp_path / "runs" / "sweeps", process)
    sweep = the_sweep(tmp_path)
    first, second = sweep / "000_seed=0", sweep / "001_seed=1"

    wait_for(first / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert (code, err) == (130, [])
    assert results(sweep)[first.name].status == "interrupted"
    assert not second.exists()

    told = re.fullmatch(r"stopped with 0 of 2 runs completed. To go on: python train.py (.*)", out[-1])
    assert told
    process = start(*shlex.split(told[1]))
    wait_for(second / "checkpoints" / "last.ckpt", process)
    process.kill()
    process.communicate()
    done = results(sweep)[first.name]
    assert (done.status, done.epochs, len(done.resumed)) == ("completed", 40, 1)
    assert not (second / "result.json").exists()
    written = (first / "result.json").stat().st_mtime_ns

    code, _, err = end(start("sweep=seeds", "sweep.seeds=3", *LONG, f"++sweep.resume={sweep}"))
    assert code == 1
    assert "is another sweep, which goes on by: python train.py -m sweep=seeds sweep.seeds=2 " in err[-1]

    code, out, err = end(start(*shlex.split(told[1])))
    assert (code, err) == (0, [])
    assert out[0].endswith("; 1 complete already")
    assert out[1].startswith("2/2  ")
    assert (first / "result.json").stat().st_mtime_ns == written
    done = results(sweep)[second.name]
    assert (done.status, done.epochs, len(done.resumed)) == ("completed", 40, 1)
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {first.name, second.name}


@pytest.mark.skipif(not find_spec("hydra_plugins.hydra_joblib_launcher"), reason="the extra [sweep] is not installed")
def test_two_runs_at_once_have_a_gpu_each(start: Start, tmp_path: Path) -> None:
    """The GPUs are made up; that a run sees one of them is seen by its name."""
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "name='gpu ${oc.env:CUDA_VISIBLE_DEVICES}'")
    code, out, err = end(start("-m", *SHORT, "seed=3,4", *parallel, CUDA_VISIBLE_DEVICES="5,6"))
    assert (code, err) == (0, [])
    assert re.fullmatch(r"sweep of 2 runs, 2 at once in \S+", out[0])
    assert [line.split()[0] for line in out[1:3]] == ["1/2", "2/2"]
    assert re.match(r"2 runs completed in \d+ s \| mean \d+.\d\d ± \d+.\d\d % \(n=2\)", out[3])
    runs = results(the_sweep(tmp_path)).values()
    assert [(run.status, run.seed) for run in runs] == [("completed", 3), ("completed", 4)]
    assert {run.name for run in runs} == {"gpu 5", "gpu 6"}


@pytest.mark.skipif(not find_spec("hydra_plugins.hydra_optuna_sweeper"), reason="the extra [optuna] is not installed")
def test_optuna_proposes_the_same_again(start: Start, tmp_path: Path) -> None:
    command = ("sweep=optuna", "sweep.trials=2", *SHORT)
    code, out, err = end(start(*command))
    assert code == 0, out
    assert err == []
    sweep = the_sweep(tmp_path)
    first, second = folders = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert re.fullmatch(r"000_optimizer.lr=0.0\d+,model.dropout=0.\d+", first.name)
    written = [(path / "result.json").stat().st_mtime_ns for path in folders]
    found = (sweep / "optimization_results.yaml").read_text()
    (sweep / "study.db").write_text("what a crash left of it")
    (sweep / "optimization_results.yaml").unlink()

    code, out, _ = end(start(*command, f"sweep.resume={sweep}"))
    assert code == 0, out
    assert sorted(path for path in sweep.iterdir() if path.is_dir()) == [first, second]
    assert [(path / "result.json").stat().st_mtime_ns for path in folders] == written
    assert (sweep / "optimization_results.yaml").read_text() == found
    best = max(results(sweep).values(), key=lambda run: run.best_validation_accuracy)
    assert OmegaConf.create(found).best_value == best.best_validation_accuracy
    assert OmegaConf.create(found).best_params["model.dropout"] == best.config["model"]["dropout"]


@pytest.mark.skipif(
    not find_spec("hydra_plugins.hydra_submitit_launcher"), reason="the extra [cluster] is not installed"
)
def test_a_cluster_runs_a_published_recipe(start: Start, tmp_path: Path) -> None:
    """Whose own folder, and the slash in whose name, give way to the sweep."""
    recipe = ("experiment=choice(reproduce/mnist_narrow)", "hydra/launcher=submitit_local")
    code, out, err = end(start("-m", *SHORT, *recipe))
    assert (code, err) == (0, [])
    assert (
        out[1] == "1/1  completed  experiment=reproduce/mnist_narrow"
    )  # it watches the test set: no figure to choose by
    (result,) = results(the_sweep(tmp_path)).values()
    assert (result.status, result.name) == ("completed", "reproduce/mnist_narrow")
    assert Path(result.folder) == the_sweep(tmp_path) / "000_experiment=reproduce-mnist_narrow"
    assert list((tmp_path / "runs").iterdir()) == [the_sweep(tmp_path).parent]


def test_of_twenty_that_start_at_once_each_has_a_folder(start: Start) -> None:
    """The names of all folders, of runs and of sweeps, end in RUN_ID."""
    shown = ("--cfg", "job", "--resolve", "--package", "name", "name=${oc.env:RUN_ID}")
    names = [end(process)[1] for process in [start(*shown) for _ in range(20)]]
    assert len({name for (name,) in names}) == 20


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("-m", "optimizer.lrr=0.1,0.2"), "There is no key 'optimizer.lrr'. Did you mean optimizer.lr"),
        (("-m", "model=mnist_sep,mnist_spe"), "There is no model=mnist_spe. Did you mean mnist_sep"),
        (("sweep=seeds", "sweep.seeds=0"), "sweep.seeds takes a whole number of at least 1, not 0"),
        (("-m", "seed=range(0,0)"), "seed=range(0,0) names no value: name one or more"),
        (("-m", "model.dropout="), "model.dropout takes a number from 0 to below 1, not an empty text"),
        (("-m", "optimizer.lr=interval(0.1,1)"), "optimizer.lr=interval(0.1,1) is an interval: name values"),
        (("sweep=optuna", "optimizer.lr=interval(-1,1)"), "optimizer.lr takes a number above 0, not -1"),
        (("sweep=optuna", "optimizer.lr=interval(1,0.1)"), "optimizer.lr=interval(1,0.1) ends below its beginning"),
        (
            ("sweep=optuna", "optimizer.lr=tag(log,interval(0,1))"),
            "optimizer.lr=tag(log,interval(0,1)) is logarithmic and begins at 0.0",
        ),
        (("-m", "seed=0,1", "sweep.resume=there"), "there is no sweep's folder: it has no sweep.yaml"),
        (("seed=0", "sweep.resume=there"), "sweep.resume goes on with a sweep: add -m"),
        (("-m", "seed=0,1", "resume=there"), "resume goes on with one run: leave out -m"),
        (("-m", "seed=0,1", "hydra.sweep.dir=there"), "there is there already"),
        (("-m", "seed=0,1", "hydra/launcher=other"), "In 'hydra/config': Could not find 'hydra/launcher/other'"),
    ],
)
def test_a_bad_sweep_is_one_sentence_and_no_folder(
    command: tuple[str, ...], sentence: str, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    code, _, err = end(start(*command))
    assert code == 1
    assert err[-1].startswith(f"error: {sentence}")
    assert "Traceback" not in "".join(err)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("-m", "seed=0,1", "hydra/launcher=joblib"), ("hydra/launcher=joblib", "sweep")),
        (("sweep=optuna",), ("hydra/sweeper=optuna", "optuna")),
    ],
)
def test_a_missing_extra_is_named(
    command: tuple[str, ...], named: tuple[str, str], start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "__init__.py").touch()  # hides all that is installed
    code, _, err = end(start(*command, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"))
    assert code == 1
    assert err == [f"error: {named[0]} is an extra that is not installed: pip install -e '.[{named[1]}]'"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("number", "setting", "name"),
    [
        (0, ["model.dropout=0.05", "optimizer.lr=0.003"], "000_model.dropout=0.05,optimizer.lr=0.003"),
        (12, ["experiment=reproduce/mnist_sep"], "012_experiment=reproduce-mnist_sep"),
        (3, ["name=a b:c*?\"<>|\\'é"], "003_name=a-b-c-"),
        (1234, [], "1234"),
        (7, ["name=" + "x" * 300], "007_name=" + "x" * (LONGEST_NAME - 9)),
    ],
)
def test_a_runs_folder_is_readable_and_safe(number: int, setting: list[str], name: str) -> None:
    assert folder_name(number, setting) == name


def test_where_seeds_are_swept_the_best_setting_is_the_one_of_the_best_mean() -> None:
    def ended(accuracy: float, *overrides: str) -> Result:
        return Result("net", list(overrides), seed=0, best=Epoch(1, validation={"accuracy": accuracy}))

    def best(runs: list[Result], *swept: str) -> str:
        return best_figure(Plan(command=[], over=[], swept=list(swept), runs=6, at_once=1, pid=0), runs)

    none = [ended(score, "model.dropout=0", f"seed={seed}") for seed, score in enumerate((0.990, 0.990, 0.991))]
    some = [ended(score, "model.dropout=0.1", f"seed={seed}") for seed, score in enumerate((0.980, 0.985, 0.9915))]
    assert best(none + some, "model.dropout", "seed") == "best mean 99.03 ± 0.06 % (n=3): model.dropout=0"
    assert best(none[:1] + some[:1], "model.dropout") == "best 99.00 %: model.dropout=0"
    assert best(none, "seed") == "mean 99.03 ± 0.06 % (n=3)"
    assert best([], "seed") == ""


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 16, 40])
@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_runs_at_once_have_cores_of_their_own(count: int, slots: int) -> None:
    everything = list(range(100, 100 + count))
    shares = [share(everything, number, slots) for number in range(slots)]
    shared = list(chain(*shares))
    assert all(shares)
    if slots <= count:
        assert sorted(shared) == everything
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:
        assert {len(part) for part in shares} == {1}
        assert set(shared) == set(everything)


def test_a_slot_is_held_by_one_and_free_again(tmp_path: Path) -> None:
    with slot(tmp_path, 2) as first, slot(tmp_path, 2) as second:
        assert (first, second) == (0, 1)
        with pytest.raises(RuntimeError, match="more than 2"), slot(tmp_path, 2):
            pass
    with slot(tmp_path, 2) as again:
        assert again == 0


@pytest.mark.parametrize(
    ("visible", "names"),
    [("0,1,3", ["0", "1", "3"]), ("GPU-8932f937", ["GPU-8932f937"]), ("", []), ("-1", [])],
)
def test_gpus_are_those_that_the_environment_names(visible: str, names: list[str]) -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": visible}) == names


@pytest.mark.parametrize(
    ("told", "names"),
    [("GPU 0: NVIDIA H200 (UUID: GPU-a)\nGPU 1: NVIDIA H200 (UUID: GPU-b)", ["0", "1"]), ("NVIDIA-SMI has failed", [])],
)
def test_without_it_gpus_are_those_of_the_machine(told: str, names: list[str], tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus({}) == names


@pytest.mark.parametrize(
    ("n_jobs", "accelerator", "runs", "at_once"),
    [(-1, "auto", 12, 3), (-1, "auto", 2, 2), (-1, "cpu", 99, len(cores())), (6, "auto", 12, 6), (6, "cpu", 4, 4)],
)
def test_as_many_runs_at_once_as_gpus_or_cores(
    n_jobs: int, accelerator: str, runs: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    launcher = {"hydra": {"launcher": {"n_jobs": n_jobs}}, "trainer": {"accelerator": accelerator}}
    config = OmegaConf.create(launcher, flags={"readonly": True})
    assert _share_machine(config, runs) == config.hydra.launcher.n_jobs == at_once


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process to cores")
def test_a_run_keeps_to_its_cores() -> None:
    command = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    for core in cores():
        assert subprocess.check_output(command, preexec_fn=_prepare([core]), text=True).split() == [str(core)]
