"""From what a user types to a checked config, or to an InputError that says what to type instead.

Imports no torch, so that a mistyped command is answered in well under a second.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unicodedata import category

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from parsimony.errors import InputError
from parsimony.rules import RULES, is_number, typed
from parsimony.targets import check_names

CONF = Path(__file__).resolve().parents[2] / "conf"

# What a Trainer also has but conf/trainer does not set. The rest a run sets itself, or its record does not allow for:
# it is made of whole epochs, each trained, scored on all images and kept.
_ALSO_OF_TRAINER = (
    *("limit_train_batches", "gradient_clip_algorithm", "deterministic", "benchmark", "detect_anomaly", "profiler"),
)


def watched_tag(validation: int | str) -> str:
    """The tag under which each epoch's evaluation is logged: a watched test set is never called validation."""
    return "watched_test" if validation == "test" else "val"


# For each group that --help lists, Hydra copies its store and all that it holds, which takes most of the time. The
# store hands out copies anyway.
ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]

OmegaConf.register_new_resolver("watched", watched_tag)  # ${watched:${data.validation}} in a config
OmegaConf.register_new_resolver("best_is", lambda monitor: "min" if str(monitor).endswith("/loss") else "max")


def check(cfg: DictConfig) -> None:
    """Raises InputError for the first value of a wrong type or out of its range."""
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"The config does not resolve: {str(error).splitlines()[0]}.") from error
    hydra = HydraConfig.get()
    if hydra.run.dir == "":  # an unset $FOLDER, say; Hydra would take the working directory
        raise InputError("hydra.run.dir takes a folder, not an empty text.")
    overrides = hydra.overrides.task
    _check_choices(overrides)
    values = dict(leaves(config))
    check_values(values)
    if cfg.get("allow_targets") and "allow_targets" not in map(override_key, overrides):
        raise InputError("allow_targets is taken from the command line only, never from a config file.")
    check_names(config, cfg.get("allow_targets") or [])
    defaults = defaults_of(overrides)
    known = [str(key) for key in defaults]
    for key in map(str, cfg):
        if key not in known:
            raise InputError(f"There is no key {key!r}.{near(key, known)} --cfg job shows them all.")
    for key in known:
        if key not in cfg and key not in ("callbacks", "logger"):
            raise InputError(f"A run needs {key}: take ~{key} out of the command.")
        if key in groups() and cfg[key] is None and key not in ("callbacks", "logger"):
            raise InputError(f"{key}={hydra.runtime.choices[key]} is an empty file: it takes a _target_ and its keys.")
    for key, default in leaves(OmegaConf.to_container(defaults)):
        has_rule = any(re.fullmatch(pattern, key) for pattern in RULES)
        if key in values:
            if not has_rule:
                _check_type(key, values[key], default)
        elif node := next((parent for parent in values if key.startswith(f"{parent}.")), None):
            left_out = values[node] is None and node.startswith(("callbacks.", "logger."))
            if not left_out:
                raise InputError(f"{node} holds keys, such as {key}: it cannot be {typed(values[node])}.")
        elif has_rule and not key.startswith("callbacks."):
            raise InputError(f"A run needs {key}, one value: take ~{key}, or what is below it, out of the command.")
    check_parts(config)


def composed(overrides: Sequence[str], **options: Any) -> DictConfig:
    """The config of `python train.py OVERRIDES`; `options` are those of Hydra's compose."""
    inside_hydra = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside_hydra else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), **options)


def _check_choices(overrides: Sequence[str]) -> None:
    """Raises InputError for choices of a group that Hydra takes and nobody means."""
    for override in overrides:
        group, option = override_key(override), override.partition("=")[2]
        if group == "callbacks" and re.fullmatch(r"\w+", option) and option != "default":
            raise InputError(
                f"{override} would leave out those that keep a run's checkpoints: take '{group}=[default,{option}]'."
            )
        if group in groups() and group not in ("callbacks", "logger") and option.startswith("["):
            raise InputError(f"{group} takes one option, not the list {option}.")


def check_parts(config: dict[str, Any]) -> None:
    """Raises InputError for callbacks, loggers and keys of the budget and the trainer that a run does not take."""
    for group in ("callbacks", "logger"):
        if not isinstance(config.get(group) or {}, dict):
            raise InputError(f"{group} takes names with their _target_ and keys, not {typed(config[group])}.")
        for name, node in (config.get(group) or {}).items():
            if node and not (isinstance(node, dict) and "_target_" in node):
                raise InputError(f"{group}.{name} takes a _target_ and its keys, or null, not {typed(node)}.")
    for name in ("last", "best"):
        node = (config.get("callbacks") or {}).get(name)
        if node and (node.get("filename"), node.get("dirpath")) != (name, f"{config['folder']}/checkpoints"):
            raise InputError(
                f"callbacks.{name} keeps its filename and dirpath, where a run looks to go on: leave them."
            )
        if node and node.get("save_on_train_epoch_end") is not True:
            raise InputError(f"callbacks.{name}.save_on_train_epoch_end is true: else an epoch is not kept.")
    last: Any = OmegaConf.load(CONF / "callbacks" / "default.yaml").last
    if other := next((key for key in (config.get("callbacks") or {}).get("last") or {} if key not in last), None):
        raise InputError(f"callbacks.last keeps every epoch: leave {other} out.")
    defaults: Any = (OmegaConf.load(CONF / "config.yaml").budget, OmegaConf.load(CONF / "trainer" / "default.yaml"))
    for group, known, others in zip(("budget", "trainer"), defaults, ((), _ALSO_OF_TRAINER), strict=True):
        supported = [*known, *others]
        if unknown := next((key for key in config[group] if key not in supported), None):
            taken = ", ".join(key for key in supported if key != "_target_")
            raise InputError(f"There is no {group}.{unknown} here: {group} takes {taken}.")


def check_values(values: Mapping[str, Any]) -> None:
    """Raises InputError for the first that is not what its dotted key takes."""
    for key, value in values.items():
        for pattern, (accepts, expected) in RULES.items():
            if re.fullmatch(pattern, key) and not accepts(value):
                raise InputError(f"{key} takes {expected}, not {typed(value)}.")


def override_key(override: str) -> str:
    """model.dropout of `++model.dropout=0.1`, callbacks.ema of `~callbacks.ema`."""
    return override.partition("=")[0].lstrip("+~")


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a container that is not a dict itself."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def printable(text: object) -> str:
    """On one line, and without the control characters that a terminal would obey, nor halves of characters."""
    harmless = (" " if character in "\n\r\t" else character for character in str(text))
    return "".join("?" if category(character) in ("Cc", "Cs") else character for character in harmless)


def all_printable(node: Any) -> Any:
    """A container with every text in it `printable`: what strangers' files are read as."""
    if isinstance(node, dict):
        return {key: all_printable(value) for key, value in node.items()}
    if isinstance(node, list):
        return [all_printable(value) for value in node]
    return printable(node) if isinstance(node, str) else node


def to_type(key: str, value: object) -> str:
    """KEY=VALUE for a shell, of a text such as a folder's name; quoted for Hydra where it has to be."""
    plain = re.fullmatch(r"[\w./@+-]+", str(value), re.ASCII)
    return shlex.quote(f"{key}={value if plain else quoted(value)}")


def quoted(text: object) -> str:
    """As Hydra reads a value in quotes: a backslash escapes only quotes, and itself before one."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", str(text))
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def near(word: str, known: Sequence[str]) -> str:
    """`lr` is near optimizer.lr, `epochs` near trainer.max_epochs, `modle` near model."""
    last = word.rpartition(".")[2]
    last_parts = {key.rpartition(".")[2]: key for key in known}
    alike = [key for key in known if key.rpartition(".")[2] in (last, f"max_{last}")]
    near = (
        get_close_matches(word, known, cutoff=0.8) + alike
        or get_close_matches(word, known)
        or [last_parts[part] for part in get_close_matches(last, last_parts)]
    )
    return f" Did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?" if near else ""


def groups() -> list[str]:
    """Those of conf/."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def defaults_of(overrides: Sequence[str]) -> DictConfig:
    """The config of the same groups with nothing else overridden: which keys there are, and of which type."""
    known = groups()
    chosen = [o for o in overrides if override_key(o) in known and not re.search("[,{]", o.partition("[")[0])]
    return composed(chosen)


def _check_type(key: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int | float):
        fits, expected = is_number(value), "a number"
    elif isinstance(default, list):
        fits, expected = isinstance(value, list), "a list"
    else:
        return
    if not fits:
        raise InputError(f"{key} takes {expected}, {typed(default)} by default, not {typed(value)}.")
