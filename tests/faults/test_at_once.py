"""Several processes at once: runs, resumes of one run, downloads, and a report while a run writes."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import EPOCHS, SMALL, Ended, end, run_forked, start, wait_for
from damage import archive, cifar_files, idx_files
from tally import tally
from test_downloads import serve  # noqa: F401 (a fixture)
from test_kills import differences
from test_sources import assert_small_cifar, assert_small_idx, small_cifar, small_idx

from parsimony.data.sources import Source
from parsimony.report.read import read_runs
from parsimony.runs import Result

TINY = (
    *("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1", "data.train_images=64"),
    *("data.validation=16", "engine.threads=1", "~callbacks.pictures"),
)


def test_two_resumes_of_one_run(tmp_path: Path) -> None:
    assert two_resumes(tmp_path, run_forked(tmp_path, *SMALL, "hydra.run.dir=run")) == ""


def two_resumes(place: Path, unbroken: Ended) -> str:
    """What goes wrong when two go on with one run at the same time; `place`/run is the one that was never stopped."""
    assert unbroken.code == 0, unbroken.err
    broken = place / "broken"
    dying = (str(Path(__file__).with_name("dying.py")),)
    run_forked(place, "step::20", *SMALL, f"hydra.run.dir={broken}", program=dying)
    places = [place / "one", place / "two"]
    for folder in places:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda folder: run_forked(folder, f"resume={broken}"), places))
    refused = [one for one in ended if one.refused and f"Another process trains in {broken}" in one.err]
    if refused:
        went_on = [one for one in ended if one.code == 0]
        if len(refused) != 1 or len(went_on) != 1:
            return f"{[one.code for one in ended]}: {ended[0].err[-300:]} {ended[1].err[-300:]}"
    elif [one.code for one in ended] != [0, 0] or not any("This run is complete" in one.out for one in ended):
        return f"neither is refused: {ended[0].err[-300:]} {ended[1].err[-300:]}"
    return ", ".join(differences(broken, place / "run"))


def download_in_two(source: Source) -> list[int | None]:
    """The exit codes of two processes that download at the same time."""
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=source.download) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.faults
def test_twenty_runs(tmp_path: Path) -> None:
    with tally(
        "20 runs at once",
        "Twenty trainings of one command started at the same time in one folder: each has a run's folder of its own, "
        "and all end with the same weights, bit for bit.",
    ) as counted:
        processes = [start(tmp_path, *TINY) for _ in range(20)]
        ended = [end(process) for process in processes]
        folders = list((tmp_path / "runs" / "mnist_narrow").iterdir())
        assert len(folders) == 20
        for i, (one, folder) in enumerate(zip(ended, folders, strict=True)):
            loss = (
                one.err[-300:]
                if one.code
                else ", ".join(differences(folder, folders[0], files={"best.ckpt", "last.ckpt"}))
            )
            counted.check(not loss, "completed", f"{i}: {loss}")


@pytest.mark.faults
def test_resumes_downloads_and_reports(tmp_path: Path, serve: type) -> None:  # noqa: F811
    with tally(
        "at the same time",
        "Two processes go on with one run (one is refused or finds it complete), two processes ask for one download, "
        "and reports are made all the while a run writes: no wrong bits, no second download, no error.",
    ) as counted:
        for i in range(3):
            place = tmp_path / f"resumes-{i}"
            place.mkdir()
            loss = two_resumes(place, run_forked(place, *SMALL, "hydra.run.dir=run"))
            counted.check(not loss, "two resumes", loss)
        server = serve(idx_files() | {"bin.tar.gz": archive(cifar_files())})
        for i in range(3):
            root = tmp_path / f"data-{i}"
            sources = [small_idx(root, mirrors=[server.url]), small_cifar(root, mirrors=[server.url])]
            for source in sources:
                children = download_in_two(source)
                counted.check(children == [0, 0], "two downloads", f"exit codes {children}")
            assert_small_idx(sources[0].load())
            assert_small_cifar(sources[1].load())
        assert set(server.asked.values()) == {3}
        process = start(tmp_path, *SMALL, "hydra.run.dir=runs/run")
        wait_for(tmp_path / "runs" / "run" / "config.yaml", process)
        seen = [0]
        while process.poll() is None:
            if not list((tmp_path / "runs" / "run").glob("events.*")):
                time.sleep(0.1)
                continue
            (found,), warnings = read_runs([tmp_path / "runs"])
            damaged = [warning for warning in warnings if "ends within a record" not in warning]
            seen.append(found.epochs or 0)
            counted.check(not damaged and seen[-1] >= seen[-2], "reports", f"{damaged} {seen[-2:]}")
            time.sleep(0.1)
        assert end(process).code == 0
        assert Result.read(tmp_path / "runs" / "run" / "result.json").epochs == EPOCHS
