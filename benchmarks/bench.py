"""Training speed of every network against Keras, a bare loop and the stock way: `python benchmarks/bench.py --help`.

Each contender has a process of its own; one trains at a time, in turn, the others wait (see worker.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from table import RESULTS

from parsimony import runs
from parsimony.config import composed
from parsimony.errors import InputError
from parsimony.summary import summarize

BATCH = {  # of each network's published recipe
    "mnist_sep": 64,
    "mnist_narrow": 128,
    "mnist_narrow_early_pool": 128,
    "mnist_squeeze": 32,
    "mnist_dropout": 128,
    "mnist_taper": 128,
    "mnist_taper_small": 128,
    "mnist_plain": 32,
    "mnist_wide": 512,
    "mnist_micro": 64,
    "mnist_residual": 64,
    "cifar_sep": 128,
    "cifar_base": 128,
    "cifar_plain": 128,
    "cifar_convnext": 128,
    "cifar_resnet9": 128,
}
OTHERS = ("keras", "bare", "stock")
PRECISIONS = ("float32", "bfloat16")
FLOPS_PER_MAC = 6  # a multiplication and an addition forward, twice that backward


class Worker:
    """The parent's end of one contender's process."""

    def __init__(self, python: str, log: Path, **task: Any) -> None:
        self.contender, self.log = task["contender"], log
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # what is compared here is training on the CPU
        if task["threads"]:
            environment["OMP_NUM_THREADS"] = str(task["threads"])
        command = [python, str(Path(__file__).with_name("worker.py")), json.dumps(task)]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
            )
        self.about: dict[str, Any] = {}

    def ready(self) -> None:
        """Waits until it could train; several get there at the same time."""
        self.about = self._reply()

    def slice(self) -> dict[str, Any]:
        """Trains one slice; returns its seconds and the process's peak memory."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._reply()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # closes its input, which ends it

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            sys.exit(f"The contender {self.contender} failed:\n{self.log.read_text()[-3000:]}")
        return json.loads(line)


def save_images(network: str, count: int, folder: Path, root: Path) -> str:
    """Writes images.npy (n, c, h, w) and labels.npy, at most `count`; returns whose images they are."""
    source = instantiate(composed([f"model={network}", f"data.root={root}"]).data.source)
    try:
        content = source.load()
        name, images, labels = content.name, content.train.images[:count].numpy(), content.train.labels[:count].numpy()
    except (InputError, OSError):  # the files are not there: the time is the same on any others
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (min(count, 50_000), *source.shape), dtype=np.uint8)
        name, labels = "random pixels", rng.integers(0, 10, len(images))
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    return name


def matmul_limits(size: int = 2048, seconds: float = 2.0) -> dict[str, float]:
    """GFLOP/s of the fastest of many products of two square matrices, in float32 and, where in hardware, bfloat16."""
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    kinds = [torch.float32] + [torch.bfloat16] * in_hardware
    limits = {}
    for kind in kinds:
        a, b = torch.randn(2, size, size, dtype=kind)
        fastest, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            a @ b
            fastest = min(fastest, time.perf_counter() - started)
        limits[str(kind).removeprefix("torch.")] = 2 * size**3 / fastest / 1e9
    return limits


def measure(network: str, args: argparse.Namespace, limits: dict[str, float]) -> dict[str, Any]:
    """What results/NETWORK.json holds."""
    batch = BATCH[network]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)

        def start(contender: str) -> Worker:
            python = args.keras_python if contender == "keras" else sys.executable
            log = folder / f"{contender}.log"
            task = {"contender": contender, "network": network, "batch": batch, "folder": temporary}
            return Worker(python, log, **task, threads=args.threads)

        count = args.images
        if not count:
            save_images(network, 20 * batch, folder, args.data)
            with start("bare") as worker:
                worker.ready()
                worker.slice()
                count = int(20 * batch / worker.slice()["seconds"] * args.seconds)
        data = save_images(network, max(count // batch, 2) * batch, folder, args.data)
        images = len(np.load(folder / "labels.npy", mmap_mode="r"))
        workers = [stack.enter_context(start(contender)) for contender in ("ours", *args.against)]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.slice()  # warm-up
        rounds = [[worker.slice() for worker in workers] for _ in range(args.rounds)]
    macs, shape = _macs(network)
    commit, dirty = runs.commit()
    result: dict[str, Any] = {
        "network": network,
        "date": time.strftime("%Y-%m-%d"),
        "machine": runs.cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": runs.versions() | {k: v for w in workers for k, v in w.about.get("versions", {}).items()},
        "commit": commit,
        "dirty": dirty,
        "data": data,
        "shape": shape,
        "batch": batch,
        "images_per_slice": images,
        "rounds": args.rounds,
        "macs": macs,
        "matmul_gflops": {kind: round(limit, 1) for kind, limit in limits.items()},
        "contenders": {},
        "ratios": {},  # ours / the other, images/s of the same round
    }
    speeds = {w.contender: [images / turn[i]["seconds"] for turn in rounds] for i, w in enumerate(workers)}
    for i, worker in enumerate(workers):
        speed = spread(speeds[worker.contender])
        result["contenders"][worker.contender] = {
            "precision": worker.about["precision"],
            "images_per_second": speed,
            "peak_mb": round(rounds[-1][i]["peak_mb"]),
            "share_of_limit": {
                kind: round(FLOPS_PER_MAC * macs * speed["median"] / 1e9 / limit, 4) for kind, limit in limits.items()
            },
        }
        if worker.contender != "ours":
            pairs = zip(speeds["ours"], speeds[worker.contender], strict=True)
            result["ratios"][worker.contender] = spread([mine / other for mine, other in pairs])
    return result


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, min, max and all of them, to five digits."""
    short = [float(f"{value:.5g}") for value in values]
    return {"median": float(f"{median(short):.5g}"), "min": min(short), "max": max(short), "runs": short}


def report(result: dict[str, Any]) -> str:
    lines = [
        f"\n{result['network']}: batch {result['batch']}, {result['rounds']} x {result['images_per_slice']:,} images "
        f"({result['data']}), {result['threads']} threads",
        f"{'':8}{'images/s':>10} {'(min to max)':20}{'peak MB':>8}  ours is faster   share of the matmul limit",
    ]
    for name, row in result["contenders"].items():
        speed, ratio = row["images_per_second"], result["ratios"].get(name)
        times = f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})" if ratio else ""
        shares = ", ".join(f"{100 * share:.1f} % {kind}" for kind, share in row["share_of_limit"].items())
        between = f"({speed['min']:,.0f} to {speed['max']:,.0f})"
        lines.append(f"{name:8}{speed['median']:>10,.0f} {between:20}{row['peak_mb']:>8,}  {times:16} {shares}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=BATCH, default=list(BATCH), metavar="NAME")
    ways = (*OTHERS, *PRECISIONS)
    parser.add_argument("--against", nargs="+", choices=ways, default=list(OTHERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="slices of each contender, after one to warm up")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a slice of the bare loop")
    parser.add_argument("--images", type=int, help="in a slice, instead of --seconds")
    parser.add_argument("--threads", type=int, help="of every contender; all cores if not given")
    parser.add_argument("--keras-python", default=sys.executable, help="interpreter that has TensorFlow and Keras")
    parser.add_argument("--data", type=Path, default=runs.PROJECT / "data", help="random pixels if it has none")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    limits = matmul_limits()
    print(
        "matrix products:", ", ".join(f"{limit:,.0f} GFLOP/s in {kind}" for kind, limit in limits.items()), flush=True
    )
    args.results.mkdir(parents=True, exist_ok=True)
    for network in args.networks:
        result = measure(network, args, limits)
        runs.replace_file(args.results / f"{network}.json", json.dumps(result, indent=1) + "\n")
        print(report(result), flush=True)


def _macs(network: str) -> tuple[int, tuple[int, ...]]:
    cfg = composed([f"model={network}"])
    shape = instantiate(cfg.data.source).shape
    return summarize(instantiate(cfg.model), shape).macs, shape


if __name__ == "__main__":
    main()
