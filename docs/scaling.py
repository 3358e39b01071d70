"""How training scales over processes: `python docs/scaling.py` measures, `--table` writes docs/scaling.md's tables.

Measured are real runs of `python train.py`, one thread a process, 1 and 2 of them in turn. The rest is a model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parsimony import runs
from parsimony.published.pages import filled
from parsimony.runs import PROJECT, Result

RESULTS = PROJECT / "results" / "scaling.json"
DOCUMENT = Path(__file__).with_suffix(".md")
RUNS = {  # network: overrides; short epochs, each timed
    "mnist_narrow": ("data=digits", "data.batch_size=128", "data.validation=200"),
    "mnist_sep": ("data=digits", "data.batch_size=128", "data.validation=200"),
}
EPOCHS = 6
SWEEP = "python train.py -m model=mnist_narrow data=mnist seed=0,1 trainer.max_epochs=6"
LINKS = {  # what the model takes for them: latency of one message in seconds, bytes per second
    "8 GPUs of one machine (NVLink)": (8, 5e-6, 200e9),
    "64 machines (100 Gbit/s network)": (64, 20e-6, 12.5e9),
}


def measure(rounds: int) -> dict[str, Any]:
    """Images a second and seconds a step of each network by 1 and by 2 processes, medians of `rounds` runs."""
    busy = busy_cores()
    networks = {}
    for network, overrides in RUNS.items():
        speeds: dict[str, list[float]] = {"1": [], "2": []}
        for _ in range(rounds):
            for processes in speeds:
                result = train(network, int(processes), overrides)
                speeds[processes] += [entry["images_per_second"] for entry in result.history[1:]]
        networks[network] = {
            "batch": result.config["data"]["batch_size"],
            "gradients": result.parameters["trainable"],
            "images_per_second": {processes: statistics.median(each) for processes, each in speeds.items()},
            "lowest": {processes: min(each) for processes, each in speeds.items()},
            "highest": {processes: max(each) for processes, each in speeds.items()},
        }
    return {
        "machine": runs.cpu_name(),
        "date": time.strftime("%Y-%m-%d"),
        "busy_cores_before": busy,
        "rounds": rounds,
        "versions": runs.versions(),
        "networks": networks,
        "sweep": measure_sweep(),
    }


def busy_cores(seconds: float = 5.0) -> float:
    """How many cores other processes keep busy, of the mean over the next `seconds`."""
    idle_before, started = _idle_seconds(), time.perf_counter()
    time.sleep(seconds)
    return (os.cpu_count() or 1) - (_idle_seconds() - idle_before) / (time.perf_counter() - started)


def _idle_seconds() -> float:
    """Of all cores, since the machine was started (proc(5))."""
    return float(Path("/proc/uptime").read_text().split()[1])


def measure_sweep(rounds: int = 2) -> dict[str, list[float]]:
    """Seconds of the whole command, runs in a row and side by side, in turn. Needs the files of MNIST."""
    launchers = {"in_a_row": (), "side_by_side": ("hydra/launcher=joblib",)}
    seconds: dict[str, list[float]] = {way: [] for way in launchers}
    for _ in range(rounds):
        for way, launcher in launchers.items():
            with tempfile.TemporaryDirectory() as folder:
                keys = (*SWEEP.split()[1:], *launcher, f"hydra.sweep.dir={folder}/sweep")
                started = time.perf_counter()
                subprocess.run([sys.executable, *keys], check=True, stdout=subprocess.DEVNULL, cwd=PROJECT)
                seconds[way].append(time.perf_counter() - started)
    return seconds


def train(network: str, processes: int, overrides: tuple[str, ...]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        strategy = "ddp" if processes > 1 else "auto"
        keys = (
            *(f"model={network}", "trainer=cpu", f"trainer.devices={processes}", f"trainer.strategy={strategy}"),
            *(f"trainer.max_epochs={EPOCHS}", "engine.threads=1", "~callbacks.pictures", f"hydra.run.dir={folder}/run"),
        )
        subprocess.run([sys.executable, PROJECT / "train.py", *keys, *overrides], check=True, stdout=subprocess.DEVNULL)
        return Result.read(Path(folder) / "run" / "result.json")


def measured(found: dict[str, Any]) -> str:
    """Markdown: where, then a row a network."""
    busy = found["busy_cores_before"]
    shared = f"; other work ran beside it ({busy:.1f} cores busy)" if busy > 0.2 else ""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    runs = f"{found['rounds']} run{'s' if found['rounds'] > 1 else ''}"
    lines = [
        f"{found['machine']}, {found['date']}, medians over the epochs of {runs} (lowest to highest)"
        f"{shared}; {versions}.",
        "",
        "| network | global batch | 1 process, images/s | 2 processes, images/s | gain |",
        "|---|--:|--:|--:|--:|",
    ]
    for network, row in found["networks"].items():
        speeds = [
            f"{row['images_per_second'][n]:,.0f} ({row['lowest'][n]:,.0f} to {row['highest'][n]:,.0f})" for n in "12"
        ]
        gain = row["images_per_second"]["2"] / row["images_per_second"]["1"]
        lines.append(f"| `{network}` | {row['batch']} | {speeds[0]} | {speeds[1]} | {gain:.2f}x |")
    return "\n".join(lines)


def modelled(found: dict[str, Any]) -> str:
    """Markdown: a row a network and link."""
    lines = [
        "| network | processes | bytes of gradients | one all-reduce | batch at which it is a tenth of a step |",
        "|---|---|--:|--:|--:|",
    ]
    for network, row in found["networks"].items():
        size = 4 * row["gradients"]
        for link, (count, latency, bandwidth) in LINKS.items():
            seconds = all_reduce(size, count, latency, bandwidth)
            batch = 9 * seconds * GPU_SPEEDUP * row["images_per_second"]["1"] * count
            lines.append(f"| `{network}` | {link} | {size:,} | {1e6 * seconds:,.0f} µs | {batch:,.0f} |")
    return "\n".join(lines)


def swept(found: dict[str, Any]) -> str:
    """Markdown: what a sweep gains by the joblib launcher."""
    lines = [f"`{SWEEP}`, from its start to its end:", ""]
    for way, told in (("in_a_row", "one run after the other"), ("side_by_side", "and with `hydra/launcher=joblib`")):
        lines.append(f"- {told}: {' and '.join(f'{seconds:.0f} s' for seconds in found['sweep'][way])}")
    gains = [row / side for row, side in zip(found["sweep"]["in_a_row"], found["sweep"]["side_by_side"], strict=True)]
    return "\n".join([*lines, "", f"That is {statistics.median(gains):.2f} times as fast."])


GPU_SPEEDUP = 100  # assumed, of a GPU over one core of the measured CPU: none was measured


def all_reduce(size: int, count: int, latency: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes: 2 (count - 1) messages of size / count bytes each."""
    return 2 * (count - 1) * (latency + size / count / bandwidth)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only write the tables, from the committed results")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, in turn")
    arguments = parser.parse_args()
    if not arguments.table:
        RESULTS.write_text(json.dumps(measure(arguments.rounds), indent=1) + "\n")
    found = json.loads(RESULTS.read_text())
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), measured(found), modelled(found), swept(found)))
