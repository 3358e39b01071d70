"""Learning rates against their formulas, to the last step and beyond it, and across a checkpoint."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from parsimony import schedules
from parsimony.errors import InputError

CONFIGS = sorted((Path(__file__).parents[1] / "conf/scheduler").glob("*.yaml"))
EPOCHS, STEPS = 20, 7  # steps an epoch


def make_optimizer(*rates: float, kind: type[Optimizer] = SGD) -> Optimizer:
    return kind([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates or (0.003,)])  # type: ignore


def from_config(path: Path, optimizer: Optimizer, total_steps: int, max_epochs: int) -> schedules.Schedule:
    schedule = instantiate(OmegaConf.load(path), _convert_="all")
    return schedule(optimizer, total_steps=total_steps, max_epochs=max_epochs)


def train(
    optimizer: Optimizer, schedule: schedules.Schedule, epochs: int, steps: int = STEPS, start: int = 0
) -> list[list[float]]:
    """Steps as Lightning does; returns every group's rate at every optimizer step."""
    rates = []
    for _ in range(start, epochs):
        for _ in range(steps):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            if schedule and schedule["interval"] == "step":
                schedule["scheduler"].step()
        if schedule and schedule["interval"] == "epoch":
            schedule["scheduler"].step()
    return rates


def per_epoch(rates: list[list[float]]) -> list[float]:
    return [rate for (rate,) in rates[::STEPS]]


def test_constant() -> None:
    assert schedules.constant(make_optimizer(), total_steps=10, max_epochs=1) is None


@pytest.mark.parametrize("a", [0.003, 0.0087, 0.0085])
def test_inverse_time_is_the_seeds_formula(a) -> None:
    optimizer = make_optimizer(a)
    schedule = schedules.inverse_time(optimizer, total_steps=EPOCHS * STEPS, max_epochs=EPOCHS)
    rates = train(optimizer, schedule, EPOCHS)
    assert per_epoch(rates) == [round(a / (1 + 0.319 * epoch), 10) for epoch in range(EPOCHS)]
    assert all(len({rate for (rate,) in rates[e * STEPS : (e + 1) * STEPS]}) == 1 for e in range(EPOCHS))


def test_inverse_time_decays_each_group_from_its_own_rate() -> None:
    optimizer = make_optimizer(0.1, 0.01)
    schedule = schedules.inverse_time(optimizer, total_steps=14, max_epochs=2, decay=1.0)
    assert train(optimizer, schedule, 2)[STEPS] == [0.05, 0.005]


@pytest.mark.parametrize(
    ("epochs", "milestones", "drops"),
    [(20, [0.5, 0.75], [10, 15]), (100, [0.29, 0.55], [29, 55]), (3, [0.5], [2]), (1, [0.5, 1.0], []), (4, [], [])],
)
def test_step_drops_at_fractions_of_the_epochs(epochs, milestones, drops) -> None:
    optimizer = make_optimizer(1.0)
    schedule = schedules.step(optimizer, total_steps=epochs * STEPS, max_epochs=epochs, milestones=milestones)
    rates = per_epoch(train(optimizer, schedule, epochs))
    assert [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]] == drops
    assert rates == pytest.approx([0.1 ** sum(epoch >= drop for drop in drops) for epoch in range(epochs)])


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_is_torchs(strategy) -> None:
    keys = {"pct_start": 0.2, "div_factor": 10.0, "final_div_factor": 100.0, "anneal_strategy": strategy}
    mine, theirs = make_optimizer(0.5, 0.01), make_optimizer(0.5, 0.01)
    schedule = schedules.one_cycle(mine, total_steps=EPOCHS * STEPS, max_epochs=EPOCHS, **keys)
    torchs = OneCycleLR(theirs, [0.5, 0.01], total_steps=EPOCHS * STEPS, cycle_momentum=False, **keys)
    rates = train(mine, schedule, EPOCHS)
    assert rates == train(theirs, {"scheduler": torchs, "interval": "step"}, EPOCHS)
    assert rates[0] == pytest.approx([0.05, 0.001])
    assert max(rates) == pytest.approx([0.5, 0.01])
    assert rates[-1] == pytest.approx([0.0005, 0.00001])
    assert [group["lr"] for group in mine.param_groups] == rates[-1]  # held, not extrapolated


def test_one_cycle_moves_the_momentum_between_its_ends() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.9)
    schedule = schedules.one_cycle(
        optimizer, total_steps=10, max_epochs=1, cycle_momentum=True, base_momentum=0.6, max_momentum=0.9
    )
    assert schedule is not None
    momenta = []
    for _ in range(10):
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule["scheduler"].step()
    assert (momenta[0], min(momenta)) == pytest.approx((0.9, 0.6))


def test_one_cycle_moves_the_momentum_when_told() -> None:
    optimizer = make_optimizer(0.01, kind=Adam)
    schedules.one_cycle(optimizer, total_steps=10, max_epochs=1)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    schedules.one_cycle(optimizer, total_steps=10, max_epochs=1, cycle_momentum=True, max_momentum=0.97)
    assert optimizer.param_groups[0]["betas"] == (0.97, 0.999)
    without = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    with pytest.raises(InputError, match="cycle_momentum must be false: Adagrad"):
        schedules.one_cycle(without, total_steps=10, max_epochs=1, cycle_momentum=True)


def test_cosine_is_its_formula() -> None:
    optimizer = make_optimizer(2.0)
    schedule = schedules.cosine(optimizer, total_steps=100, max_epochs=10, warmup=0.1, final=0.01)
    rates = [rate for (rate,) in train(optimizer, schedule, 10, steps=10)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[55] == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert rates[10:] == pytest.approx([2 * (0.01 + 0.495 * (1 + math.cos(math.pi * i / 90))) for i in range(90)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (2, 1), (1, 2), (3, 1), (10, 1), (5, 7)])
def test_every_config_runs_to_its_end_and_past_it(path, epochs, steps) -> None:
    optimizer = make_optimizer(0.1, kind=Adam)
    schedule = from_config(path, optimizer, epochs * steps, epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = [rate for (rate,) in train(optimizer, schedule, epochs, steps)]
        rates += [rate for (rate,) in train(optimizer, schedule, 2, steps)]
    assert all(0 <= rate <= 0.1 for rate in rates)
    assert len(rates) == (epochs + 2) * steps


@pytest.mark.parametrize("pct_start", [0, 0.1, 0.5, 1 / 3, 1, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_at_its_edges(pct_start, total_steps, strategy) -> None:
    optimizer = make_optimizer(0.1)
    schedule = schedules.one_cycle(
        optimizer, total_steps=total_steps, max_epochs=1, pct_start=pct_start, anneal_strategy=strategy
    )
    for _ in range(2):
        assert all(0 < rate <= 0.1 for (rate,) in train(optimizer, schedule, 1, steps=total_steps))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_resumed_run_goes_on_as_if_never_stopped(path, tmp_path) -> None:
    optimizer = make_optimizer(0.1, 0.02, kind=Adam)
    whole = train(optimizer, from_config(path, optimizer, EPOCHS * STEPS, EPOCHS), EPOCHS)

    optimizer = make_optimizer(0.1, 0.02, kind=Adam)
    schedule = from_config(path, optimizer, EPOCHS * STEPS, EPOCHS)
    train(optimizer, schedule, 12)
    state = schedule["scheduler"].state_dict() if schedule else {}
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": state}, tmp_path / "last.ckpt")

    optimizer = make_optimizer(0.1, 0.02, kind=Adam)
    schedule = from_config(path, optimizer, EPOCHS * STEPS, EPOCHS)
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    optimizer.load_state_dict(loaded["optimizer"])
    if schedule:
        schedule["scheduler"].load_state_dict(loaded["scheduler"])
    assert train(optimizer, schedule, EPOCHS, start=12) == whole[12 * STEPS :]


@pytest.mark.parametrize(
    ("schedule", "keys", "words"),
    [
        ("inverse_time", {"decay": -0.1}, "scheduler.decay must be a number of at least 0, got -0.1"),
        ("inverse_time", {"decay": "fast"}, "scheduler.decay must be a number of at least 0, got 'fast'"),
        ("inverse_time", {"decay": math.nan}, "scheduler.decay must be a number"),
        ("inverse_time", {"decay": True}, "scheduler.decay must be a number"),
        ("step", {"milestones": [0.5, 15]}, "scheduler.milestones must be a number from 0 to 1, got 15"),
        ("step", {"milestones": 0.5}, r"scheduler.milestones must be a list such as \[0.5, 0.75\], got 0.5"),
        ("step", {"milestones": [0.5], "gamma": -1}, "scheduler.gamma must be a number of at least 0"),
        ("one_cycle", {"pct_start": 1.1}, "scheduler.pct_start must be a number from 0 to 1, got 1.1"),
        ("one_cycle", {"div_factor": 0}, "scheduler.div_factor must be a number of at least 1, got 0"),
        ("one_cycle", {"final_div_factor": math.inf}, "scheduler.final_div_factor must be"),
        ("one_cycle", {"max_momentum": 1.5}, "scheduler.max_momentum must be a number from 0 to 1"),
        ("one_cycle", {"base_momentum": 1}, "scheduler.base_momentum must be below 1, got 1"),
        ("one_cycle", {"anneal_strategy": "cosine"}, "scheduler.anneal_strategy must be cos or linear, got 'cosine'"),
        ("cosine", {"warmup": 100}, "scheduler.warmup must be a number from 0 to 1, got 100"),
        ("cosine", {"final": -0.1}, "scheduler.final must be a number from 0 to 1, got -0.1"),
    ],
)
def test_keys_out_of_range(schedule, keys, words) -> None:
    with pytest.raises(InputError, match=words):
        getattr(schedules, schedule)(make_optimizer(), total_steps=10, max_epochs=2, **keys)


@pytest.mark.parametrize(
    ("schedule", "run"),
    [
        ("one_cycle", {"total_steps": math.inf, "max_epochs": -1}),
        ("cosine", {"total_steps": -1, "max_epochs": -1}),
        ("step", {"total_steps": 100, "max_epochs": -1, "milestones": [0.5]}),
    ],
)
def test_an_endless_run_needs_a_schedule_without_an_end(schedule, run) -> None:
    with pytest.raises(InputError, match=f"The {schedule} schedule needs a run with an end"):
        getattr(schedules, schedule)(make_optimizer(), **run)
