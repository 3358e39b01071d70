"""The Python objects that a config names: which ones it may, since a config from a stranger must not run what it likes;
and building them."""

import inspect
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

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
TRAINING_OPTION = "'allow_targets=[{}]'"  # by which the command of a training allows more
RUN_OPTION = "--allow {}"  # by which the commands on a run do
# The parts of a training, by name: Lightning takes seconds to import. A config may name their subclasses,
PARTS = (
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "pytorch_lightning.trainer.trainer.Trainer",
    "pytorch_lightning.callbacks.callback.Callback",
    "pytorch_lightning.core.datamodule.LightningDataModule",
    "pytorch_lightning.loggers.logger.Logger",
    "pytorch_lightning.profilers.profiler.Profiler",
    "pytorch_lightning.strategies.strategy.Strategy",
)
# and of these modules the functions, or the classes
FUNCTIONS = ("parsimony.nets", "parsimony.schedules", "torch.nn.functional", "torch._C._nn", "torch.nn.init")
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


def check_names(config: Any, allow: Sequence[str], option: str = TRAINING_OPTION) -> None:
    """Raises InputError for the first target outside ALLOWED and `allow`, with the `option` that allows it.

    Imports nothing.
    """
    for target in targets(config):
        inside = _within(target, ALLOWED) and not _within(target, LOADERS)
        if not inside and not _within(target, allow):
            raise InputError(
                f"The config would run {target}, which is outside {', '.join(ALLOWED)}: if you trust it, add "
                f"{option.format(target)} to the command."
            )


def check_objects(config: Any, allow: Sequence[str], option: str = TRAINING_OPTION) -> None:
    """As `check_names`, and for a target that is another module's behind an allowed name, such as torch.os.system."""
    check_names(config, allow, option)
    for target in targets(config):
        if _within(target, allow):
            continue
        try:
            found = resolve_name(target)
        except Exception as error:
            near = get_close_matches(error.name or "", dir(error.obj)) if isinstance(error, AttributeError) else []
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"The config names {target}, which cannot be imported: {error}.{meant}") from error
        home = getattr(found, "__module__", None) or ""
        if not _builds_a_part(found, home):
            of_others = f"{home}'s" if home else "a module"
            what = "no network, optimizer, schedule, callback or logger" if _within(home, ALLOWED) else of_others
            raise InputError(
                f"The config would run {target}, which is {what}: if you trust it, add "
                f"{option.format(target)} to the command."
            )


def _builds_a_part(found: Any, home: str) -> bool:
    """Whether it is a part of a training, which runs nothing that it is given. Of thousands of names inside torch, some
    run shell commands or unpickle files, wherever they are defined: so what is good is told, not what is bad."""
    if not _within(home, ALLOWED) or _within(home, LOADERS):
        return False
    if not inspect.isclass(found):
        return inspect.isroutine(found) and _within(home, FUNCTIONS)
    return _within(home, CLASSES) or any(f"{base.__module__}.{base.__name__}" in PARTS for base in found.__mro__)


def build(node: Any, kind: type = object, **arguments: Any) -> Any:
    """Hydra's instantiate. Raises InputError where the config's arguments are at fault or its target is no `kind`."""
    try:
        built = instantiate(node, **arguments, _convert_="all")
    except (InstantiationException, TypeError) as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        message = " ".join(str(cause or error).split()).rstrip(".")
        raise InputError(f"{node.get('_target_')} cannot be built: {message}.") from error
    if not isinstance(built, kind):
        raise InputError(f"{node.get('_target_')} gives no {kind.__name__}, which is what this key takes.")
    return built


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
