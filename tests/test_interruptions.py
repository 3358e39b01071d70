"""Signals and losses that end a training early: exit code, message, and what is left to go on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_commands import TRAIN
from test_resume import RUN, break_off
from test_training import QUIET, train_in

from parsimony.errors import RunError
from parsimony.runs import Result

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))

ENDLESS = ("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1000", "~callbacks.pictures")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_that_can_go_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TRAIN), *ENDLESS, "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    checkpoint, patience = tmp_path / "run" / "checkpoints" / "last.ckpt", time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    result = Result.read(tmp_path / "run" / "result.json")
    assert result.status == "interrupted"
    assert result.epochs == len(result.history) >= 1
    assert f"epochs are kept; to go on: python train.py resume={tmp_path / 'run'}" in out.decode()
    assert b"Traceback" not in err
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == result.epochs


def test_ctrl_c_at_the_start_is_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(TRAIN), *ENDLESS]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"train.py" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    time.sleep(1.0)  # in the midst of the imports
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err


def strict(path: Path) -> dict:
    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        train_in(tmp_path / "run", *RUN, "optimizer=sgd", "scheduler=constant", "optimizer.lr=1e20")
    message = str(caught.value)
    assert "at learning rate 1e+20: take a lower optimizer.lr" in message
    assert "(epoch 1)" in message
    assert message.endswith("No epoch was finished before.")
    content = strict(tmp_path / "run" / "result.json")
    assert content["status"] == f"failed: {message}"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_it_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The rate rises a thousandfold with each epoch."""
    steps = ("scheduler=step", "scheduler.milestones=[0.25,0.5,0.75]", "scheduler.gamma=1e12", "optimizer=sgd")
    with pytest.raises(RunError) as caught:
        train_in(tmp_path / "run", *RUN, *steps, "optimizer.lr=0.001")
    result = Result.read(tmp_path / "run" / "result.json")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert str(caught.value).endswith(f"The last good checkpoint is {checkpoint}, of epoch {result.epochs}.")
    kept = torch.load(checkpoint, weights_only=True)
    assert len(kept["history"]) == result.epochs > 0
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no loss tells: in an epoch's last step, without validation."""
    step = torch.optim.Adam.step

    def until(self: torch.optim.Adam, *arguments: object, **keywords: object) -> object:
        loss = step(self, *arguments, **keywords)  # type: ignore[arg-type]
        self.steps = getattr(self, "steps", 0) + 1  # type: ignore[attr-defined]
        if self.steps == 12:  # type: ignore[attr-defined]
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return loss

    monkeypatch.setattr(torch.optim.Adam, "step", until)
    with pytest.raises(RunError, match=r"A weight is not finite in step 12 \(epoch 2\).*last.ckpt, of epoch 1\.$"):
        train_in(tmp_path / "run", *RUN, "optimizer=adam", "data.validation=0")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_that_turns_read_only_is_named(tmp_path: Path) -> None:
    break_off(tmp_path / "run", 7, *RUN)
    (tmp_path / "run" / "checkpoints").chmod(0o500)
    with pytest.raises(RunError, match=r"Permission denied: .*checkpoints"):
        train_in(tmp_path / "run", *RUN)
