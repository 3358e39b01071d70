"""`make test-distributed`: what takes minutes. Runs of one, two, four and eight processes, on one machine and two."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import CIFAR_NAMES
from processes import (
    ENDLESS,
    TINY,
    Run,
    Start,
    checkpoint,
    failing_in_rank_1,
    free_port,
    result,
    start,
    the_run,
    torchrun,
)  # fmt: skip
from short_runs import events, weights

from parsimony.runs import Result
from parsimony.trained import load

__all__ = ["start"]  # a fixture
pytestmark = pytest.mark.distributed

EXACT = ("engine.precision=64-true", "model.dropout=0", "model.dropout_7x7=0", "scheduler=constant")
END = 60.0  # seconds in which all processes have to end when one has


def one_by_one(start: Start, tmp_path: Path, *overrides: str) -> dict[int, Result]:
    """The run of `overrides`, pictures included, by one, two and four processes."""
    tiny = [override for override in TINY if override != "~callbacks.pictures"]
    results = {}
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        strategy = "auto" if processes == 1 else "ddp"
        many = (f"trainer.devices={processes}", f"trainer.strategy={strategy}", f"hydra.run.dir={folder}")
        code, output = start(*tiny, *overrides, *many).end()
        assert code == 0, output
        results[processes] = Result.read(folder / "result.json")
    return results


def images(result: Result, tag: str) -> list[bytes]:
    return [event.encoded_image_string for event in events(result).Images(tag)]


def test_the_same_global_batch_gives_the_same_curve(start: Start, tmp_path: Path) -> None:
    """In float32. Plain SGD: Adam divides by a root near zero, which makes much of a rounding."""
    keys = (
        "data.train_images=517",
        "model=mnist_plain",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.lr=0.002",
    )
    each_step = ("trainer.max_epochs=4", "trainer.log_every_n_steps=1", "logger=csv", "engine.precision=32-true")
    one_by_one(start, tmp_path, *keys, *each_step, "scheduler=constant")
    curves = {}
    for processes in (1, 2, 4):
        with (tmp_path / str(processes) / "metrics.csv").open() as file:
            curves[processes] = [
                float(row["train/loss_step"]) for row in csv.DictReader(file) if row["train/loss_step"]
            ]
    assert len(curves[1]) == 4 * 15  # each epoch's last batch is of 19 images, which neither 2 nor 4 divides
    assert len(set(curves[1])) == len(curves[1])
    for processes in (2, 4):
        assert curves[processes] == pytest.approx(curves[1], rel=1e-5)


def test_with_synchronised_batch_norm_the_weights_are_the_same(start: Start, tmp_path: Path) -> None:
    keys = (*EXACT, "trainer.sync_batchnorm=true", "optimizer=adam", "optimizer.lr=0.003")
    results = one_by_one(start, tmp_path, *keys)
    for processes in (2, 4):
        for name, tensor in weights(results[processes]).items():
            assert torch.allclose(tensor, weights(results[1])[name], rtol=1e-8, atol=1e-9), name
        assert results[processes].final.test == pytest.approx(results[1].final.test, rel=1e-6)
        for picture in ("confusion_matrix", "worst_mistakes"):  # of all test images
            assert images(results[processes], picture) == images(results[1], picture)


def test_the_validated_network_is_the_one_that_is_kept(start: Start, tmp_path: Path) -> None:
    """With local batch norm each process has statistics of its own."""
    code, output = start(*TINY, "trainer.max_epochs=1", "optimizer.lr=0.01").end()
    assert code == 0, output
    trained = load(the_run(tmp_path))
    data = trained.data()
    data.setup()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(trained.logits(data.watched.images), data.watched.labels).item()
    assert result(tmp_path).final.validation["loss"] == pytest.approx(loss, rel=1e-5)


def test_an_error_in_one_process_is_shown_and_ends_all(start: Start, tmp_path: Path) -> None:
    target = f"{failing_in_rank_1.__module__}.{failing_in_rank_1.__name__}"
    keys = ("model=mnist_plain", f"model._target_={target}", f"allow_targets=[{failing_in_rank_1.__module__}]")
    run = start(
        *TINY, *keys, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    )
    code, output = run.end()
    assert code == 1
    log = the_run(tmp_path) / "ranks" / "rank-1.log"
    assert f"error: Rank 1 failed: RuntimeError: out of luck. What it printed is in {log}." in output
    assert "out of luck" in log.read_text()
    assert "Traceback" in log.read_text()
    assert result(tmp_path).status.startswith("failed: Rank 1 failed: RuntimeError: out of luck")


def test_a_process_that_hangs_ends_the_run(start: Start, tmp_path: Path) -> None:
    run = start(*ENDLESS)
    run.until(checkpoint(tmp_path))
    (rank,) = run.ranks().values()
    os.kill(rank, signal.SIGSTOP)
    stopped = time.monotonic()
    code, output = run.end()
    assert time.monotonic() - stopped < END
    assert code == 1
    assert "error: Rank 1 has not been heard of for 20 s." in output
    assert result(tmp_path).status.startswith("failed: Rank 1 has not been heard of for 20 s")
    assert not Path(f"/proc/{rank}/exe").exists()  # a zombie has none


def test_sigterm_to_any_rank_ends_the_run_so_that_it_can_go_on(start: Start, tmp_path: Path) -> None:
    run = start(*ENDLESS)
    run.until(checkpoint(tmp_path))
    os.kill(run.ranks()[1], signal.SIGTERM)
    code, output = run.end()
    assert code == 143, output
    assert "Traceback" not in output
    assert f"kept; to go on: python train.py resume={the_run(tmp_path)}" in output
    assert result(tmp_path).status == "interrupted"


def test_what_a_launcher_contradicts_is_refused_once(start: Start, tmp_path: Path) -> None:
    code, output = start(*TINY, "trainer.devices=3", command=torchrun(free_port(), processes=2)).end()
    assert code != 0
    sentence = "error: trainer.devices=3, but torchrun started 2 processes on each machine: leave it out."
    assert output.count(sentence) == 1
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_all_processes_once(start: Start, tmp_path: Path) -> None:
    run = start(*ENDLESS)
    run.until(checkpoint(tmp_path))
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    code, output = run.end()
    assert code == 130, output
    assert "Traceback" not in output
    assert "to go on: python train.py resume=" in output
    assert result(tmp_path).status == "interrupted"


def test_two_machines_make_one_run_which_goes_on_with_other_numbers(start: Start, tmp_path: Path) -> None:
    """Four processes, of which one is killed; then the same command with two, which ends as an unbroken run."""
    keys = (*TINY, *EXACT, "trainer.sync_batchnorm=true", "trainer.max_epochs=40")
    port = free_port()
    machines = [start(*keys, command=torchrun(port, machine, 2, 2, "--rdzv-id=exact")) for machine in (0, 1)]
    machines[0].until(checkpoint(tmp_path))
    os.kill(workers(machines[1])[0], signal.SIGKILL)
    killed = time.monotonic()
    outputs = [run.end() for run in machines]
    assert time.monotonic() - killed < END
    assert all(code for code, _ in outputs)
    folder = the_run(tmp_path)
    assert folder.name == "exact"
    assert "error: Rank 2 ended without a word" in outputs[0][1]
    assert result(tmp_path).status.startswith("failed: Rank 2 ended without a word")
    assert {path.name for path in (folder / "ranks").iterdir()} == {f"rank-{rank}.log" for rank in (1, 2, 3)}

    port = free_port()
    machines = [start(*keys, command=torchrun(port, machine, 2, 1, "--rdzv-id=exact")) for machine in (0, 1)]
    code, output = start(*keys, "trainer=cpu", "trainer.sync_batchnorm=true", f"hydra.run.dir={tmp_path / 'one'}").end()
    assert code == 0, output
    for run in machines:
        code, output = run.end()
        assert code == 0, output
    done, alone = result(tmp_path), Result.read(tmp_path / "one" / "result.json")
    assert (done.status, done.epochs, len(done.resumed)) == ("completed", 40, 1)
    assert done.device.startswith("2 x ")
    known = done.resumed[0] + 3  # epochs: what began as a rounding in float64 has grown to 1e-4 after some 200 steps
    for mine, others in zip(done.history[:known], alone.history[:known], strict=True):
        assert mine["train/loss"] == pytest.approx(others["train/loss"], rel=1e-4)
        assert mine["val/loss"] == pytest.approx(others["val/loss"], rel=1e-4)
    assert len(list(folder.glob("checkpoints/*"))) == 3


def workers(run: Run) -> list[int]:
    """The processes that a torchrun started."""
    children = Path(f"/proc/{run.process.pid}/task").glob("*/children")
    found = sorted(int(child) for path in children for child in path.read_text().split())
    return [child for child in found if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_torchrun_that_starts_again_goes_on(start: Start, tmp_path: Path) -> None:
    run = start(*TINY, "trainer.max_epochs=60", command=torchrun(free_port(), 0, 1, 2, "--max-restarts=1"))
    run.until(checkpoint(tmp_path))
    os.kill(workers(run)[1], signal.SIGKILL)
    code, output = run.end()
    assert code == 0, output
    done = result(tmp_path)
    assert (done.status, done.epochs, len(done.resumed)) == ("completed", 60, 1)


def test_processes_of_srun_make_one_run(start: Start, tmp_path: Path) -> None:
    """There is no Slurm here: the environment is made up, the processes are real."""
    job = {
        **{"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "127.0.0.1"},
        **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2"},
        **{"SLURM_NODEID": "0", "MASTER_PORT": str(free_port())},
    }
    runs = [start(*TINY, **job, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)]
    for run in runs:
        code, output = run.end()
        assert code == 0, output
    assert the_run(tmp_path).name == f"slurm-{os.getpid()}.0"
    assert result(tmp_path).device.startswith("2 x ")


MEMORY = """
import json, os, sys
from pathlib import Path
from omegaconf import OmegaConf
from parsimony.data.augment import Augment
from parsimony.data.datamodule import ImageData
from parsimony.distributed.group import Group
from parsimony.targets import build
def fields(path):
    return {line.split(":")[0]: int(line.split()[1]) for line in open(path) if line.split()[-1] == "kB"}
data = build(OmegaConf.load(sys.argv[1]), ImageData, augment=Augment(), seed=0)
before = fields("/proc/self/status")["RssAnon"]
with Group(Path(sys.argv[2]), {}) as group:
    group.load(data)
    assert data.train.images.sum() + data.watched.images.sum() + data.images.test.images.sum() > 0
    group.store.set(f"read/{group.rank}", "")
    for rank in range(8):
        group._wait_for(f"read/{rank}")
    after = fields("/proc/self/status")["RssAnon"]
    shared = 0
    mapping = False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            mapping = "memfd:parsimony" in line
        elif mapping and line.startswith("Pss:"):
            shared += int(line.split()[1])
    Path(sys.argv[2], f"{group.rank}.json").write_text(json.dumps([after - before, shared]))
    group.store.set(f"done/{group.rank}", "")
    for rank in range(8):
        group._wait_for(f"done/{rank}")
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_eight_processes_hold_cifar10_in_less_than_a_gigabyte(start: Start, tmp_path: Path) -> None:
    from conftest import compose_run
    from omegaconf import OmegaConf

    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in CIFAR_NAMES:
        rows = rng.integers(256, size=(10_000, 1 + 3072), dtype=np.uint8)
        rows[:, 0] = np.arange(10_000) % 10
        (folder / name).write_bytes(rows.tobytes())
    cfg = compose_run(tmp_path, "model=cifar_base", f"data.root={tmp_path / 'data'}")
    OmegaConf.save(cfg.data, tmp_path / "data.yaml")
    (tmp_path / "memory.py").write_text(MEMORY)
    command = [*torchrun(free_port(), 0, 1, 8)[:-1], str(tmp_path / "memory.py")]
    code, output = start(str(tmp_path / "data.yaml"), str(tmp_path), command=command).end()
    assert code == 0, output
    held = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(8)]
    own, shared = sum(part for part, _ in held) / 1000, sum(part for _, part in held) / 1000  # MB
    assert 180 < shared < 190  # the one copy
    assert own + shared < 1000
    print(f"8 processes hold {own + shared:.0f} MB of data, {shared:.0f} of them shared")


@pytest.fixture
def two_networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, and the link between them."""
    names = (f"parsimony-{os.getpid()}-0", f"parsimony-{os.getpid()}-1")
    if not shutil.which("ip"):
        pytest.skip("there is no ip (Debian: iproute2)")
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("network namespaces are not permitted here")
        ends = [f"pa{os.getpid()}", f"pb{os.getpid()}"]
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("link", "set", end, "netns", name, "name", "veth")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "veth")
            for device in ("lo", "veth"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"network namespaces are not permitted here: {done.stderr.strip()}")


def test_a_link_that_is_cut_ends_the_run_on_both_sides(
    start: Start, two_networks: tuple[str, str], tmp_path: Path
) -> None:
    keys = (*TINY, "trainer.max_epochs=150")

    def both() -> list[Run]:
        launch = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1", "--master-port=29500", "--rdzv-id=cut")
        return [
            start(
                *keys,
                command=(
                    *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                    *(*launch, f"--node-rank={number}", str(torchrun(0)[-1])),
                ),
                GLOO_SOCKET_IFNAME="veth",
            )
            for number, name in enumerate(two_networks)
        ]

    machines = both()
    machines[0].until(checkpoint(tmp_path))
    ip("-n", two_networks[1], "link", "set", "veth", "down")
    cut = time.monotonic()
    ranks = [rank for run in machines for rank in workers(run)]
    assert len(ranks) == 2
    while any(Path(f"/proc/{rank}/exe").exists() for rank in ranks):
        assert time.monotonic() - cut < END
        time.sleep(0.5)
    assert "error: Rank 1 has not been heard of for 20 s" in machines[0].output.read_text()
    assert result(tmp_path).status.startswith("failed: Rank 1 has not been heard of for 20 s")
    for run in machines:
        with suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()

    ip("-n", two_networks[1], "link", "set", "veth", "up")
    for run in both():
        code, output = run.end()
        assert code == 0, output
    done = result(tmp_path)
    assert (done.status, done.epochs, len(done.resumed)) == ("completed", 150, 1)
