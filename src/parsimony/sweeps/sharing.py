"""The runs of a sweep that go on at once share a machine: each has cores of its own, and a GPU where there are some."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The NVIDIA GPUs that a process in `environment` may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed))]


@contextmanager
def slot(folder: Path, slots: int) -> Iterator[int]:
    """Holds the lowest of `slots` numbers that no other process holds by a lock in `folder`.

    A job's number would not do: of four jobs, two at a time, the first may still run when the third begins.
    """
    for number in range(slots):
        lock = FileLock(folder / f".slot-{number}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield number
        finally:
            lock.release()
        return
    raise RuntimeError(f"more than {slots} runs at once in {folder}")


def share(everything: Sequence[int], number: int, slots: int) -> list[int]:
    """The cores of slot `number`; one of them, in turn, where there are more slots than cores."""
    ordered = sorted(everything, key=lambda core: (_first_sibling(core), core))
    part = ordered[number * len(ordered) // slots : (number + 1) * len(ordered) // slots]
    return part if len(ordered) >= slots else [ordered[number % len(ordered)]]


def _first_sibling(core: int) -> int:
    """The lowest number of the hardware threads of one physical core, which no two runs should share."""
    try:
        siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return core
    return int(re.split("[,-]", siblings.strip())[0])
