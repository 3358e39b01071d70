"""What a config may name, and what it may not."""

from pathlib import Path

import pytest
from conftest import compose_run
from example_run import copied, typed
from omegaconf import OmegaConf
from test_resume import command

from parsimony.config import check
from parsimony.data.sources import Digits
from parsimony.errors import InputError
from parsimony.targets import check_names, check_objects, targets


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "subprocess.run", "builtins.eval", "importlib.import_module", "torchvision.io.read_image"),
        *("torch.hub.load", "torch.load", "torch.utils.cpp_extension.load", "hydra.utils.instantiate", "posix.system"),
    ],
)
def test_targets_outside_are_refused_before_anything_is_imported(target: str) -> None:
    config = {"model": {"_target_": "torch.nn.Linear", "layers": [{"_target_": target}]}}
    with pytest.raises(InputError, match=f"would run {target}, .* add 'allow_targets=\\[{target}\\]' to the command"):
        check_names(config, [])
    check_names(config, [target])
    check_names(config, [target.rpartition(".")[0]])


@pytest.mark.parametrize("target", ["torch.os.system", "parsimony.runs.subprocess.run", "hydra.types.Any"])
def test_another_modules_object_behind_an_allowed_name_is_refused(target: str) -> None:
    check_names({"_target_": target}, [])
    with pytest.raises(InputError, match=f"would run {target}"):
        check_objects({"_target_": target}, [])


@pytest.mark.parametrize(
    "target", ["torch.utils.collect_env.run", "torch.serialization.load", "parsimony.runs._git", "torch.save"]
)
def test_what_is_no_part_of_a_training_is_refused(target: str) -> None:
    """Though torch's own or ours: these run shell commands, unpickle, write files."""
    with pytest.raises(InputError, match=f"would run {target}, which is no network, .* 'allow_targets=\\[{target}\\]'"):
        check_objects({"_target_": target}, [])
    check_objects({"_target_": target}, [target])


@pytest.mark.parametrize(
    "target",
    [
        *("torch.nn.Linear", "torch.nn.functional.gelu", "torch.optim.lr_scheduler.StepLR", "torch.optim.NAdam"),
        *("pytorch_lightning.callbacks.Timer", "pytorch_lightning.loggers.CSVLogger", "parsimony.nets.layers.conv"),
        *("pytorch_lightning.strategies.DDPStrategy", "torchmetrics.classification.MulticlassAccuracy"),
    ],
)
def test_parts_of_a_training_may_be_named(target: str) -> None:
    check_objects({"_target_": target}, [])


def test_a_target_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"names torch.optim.Adamm, which cannot be imported"):
        check_objects({"_target_": "torch.optim.Adamm"}, [])


def test_every_target_of_the_project_is_allowed(tmp_path: Path) -> None:
    config = OmegaConf.to_container(
        compose_run(tmp_path, "callbacks=[default,ema,early_stopping]", "logger=[tensorboard,csv]")
    )
    assert len(list(targets(config))) > 10
    check_objects(config, [])


@pytest.mark.parametrize("plus", ["", "++"])
def test_a_config_cannot_allow_itself(tmp_path: Path, plus: str) -> None:
    cfg = compose_run(tmp_path, "+callbacks.x._target_=os.system", f"{plus}allow_targets=[os]")
    check(cfg)
    cfg = compose_run(tmp_path, "+callbacks.x._target_=os.system")
    cfg.allow_targets = ["os"]
    with pytest.raises(InputError, match="allow_targets is taken from the command line only"):
        check(cfg)


def test_a_strangers_run_cannot_allow_itself(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    cfg = compose_run(tmp_path / "run", "+callbacks.x._target_=os.system", "allow_targets=[os]")
    OmegaConf.save(cfg, tmp_path / "run" / "config.yaml")
    resumed = command(tmp_path / "run", f"resume={tmp_path / 'run'}")
    assert resumed["allow_targets"] == []
    with pytest.raises(InputError, match=r"would run os.system"):
        check_objects(resumed, resumed["allow_targets"])


class OwnDigits(Digits):
    """Of no package that a config may name without leave."""


@pytest.mark.parametrize("command", ["card", "summary"])
def test_the_option_that_a_command_on_a_run_names_is_taken(command: str, tmp_path: Path, monkeypatch) -> None:
    run = copied(tmp_path / "run")
    for name in ("config.yaml", "result.json"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("parsimony.data.sources.Digits", "test_targets.OwnDigits"))
    said = str(typed(monkeypatch, command, run))
    assert said.startswith("error: The config would run test_targets.OwnDigits, which is outside")
    assert said.endswith("if you trust it, add --allow test_targets.OwnDigits to the command.")
    assert typed(monkeypatch, command, run, "--allow", "test_targets") == 0
