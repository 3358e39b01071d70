"""What each key of a config takes, and how that is said. Imports no torch, as all that checks a config."""

import math
import os
import re
from collections.abc import Callable
from typing import Any

# auto, Lightning's names, and what these are short for there
PRECISIONS = (
    *("auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"),
    *("transformer-engine", "transformer-engine-float16", "32", "bf16", "16", "64"),
)

Rule = tuple[Callable[[Any], bool], str]


def typed(value: Any) -> str:
    """As a user types it."""
    if isinstance(value, str) and re.fullmatch(r"[-+.\d]+|true|false|null", value):
        return f"the text '{value}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) or "an empty text"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_name(value: Any) -> bool:
    """It is part of a run's folder, which it must not lead out of runs/."""
    return is_number(value) or (_is_text(value) and not value.startswith("/") and ".." not in value.split("/"))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(
    low: float, high: float, *, without_low: bool = False, without_high: bool = False, or_null: bool = False
) -> Rule:
    def accepts(value: Any) -> bool:
        if not is_number(value):
            return or_null and value is None
        return (value > low if without_low else value >= low) and (value < high if without_high else value <= high)

    other = ", or null" if or_null else ""
    if high == math.inf:
        return accepts, f"a number {'above' if without_low else 'of at least'} {low:g}{other}"
    return accepts, f"a number from {low:g} to {'below ' if without_high else ''}{high:g}{other}"


def _integer(low: int, high: float = math.inf, *, other: tuple[Any, ...] = ()) -> Rule:
    def accepts(value: Any) -> bool:
        return value in other or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high)

    names = "".join(f", or {typed(value)}" for value in other)
    span = f"a whole number of at least {low}" if high == math.inf else f"a whole number from {low} to {high}"
    return accepts, span + names


def _devices() -> Rule:
    (count, expected), (index, _) = _integer(1, other=("auto",)), _integer(0)

    def accepts(value: Any) -> bool:
        return all(map(index, value or [None])) if isinstance(value, list) else count(value)

    return accepts, f"{expected}, or a list of GPUs such as [0,1]"


def _betas() -> Rule:
    beta, expected = _number(0, 1, without_high=True)

    def accepts(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(map(beta, value))

    return accepts, f"a list of two: {expected}"


def _one_of(*options: str) -> Rule:
    return options.__contains__, f"one of {', '.join(options)}"


# By a pattern of whole keys: the values accepted, and what was expected in words.
RULES: dict[str, Rule] = {
    r"folder": (_is_text, "a text"),
    r"name": (_is_name, "a text such as mine or mine/first (hydra.run.dir leads elsewhere)"),
    r"data\.root": (lambda value: _is_text(value) or is_number(value), "a text"),
    r"resume|distillation\.teacher": (
        lambda value: value is None or _is_text(value) or is_number(value),
        "a run's folder, or null",
    ),
    r"scheduler\.(total_steps|max_epochs)|data\.(seed|augment)": (lambda value: False, "its value from the run"),
    r"seed": _integer(0, 2**32 - 1),
    r"label_smoothing": _number(0, 1, without_high=True),
    r"distillation\.weight": _number(0, 1),
    r"distillation\.temperature": _number(0, math.inf, without_low=True),
    r"budget\.\w+": _integer(1, other=(None,)),
    r"model\.dropout\w*": _number(0, 1, without_high=True),
    r"optimizer\.lr": _number(0, math.inf, without_low=True),
    r"optimizer\.adamw_lr": _number(0, math.inf, without_low=True, or_null=True),
    r"optimizer\.(weight_decay|eps)": _number(0, math.inf),
    r"optimizer\.(momentum|alpha)": _number(0, 1, without_high=True),
    r"optimizer\.(adamw_)?betas": _betas(),
    r"optimizer\.ns_steps": _integer(1, 99),
    r"callbacks\.\w+\.(filename|dirpath)": (lambda value: value is None or _is_text(value), "a text, or null"),
    r"callbacks\.early_stopping\.patience": _integer(0),
    r"callbacks\.ema\.decay": _number(0, 1, without_high=True),
    r"data\.download": (lambda value: isinstance(value, bool), "true or false"),
    r"data\.batch_size": _integer(1),
    r"data\.train_images": _integer(1, other=(None,)),
    r"data\.augment_epochs": _integer(0, other=(None,)),
    r"data\.validation": _integer(0, other=("test",)),
    r"engine\.threads": _integer(1, os.cpu_count() or 1, other=(None,)),
    r"engine\.precision": (lambda value: str(value) in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    r"engine\.layers": _one_of("auto", "native", "fast", "torch"),
    r"trainer\.max_epochs": _integer(1),
    r"trainer\.log_every_n_steps": _integer(1),
    r"trainer\.limit_train_batches": _number(0, math.inf, without_low=True, or_null=True),
    r"trainer\.deterministic": (lambda value: isinstance(value, bool) or value == "warn", "true, false or warn"),
    r"trainer\.devices": _devices(),
    r"trainer\.gradient_clip_val": _number(0, math.inf, or_null=True),
    r"trainer\.strategy": _one_of("auto", "ddp"),
    r"trainer\.use_distributed_sampler": (lambda value: value is False, "false: the data module shares the images out"),
    r"trainer\.accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps"),
}
