"""Several real processes on the CPU make one run, and end together. The long tests are in test_distributed_long.py."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest
import torch
from conftest import compose_run
from processes import TINY, Start, checkpoint, listens_on, result, start, the_run
from short_runs import train_in, weights
from torch import nn

from parsimony.data.datamodule import ImageData
from parsimony.distributed.batch_norm import SyncOnCpu, check_shared
from parsimony.distributed.group import Group
from parsimony.distributed.images import attach, publish
from parsimony.distributed.place import Place
from parsimony.errors import InputError, RunError
from parsimony.runs import Result
from parsimony.targets import build

__all__ = ["start"]  # a fixture

EXACT = (
    *("engine.precision=64-true", "model.dropout=0", "model.dropout_7x7=0"),
    *("optimizer.lr=0.01", "scheduler=constant"),
)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
@pytest.mark.parametrize("validation", ["50", "0", "test"])
def test_the_images_of_a_machine_are_in_memory_once(validation: str, tmp_path: Path) -> None:
    first, second, alone = (data_of(tmp_path, validation) for _ in range(3))
    for data in (first, alone):
        data.prepare_data()
        data.setup()
    attach(second, publish(first))
    for data in (first, second):
        assert (data.images.name, data.images.classes, data.images.sha256, data.images.publisher) == (
            *(alone.images.name, alone.images.classes, alone.images.sha256, alone.images.publisher),
        )
        for split, same in (
            (data.train, alone.train),
            (data.watched, alone.watched),
            (data.images.test, alone.images.test),
        ):
            assert (split is None) == (same is None)
            if split:
                assert torch.equal(split.images, same.images)
                assert torch.equal(split.labels, same.labels)
    assert (second.watched is second.images.test) == (validation == "test")
    first.train.images[0, 0, 0, 0] = 77
    assert second.train.images[0, 0, 0, 0] == 77


@pytest.mark.parametrize("path", [None, "/proc/self/fd/0", "/proc/1/fd/99999"])
def test_images_that_cannot_be_shared_are_read_and_that_is_said(
    path: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_of(tmp_path, "50")
    attach(data, json.dumps({"path": path, "memfd": "parsimony-0"}))
    assert len(data.train.labels) == 187
    assert "reads its own copy" in capsys.readouterr().out


def data_of(folder: Path, validation: str) -> ImageData:
    cfg = compose_run(
        folder, "data=digits", "data.train_images=237", f"data.validation={validation}", "data.batch_size=32"
    )
    return build(cfg.data, ImageData, augment=build(cfg.augment), seed=0)


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (0, "Rank 0 cannot open port {port}, where the processes would meet: give all of them another one"),
        (1, "Rank 1 waited 0 minutes for rank 0 at 127.0.0.1:{port}: see whether it runs"),
    ],
)
def test_processes_that_cannot_meet_say_where(
    rank: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parsimony.distributed.group.MEETING", 0.5)
    with socket.socket() as taken:  # by one to whom nobody gets through
        taken.bind(("", 0))
        if rank == 0:
            taken.listen()
        port = taken.getsockname()[1]
        group = Group(tmp_path, {})
        group.here = Place("srun", rank, 2, rank, 2, 0, 1, "127.0.0.1", port, store_is_open=False)
        with pytest.raises(RunError, match=re.escape(told.format(port=port))), group:
            pass


def test_a_killed_rank_ends_the_run_and_the_run_goes_on(start: Start, tmp_path: Path) -> None:
    run = start(*TINY, "trainer.max_epochs=60")
    run.until(checkpoint(tmp_path))
    ranks = run.ranks()
    assert ranks.keys() == {1}
    assert listens_on(run.process.pid) == {"0100007F"}  # 127.0.0.1
    os.kill(ranks[1], signal.SIGKILL)
    code, output = run.end()
    folder = the_run(tmp_path)
    log = folder / "ranks" / "rank-1.log"
    said = f"Rank 1 was killed by SIGKILL. What it printed is in {log}. The last good checkpoint is"
    assert code == 1
    assert f"error: {said}" in output
    assert "Traceback" not in output
    broken = result(tmp_path)
    assert broken.status.startswith(f"failed: {said}")
    assert broken.epochs >= 1

    code, output = start(f"resume={folder}", "trainer.devices=1", "trainer.strategy=auto").end()
    assert code == 0, output
    done = result(tmp_path)
    assert (done.status, done.epochs) == ("completed", 60)
    assert "2 x" not in done.device


def test_two_processes_make_the_run_of_one(start: Start, tmp_path: Path) -> None:
    """With batch norm over the global batch; in float64, where only the order of sums differs."""
    run = start(*TINY, *EXACT, "trainer.sync_batchnorm=true", f"hydra.run.dir={tmp_path / 'two'}")
    one = train_in(tmp_path / "one", *TINY, *EXACT, "trainer=cpu")
    code, output = run.end()
    assert code == 0, output
    two = Result.read(tmp_path / "two" / "result.json")
    assert two.device.startswith("2 x ")
    for mine, others in zip(two.history, one.history, strict=True):
        for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
            assert mine[name] == pytest.approx(others[name], rel=1e-6)  # totals are summed in float32
    assert two.final.test["loss"] == pytest.approx(one.final.test["loss"], rel=1e-6)
    for name, tensor in weights(two).items():
        assert torch.allclose(tensor, weights(one)[name], rtol=1e-8, atol=1e-9), name
    assert [path.name for path in (tmp_path / "two" / "ranks").iterdir()] == ["rank-1.log"]


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (4, 3)), (nn.BatchNorm2d, (4, 3, 2, 2))])
def test_a_batch_norm_over_two_processes_is_that_of_the_whole_batch(
    kind: type[nn.Module], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with the same images: a sum over both is twice that of one."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(2))
    whole, ours = kind(3), nn.Sequential(kind(3))
    SyncOnCpu().apply(ours)
    images = torch.randn(shape)
    expected = whole(torch.cat([images, images]))[: len(images)]
    torch.testing.assert_close(ours(images), expected)
    torch.testing.assert_close(ours[0].running_var, whole.running_var)
    half = ours.bfloat16()
    assert half(images.bfloat16()).dtype == half[0].running_var.dtype == torch.bfloat16


def test_a_batch_norm_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"trainer.sync_batchnorm on CPUs takes .*, not BatchNorm2d\(3, .*momentum=None"
    ):
        check_shared(nn.BatchNorm2d(3, momentum=None))
