"""What a run's folder is called."""

import sys

import pytest

from parsimony.checkpoint_files import CheckpointFiles
from parsimony.distributed.place import run_id


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1"])
    return monkeypatch


def test_a_requeued_job_finds_its_run_again(job: pytest.MonkeyPatch) -> None:
    first = run_id()
    job.setenv("SLURM_RESTART_COUNT", "1")
    assert run_id() == first
    assert first.startswith("slurm-77_")


def test_other_commands_and_jobs_do_not(job: pytest.MonkeyPatch) -> None:
    first = run_id()
    job.setattr(sys, "argv", ["train.py", "seed=2"])
    second = run_id()
    job.setenv("SLURM_JOB_ID", "78")
    assert len({first, second, run_id()}) == 3


def test_commands_typed_by_hand_are_runs_of_their_own(job: pytest.MonkeyPatch) -> None:
    job.setenv("SLURM_JOB_NAME", "interactive")
    assert run_id() != run_id()


def test_lightning_keeps_nothing_in_the_midst_of_an_epoch(tmp_path) -> None:
    CheckpointFiles().save_checkpoint({"epoch": 0}, tmp_path / "hpc_ckpt_1.ckpt")
    assert list(tmp_path.iterdir()) == []
