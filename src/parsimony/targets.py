"""Which Python objects a config may name: a config from a stranger must not run what it likes."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.utils import get_object

from parsimony.errors import InputError

ALLOWED = ("torch", "pytorch_lightning", "torchmetrics", "hydra", "parsimony")
# Of these, what runs code that it is given: pickles, sources, other targets
LOADERS = (
    "torch.hub",
    "torch.load",
    "torch.jit",
    "torch.package",
    "torch.utils.cpp_extension",
    "hydra.utils",
    "hydra._internal",
)
# What of parsimony a config names that is no subclass of a part of Lightning or torch
FUNCTIONS = ("parsimony.nets", "parsimony.schedules", "torch.nn.functional", "torch.nn.init")
CLASSES = ("parsimony.data", "parsimony.engine")


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a container of dicts and lists."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def check_names(config: Any, allow: Sequence[str]) -> None:
    """Raises InputError for the first target outside ALLOWED and `allow`. Imports nothing."""
    for target in targets(config):
        inside = _within(target, ALLOWED) and not _within(target, LOADERS)
        if not inside and not _within(target, allow):
            raise InputError(
                f"The config would run {target}, which is outside {', '.join(ALLOWED)}: if you trust it, add "
                f"'allow_targets=[{target}]' to the command."
            )


def check_objects(config: Any, allow: Sequence[str]) -> None:
    """As `check_names`, and for a target that is another module's behind an allowed name, such as torch.os.system."""
    check_names(config, allow)
    for target in targets(config):
        if _within(target, allow):
            continue
        try:
            found = get_object(target)
        except Exception as error:
            raise InputError(f"The config names {target}, which cannot be imported: {error}") from error
        home = getattr(found, "__module__", None) or ""
        if not _builds_a_part(found, home):
            of_others = f"{home}'s" if home else "a module"
            what = "no network, optimizer, schedule, callback or logger" if _within(home, ALLOWED) else of_others
            raise InputError(
                f"The config would run {target}, which is {what}: if you trust it, add "
                f"'allow_targets=[{target}]' to the command."
            )


def _builds_a_part(found: Any, home: str) -> bool:
    """Whether it is a part of a training, which runs nothing that it is given. Of thousands of names inside torch, some
    run shell commands or unpickle files, wherever they are defined: so what is good is told, not what is bad."""
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import Logger
    from pytorch_lightning.profilers import Profiler
    from pytorch_lightning.strategies import Strategy
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    if not _within(home, ALLOWED) or _within(home, LOADERS):
        return False
    if not inspect.isclass(found):
        return inspect.isroutine(found) and _within(home, FUNCTIONS)
    parts = (nn.Module, Optimizer, LRScheduler, pl.Trainer, pl.Callback, pl.LightningDataModule)
    return issubclass(found, (*parts, Logger, Profiler, Strategy)) or _within(home, CLASSES)


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
