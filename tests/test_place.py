"""Which process of a run one is, by the environments of torchrun and srun, and what all of them call the run."""

import os
import re
import subprocess
import sys

import pytest
from torch.distributed import TCPStore

from parsimony.distributed.place import first_host, is_rank_zero, place, run_id
from parsimony.errors import InputError
from parsimony.runs import PROJECT

TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500"},
}
SRUN = {
    **{"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"},
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    **{"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "a[07-08]"},
}


def test_a_process_on_its_own_has_no_place_and_is_named_by_the_clock() -> None:
    assert place({}) is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}", run_id({}))
    assert run_id({}) != run_id({})


def test_one_process_of_a_run_is_rank_zero() -> None:
    assert is_rank_zero({})
    assert [is_rank_zero({**TORCHRUN, "RANK": str(rank)}) for rank in range(4)] == [True, False, False, False]


@pytest.mark.parametrize(("environment", "address"), [(TORCHRUN, "a"), (SRUN, "a07")])
def test_both_launchers_tell_the_same(environment: dict[str, str], address: str) -> None:
    here = place(environment)
    assert here
    assert (here.rank, here.world, here.local_rank, here.local_world) == (5, 8, 1, 4)
    assert (here.machine, here.machines, here.address) == (1, 2, address)
    assert place({"PARSIMONY_PLACE": here.to_variable()}) == here


@pytest.mark.parametrize(
    "environment",
    [
        {**TORCHRUN, "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "1"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1"},
        {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # sbatch's script
    ],
)
def test_one_process_of_a_launcher_is_on_its_own(environment: dict[str, str]) -> None:
    assert place(environment) is None


@pytest.mark.parametrize(
    ("environment", "mend"),
    [
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "5,3"}, "--ntasks-per-node"),
        ({**TORCHRUN, "WORLD_SIZE": "7"}, "--nproc-per-node"),
    ],
)
def test_unevenly_spread_processes_are_refused(environment: dict[str, str], mend: str) -> None:
    with pytest.raises(InputError, match=mend):
        place(environment)


def test_a_step_of_a_job_keeps_its_name_when_it_is_requeued() -> None:
    names = {run_id({**SRUN, "SLURM_PROCID": str(rank), "SLURM_RESTART_COUNT": "1"}) for rank in range(8)}
    assert names == {"slurm-1234.2"}
    assert run_id({**SRUN, "SLURM_STEP_ID": "3"}) not in names


def test_steps_of_a_job_meet_at_ports_of_their_own() -> None:
    ports = {place({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port for job, step in STEPS}
    assert len(ports) == len(STEPS)
    assert all(1024 < port < 65536 for port in ports)


STEPS = [(job, step) for job in (1, 9999, 123456) for step in range(7)]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"), ("a,b", "a"), ("a[07-09,12],b1", "a07"), ("gpu-[3,5]", "gpu-3"), ("n[1]", "n1"),
        ("rack[2-3]-n[01-02]", "rack2-n01"),
    ],
)  # fmt: skip
def test_the_first_host_of_slurms_lists(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_torchruns_name_for_a_run_is_taken() -> None:
    assert run_id({**TORCHRUN, "TORCHELASTIC_RUN_ID": "my run/7"}) == "my-run-7"


def test_without_one_the_processes_agree_on_the_first_ones_clock() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    names = {run_id({**environment, "RANK": str(rank)}) for rank in range(3)}
    assert len(names) == 1
    assert re.match(r"\d{4}-", names.pop())
    with pytest.raises(InputError, match="--rdzv-id=NAME"):
        run_id({**environment, "TORCHELASTIC_USE_AGENT_STORE": "False"})


def test_to_know_ones_place_takes_no_torch() -> None:
    code = "import sys, parsimony.distributed.place; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
