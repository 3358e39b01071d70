"""A disk that is full, or read-only: the message names the path, and what was kept goes on to the same bits."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import SMALL, Ended, end, run_forked, start, wait_for
from tally import tally
from test_kills import differences

SIZE = 8 * 2**20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MB at `folder`. Skips where mounting is not permitted."""
    folder.mkdir(parents=True)
    if not shutil.which("mount") or not mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)):
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def fill(disk: Path, leave: int) -> Path:
    """Takes all of the disk but so many bytes."""
    filler = disk / "filler"
    with filler.open("ab") as file:
        try:
            while (free := shutil.disk_usage(disk).free) > leave:
                file.write(bytes(min(free - leave, 2**16)))
                file.flush()
        except OSError:  # another took the rest
            pass
    return filler


def told(ended: Ended, disk: Path) -> str:
    """What is wrong with how a run on a full disk ended."""
    if not ended.refused:
        return f"exit code {ended.code}: {ended.err[-500:]}"
    last = ended.err.rstrip().rpartition("\n")[2]
    return "" if str(disk) in last else f"the path is not named: {last}"


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "unbroken").mkdir()
    assert run_forked(tmp_path / "unbroken", *SMALL, "hydra.run.dir=run").code == 0
    with small_disk(tmp_path / "disk") as disk:
        filler = fill(disk, leave=300 * 1024)  # some checkpoints, not all three
        assert told(run_forked(tmp_path / "disk", *SMALL, f"hydra.run.dir={disk}/run"), disk) == ""
        filler.unlink()
        assert run_forked(tmp_path / "disk", *SMALL, f"hydra.run.dir={disk}/run").code == 0
        assert differences(disk / "run", tmp_path / "unbroken" / "run") == []


@pytest.mark.faults
def test_full_and_read_only_disks(tmp_path: Path) -> None:
    (tmp_path / "unbroken").mkdir()
    assert run_forked(tmp_path / "unbroken", *SMALL, "hydra.run.dir=run").code == 0

    def goes_on(disk: Path, place: Path, ended: Ended) -> str:
        if ended.code != 0 and (wrong := told(ended, disk)):
            return wrong
        again = run_forked(place, *SMALL, f"hydra.run.dir={disk}/run")
        if again.code != 0:
            return f"it does not go on: {again.err[-500:]}"
        return ", ".join(differences(disk / "run", tmp_path / "unbroken" / "run"))

    with tally(
        "full and read-only disks",
        "Trainings on a file system of 8 MB with little room from the start, that is filled while they train, or that "
        "is read-only when they go on: the message names the path, and with room again the same command goes on to "
        "the same bits.",
    ) as counted:
        for kib in (0, 4, 12, 40, 160, 200, 300, 360):
            place = tmp_path / f"{kib}"
            place.mkdir()
            with small_disk(place / "disk") as disk:
                filler = fill(disk, leave=kib * 1024)
                ended = run_forked(place, *SMALL, f"hydra.run.dir={disk}/run")
                filler.unlink()
                loss = goes_on(disk, place, ended)
                counted.check(not loss, "full from the start" if ended.code else "enough room", f"{kib} KiB: {loss}")
        for i in range(3):
            place = tmp_path / f"filled-{i}"
            place.mkdir()
            with small_disk(place / "disk") as disk:
                process = start(place, *SMALL, f"hydra.run.dir={disk}/run")
                wait_for(disk / "run" / "checkpoints" / ("last.ckpt" if i % 2 else "previous.ckpt"), process)
                filler = fill(disk, leave=i * 4096)
                ended = end(process)
                filler.unlink()
                loss = goes_on(disk, place, ended)
                counted.check(not loss and ended.code == 1, "filled while it trained", f"{i}: {ended.code} {loss}")
        place = tmp_path / "read-only"
        place.mkdir()
        with small_disk(place / "disk") as disk:
            process = start(place, *SMALL, f"hydra.run.dir={disk}/run")
            wait_for(disk / "run" / "checkpoints" / "last.ckpt", process)
            process.kill()
            end(process)
            assert mount("-o", "remount,ro", str(disk))
            ended = run_forked(place, *SMALL, f"hydra.run.dir={disk}/run")
            assert mount("-o", "remount,rw", str(disk))
            loss = goes_on(disk, place, ended)
            counted.check(not loss and ended.code == 1, "read-only", loss)
