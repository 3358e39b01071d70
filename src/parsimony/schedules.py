"""Learning-rate schedules behind one interface, so that a config chooses among them and never types a step count.

Every function takes the optimizer, the optimizer steps and epochs of the whole run, and its own keys; it returns what
Lightning calls an `lr_scheduler` dict, or None. Each group of the optimizer starts from its own learning rate.
`InputError` says which key is out of range, or that an endless run was given to a schedule that has an end.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from parsimony.errors import InputError
from parsimony.rules import is_number

Schedule = dict[str, Any] | None


def constant(optimizer: Optimizer, *, total_steps: int, max_epochs: int) -> Schedule:
    return None


def inverse_time(optimizer: Optimizer, *, total_steps: int, max_epochs: int, decay: float = 0.319) -> Schedule:
    """`round(lr / (1 + decay * epoch), 10)` with the epoch from 0, set once an epoch: the originals' own schedule."""
    _check("decay", decay, 0.0)
    return {"scheduler": InverseTimeLR(optimizer, float(decay)), "interval": "epoch"}


def step(
    optimizer: Optimizer, *, total_steps: int, max_epochs: int, milestones: list[float], gamma: float = 0.1
) -> Schedule:
    """Multiplies the rate by `gamma` at each milestone: a fraction of the epochs, rounded up to a whole epoch."""
    if not isinstance(milestones, list | tuple):
        raise InputError(f"scheduler.milestones must be a list such as [0.5, 0.75], got {milestones!r}.")
    for milestone in milestones:
        _check("milestones", milestone, 0.0, 1.0)
    _check("gamma", gamma, 0.0)
    _check_end("step", "max_epochs", max_epochs)
    # 0.55 * 100 is 55.00000000000001: without the inner round() that would wait for epoch 56
    epochs = [math.ceil(round(milestone * max_epochs, 6)) for milestone in milestones]
    return _scaled(optimizer, "epoch", lambda epoch: gamma ** sum(epoch >= start for start in epochs))


def one_cycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    max_epochs: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = False,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
) -> Schedule:
    """torch's OneCycleLR, with its keys: up to the optimizer's lr and down again, changing at every step."""
    _check("pct_start", pct_start, 0.0, 1.0)
    for key, factor in {"div_factor": div_factor, "final_div_factor": final_div_factor}.items():
        _check(key, factor, 1.0)
    for key, momentum in {"base_momentum": base_momentum, "max_momentum": max_momentum}.items():
        _check(key, momentum, 0.0, 1.0)
        if momentum == 1:
            raise InputError(f"scheduler.{key} must be below 1, got 1.")
    if anneal_strategy not in ("cos", "linear"):
        raise InputError(f"scheduler.anneal_strategy must be cos or linear, got {anneal_strategy!r}.")
    if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
        raise InputError(f"scheduler.cycle_momentum must be false: {type(optimizer).__name__} has no momentum.")
    _check_end("one_cycle", "total_steps", total_steps)
    if pct_start * total_steps == 1:
        pct_start *= 1 - 1e-9  # torch divides by the length of a rise that ends at the first step: by zero
    scheduler = HeldOneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=int(total_steps),
        pct_start=float(pct_start),
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal_strategy=anneal_strategy,
        cycle_momentum=cycle_momentum,
        base_momentum=base_momentum,
        max_momentum=max_momentum,
    )
    return {"scheduler": scheduler, "interval": "step"}


def cosine(
    optimizer: Optimizer, *, total_steps: int, max_epochs: int, warmup: float = 0.05, final: float = 0.0
) -> Schedule:
    """A linear rise over `warmup` of the steps, then half a cosine from the optimizer's lr down.

    The step after the last would have `final` of it.
    """
    _check("warmup", warmup, 0.0, 1.0)
    _check("final", final, 0.0, 1.0)
    _check_end("cosine", "total_steps", total_steps)
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return _scaled(optimizer, "step", factor)


class InverseTimeLR(LRScheduler):
    def __init__(self, optimizer: Optimizer, decay: float, last_epoch: int = -1) -> None:
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        return [round(float(lr) / (1 + self.decay * self.last_epoch), 10) for lr in self.base_lrs]


class HeldOneCycleLR(OneCycleLR):
    """OneCycleLR that keeps its last rate when stepped past its end, where torch's extrapolates once, then raises."""

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch >= self.total_steps:
            return [group["lr"] for group in self.optimizer.param_groups]
        return super().get_lr()


def _scaled(optimizer: Optimizer, interval: str, factor: Callable[[int], float]) -> Schedule:
    return {"scheduler": LambdaLR(optimizer, factor), "interval": interval}


def _check(key: str, value: float, low: float, high: float = math.inf) -> None:
    if not is_number(value) or not low <= value <= high:
        expected = f"a number from {low:g} to {high:g}" if high < math.inf else f"a number of at least {low:g}"
        raise InputError(f"scheduler.{key} must be {expected}, got {value!r}.")


def _check_end(schedule: str, key: str, value: float) -> None:
    if not 1 <= value < math.inf:
        raise InputError(
            f"The {schedule} schedule needs a run with an end, got {key}={value}: "
            "set trainer.max_epochs to a positive number, or choose scheduler=constant."
        )
