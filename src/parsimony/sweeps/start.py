"""From the command of a sweep to its folder, or to one sentence that says what to type instead."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from parsimony.config import check, check_values, override_key, to_type
from parsimony.distributed.place import place
from parsimony.errors import InputError, PastHydra, RunError
from parsimony.interrupts import will_make
from parsimony.resume import MAY_CHANGE
from parsimony.runs import cores
from parsimony.sweeps.plan import Plan, override_texts
from parsimony.sweeps.running import Sweep
from parsimony.sweeps.sharing import gpus

_sweep: Sweep | None = None  # the one that this process was started as


class Start(Callback):
    """Hydra calls it before a run or a sweep, when the command is composed and nothing is written."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        HydraConfig.instance().set_config(config)  # which the folder's name refers to; Hydra sets it later
        if config.resume is not None and Path(str(config.resume)).is_file():
            raise PastHydra(InputError(f"{config.resume} is a file: resume takes the folder of its run."))
        with suppress(OmegaConfBaseException, OSError):  # Hydra says so itself
            will_make(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _sweep
        try:
            _sweep = begin(config)
        except Exception as error:
            raise PastHydra(error) from error


@contextmanager
def past_hydra() -> Iterator[None]:
    """Inside Hydra's main: what a user reads of an error is its sentence alone; `told_of` takes it up outside."""
    try:
        yield
    except (InputError, RunError) as error:
        raise PastHydra(error) from error


@contextmanager
def told_of() -> Iterator[None]:
    """Around Hydra's main: a sweep ends with a line and an exit code that say how it went."""
    try:
        yield
    except PastHydra as passed:
        raise passed.error from None
    except (KeyboardInterrupt, SystemExit) as stop:
        if _sweep:
            _sweep.stopped(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
        raise
    except Exception as error:
        if _sweep:
            _sweep.failed(error)
        raise
    if _sweep:
        _sweep.ended()


def begin(config: DictConfig) -> Sweep:
    """Raises InputError, before anything is written, for a sweep that cannot run.

    Tells the launcher in `config` how many runs may share this machine.
    """
    hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
    if here := place():
        raise InputError(f"A sweep starts the processes of its runs itself: leave out {here.by}.")
    if config.resume is not None:
        raise InputError("resume goes on with one run: leave out -m, or go on with a sweep by sweep.resume.")
    for name, value in config.sweep.items():
        if name != "resume" and (not isinstance(value, int) or value < 1):
            raise InputError(f"sweep.{name} takes a whole number of at least 1, not {value}.")
    overrides, jobs, runs = planned(config)
    check_any(config, jobs, folder)
    at_once = _share_machine(config, runs)
    over = [o.input_line or "" for o in overrides if o.is_sweep_override() or o.key_or_group not in MAY_CHANGE]
    if "n_jobs" in hydra.sweeper:
        over.append(f"hydra.sweeper.n_jobs={hydra.sweeper.n_jobs}")  # the proposals depend on it
    plan = Plan(
        command=_typed(hydra.overrides.task, but="sweep.resume") + _typed(hydra.overrides.hydra, but="hydra.mode"),
        over=over,
        swept=[override_key(override.get_key_element()) for override in overrides if override.is_sweep_override()],
        runs=runs,
        at_once=at_once,
        pid=os.getpid(),
    )
    requeued = "SLURM_RESTART_COUNT" in os.environ and folder.exists()
    if config.sweep.resume is None and not requeued:
        will_make(folder)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise InputError(
                f"{folder} is there already: go on with it by sweep.resume, or take another hydra.sweep.dir."
            ) from None
    elif (kept := Plan.read(folder)).over != plan.over:
        raise InputError(
            f"{folder} is another sweep, which goes on by: python train.py -m {shlex.join(kept.command)} "
            f"{to_type('sweep.resume', folder)}"
        )
    sweep = Sweep(folder, plan)
    # A sampler of the same seed that is told the same results proposes the same: it makes its study anew from the runs
    # that are complete, up to where it broke off.
    (folder / "study.db").unlink(missing_ok=True)
    if hydra.sweeper._target_.endswith(".OptunaSweeper"):
        from optuna.logging import WARNING, set_verbosity

        set_verbosity(WARNING)  # the sweep tells of its runs itself
    return sweep


def planned(config: DictConfig) -> tuple[list[Override], list[list[str]], int]:
    """What a sweep is over, the overrides of each run that is known beforehand, and the number of runs.

    Raises InputError for a sweep that has nothing to run or to choose by.
    """
    hydra = config.hydra
    typed = _typed(hydra.overrides.task, but="sweep.resume")
    params = [f"{name}={value}" for name, value in (hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(params + typed)
    if hydra.sweeper._target_.endswith(BasicSweeper.__name__):
        jobs = _jobs(overrides)
        return overrides, jobs, len(jobs)
    if config.data.validation in (0, "test"):
        raise InputError("This sweep chooses by validation accuracy: set data.validation above 0.")
    for interval in (override for override in overrides if override.is_interval_sweep()):
        _check_interval(interval)
    return overrides, [[o.input_line or "" for o in overrides if not o.is_sweep_override()]], hydra.sweeper.n_trials


def _typed(overrides: Any, *, but: str) -> list[str]:
    return [override for override in override_texts(overrides) if override_key(override) != but]


def _check_interval(override: Override) -> None:
    interval: Any = override.value()
    if interval.start > interval.end:
        raise InputError(f"{override.input_line} ends below its beginning: name the lower value first.")
    if "log" in interval.tags and interval.start <= 0:
        raise InputError(f"{override.input_line} is logarithmic and begins at {interval.start}: begin above 0.")
    for end in (interval.start, interval.end):
        check_values({override_key(override.get_key_element()): end})


def _jobs(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each run of a grid, in Hydra's order."""
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_string_iterator()):
            raise InputError(f"{override.input_line} names no value: name one or more, as in seed=0,1,2.")
        if override.is_interval_sweep():
            raise InputError(f"{override.input_line} is an interval: name values, or let sweep=optuna choose from it.")
    return list(chain(*BasicSweeper.split_arguments(overrides, None)))


def check_any(config: DictConfig, jobs: Sequence[Sequence[str]], folder: Path) -> None:
    """Raises the first run's InputError where no run can be trained. If some can, the others fail among them."""
    loader, errors = GlobalHydra.instance().config_loader(), []
    for overrides in jobs:
        job = loader.load_sweep_config(config, list(overrides))
        with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
            job.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(job)
        task = job.copy()
        with open_dict(task):
            del task["hydra"]
        try:
            return check(task)
        except InputError as error:
            errors.append(error)
    raise errors[0]


def _share_machine(config: DictConfig, runs: int) -> int | None:
    """How many runs go on at once and share this machine; None where that is the launcher's own affair."""
    launcher = config.hydra.launcher
    if "n_jobs" not in launcher:
        return None
    if launcher.n_jobs < 1 and launcher.n_jobs != -1:
        raise InputError(
            "hydra.launcher.n_jobs takes the number of runs at once, or -1 for one on each GPU or else on each core, "
            f"not {launcher.n_jobs}."
        )
    cards = gpus(os.environ) if config.trainer.accelerator != "cpu" else []
    if cards:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(cards)  # the jobs take theirs from it
    at_once = min(runs, launcher.n_jobs if launcher.n_jobs > 0 else len(cards) or len(cores()))
    with read_write(launcher):
        launcher.n_jobs = at_once
    return at_once
