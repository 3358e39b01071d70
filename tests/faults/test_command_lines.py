"""Random command lines: each trains, or is refused in a sentence that leaves nothing behind."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import Ended, run, run_forked
from conftest import group_options
from tally import tally

from parsimony.runs import Result

SEED = 2024
SHORT = ("data=digits", "model=mnist_narrow", "trainer=cpu", "trainer.max_epochs=1", "+trainer.limit_train_batches=2")
BASE = (*SHORT, "engine.threads=1", "~callbacks.pictures", "data.validation=50")

KEYS = (
    *("distillation.teacher", "distillation.weight", "distillation.temperature"),
    *("seed", "label_smoothing", "name", "folder", "resume", "allow_targets", "sweep.resume", "budget.epochs"),
    *("budget.parameters", "data.batch_size", "data.validation", "data.train_images", "data.source", "data.augment"),
    *(
        "data.source.name",
        "data._target_",
        "augment.rotation",
        "augment.flip",
        "augment.cutout",
        "augment.crop_padding",
    ),
    *("model.dropout", "model.dropout_7x7", "model._target_", "optimizer.lr", "optimizer.betas", "optimizer.eps"),
    *("optimizer.weight_decay", "optimizer.fused", "optimizer._partial_", "scheduler.warmup", "scheduler.final"),
    *("engine.precision", "engine.layers", "engine.threads", "engine.channels_last", "engine.allocator"),
    *("trainer.accelerator", "trainer.strategy", "trainer.gradient_clip_val", "trainer.log_every_n_steps"),
    *("trainer.num_sanity_val_steps", "trainer.sync_batchnorm", "trainer.limit_val_batches", "trainer.precision"),
    *("callbacks.best.monitor", "callbacks.best.mode", "callbacks.last.filename", "callbacks.last.dirpath"),
    *("callbacks.learning_rate.logging_interval", "callbacks.progress", "logger.tensorboard.name", "hydra.run.dir"),
    *("logger.tensorboard.save_dir", "optimizer", "scheduler", "model", "trainer", "callbacks", "logger", "engine"),
)
VALUES = (
    *("0", "1", "-1", "2", "0.5", "1e-3", "1e9", "1e400", "nan", "inf", "-inf", "007", "0x10", "99999999999999999999"),
    *("true", "false", "null", "None", "", "''", "abc", "'1'", "'a b'", "a/b", "../up", "é", "日本", "'%s{}'"),
    *("[]", "[1]", "[0.9,0.99]", "[a,b]", "{}", "{a:1}", "{a:{b:2}}", "[[1]]", "test", "auto", "cpu", "32-true"),
    *("val/accuracy", "train/loss", "min", "max", "bf16-mixed", "16", "step", "epoch", "os.system", "torch.nn.Linear"),
    *("${seed}", "${nothing}", "${oc.env:HOME}", "${seed", "1,2", "range(3)", "choice(1,2)", "$(id)", "`id`", ";ls"),
)
GROUPS = ("augment", "callbacks", "data", "engine", "logger", "model", "optimizer", "scheduler")
NO_OVERRIDES = (
    "foo",
    "=",
    "=1",
    "+",
    "~",
    "a=b=c",
    "--nothing",
    "-x",
    "seed==1",
    "model..dropout=1",
    "'",
    "[",
    "{a",
    "@x=1",
)


def command_line(chance: random.Random) -> list[str]:
    """Up to three things to the end of a command that trains."""
    line = list(BASE)
    for _ in range(chance.randint(1, 3)):
        kind = chance.random()
        key, value = chance.choice(KEYS), chance.choice(VALUES)
        if kind < 0.6:
            line.append(f"{chance.choice(['', '', '', '+', '++'])}{key}={value}")
        elif kind < 0.75:
            group = chance.choice(GROUPS)
            options = [*group_options(group), "nothing", "null", f"[{','.join(group_options(group)[:2])}]"]
            line.append(f"{group}={chance.choice(options)}")
        elif kind < 0.85:
            line.append(f"~{key}")
        elif kind < 0.93:
            line.append(f"{chance.choice(['', '+'])}{misspelt(chance, key)}={value}")
        else:
            line.append(chance.choice(NO_OVERRIDES))
    return line


def misspelt(chance: random.Random, key: str) -> str:
    at = chance.randrange(len(key))
    return key[:at] + chance.choice(["", key[at] * 2, "x"]) + key[at + 1 :]


def outcome(ended: Ended, folder: Path) -> tuple[str, str]:
    """(what became of it, what is wrong with that)."""
    results = [Result.read(path) for path in folder.rglob("result.json")]
    if ended.code is None:
        return "", "it hangs"
    if ended.traceback:
        return "", f"a traceback: {ended.err[-600:]}"
    if ended.code == 0:
        complete = [result.status for result in results] == ["completed"]
        return (
            ("trained", "") if complete else ("shown", "" if ended.out and not results else f"no result: {ended.out}")
        )
    if ended.code == 2:
        return "refused", "" if "usage:" in ended.err else ended.err  # an option that is none, by argparse
    if not ended.refused:
        return "", f"exit code {ended.code} without a sentence: {ended.err[-600:]}"
    ours = (".lock", "in.out", "in.err")
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name not in ours]
    if results:
        failed = results[0].status.startswith("failed: ")
        return "failed in training, in a sentence", "" if failed else f"its result is {results[0].status}"
    return "refused", f"it leaves {left}" if left else ""


def try_line(run: Callable[..., Ended], folder: Path, line: list[str], data: Path) -> tuple[str, str]:
    (folder / "in").mkdir(parents=True)
    return outcome(run(folder / "in", *line[:2], f"data.root={data}", *line[2:]), folder)


def test_some(made_up_data: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for i in range(12):
        line = command_line(chance)
        what, wrong = try_line(run_forked, tmp_path / str(i), line, made_up_data)
        assert not wrong, f"{line[len(BASE) :]}: {wrong}"
        assert what


@pytest.mark.faults
def test_three_hundred(made_up_data: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    lines = [command_line(chance) for _ in range(300)]

    def tried(i: int) -> tuple[str, str]:
        return try_line(run if i % 10 == 0 else run_forked, tmp_path / str(i), lines[i], made_up_data)

    with (
        tally(
            "random command lines",
            "Up to three random overrides, misspelt keys or no overrides at all after a command that trains; every "
            "tenth in a process started anew, the others in forks of one that has torch imported. Each trains to its "
            "end or is refused in a sentence, without a traceback, within the time, and leaves no file behind.",
        ) as counted,
        ThreadPoolExecutor(2) as pool,
    ):
        for line, (what, wrong) in zip(lines, pool.map(tried, range(len(lines))), strict=True):
            counted.check(not wrong, what, f"{line[len(BASE) :]}: {wrong}")
