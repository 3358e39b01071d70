"""The processes of one run: started, or met where a launcher started them; they agree, and they end together."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import distributed

from parsimony.data.datamodule import ImageData
from parsimony.distributed.images import attach, publish
from parsimony.distributed.place import VARIABLE, Place, place
from parsimony.distributed.watch import GRACE, Ended, Watch
from parsimony.errors import InputError, RunError
from parsimony.interrupts import INTERRUPTED, TERMINATED
from parsimony.runs import cores

MEETING = 600.0  # seconds for all processes to come: machines of a cluster may start minutes apart
COLLECTIVE = timedelta(minutes=30)  # torch's own; what is gone is noticed by the watch, much sooner
LOGS = "ranks"  # the folder, in the run's, of what the processes but rank 0 print


class Group:
    """A context for all that they do together: whichever way one of them leaves it, the others do not wait for it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.here = place()
        self.store: Any = None
        self.watch: Watch | None = None
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.data: ImageData | None = None
        self.last_words: Callable[[Ended], None] = lambda ended: None
        self.met = False  # all are here, and agree

    def __enter__(self) -> "Group":
        if self.here:
            self._join(self.here)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: Any) -> None:
        if self.watch:
            if error is not None:
                self.watch.report(_reason(error), _code(error))
            self.watch.close()
        if distributed.is_initialized() and (error is None or distributed.get_backend() == "gloo"):
            distributed.destroy_process_group()  # NCCL's would wait for who is gone
        deadline = time.monotonic() + GRACE + 2
        for child in self.children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        for child in self.children.values():
            child.kill()  # nothing, if it has ended
            child.wait()

    @property
    def rank(self) -> int:
        return self.here.rank if self.here else 0

    def devices(self, devices: Any, typed: bool) -> dict[str, Any]:
        """The Trainer's `devices` and `num_nodes`: a launcher's, and the config's for a process on its own.

        Raises InputError where the config's was `typed` and is another.
        """
        if self.here is None:
            return {"devices": devices}
        chosen = len(devices) if isinstance(devices, list) else devices
        if typed and chosen not in ("auto", self.here.local_world) and self.here.by != "train.py":
            raise InputError(
                f"trainer.devices={devices}, but {self.here.by} started {self.here.local_world} processes on each "
                "machine: leave it out."
            )
        devices = devices if isinstance(devices, list) else self.here.local_world
        return {"devices": devices, "num_nodes": self.here.machines}

    def load(self, data: ImageData) -> None:
        """Has the first process of each machine read the images, the others share its memory."""
        self.data = data
        if self.here and self.here.local_rank:
            attach(data, self._wait_for(f"images/{self.here.machine}"))
            return
        data.prepare_data()
        data.setup()
        if self.here:
            self.store.set(f"images/{self.here.machine}", publish(data))

    def meet(self, processes: int, backend: str, device: torch.device, sees: dict[str, Any]) -> None:
        """Returns once all are here. Raises InputError where one `sees` another run than rank 0 does."""
        if self.met:
            return
        if self.here is None:
            self._start(processes)
        here = self.here
        assert here
        self.store.set(f"sees/{here.rank}", json.dumps(sees))
        if here.rank == 0:
            for rank in range(1, here.world):
                other = json.loads(self._wait_for(f"sees/{rank}"))
                if different := [name for name, value in sees.items() if other.get(name) != value]:
                    raise InputError(
                        f"Rank {rank} has another {' and another '.join(different)} than rank 0: all machines need "
                        "the same files, and a folder for the run that all of them see."
                    )
            self.store.set("all are here", "")
        self._wait_for("all are here")
        if here.rank and here.by != "train.py":
            _print_to(self._log(here.rank))
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("collectives", self.store),
            rank=here.rank,
            world_size=here.world,
            timeout=COLLECTIVE,
            device_id=device if device.type == "cuda" else None,
        )
        self.met = True

    @contextmanager
    def told(self) -> Iterator[None]:
        """Has an error that comes of another process's end say that, and tells the others of one of our own."""
        try:
            yield
        except BaseException as error:
            if self.watch is None:
                raise
            if not _of_another(error):
                self.watch.report(_reason(error), _code(error))
                raise
            ended = self.watch.verdict()
            if ended is None or ended.rank == self.rank:
                raise
            raise self.error(ended) from error

    def check(self) -> None:
        """Raises what the run ends of, if it does."""
        if self.watch and self.watch.ended:
            raise self.error(self.watch.ended)

    def error(self, ended: Ended) -> BaseException:
        if ended.code == TERMINATED:
            return SIGTERMException()
        if ended.code == INTERRUPTED:
            return KeyboardInterrupt()
        return RunError(self.sentence(ended))

    def sentence(self, ended: Ended) -> str:
        log = self._log(ended.rank)
        printed = f" What it printed is in {log}." if ended.rank and log.exists() else ""
        return f"Rank {ended.rank} {ended.why.rstrip('.')}.{printed}"

    def on_sigterm(self) -> None:
        """All of them end at the end of their step, whichever of them was told to."""
        if watch := self.watch:
            signal.signal(signal.SIGTERM, lambda *_: watch.report("was told to end", TERMINATED))

    def _join(self, here: Place) -> None:
        opens = here.rank == 0 and not here.store_is_open
        try:
            store = distributed.TCPStore(
                here.address,
                here.port,
                is_master=opens,
                timeout=timedelta(seconds=MEETING),
                wait_for_workers=False,
                multi_tenant=True,
            )
            self._watch(here, store)
        except distributed.DistError as error:
            if opens:
                raise RunError(
                    f"Rank 0 cannot open port {here.port}, where the processes would meet: give all of them another "
                    "one, MASTER_PORT=PORT."
                ) from error
            raise RunError(
                f"Rank {here.rank} waited {MEETING / 60:.0f} minutes for rank 0 at {here.address}:{here.port}: see "
                "whether it runs, and whether this machine reaches it there (MASTER_ADDR, MASTER_PORT)."
            ) from error

    def _watch(self, here: Place, store: Any) -> None:
        self.store = distributed.PrefixStore(f"parsimony/{here.attempt}", store)
        if here.rank == 0:
            token, rank_zero = secrets.token_hex(16), None
        else:
            token, port = json.loads(self.store.get("watch"))
            rank_zero = here.address, port
        host = "127.0.0.1" if here.machines == 1 and here.address == "127.0.0.1" else ""
        self.watch = Watch(here.rank, token, rank_zero, host=host, explain=self._explain, last_words=self._end)
        if here.rank == 0:
            self.store.set("watch", json.dumps([token, self.watch.port]))

    def _start(self, processes: int) -> None:
        """As rank 0, the others on this machine, with the config and nothing else to tell them what to do."""
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")  # needs no host name
        listener = socket.create_server(("127.0.0.1", 0))  # by itself the store would listen on all addresses
        port = listener.getsockname()[1]
        store = distributed.TCPStore(
            "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
        here = Place("train.py", 0, processes, 0, processes, 0, 1, "127.0.0.1", store.port, store_is_open=True)
        self.here = here
        self._watch(here, store)
        assert self.data
        self.store.set("images/0", publish(self.data))
        for rank in range(1, processes):
            log = self._log(rank)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                self.children[rank] = subprocess.Popen(
                    [sys.executable, "-m", "parsimony.distributed.rank"],
                    env={
                        **os.environ,
                        VARIABLE: replace(here, rank=rank, local_rank=rank).to_variable(),
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    },
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    preexec_fn=_ignore_ctrl_c,
                )
            stdin = self.children[rank].stdin
            assert stdin
            with stdin, suppress(BrokenPipeError):  # that it has ended is seen below
                stdin.write(json.dumps(self.config).encode())

    def _wait_for(self, key: str) -> str:
        """The value of `key` in the store, once it is there. Raises what ends the run meanwhile."""
        deadline = time.monotonic() + MEETING
        while not self.store.check([key]):
            self.check()
            for rank, child in self.children.items():
                if child.poll() is not None:
                    raise RunError(self.sentence(Ended(rank, self._explain(rank))))
            if time.monotonic() > deadline:
                raise RunError(f"Not all processes came within {MEETING / 60:.0f} minutes (waited for {key}).")
            time.sleep(0.05)
        return self.store.get(key).decode()

    def _explain(self, rank: int) -> str:
        """What became of a process that went without a word."""
        if not (child := self.children.get(rank)):
            return "ended without a word: it was killed, or its machine is gone"
        try:
            code = child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    def _end(self, ended: Ended) -> None:
        """In the watch's thread: the process hangs, so this is the last that it does."""
        if ended.rank != self.rank:
            self.last_words(ended)
        for child in self.children.values():
            child.kill()

    def _log(self, rank: int) -> Path:
        return self.folder / LOGS / f"rank-{rank}.log"


def share_cores(processes: int) -> None:
    """Threads of the processes of one machine get in each other's way if there are more than cores."""
    if processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(cores()) // processes))


def _ignore_ctrl_c() -> None:
    """It comes to all processes of a terminal: rank 0 tells the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _of_another(error: BaseException) -> bool:
    """Is it how a collective operation or the store fails when another process is gone?"""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo/", "Gloo", "NCCL"))


def _reason(error: BaseException) -> str:
    code = _code(error)
    if code in (TERMINATED, INTERRUPTED):
        return "was told to end"
    text = " ".join(str(error).split())
    return f"failed: {text}" if isinstance(error, RunError | InputError) else f"failed: {type(error).__name__}: {text}"


def _code(error: BaseException) -> int:
    if isinstance(error, SIGTERMException):
        return TERMINATED
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return INTERRUPTED
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code else 1
