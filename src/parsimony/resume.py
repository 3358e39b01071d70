"""Going on with a run that broke off: which config, which checkpoint, and nobody else at the same time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from parsimony.config import (
    CONF,
    all_printable,
    check_parts,
    check_values,
    composed,
    leaves,
    override_key,
)
from parsimony.errors import InputError, yaml_problem
from parsimony.runs import inside

# What may differ from the run as it began: where it goes on, not what it computes.
MAY_CHANGE = (
    *("engine.threads", "trainer.accelerator", "trainer.devices", "trainer.strategy", "data.root", "data.download"),
    "allow_targets",  # of the command alone, whatever the folder's config says
)
DATA_ROOT = ("data.root", "data.source.root")
# Without these a config is not that of a training.
NEEDED = (
    *("name", "seed", "label_smoothing", "data.batch_size", "data.validation", "data.download"),
    *(f"{part}._target_" for part in ("model", "data", "data.source", "augment", "optimizer", "scheduler", "engine")),
    *(f"trainer.{key}" for key in ("_target_", "max_epochs", "accelerator", "devices", "strategy", "sync_batchnorm")),
)


# ${run_folder:${resume},FRESH} in a config: the folder of the run to go on with, else a fresh one
OmegaConf.register_new_resolver("run_folder", lambda resume, fresh: resume or fresh)


def kept_config(folder: Path) -> dict[str, Any]:
    """The config that a run left in `folder`, which may have moved since.

    Keys that conf/config.yaml did not have yet are at their defaults: by these nothing changes that was there before.
    Raises InputError where there is none, or one that is not of a training.
    """
    try:
        written: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        kept: Any = OmegaConf.merge(own_keys(), all_printable(written))
        kept.folder = str(folder)
        config: Any = OmegaConf.to_container(kept, resolve=True)
    except FileNotFoundError:
        below = next((path.parent for path in sorted(folder.glob("*/config.yaml"))), None)
        hint = f" Runs lie in it: name one, such as {below}." if below else ""
        raise InputError(f"{folder} is no run's folder: it has no config.yaml.{hint}") from None
    except NotADirectoryError:
        raise InputError(f"{folder} is a file: name the folder of its run.") from None
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise InputError(f"{folder / 'config.yaml'} is damaged: {yaml_problem(error)}.") from error
    values = dict(leaves(config))
    if lacking := [key for key in NEEDED if key not in values]:
        raise InputError(
            f"{folder} is no run's folder: its config.yaml is not that of a training, it lacks {lacking[0]}."
        )
    try:
        check_values({key: value for key, value in values.items() if key not in MAY_CHANGE})
    except InputError as error:
        raise InputError(f"{folder / 'config.yaml'} is damaged: {error}") from error
    return config


def may_download(config: dict[str, Any]) -> bool:
    """Whether what `config`, a run's own, lacks of its data is downloaded: only what a file of conf/data names.

    Else a stranger's config would place files of its choice in a folder of its choice.
    """
    ours: list[Any] = [OmegaConf.to_container(OmegaConf.load(path)) for path in (CONF / "data").glob("*.yaml")]
    known = [_without_root(data["source"]) for data in ours if "source" in data]
    return config["data"]["download"] and _without_root(config["data"]["source"]) in known


def _without_root(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "root"}


@cache
def own_keys() -> dict[str, Any]:
    """The keys of conf/config.yaml itself that say what a run computes, at their defaults."""
    keys: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    beside = ("defaults", "hydra", "name", "folder", "resume", "sweep", "allow_targets")
    return {key: value for key, value in keys.items() if key not in beside}


def config_to_run(cfg: DictConfig) -> DictConfig:
    """`cfg`, or the config of the run that `cfg.resume` names.

    Raises InputError where that is no run, where the folder of `cfg` holds a run of another config, or where it is that
    of a published recipe and `cfg` another.
    """
    if cfg.resume is None:
        _check_recipe(cfg)
        _check_same(cfg, Path(cfg.folder))
        return cfg
    return _resumed(cfg, HydraConfig.get().overrides.task)


def settings(config: Any) -> dict[str, Any]:
    """What a run and its continuation share: the config but for places and devices."""
    beside = (*MAY_CHANGE, *DATA_ROOT)
    return {key: value for key, value in leaves(config) if key not in beside and not inside(value, config["folder"])}


def default_settings() -> dict[str, Any]:
    """What `settings` holds of the keys of conf/config.yaml itself, at their defaults."""
    return {key: value for key, value in leaves(own_keys()) if key not in (*MAY_CHANGE, *DATA_ROOT)}


def _resumed(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The run's own config, with those of `overrides` that say where it goes on."""
    config = kept_config(Path(cfg.folder))
    check_parts(config)
    kept: Any = OmegaConf.create(config)
    kept.data.download = may_download(config)
    kept.allow_targets = cfg.allow_targets
    for override in overrides:
        key = override_key(override)
        if key in MAY_CHANGE:
            for changed in DATA_ROOT if key == "data.root" and "root" in kept.data.source else (key,):
                OmegaConf.update(kept, changed, OmegaConf.select(cfg, changed))
        elif key != "resume":
            raise InputError(
                f"resume goes on with the run's own config: leave out {override}. "
                f"Only {', '.join(MAY_CHANGE)} may change."
            )
    return kept


def _check_recipe(cfg: DictConfig) -> None:
    """Raises InputError for a published recipe that is changed and would lie where its own runs do."""
    hydra = HydraConfig.get()
    recipe = hydra.runtime.choices.get("experiment") or ""
    typed = map(override_key, [*hydra.overrides.task, *hydra.overrides.hydra])
    if "/" not in recipe or not {"name", "hydra.run.dir"}.isdisjoint(typed):
        return
    published = _plain(composed([f"experiment={recipe}", f"seed={cfg.seed}"]))
    del published["sweep"]  # taken out of `cfg`
    if told := _differing(settings(published), settings(_plain(cfg))):
        raise InputError(
            f"experiment={recipe} is changed ({told}): give it a name, as in name=mine, which is its folder's too."
        )


def _check_same(cfg: DictConfig, folder: Path) -> None:
    """Raises InputError where `folder` holds a run of another config, with the keys in which it differs."""
    if not (folder / "config.yaml").exists():
        return
    if told := _differing(settings(kept_config(folder)), settings(_plain(cfg))):
        raise InputError(
            f"{folder} holds a run of another config ({told}): remove it, or take another name or hydra.run.dir."
        )


def _differing(kept: dict[str, Any], now: dict[str, Any]) -> str:
    """The first keys in which two `settings` differ; "" if in none."""
    keys = [key for key in {**now, **kept} if key not in kept or key not in now or kept[key] != now[key]]
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds `folder` against other runs. Raises InputError where one trains there already."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"Another process trains in {folder}: wait for its end.") from None
