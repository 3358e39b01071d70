"""Runs of several processes for the tests: `python train.py` and torchrun, in a folder, watched and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from commands import PRIVATE, heed_ctrl_c
from torch import Tensor, nn

from parsimony.runs import PROJECT, Result

TRAIN = str(PROJECT / "train.py")
TINY = (
    *("data=digits", "data.train_images=237", "data.validation=50", "data.batch_size=32", "model=mnist_narrow"),
    *("trainer=ddp_cpu", "trainer.max_epochs=2", "engine.threads=1", "~callbacks.pictures"),
)
ENDLESS = (*TINY, "trainer.max_epochs=10000")
LIMIT = 300.0  # seconds, far above what any of this takes on a busy machine


class Run:
    """A command that runs in the background, its output in a file."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in PRIVATE}
        self.output = folder / f"output-{time.monotonic_ns()}"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=heed_ctrl_c,
            )

    def end(self) -> tuple[int, str]:
        code = self.process.wait(LIMIT)
        return code, self.output.read_text()

    def until(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT
        while not happened():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def ranks(self) -> dict[int, int]:
        """The process ids of all ranks but 0, from the environment that each was started with."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                variables = dict(part.split("=", 1) for part in path.read_text().split("\0") if "=" in part)
                place = json.loads(variables.get("PARSIMONY_PLACE", "{}"))
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if place and parent == self.process.pid:
                    found[place["rank"]] = int(path.parent.name)
        return found


def listens_on(process: int) -> set[str]:
    """The addresses, as Linux writes them in hexadecimal, on which a process takes connections."""
    own = {os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir() if path.exists() or path.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in own:
                found.add(local.partition(":")[0])
    return found


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python train.py OVERRIDES` in tmp_path, or by `command` another; none outlives the test."""
    started = []

    def start(*overrides: str, command: Sequence[str] = (sys.executable, TRAIN), **environment: str) -> Run:
        started.append(Run([*command, *overrides], tmp_path, environment))
        return started[-1]

    yield start
    for run in started:
        with suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()


def torchrun(port: int, machine: int = 0, machines: int = 1, processes: int = 1, *options: str) -> tuple[str, ...]:
    """The command up to train.py's overrides. OMP_NUM_THREADS has to be set, or torchrun warns."""
    return (
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={machines}", f"--nproc-per-node={processes}"),
        *(f"--node-rank={machine}", "--master-addr=127.0.0.1", f"--master-port={port}", *options, TRAIN),
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def the_run(tmp_path: Path) -> Path:
    """The folder of the one run below tmp_path/runs."""
    (folder,) = tmp_path.glob("runs/*/*")
    return folder


def result(tmp_path: Path) -> Result:
    return Result.read(the_run(tmp_path) / "result.json")


def checkpoint(tmp_path: Path) -> Callable[[], bool]:
    """Is there a checkpoint yet?"""
    return lambda: any(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))


def failing_in_rank_1(dropout: float) -> nn.Module:
    """In the place of a network: breaks in rank 1's third step."""
    return Failing(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(dropout))


class Failing(nn.Sequential):
    steps = 0

    def forward(self, input: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 3 and torch.distributed.get_rank() == 1:
            raise RuntimeError("out of luck")
        return super().forward(input)
