"""What a sweep is over, kept in its folder, and how the folders of its runs are called."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from parsimony.config import override_key
from parsimony.errors import InputError
from parsimony.runs import replace_file

LONGEST_NAME = 120  # of a run's folder, in characters; file systems take 143 and more


@dataclass
class Plan:
    """What sweep.yaml in the sweep's folder holds, for the processes that run its jobs and for going on."""

    command: list[str]  # as typed
    over: list[str]  # what it is over: every value, swept or fixed
    swept: list[str]  # the keys with more than one value
    runs: int
    at_once: int | None  # runs that share this machine; None: whatever the launcher does is its own affair
    pid: int  # of the process that the sweep was started as

    def write(self, folder: Path) -> None:
        replace_file(folder / "sweep.yaml", OmegaConf.to_yaml(OmegaConf.create(asdict(self))))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Raises InputError where there is none."""
        try:
            kept: Any = OmegaConf.to_container(OmegaConf.load(folder / "sweep.yaml"))
            return cls(**kept)
        except FileNotFoundError:
            raise InputError(f"{folder} is no sweep's folder: it has no sweep.yaml.") from None
        except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, TypeError) as error:
            raise InputError(f"{folder / 'sweep.yaml'} is damaged: {str(error).splitlines()[0]}.") from error

    def setting(self, overrides: Sequence[str]) -> list[str]:
        """Those of a run's `overrides` that tell it from the sweep's other runs, to four digits."""
        swept = [override for override in overrides if override_key(override) in self.swept]
        return [re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", text) for text in swept]


def override_texts(overrides: Any) -> list[str]:
    """A config's list of overrides as they were typed: by itself it resolves the ${...} in them."""
    typed: Any = OmegaConf.to_container(overrides, resolve=False)
    return typed


def folder_name(number: int, setting: Sequence[str]) -> str:
    """The sub-folder of a sweep's run: unique by its number, readable by its setting, safe on any file system."""
    safe = re.sub(r"[^\w.,=+-]+", "-", ",".join(setting), flags=re.ASCII)
    return f"{number:03d}_{safe}"[:LONGEST_NAME].rstrip("_.")


# ${run_of_sweep:FOLDER,NUMBER,OVERRIDES} in a config: the sub-folder of that run
OmegaConf.register_new_resolver(
    "run_of_sweep",
    lambda folder, number, overrides: folder_name(number, Plan.read(Path(folder)).setting(override_texts(overrides))),
)
