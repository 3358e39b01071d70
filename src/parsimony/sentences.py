"""What a user reads of an error: one sentence, in the place of a traceback. Imports no torch, as config.py."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from yaml import YAMLError

from parsimony.config import CONF, defaults_of, groups, leaves, near, printable
from parsimony.errors import InputError, RunError, yaml_problem
from parsimony.interrupts import INTERRUPTED

EXTRAS = {  # what of Hydra's options comes with a plugin, and the extra of pyproject.toml that installs it
    "hydra/launcher/joblib": "sweep",
    "hydra/launcher/submitit_local": "cluster",
    "hydra/launcher/submitit_slurm": "cluster",
    "hydra/sweeper/optuna": "optuna",
}


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
            return f"There is no {group}={option}.{near(option, options)} Options: {', '.join(options)}."
        return text.partition(" Config search path:")[0]
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1] in groups():
            return _OF_A_GROUP
        if options := _options_with(match[1]):
            return f"{match[1]} is a key of {' and '.join(options)}: choose that as well."
        known = [*groups(), *(key for key, _ in leaves(OmegaConf.to_container(defaults_of(sys.argv[1:]))))]
        return f"There is no key {match[1]!r}.{near(match[1], known)} --cfg job shows them all."
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
