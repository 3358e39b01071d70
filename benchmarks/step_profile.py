"""Where a training step of `python train.py model=NAME` goes: `python benchmarks/step_profile.py cifar_sep`."""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from bench import BATCH, save_images
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from torch_ways import config

from parsimony import runs
from parsimony.training import train

# Kind of work -> parts of the names of modules and, where no module says it, of operations.
KINDS = {
    "convolution": ("conv", "depthwise"),
    "norm, ReLU, dropout": ("tails",),
    "batch norm": ("batchnorm", "batch_norm"),
    "dropout": ("dropout",),
    "ReLU": ("relu", "threshold", "clamp_min"),
    "pooling": ("pool",),
    "linear": ("linear", "addmm"),
    "loss, metrics": ("loss", "softmax", "argmax", "aten::eq"),
    "gradient sums": ("accumulategrad",),
}
SPANS = {"step": "other in the step", "batch": "data", "optimizer": "optimizer"}  # spans of our own, "bench:" before


class Finished(Exception):
    """Ends the training."""


class StepProfile(pl.Callback):
    """Lets `steps` steps pass, times as many, then profiles as many and ends the training."""

    steps: int
    milliseconds: float  # a step, unprofiled
    profiled_milliseconds: float
    profiler: profile

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self.steps:
            self.started = time.perf_counter()
        elif step == 2 * self.steps:
            StepProfile.milliseconds = (time.perf_counter() - self.started) * 1e3 / self.steps
            mark(pl_module, trainer)
            StepProfile.profiler = profile(activities=[ProfilerActivity.CPU])
            self.profiler.__enter__()
            self.started = time.perf_counter()
        elif step == 3 * self.steps:
            StepProfile.profiled_milliseconds = (time.perf_counter() - self.started) * 1e3 / self.steps
            self.profiler.__exit__(None, None, None)
            raise Finished


def mark(classifier: Any, trainer: Any) -> None:
    """Spans around each layer's forward pass, the step, the batch's making and the optimizer's own work."""
    for module in classifier.net.modules():
        if not isinstance(module, nn.Sequential):
            _wrap(module, "forward", f"module:{type(module).__name__}")
    _wrap(classifier, "training_step", "bench:step")
    _wrap(trainer.datamodule, "on_after_batch_transfer", "bench:batch")
    dataset = trainer.train_dataloader.dataset
    type(dataset).__getitems__ = _within("bench:batch", type(dataset).__getitems__)


def shares(events: Iterable[FunctionEvent]) -> dict[tuple[str, str], float]:
    """Microseconds of each (kind of work, direction); what no operation accounts for is not in it."""
    events = list(events)
    kinds = {}  # autograd's sequence number -> kind of the forward operation: the last one of a number made the node
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and "Backward" not in event.name and not _backward(event):
            kinds[event.sequence_nr] = _forward_kind(event)
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        if event.name.startswith(("Optimizer.", "enumerate(DataLoader)", "ProfilerStep")):
            continue  # around Python code, Lightning's included
        if node := _backward(event):
            kind = _named(node.name) or kinds.get(node.sequence_nr) or "other in the step"
            totals[kind, "backward"] += event.self_cpu_time_total
        else:
            totals[_forward_kind(event), "forward"] += event.self_cpu_time_total
    return totals


def table(totals: dict[tuple[str, str], float], steps: int, wall: float) -> str:
    """`wall` in milliseconds a step."""
    per_step = {key: value / steps / 1e3 for key, value in totals.items()}
    lines = [f"{'ms a step':32}{'forward':>10}{'backward':>10}{'share':>9}"]
    names = sorted({kind for kind, _ in per_step}, key=lambda kind: -sum(_both(per_step, kind)))
    for name in names:
        forward, backward = _both(per_step, name)
        lines.append(f"{name:32}{forward:>10.2f}{backward:>10.2f}{(forward + backward) / wall:>9.1%}")
    rest = wall - sum(per_step.values())
    lines.append(f"{'Lightning, Python and the rest':32}{rest:>10.2f}{'':10}{rest / wall:>9.1%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("network", choices=BATCH, metavar="NAME")
    parser.add_argument("--steps", type=int, default=30, help="to profile, after as many to warm up and as many timed")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--top", type=int, default=15, help="operations to list")
    parser.add_argument("--data", type=Path, default=runs.PROJECT / "data", help="random pixels if it has none")
    args = parser.parse_args()
    StepProfile.steps = args.steps
    batch = BATCH[args.network]
    with tempfile.TemporaryDirectory() as folder:
        data = save_images(args.network, batch * (3 * args.steps + 2), Path(folder), args.data)
        with suppress(Finished):
            train(config(args.network, batch, Path(folder), args.threads, f"{__name__}.StepProfile"))
    wall, events = StepProfile.profiled_milliseconds, StepProfile.profiler.events()
    print(
        f"\n{args.network}, batch {batch}, {data}; {runs.cpu_name()}, {torch.get_num_threads()} threads: "
        f"{StepProfile.milliseconds:.1f} ms a step, {wall:.1f} under the profiler, whose table this is:\n"
    )
    print(table(shares(events), args.steps, wall))
    print(f"\nThe {args.top} operations that take longest themselves, over {args.steps} steps")
    averages = StepProfile.profiler.key_averages()
    print(averages.table(sort_by="self_cpu_time_total", row_limit=args.top, max_name_column_width=60))


def _forward_kind(event: FunctionEvent) -> str:
    named = None
    while event is not None:
        if event.name.startswith("module:"):
            return _named(event.name) or "other in the step"
        if event.name.startswith("bench:"):
            span = SPANS[event.name.removeprefix("bench:")]
            return named or span if span == "other in the step" else span
        if event.name.startswith("Optimizer."):
            return "optimizer"
        named = _named(event.name) or named
        event = event.cpu_parent
    return named or "other outside the step"


def _backward(event: FunctionEvent | None) -> FunctionEvent | None:
    while event is not None and not event.name.startswith("autograd::engine::evaluate_function"):
        event = event.cpu_parent
    return event


def _named(name: str) -> str | None:
    return next((kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts)), None)


def _both(per_step: dict[tuple[str, str], float], kind: str) -> tuple[float, float]:
    return per_step.get((kind, "forward"), 0.0), per_step.get((kind, "backward"), 0.0)


def _wrap(owner: Any, method: str, span: str) -> None:
    setattr(owner, method, _within(span, getattr(owner, method)))


def _within(span: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with record_function(span):
            return function(*args, **kwargs)

    return wrapped


if __name__ == "__main__":
    main()
