"""Checkpoints, configs, archives and names made to run code or to write where they should not: nothing is run."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, run_forked
from damage import archive, cifar_files
from report_runs import our_run
from tally import tally
from test_downloads import left_in, member
from test_sources import md5, small_cifar, write

from parsimony.checkpoints import read
from parsimony.errors import InputError
from parsimony.report.command import report
from parsimony.targets import check_objects
from parsimony.trained import load

TARGETS = (
    *("os.system", "subprocess.run", "builtins.eval", "builtins.exec", "importlib.import_module", "posix.system"),
    *("torch.os.system", "torch.serialization.load", "torch.load", "torch.hub.load", "torch.jit.load"),
    *("torch.utils.collect_env.run", "torch.utils.cpp_extension.load_inline", "torch.package.PackageImporter"),
    *("torch.utils.benchmark.Timer", "torch.multiprocessing.spawn", "torch.nn.functional.torch.os.system"),
    *("pytorch_lightning.LightningModule.load_from_checkpoint", "pytorch_lightning.cli.LightningCLI"),
    *("hydra.utils.instantiate", "hydra.utils.get_method", "hydra._internal.utils.get_method"),
    *("parsimony.runs._git", "parsimony.runs.replace_file", "parsimony.runs.subprocess.run"),
    *(
        "parsimony.data.download.fetch",
        "parsimony.training.build",
        "parsimony.sweeps.job._run",
        "numpy.load",
        "pickle.loads",
    ),
)


class Crafted:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    assert run_forked(folder, *SMALL, "hydra.run.dir=run", "trainer.max_epochs=1").code == 0
    return folder / "run"


def pickles(whole: dict[str, Any], crafted: Crafted) -> dict[str, Callable[[Path], object]]:
    """Ways to hide it in a checkpoint."""
    tensor = torch.zeros(2)
    tensor.hidden = crafted  # type: ignore[attr-defined]
    return {
        "in the history": lambda path: torch.save({**whole, "history": crafted}, path),
        "as a key": lambda path: torch.save({**whole, "x": {"y": [crafted]}}, path),
        "as an attribute of a tensor": lambda path: torch.save({**whole, "x": tensor}, path),
        "in place of the checkpoint": lambda path: torch.save(crafted, path),
        "in torch's old format": lambda path: torch.save(
            {**whole, "x": crafted}, path, _use_new_zipfile_serialization=False
        ),
        "as a bare pickle": lambda path: path.write_bytes(pickle.dumps(crafted)),
        "in a tar file": lambda path: tarred(path, pickle.dumps(crafted)),
    }


def tarred(path: Path, content: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_nothing_of_it_runs(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof, path = tmp_path / "proof", run_folder / "checkpoints" / "last.ckpt"
    with tally(
        "hostile files",
        "Pickles in checkpoints, shell commands and loaders as a config's _target_, members of archives that point "
        "outside, names with markup: refused, or shown as text; nothing is run, nothing written elsewhere.",
    ) as counted:
        kept, whole = path.read_bytes(), read(path)
        for where, hide in pickles(whole, Crafted(proof)).items():
            hide(path)
            try:
                load(run_folder)
                refused = False
            except InputError:
                refused = True
            counted.check(refused and not proof.exists(), "pickles", f"a pickle {where}: {refused}")
        path.write_bytes(kept)
        for target in TARGETS:
            try:
                check_objects({"model": {"_target_": target}}, [])
                counted.lost(f"{target} is allowed")
            except InputError:
                counted.survived("targets")
        outside = ("/tmp/evil.bin", "../evil.bin", "bin/../../evil.bin")
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        extra = [member(name, 9) for name in outside] + [
            member("bin/x", kind=kind, link="/etc/passwd") for kind in kinds
        ]
        for info in [*extra, member("bin/large", 50_000_000)]:
            root = tmp_path / "archives" / str(info.name).replace("/", "_") / str(info.type)
            packed = archive(cifar_files(), info)
            write(root, {"bin.tar.gz": packed})
            try:
                small_cifar(root, checksum=md5(packed)).download()
                counted.lost(f"an archive with {info.name} is taken")
            except InputError:
                counted.check(left_in(root) == {"bin.tar.gz"}, "archives", f"{info.name} leaves {left_in(root)}")
        for markup in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><script>x</script>"):
            runs = tmp_path / "runs" / str(len(markup))
            our_run(runs / "a", name=markup)
            report([runs])
            page = (runs / "report" / "index.html").read_text()
            counted.check(markup not in page and page.count("<script>") == 1, "markup", f"the page holds {markup}")
        capsys.readouterr()
