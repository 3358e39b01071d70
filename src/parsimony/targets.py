"""The Python objects that a config names: which ones it may, since a config from a stranger must not run what it likes;
and building them."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

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


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a container of dicts and lists."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def check_names(config: Any, allow: Sequence[str], option: str = "'allow_targets=[{}]'") -> None:
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


def check_objects(config: Any, allow: Sequence[str], option: str = "'allow_targets=[{}]'") -> None:
    """As `check_names`, and for a target that is another module's behind an allowed name, such as torch.os.system."""
    check_names(config, allow, option)
    for target in targets(config):
        if _within(target, allow):
            continue
        try:
            found = get_object(target)
        except Exception as error:
            raise InputError(f"The config names {target}, which cannot be imported: {error}") from error
        home = getattr(found, "__module__", None) or ""
        if (
            not (inspect.isclass(found) or inspect.isroutine(found))
            or not _within(home, ALLOWED)
            or _within(home, LOADERS)
        ):
            raise InputError(f"The config would run {target}, which is {home or 'a module'}'s: leave it out.")


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
