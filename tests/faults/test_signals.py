"""SIGTERM, Ctrl-C and Slurm's signal at random moments: the exit code that shells know, and a run that goes on."""

import os
import random
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import SMALL, busy, end, run, run_forked, start, wait_for, wait_until_busy
from tally import tally
from test_kills import differences

from parsimony.runs import Result

RUN = (*SMALL, "hydra.run.dir=run")
ENDS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_forked(folder, *RUN).code == 0
    return folder / "run"


@pytest.mark.faults
def test_signals_at_random_moments(tmp_path: Path, unbroken: Path) -> None:
    chance = random.Random(2024)
    moments = [(number, chance.uniform(0, 1.2)) for number in ENDS for _ in range(4)]

    def lost(i: int) -> str:
        (number, delay), folder = moments[i], tmp_path / str(i)
        folder.mkdir()
        process = start(folder, *RUN)
        wait_for(folder / "run" / "checkpoints" / "last.ckpt", process)
        wait_until_busy(process, busy(process.pid) + delay)
        process.send_signal(number)
        ended = end(process)
        if ended.code == 0:
            return ", ".join(differences(folder / "run", unbroken))  # it came after the last step
        if ended.code != ENDS[number] or ended.traceback:
            return f"exit code {ended.code}: {ended.err[-300:]}"
        if Result.read(folder / "run" / "result.json").status != "interrupted":
            return "result.json does not say that it was interrupted"
        if f"to go on: python train.py resume={folder / 'run'}" not in ended.out:
            return "it does not say how to go on"
        goes_on = run_forked(folder, f"resume={folder / 'run'}")
        return goes_on.err[-300:] if goes_on.code else ", ".join(differences(folder / "run", unbroken))

    with (
        tally(
            "SIGTERM and Ctrl-C",
            "Four of each at seeded moments of the training: exit code 143 or 130, result.json says interrupted, and "
            "the command that the message names goes on to the same bits.",
        ) as counted,
        ThreadPoolExecutor(2) as pool,
    ):
        for (number, delay), loss in zip(moments, pool.map(lost, range(len(moments))), strict=True):
            counted.check(not loss, number.name, f"{number.name} after {delay:.2f} s: {loss}")


def slurm(folder: Path) -> Mapping[str, str]:
    """The environment of a job's one task; its scontrol notes what it was asked for."""
    scontrol = folder / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n')
    scontrol.chmod(0o755)
    task = {f"SLURM_{name}": "0" for name in ("PROCID", "LOCALID", "NODEID")}
    job = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
    return {**task, **job, "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}


@pytest.mark.faults
def test_slurm_requeues(tmp_path: Path, unbroken: Path) -> None:
    with tally(
        "Slurm's requeue",
        "SIGUSR1, then SIGTERM, to a run in a (made-up) Slurm job: Lightning requeues the job, and the same command in "
        "the requeued job finds its folder and goes on to the same bits.",
    ) as counted:
        environment = slurm(tmp_path)
        process = start(tmp_path, *SMALL, **environment)
        while not (kept := list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        while not (tmp_path / "asked").exists() and process.poll() is None:
            time.sleep(0.02)
        process.terminate()
        ended = end(process)
        assert (tmp_path / "asked").read_text() == "requeue 77\n", ended.err
        again = run(tmp_path, *SMALL, SLURM_RESTART_COUNT="1", **environment)
        assert again.code == 0, again.err
        (folder,) = (tmp_path / "runs" / "mnist_narrow").iterdir()
        assert kept[0].parents[1] == folder
        assert not list(folder.glob("hpc_ckpt*"))
        went_on = Result.read(folder / "result.json").resumed != []
        loss = differences(folder, unbroken)
        counted.check(ended.code == 143 and went_on and not loss, "went on", f"{ended.code}, {went_on}, {loss}")
