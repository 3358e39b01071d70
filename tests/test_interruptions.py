"""Signals and losses that end a training early: exit code, message, and what is left to go on with."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import end, start, wait_for
from short_runs import QUIET, break_off, train_in
from test_resume import RUN

from parsimony.callbacks import CtrlC
from parsimony.errors import RunError
from parsimony.runs import Result

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))

ENDLESS = ("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1000", "~callbacks.pictures")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_that_can_go_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start(tmp_path, *ENDLESS, "hydra.run.dir=run")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wait_for(checkpoint, process)
    process.send_signal(number)
    ended = end(process)
    assert ended.code == code, ended.err
    result = Result.read(tmp_path / "run" / "result.json")
    assert result.status == "interrupted"
    assert result.epochs == len(result.history) >= 1
    assert f"epochs are kept; to go on: python train.py resume={tmp_path / 'run'}" in ended.out
    assert not ended.traceback
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == result.epochs


def test_ctrl_c_while_torch_is_imported_ends_it_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, *ENDLESS, "hydra.run.dir=run")
    while process.poll() is None and "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert (ended.code, ended.out, ended.err) == (130, "", "")


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    ctrl_c = CtrlC()
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ctrl_c.setup(SimpleNamespace(is_global_zero=True), None, "fit")  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.on_train_batch_end()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


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
