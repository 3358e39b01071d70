"""Which of a run's processes this one is, and what the run is called: from what started it. Imports no torch."""

import json
import os
import re
import secrets
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from parsimony.errors import InputError

FIRST = 5.0  # seconds in which a launcher that hears of rank 0's end ends the other processes
VARIABLE = "PARSIMONY_PLACE"  # how rank 0 tells the processes that it starts


@dataclass(frozen=True)
class Place:
    """`address` and `port` are those of the store where the processes meet; rank 0 opens it unless `store_is_open`."""

    by: str  # train.py, torchrun or srun
    rank: int
    world: int
    local_rank: int
    local_world: int  # processes on each machine
    machine: int
    machines: int
    address: str
    port: int
    store_is_open: bool
    attempt: str = "0"

    def to_variable(self) -> str:
        return json.dumps(asdict(self))


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """None for a process on its own, which may yet start others.

    Raises InputError for processes that are unevenly spread over the machines.
    """
    if VARIABLE in environment:
        return Place(**json.loads(environment[VARIABLE]))
    found = _torchrun(environment) or _srun(environment)
    return found if found and found.world > 1 else None


def is_rank_zero(environment: Mapping[str, str] = os.environ) -> bool:
    here = place(environment)
    return here is None or here.rank == 0


def run_id(environment: Mapping[str, str] = os.environ) -> str:
    """Names the run's folder: the same for all processes of a run, and for the run when its launcher starts it again.

    A run on its own is named by the clock, or in a Slurm job by that and the command: a requeued job finds it again.
    """
    fresh = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"
    here = place(environment)
    if here is None:
        job = environment.get("SLURM_JOB_ID")
        if job and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):  # as Lightning tells them apart
            return f"slurm-{job}_{zlib.crc32(repr(sys.argv).encode()):08x}"
        return fresh
    if here.by == "srun":
        return f"slurm-{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}"
    name = environment["TORCHELASTIC_RUN_ID"]
    return re.sub(r"[^\w.-]+", "-", name) if name != "none" else _agreed(here, fresh)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Lets rank 0 tell of an error that all processes meet, and the launcher end them before they repeat it."""
    try:
        yield
    except Exception:
        here = place()
        if here and here.rank and here.by != "train.py":
            time.sleep(FIRST)
        raise


def _agreed(here: Place, fresh: str) -> str:
    """`fresh` of the process that asks first, kept where torchrun keeps it through its restarts."""
    if not here.store_is_open:
        raise InputError("This torchrun has no store to share: name the run by --rdzv-id=NAME.")
    from torch.distributed import TCPStore

    store = TCPStore(here.address, here.port, is_master=False)
    return store.compare_set("parsimony/run_id", "", fresh).decode()


def _torchrun(environment: Mapping[str, str]) -> Place | None:
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None

    def number(name: str) -> int:
        return int(environment[name])

    if number("WORLD_SIZE") != number("LOCAL_WORLD_SIZE") * number("GROUP_WORLD_SIZE"):
        raise InputError("Every machine has to run as many processes: give each torchrun the same --nproc-per-node.")
    return Place(
        by="torchrun",
        rank=number("RANK"),
        world=number("WORLD_SIZE"),
        local_rank=number("LOCAL_RANK"),
        local_world=number("LOCAL_WORLD_SIZE"),
        machine=number("GROUP_RANK"),
        machines=number("GROUP_WORLD_SIZE"),
        address=environment["MASTER_ADDR"],
        port=number("MASTER_PORT"),
        store_is_open=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def _srun(environment: Mapping[str, str]) -> Place | None:
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return None  # such as sbatch's own script
    tasks, machines = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    spread = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # 4, 4(x2), and 4(x2),3 where it is uneven
    if "," in spread or tasks % machines:
        raise InputError("Every machine has to run as many processes: give srun --ntasks-per-node.")
    job, step = environment["SLURM_JOB_ID"], environment.get("SLURM_STEP_ID", "0")
    port = 20000 + (7 * int(job) + int(step)) % 20000  # the same in all processes, another one for each step
    return Place(
        by="srun",
        rank=int(environment["SLURM_PROCID"]),
        world=tasks,
        local_rank=int(environment["SLURM_LOCALID"]),
        local_world=tasks // machines,
        machine=int(environment["SLURM_NODEID"]),
        machines=machines,
        address=environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        port=int(environment.get("MASTER_PORT") or port),
        store_is_open=False,
    )


def first_host(nodes: str) -> str:
    """`a07` of Slurm's `a[07-09,12],b1`."""
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes).split(",")[0]
