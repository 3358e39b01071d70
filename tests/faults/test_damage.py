"""Files cut, flipped, emptied, swapped or random: a clear error or the right answer, never a wrong one."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, run_forked
from damage import CIFAR_NAMES, IDX_NAMES, archive, cifar_files, damaged, idx_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tally import Tally, tally
from test_sources import assert_small_cifar, assert_small_idx, attempt, md5, small_cifar, small_idx, write

from parsimony.checkpoints import newest, read
from parsimony.errors import InputError
from parsimony.report.events import read_log
from parsimony.report.read import read_runs
from parsimony.rerun import _read as read_to_rerun
from parsimony.resume import kept_config
from parsimony.runs import finished

FEW_AND_MANY = pytest.mark.parametrize("count", [15, pytest.param(200, marks=pytest.mark.faults)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("whole")
    ended = run_forked(folder, *SMALL, "hydra.run.dir=run", "trainer.max_epochs=3")
    assert ended.code == 0, ended.err
    return folder / "run"


def try_many(count: int, check: Callable[[st.DataObject], None], counted: Tally) -> None:
    """Runs `check` on `count` examples, always the same; what it raises is a loss."""

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(data=st.data())
    def attempts(data: st.DataObject) -> None:
        try:
            check(data)
        except Exception as error:
            counted.lost(f"{type(error).__name__}: {error}")

    attempts()


@FEW_AND_MANY
def test_data_files(count: int, tmp_path: Path) -> None:
    with tally(
        "damaged data files",
        "IDX files, CIFAR files and archives, damaged: they are refused by name, or hold what the whole ones hold. "
        "What has no checksum of its own is named unverified.",
    ) as counted:

        def check(data: st.DataObject) -> None:
            shutil.rmtree(tmp_path / "root", ignore_errors=True)
            kind = data.draw(st.sampled_from(["idx", "cifar", "archive"]))
            root = tmp_path / "root"
            if kind == "idx":
                files = idx_files()
                name = data.draw(st.sampled_from(IDX_NAMES))
                original = files[name]
                files[name] = data.draw(damaged(original, [files[other] for other in IDX_NAMES if other != name]))
                write(root / "small", files)
                source, right = small_idx(root), assert_small_idx
            elif kind == "cifar":
                write(root, {"bin.tar.gz": archive(cifar_files())})
                source, right = small_cifar(root), assert_small_cifar
                source.download()
                name = data.draw(st.sampled_from([*CIFAR_NAMES, "SHA256SUMS"]))
                path = root / "bin" / name
                original = path.read_bytes()
                path.write_bytes(data.draw(damaged(original, [cifar_files()["data_batch_1.bin"], b"\0" * 9219])))
            else:
                packed = data.draw(damaged(archive(cifar_files()), [b""]))
                write(root, {"bin.tar.gz": packed})
                source, right = small_cifar(root, checksum=md5(packed)), assert_small_cifar
            found, told = attempt(lambda: source.download() or source.load())
            if found:
                right(found)
                counted.survived("read as they were")
            else:
                counted.check(str(root) in told, "refused", f"the file is not named: {told}")

        try_many(count, check, counted)


@FEW_AND_MANY
def test_checkpoints(count: int, whole: Path, tmp_path: Path) -> None:
    names = ("last.ckpt", "previous.ckpt")
    contents = {name: (whole / "checkpoints" / name).read_bytes() for name in names}
    kept = {name: read(whole / "checkpoints" / name) for name in names}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    with tally(
        "damaged checkpoints",
        "The last checkpoint, or both, damaged: a run goes on from one that holds every tensor as it was written, from "
        "the one before where the last is damaged, or from none.",
    ) as counted:

        def check(data: st.DataObject) -> None:
            hit = names if data.draw(st.integers(0, 9)) == 0 else names[:1]
            for name in names:
                content = contents[name]
                if name in hit:
                    content = data.draw(damaged(content, [contents["previous.ckpt"], b"PK\x05\x06" + bytes(18)]))
                (folder / "checkpoints" / name).write_bytes(content)
            path, epochs = newest(folder)
            if path is None:
                counted.check(hit == names, "both refused", "a sound checkpoint was refused")
                return
            found = read(path)
            right = next((whole for whole in kept.values() if len(whole["history"]) == epochs), None)
            counted.check(
                right is not None and same(found, right),
                f"{path.name} taken" if path.name == names[0] else "the one before taken",
                f"{path.name} is read, and not as it was written",
            )

        try_many(count, check, counted)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.equal(other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@FEW_AND_MANY
def test_event_files(count: int, whole: Path, tmp_path: Path) -> None:
    path = max(whole.glob("events.*"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    right = read_log(whole, [path.name]).scalars
    beside = tmp_path / "runs" / "other"
    shutil.copytree(whole, beside)
    (tmp_path / "runs" / "run").mkdir()
    broken = tmp_path / "runs" / "run" / path.name
    with tally(
        "damaged event files",
        "The report reads them beside a whole run: every point it shows is one that was written, and it says what it "
        "leaves out.",
    ) as counted:

        def check(data: st.DataObject) -> None:
            broken.write_bytes(data.draw(damaged(content, [content[::-1], b"\0" * 300])))
            log = read_log(broken.parent, [broken.name])
            for tag, points in log.scalars.items():
                for step, value in points.items():
                    assert right[tag][step] == value or step != step, f"{tag} at step {step} is {value}"
            missing = sum(map(len, right.values())) - sum(map(len, log.scalars.values()))
            runs, _ = read_runs([tmp_path / "runs"])
            assert any(run.path == "other" and run.epochs == 3 for run in runs), "the whole run is not reported"
            whole_file = broken.read_bytes()[: len(content)] == content
            assert missing == 0 or log.warnings or len(broken.read_bytes()) == 0 or cut_between(broken, content), (
                "silent"
            )
            counted.survived("read whole" if not missing and whole_file else "read as far as it is sound")

        try_many(count, check, counted)


def cut_between(broken: Path, content: bytes) -> bool:
    """Cut off where a record ends: as a run that is still writing looks."""
    return content.startswith(broken.read_bytes())


@FEW_AND_MANY
def test_results_and_configs(count: int, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "runs" / "run"))
    right = asdict(finished(whole))  # type: ignore[arg-type]
    kept = kept_config(whole)
    with tally(
        "damaged results and configs",
        "result.json or config.yaml of a run, damaged, then read by the report, by resume and by rerun: read as JSON "
        "or YAML allows, or refused in a sentence.",
    ) as counted:

        def check(data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(["result.json", "config.yaml"]))
            content = (whole / name).read_bytes()
            (folder / name).write_bytes(data.draw(damaged(content, [b"{}", b"null", b"[1]"])))
            outcomes = set()
            for reader in (lambda: read_runs([folder]), lambda: kept_config(folder), lambda: read_to_rerun(folder)):
                try:
                    reader()
                    outcomes.add("read")
                except InputError:
                    outcomes.add("refused in a sentence")
            result = finished(folder)
            assert (
                result is None or (folder / name).read_bytes() != content or asdict(result)["final"] == right["final"]
            )
            shutil.copy(whole / name, folder / name)
            assert {**kept_config(folder), "folder": ""}.keys() == kept.keys()
            counted.survived("refused in a sentence" if "refused in a sentence" in outcomes else "read")

        try_many(count, check, counted)
