"""What a user types: it composes into what was meant, or is answered with one sentence that says what to type."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import compose_run, group_options
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from parsimony.config import CONF, check, quoted, to_type
from parsimony.errors import InputError
from parsimony.interrupts import will_make
from parsimony.runs import refusal_recorded
from parsimony.sentences import one_sentence_errors, sentence

GROUPS = ("augment", "callbacks", "data", "engine", "logger", "model", "optimizer", "scheduler", "trainer")


@pytest.fixture
def run(tmp_path: Path):
    def run(*overrides: str) -> DictConfig:
        cfg = compose_run(tmp_path / "run", *overrides)
        check(cfg)
        return cfg

    return run


@pytest.fixture
def refusal(run, monkeypatch: pytest.MonkeyPatch):
    """What the command answers, once it has made sure that the command is refused."""

    def refusal(*overrides: str) -> str:
        monkeypatch.setattr("sys.argv", ["train.py", *overrides])
        with pytest.raises(Exception) as caught:  # noqa: PT011 (which one does not matter: a user sees the sentence)
            run(*overrides)
        text = sentence(caught.value)
        assert text is not None, f"a bug's traceback: {caught.value!r}"
        assert "\n" not in text
        return text

    return refusal


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("model=mnist_spe", "mnist_sep"),
        ("data=mnits", "mnist"),
        ("callbacks=[default,emma]", "ema"),
        ("modle=mnist_sep", "model"),
        ("optimizer.lrr=0.1", "optimizer.lr"),
        ("lr=0.1", "optimizer.lr"),
        ("epochs=10", "trainer.max_epochs"),
        ("momentun=0.9 optimizer=sgd", "optimizer.momentum"),
        ("dropout=0.1", "model.dropout"),
        ("trainer.epochs=3", "trainer.max_epochs"),
        ("budget.params=9", "budget.parameters"),
    ],
)
def test_near_misses_are_named(override: str, near: str, refusal) -> None:
    text = refusal(*override.split())
    assert text.startswith("There is no ")
    assert re.search(rf"Did you mean .*\b{re.escape(near)}\b.*\?", text)


def test_an_unknown_option_lists_those_there_are(refusal) -> None:
    assert refusal("augment=zzz").endswith(f"Options: {', '.join(group_options('augment'))}.")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("+foo=1", "no key 'foo'"),
        ("optimizer.lr=-1", "above 0, not -1"),
        ("optimizer.lr=0", "above 0, not 0"),
        ("optimizer.lr=nan", "above 0, not nan"),
        ("optimizer.lr=fast", "a number above 0, not fast"),
        ("optimizer=sgd optimizer.nesterov=maybe", "true or false"),
        ("optimizer.betas=0.9", "a list of two: a number from 0 to below 1, not 0.9"),
        ("optimizer.betas=[0.9]", "a list of two"),
        ("optimizer=muon optimizer.adamw_betas=[a,b]", "a list of two"),
        ("optimizer=muon optimizer.ns_steps=0", "a whole number from 1 to 99, not 0"),
        ("model.dropout=1.5", "from 0 to below 1, not 1.5"),
        ("model=cifar_sep model.dropout_dense=2", "model.dropout_dense takes a number from 0"),
        ("label_smoothing=1", "from 0 to below 1"),
        ("data.validation=-1", "at least 0, or test"),
        ("data.validation=tset", "at least 0, or test, not tset"),
        ("trainer.max_epochs=0", "at least 1"),
        ("trainer.max_epochs=1e3", "whole number"),
        ("trainer.accelerator=gpuu", "one of auto, cpu, gpu"),
        ("seed=-1", "from 0 to 4294967295"),
        ("engine.threads=10000", "whole number"),
        ("scheduler=step scheduler.gamma=foo", "a number, 0.1 by default, not foo"),
        ("name=null", "a text"),
        ("data.source=null", "data.source holds keys"),
        ("budget=5", "budget holds keys"),
        ("callbacks.pictures=5", "callbacks.pictures holds keys"),
        ("~seed", "A run needs seed"),
        ("~optimizer.lr", "A run needs optimizer.lr"),
        ("optimizer=null", "never null"),
        ("model={a:1}", "A group takes the name of one of its options, never null, a number or a mapping"),
        ("optimizer={lr:1} lrr=2", "no key 'lrr'. Did you mean optimizer.lr?"),
        ("callbacks.last.filename=3", "callbacks.last.filename takes a text, or null, not 3"),
        ("callbacks=[default,ema] +callbacks.ema.filename=3", "callbacks.ema.filename takes a text"),
        ("callbacks.last.filename=other", "callbacks.last keeps its filename and dirpath"),
        ("~callbacks.best.filename", "callbacks.best keeps its filename and dirpath"),
        ("callbacks.last.dirpath=elsewhere", "callbacks.last keeps its filename and dirpath"),
        ("callbacks.last.save_on_train_epoch_end=false", "callbacks.last.save_on_train_epoch_end is true"),
        ("~callbacks.best.save_on_train_epoch_end", "callbacks.best.save_on_train_epoch_end is true"),
        ("+callbacks.last.every_n_epochs=2", "callbacks.last keeps every epoch: leave every_n_epochs out"),
        ("seed=${foo}", "'foo' not found"),
        ("budget.epochs='1'", "or null, not the text '1'"),
        ("folder=1e9", "folder takes a text, not 1000000000.0"),
        ("name=[1]", "name takes a text such as mine or mine/first (hydra.run.dir leads elsewhere), not [1]"),
        ("resume=", "a run's folder, or null, not an empty text"),
        ("+budget.x=1", "no budget.x here: budget takes parameters, epochs"),
        ("+trainer.max_steps=3", "no trainer.max_steps here: trainer takes accelerator, devices"),
        ("+trainer.fast_dev_run=true", "no trainer.fast_dev_run here"),
        ("+trainer.deterministic=sometimes", "trainer.deterministic takes true, false or warn, not sometimes"),
        ("hydra.run.dir=", "hydra.run.dir takes a folder, not an empty text"),
        ("+trainer.limit_train_batches=0", "above 0, or null, not 0"),
        ("trainer.devices=[]", "or a list of GPUs such as [0,1], not []"),
        ("trainer.devices=abc", "auto, or a list of GPUs such as [0,1], not abc"),
        ("+scheduler.max_epochs=7", "scheduler.max_epochs takes its value from the run, not 7"),
        ("+callbacks.x=1", "callbacks.x takes a _target_ and its keys, or null, not 1"),
    ],
)
def test_values_of_the_wrong_type_or_out_of_range(override: str, expected: str, refusal) -> None:
    assert expected in refusal(*override.split())


@pytest.mark.parametrize(
    "overrides",
    [
        "optimizer.lr=1e-3 data.validation=0 seed=4294967295 trainer.gradient_clip_val=1 engine.threads=1 logger=[]",
        "data.validation=test budget.epochs=20 callbacks.pictures=null +trainer.limit_train_batches=3",
        "~callbacks.pictures +optimizer.amsgrad=true optimizer.betas=[0.8,0.99]",
        "callbacks=[] optimizer=muon optimizer.adjust_lr_fn=null",
        "trainer.devices=auto +trainer.profiler=simple name=1 resume=some/folder",
        "trainer=gpu trainer.devices=[0,1]",
        "~callbacks.best",
        "callbacks.last=null",
    ],
)
def test_good_values_pass(overrides: str, run) -> None:
    run(*overrides.split())


@pytest.mark.parametrize("override", ["model.dropout=0,0.1", "model=mnist_sep,mnist_wide", "seed=range(3)"])
def test_a_sweep_without_m(override: str, refusal) -> None:
    text = refusal(override)
    assert override in text
    assert "add -m" in text


@pytest.mark.parametrize("override", ["foo", "", "model.dropout=[0.1", "seed=${", "optimizer.lr=0.1 seed=1"])
def test_what_is_no_override_at_all(override: str, refusal) -> None:
    text = refusal(override)
    assert repr(override) in text
    assert "KEY=VALUE" in text


@pytest.mark.parametrize("i", range(max(len(group_options(group)) for group in GROUPS)))
def test_every_option_composes_and_instantiates(i: int, run, made_up_data: Path) -> None:
    """As many configs as the largest group has options; the other groups go round."""
    choices = {group: group_options(group)[i % len(group_options(group))] for group in GROUPS}
    if choices["callbacks"] != "default":
        choices["callbacks"] = f"[default,{choices['callbacks']}]"
    cfg = run(*(f"{group}={option}" for group, option in choices.items()), f"data.root={made_up_data}")
    if choices["trainer"] not in ("gpu", "ddp"):  # these two need a GPU
        instantiate(cfg.trainer, logger=False)
    data = instantiate(cfg.data, augment=instantiate(cfg.augment), seed=0, _convert_="all")
    assert len(data.source.classes) == 10
    net = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer, _convert_="all")(net.parameters())
    schedule = instantiate(cfg.scheduler, _convert_="all")(optimizer, total_steps=100, max_epochs=10)
    assert schedule is None or schedule["interval"] in ("step", "epoch")
    instantiate(cfg.engine)
    for callback in cfg.callbacks.values():
        instantiate(callback)
    for logger in cfg.logger.values():
        instantiate(logger)


def test_every_option_is_covered_and_every_group_is_listed() -> None:
    assert {path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment", "sweep"} == set(GROUPS)


@pytest.mark.parametrize(
    ("model", "data", "flip"), [("mnist_wide", "mnist", "none"), ("cifar_sep", "cifar10", "random")]
)
def test_a_network_chooses_its_data(model: str, data: str, flip: str, run) -> None:
    cfg = run(f"model={model}")
    assert (cfg.data.source.name, cfg.augment.flip, cfg.name) == (data, flip, model)


@pytest.mark.parametrize("order", [("model=cifar_sep", "data=digits"), ("data=digits", "model=cifar_sep")])
def test_an_override_wins_over_what_the_network_chooses(order: tuple[str, str], run) -> None:
    cfg = run(*order, "augment=none")
    assert cfg.data.source._target_.endswith("Digits")
    assert cfg.augment.flip == "none"
    assert (cfg.data.batch_size, cfg.data.validation) == (32, 200)


def test_typed_keys_reach_the_config(run) -> None:
    cfg = run("model.dropout=0.07", "optimizer.lr=0.01", "data.batch_size=64", "trainer.max_epochs=3", "seed=5")
    values = (cfg.model.dropout, cfg.optimizer.lr, cfg.data.batch_size, cfg.trainer.max_epochs, cfg.seed)
    assert values == (0.07, 0.01, 64, 3, 5)


@pytest.mark.parametrize(("validation", "monitor"), [("100", "val/accuracy"), ("test", "watched_test/accuracy")])
def test_a_watched_test_set_is_not_called_validation(validation: str, monitor: str, run) -> None:
    cfg = run(f"data.validation={validation}", "callbacks=[default,early_stopping]")
    assert cfg.callbacks.best.monitor == cfg.callbacks.early_stopping.monitor == monitor


@pytest.mark.parametrize("callback", ["best", "early_stopping"])
def test_of_losses_the_least_is_best(callback: str, run) -> None:
    keys = ("callbacks=[default,early_stopping]", f"callbacks.{callback}.monitor=val/loss")
    assert run("callbacks=[default,early_stopping]").callbacks[callback].mode == "max"
    assert run(*keys).callbacks[callback].mode == "min"
    assert run(*keys, f"callbacks.{callback}.mode=max").callbacks[callback].mode == "max"


@pytest.mark.parametrize("there", [".", "runs", "runs/mnist_sep", "runs/mnist_sep/now"])
def test_a_refused_run_leaves_the_folders_that_were_there(there: str, tmp_path: Path) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    folder = tmp_path / "runs" / "mnist_sep" / "now"
    will_make(folder)
    cfg = compose_run(folder, "optimizer.lr=-1")
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError), refusal_recorded(cfg):
        check(cfg)
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_before_the_training_leaves_no_folder(tmp_path: Path) -> None:
    will_make(tmp_path / "runs" / "now")
    cfg = compose_run(tmp_path / "runs" / "now")
    (tmp_path / "runs" / "now").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), refusal_recorded(cfg):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_is_no_yaml_or_empty_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: 1\n b: 2\n")
    with pytest.raises(YAMLError) as caught:
        OmegaConf.load(path)
    told = sentence(caught.value)
    assert told
    assert told.startswith(f"{path}, line 2, column 3: mapping values are not allowed here. Are its indentation")
    cfg = compose_run(tmp_path, "augment=digits")
    cfg.augment = None
    with pytest.raises(InputError, match="augment=digits is an empty file: it takes a _target_ and its keys"):
        check(cfg)


def test_a_refused_run_leaves_what_is_in_its_folder(tmp_path: Path) -> None:
    cfg = compose_run(tmp_path / "runs", "optimizer.lr=-1")
    will_make(tmp_path / "runs")
    (tmp_path / "runs" / "other").mkdir(parents=True)
    with pytest.raises(InputError), refusal_recorded(cfg):
        check(cfg)
    assert (tmp_path / "runs" / "other").is_dir()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("Too many."), "error: Too many."),
        (PermissionError(13, "Permission denied", "/a/b"), "error: Permission denied: /a/b."),
        (OSError(28, "No space left on device"), "error: No space left on device."),
    ],
)
def test_what_is_not_a_bug_ends_in_one_sentence(error: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("PARSIMONY_ONE_SENTENCE", "")  # so that it is gone after the test
    with pytest.raises(SystemExit) as caught, one_sentence_errors():
        raise error
    assert caught.value.code == text


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setenv("PARSIMONY_ONE_SENTENCE", "")
    with pytest.raises(ValueError, match="a bug"), one_sentence_errors():
        raise ValueError("a bug")


def test_hydra_full_error_keeps_every_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("PARSIMONY_ONE_SENTENCE", raising=False)
    with pytest.raises(InputError), one_sentence_errors():
        raise InputError("bad")


@pytest.mark.parametrize("text", ["a b", "it's", "a\\b", "end\\", "q\\'x", "\\\\", "[ü],{}=$", "'"])
def test_what_is_quoted_is_read_back(text: str) -> None:
    (word,) = shlex.split(to_type("key", text))
    for override in (f"key={quoted(text)}", word):
        assert str(OverridesParser.create().parse_override(override).value()) == text


def test_a_usual_folder_is_typed_without_quotes() -> None:
    assert to_type("resume", "runs/mnist_sep/2026-01-31_12-00-00_a1b2c3") == (
        "resume=runs/mnist_sep/2026-01-31_12-00-00_a1b2c3"
    )
