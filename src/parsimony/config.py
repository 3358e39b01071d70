"""From what a user types to a checked config, or to one sentence that says what to type instead.

Imports no torch, so that a mistyped command is answered in well under a second.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unicodedata import category

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from parsimony.errors import InputError, RunError
from parsimony.interrupts import INTERRUPTED
from parsimony.rules import RULES, is_number, typed
from parsimony.targets import check_names

CONF = Path(__file__).resolve().parents[2] / "conf"
EXTRAS = {  # what of Hydra's options comes with a plugin, and the extra of pyproject.toml that installs it
    "hydra/launcher/joblib": "sweep",
    "hydra/launcher/submitit_local": "cluster",
    "hydra/launcher/submitit_slurm": "cluster",
    "hydra/sweeper/optuna": "optuna",
}

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
    defaults = _defaults(overrides)
    known = [str(key) for key in defaults]
    for key in map(str, cfg):
        if key not in known:
            raise InputError(f"There is no key {key!r}.{_near(key, known)} --cfg job shows them all.")
    for key in known:
        if key not in cfg and key not in ("callbacks", "logger"):
            raise InputError(f"A run needs {key}: take ~{key} out of the command.")
        if key in _groups() and cfg[key] is None and key not in ("callbacks", "logger"):
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
        if group in _groups() and group not in ("callbacks", "logger") and option.startswith("["):
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


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Ends the process with exit code 1 and one sentence where the user's input is at fault; a bug keeps its traceback.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback of both.
    """
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        # With it set Hydra hands its errors on, to here; the mark says that it was not the user who set it.
        os.environ.update(HYDRA_FULL_ERROR="1", PARSIMONY_ONE_SENTENCE="1")
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "PARSIMONY_ONE_SENTENCE" not in os.environ or (text := sentence(error)) is None:
            raise
        sys.exit(f"error: {printable(text)}")


def sentence(error: Exception) -> str | None:
    """What a user reads of an error in the input or on the machine; None for a bug."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigCompositionException):
        return _composition_sentence(error, text)
    if isinstance(error, YAMLError):
        return f"{yaml_problem(error)}. Are its indentation, quotes and brackets right?"
    if isinstance(error, OverrideParseException):
        quoted = "quoted where it holds spaces, brackets, braces or accents"
        return f"Cannot read {error.override!r}: expected KEY=VALUE, {quoted}."
    if isinstance(error, OSError):
        return f"{error.strerror or text}{f': {error.filename}' if error.filename else ''}."
    if isinstance(error, InterpolationResolutionError):
        return f"The config does not resolve: {str(error).splitlines()[0]}."
    if text.startswith("Config group override must be"):  # Hydra's bare ValueError
        return _OF_A_GROUP
    return text if isinstance(error, InputError | RunError | CompactHydraException) else None


def yaml_problem(error: Exception) -> str:
    """Where and what, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + (problem or str(error).partition("\n")[0])


_OF_A_GROUP = "A group takes the name of one of its options, never null, a number or a mapping: --help lists them."


def _composition_sentence(error: ConfigCompositionException, text: str) -> str:
    if isinstance(error, MissingConfigException):
        missing = str(error.missing_cfg_file)
        if missing in EXTRAS:
            name = "=".join(missing.rsplit("/", 1))
            return f"{name} is an extra that is not installed: pip install -e '.[{EXTRAS[missing]}]'"
        group, _, option = missing.partition("/")
        folder = CONF / group
        options = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
        if option and options:
            return f"There is no {group}={option}.{_near(option, options)} Options: {', '.join(options)}."
        return text.partition(" Config search path:")[0]
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1] in _groups():
            return _OF_A_GROUP
        if options := _options_with(match[1]):
            return f"{match[1]} is a key of {' and '.join(options)}: choose that as well."
        known = [*_groups(), *(key for key, _ in leaves(OmegaConf.to_container(_defaults(sys.argv[1:]))))]
        return f"There is no key {match[1]!r}.{_near(match[1], known)} --cfg job shows them all."
    if match := re.match(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]!r} names several values: add -m to run one after the other, or quote it to mean a text."
    if match := re.match(r"Multiple values for (\w+)\.", text):
        return f"{match[1]} is given already: leave out the +, as in {match[1]}=OPTION."
    if match := re.match(r"Sweep parameters '([^']+)'", text):
        return f"{match[1]!r} is a sweep: add -m to run it."
    if "HydraConfig was not set" in str(error.__cause__):
        override = text.removeprefix("Error merging override ")
        return f"Cannot take {override!r}: the key's value comes from other keys, so give it another by KEY=VALUE."
    cause = f": {str(error.__cause__).splitlines()[0]}" if error.__cause__ and str(error.__cause__) else ""
    return text + cause


def _near(word: str, known: Sequence[str]) -> str:
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


def _options_with(key: str) -> list[str]:
    """The options of its group that have `key`, which the option that was chosen lacks, as they are typed."""
    group, _, rest = key.partition(".")
    files = {path.stem: OmegaConf.load(path) for path in sorted((CONF / group).glob("*.yaml")) if rest}
    paths = (rest, key)  # that of a file with @package _global_ is the whole key
    absent = object()
    with_key = [
        name
        for name, file in files.items()
        if any(OmegaConf.select(file, path, default=absent) is not absent for path in paths)
    ]
    return [f"'{group}=[default,{option}]'" if group == "callbacks" else f"{group}={option}" for option in with_key]


def _groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def _defaults(overrides: Sequence[str]) -> DictConfig:
    """The config of the same groups with nothing else overridden: which keys there are, and of which type."""
    groups = _groups()
    chosen = [o for o in overrides if override_key(o) in groups and not re.search("[,{]", o.partition("[")[0])]
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
