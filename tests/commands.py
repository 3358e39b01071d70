"""`python train.py ...` in processes that can be killed: started anew, or forked from one that has torch imported."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "train.py"
PATIENCE = 900.0  # seconds until a command counts as hanging: what takes ten of them takes longer on a busy machine
PRIVATE = ("HYDRA_FULL_ERROR", "PARSIMONY_ONE_SENTENCE", "RUN_ID")  # what a command sets for its own processes

# Eight short epochs: seconds of training, and a checkpoint every few tenths of one.
EPOCHS, STEPS = 8, 6
SMALL = (
    *("data=digits", "model=mnist_narrow", "trainer=cpu", f"trainer.max_epochs={EPOCHS}"),
    *(f"+trainer.limit_train_batches={STEPS}", "trainer.log_every_n_steps=2", "callbacks=[default,ema]"),
    *("data.validation=100", "augment=digits", "engine.threads=1", "~callbacks.pictures"),
)


@dataclass(frozen=True)
class Ended:
    """`code` is negative where a signal ended it, None where it hung."""

    code: int | None
    out: str
    err: str

    @property
    def refused(self) -> bool:
        """It failed with a sentence, and nothing but a sentence."""
        return self.code == 1 and self.err.rstrip().rpartition("\n")[2].startswith("error: ") and not self.traceback

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.out + self.err


def environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    return {**inherited, "OMP_NUM_THREADS": "1", **more}


def start(folder: Path, *overrides: str, program: Sequence[str] = (str(TRAIN),), **more: str) -> subprocess.Popen[str]:
    """`python train.py OVERRIDES` in `folder`; its outputs go to pipes."""
    return subprocess.Popen(
        [sys.executable, *program, *overrides],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """A shell has what it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=PATIENCE)
        return Ended(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Ended(None, out, err)


def run(folder: Path, *overrides: str, **more: str) -> Ended:
    return end(start(folder, *overrides, **more))


def run_forked(folder: Path, *overrides: str, program: Sequence[str] = (str(TRAIN),)) -> Ended:
    """As `run`, in a fork of a process that has imported torch and composed nothing: a tenth of the time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parsimony.training", "parsimony.sweeps.start"])
    process = context.Process(target=_as_main, args=(folder, [*program, *overrides]))
    process.start()
    process.join(PATIENCE)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in _outputs(folder)]
    return Ended(None if hung else process.exitcode, *texts)


def _outputs(folder: Path) -> list[Path]:
    return [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]


def _as_main(folder: Path, arguments: Sequence[str]) -> None:
    os.chdir(folder)
    heed_ctrl_c()  # the fork server ignores it
    for name in PRIVATE:
        os.environ.pop(name, None)
    for number, path in enumerate(_outputs(folder), 1):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = list(arguments)
    runpy.run_path(sys.argv[0], run_name="__main__")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until `path` is there or `process` has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def wait_until_busy(process: subprocess.Popen[str], seconds: float) -> None:
    """Until `process` has had so many seconds of processor time, which other processes cannot take from it."""
    try:
        while process.poll() is None and busy(process.pid) < seconds:
            time.sleep(0.005)
    except OSError:  # it ended meanwhile
        return


def busy(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime
