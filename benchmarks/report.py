"""Times `parsimony report` over 200 made-up runs as ours leave them: `python benchmarks/report.py`.

20 epochs of 469 steps, four scalars logged every 50 steps, the pictures, the hyperparameters. Prints the wall time and
the CPU time of all its processes; the first is what an idle machine takes, the second hardly depends on its load.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from parsimony.runs import Epoch, Result

EPOCHS, STEPS, EVERY = 20, 469, 50
DROPOUTS, RATES = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), (0.0003, 0.001, 0.002, 0.005, 0.01)
SEEDS = 5


def write_run(folder: Path, dropout: float, lr: float, seed: int) -> None:
    noise = np.random.default_rng([seed, int(1e4 * lr), int(100 * dropout)])
    picture = noise.integers(256, size=(3, 130, 130), dtype=np.uint8)  # as many bytes as ours, compressed
    overrides = [f"model.dropout={dropout}", f"optimizer.lr={lr}", f"seed={seed}"]
    config = {"name": "mnist_narrow", "folder": str(folder), "seed": seed, "trainer": {"max_epochs": EPOCHS}}
    config |= {"model": {"dropout": dropout}, "optimizer": {"lr": lr}, "data": {"source": {"name": "mnist"}}}
    history = []
    with SummaryWriter(str(folder)) as writer:
        writer.add_image("first_batch", picture, 0)
        for step in range(0, EPOCHS * STEPS, EVERY):
            for tag in ("train/loss_step", "train/accuracy_step", "lr-Adam", "images_per_second_step"):
                writer.add_scalar(tag, noise.random(), step)
        for epoch in range(1, EPOCHS + 1):
            accuracy = 0.995 - 0.02 / epoch - 0.01 * dropout - abs(lr - 0.005) + 0.0005 * noise.normal()
            values = {"val/accuracy": accuracy, "val/loss": 1 - accuracy, "train/accuracy": accuracy - 0.01}
            values |= {"train/loss": 1.01 - accuracy, "images_per_second": 2500 + 100 * noise.normal()}
            history.append({"epoch": epoch, **values})
            for tag, value in {**values, "epoch": epoch - 1}.items():
                writer.add_scalar(tag, value, epoch * STEPS - 1)
        writer.add_image("confusion_matrix", picture, EPOCHS * STEPS)
        for summary in hparams({f"key.{i}": "a value" for i in range(70)}, {"final/test_accuracy": accuracy}):
            writer._get_file_writer().add_summary(summary)
    scores = {"loss": 1 - accuracy, "accuracy": accuracy}
    result = Result("mnist_narrow", overrides, seed, status="completed", epochs=EPOCHS, config=config, history=history)
    result.final = result.best = Epoch(EPOCHS, train=scores, validation=scores, test=scores)
    result.validation, result.images_per_second = "5,000 images of the training set", 2500.0
    result.parameters, result.data = {"total": 5904}, {"name": "mnist"}
    result.write(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="where the runs are made, and left")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        runs = keep or Path(temporary)
        settings = [(dropout, lr, seed) for dropout in DROPOUTS for lr in RATES for seed in range(SEEDS)]
        for dropout, lr, seed in settings:
            folder = runs / f"model.dropout={dropout},optimizer.lr={lr},seed={seed}"
            if not (folder / "result.json").exists():
                write_run(folder, dropout, lr, seed)
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "parsimony.cli", "report", runs], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.perf_counter() - started
        print(f"{len(settings)} runs: {wall:.1f} s, {cpu:.1f} s of CPU, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
