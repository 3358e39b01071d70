"""Trains a published recipe in Keras: `.venv-bench/bin/python benchmarks/keras_training.py mnist_narrow --seed 0`.

What the recipes reach in the library that they were written for, beside which docs/results.md puts our own runs. Writes
results/keras/NETWORK/seed-N.json; `make bench` makes .venv-bench, which has TensorFlow.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate

from parsimony.config import composed
from parsimony.published.rows import RESULTS, rows
from parsimony.runs import PROJECT, cpu_name, replace_file

NETWORKS = [row.network for row in rows() if not row.network.endswith(("_plus", "_augmented"))]


def recipe(network: str) -> dict[str, Any]:
    """What Keras has to know of a published recipe, and the images."""
    cfg = composed([f"experiment=reproduce/{network}", f"data.root={PROJECT / 'data'}"])
    images = instantiate(cfg.data.source).load()
    return {
        "lr": cfg.optimizer.lr,
        "decay": cfg.scheduler.get("decay", 0.0),  # constant has none
        "batch": cfg.data.batch_size,
        "epochs": cfg.trainer.max_epochs,
        "train": [array[: cfg.data.train_images] for array in _arrays(images.train)],
        "test": _arrays(images.test),
    }


def _arrays(split: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w, c) in 0..1, labels (n,)."""
    return split.images.numpy().transpose(0, 2, 3, 1).astype("float32") / 255, split.labels.numpy()


def train(network: str, seed: int, epochs: int | None, threads: int) -> dict[str, Any]:
    """What the file holds: test accuracy (0 to 1) after each epoch, of all the recipe's or only the first so many."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")
    sys.path.append(str(PROJECT / "tests"))
    import keras
    import keras_nets
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    known = recipe(network)
    epochs = epochs or known["epochs"]
    model = getattr(keras_nets, network)()
    model.compile(
        keras.optimizers.Adam(known["lr"], epsilon=1e-7),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    started = time.perf_counter()
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, _: round(known["lr"] / (1 + known["decay"] * epoch), 10))
    images, labels = known["train"]
    history = model.fit(
        *(images, labels, known["batch"], epochs),
        validation_data=known["test"],
        validation_batch_size=1000,
        verbose=2,
        callbacks=[rate],
    )
    return {
        "network": network,
        "seed": seed,
        "test_accuracy": history.history["val_accuracy"],
        "seconds": time.perf_counter() - started,
        "machine": cpu_name(),
        "threads": threads,
        "versions": {name: version(name) for name in ("keras", "tensorflow-cpu")},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="only the first so many: what comes later does not change them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS / "keras")
    arguments = parser.parse_args()
    found = train(arguments.network, arguments.seed, arguments.epochs, arguments.threads)
    folder = arguments.results / arguments.network
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"seed-{arguments.seed}.json", json.dumps(found, indent=1) + "\n")
    print(f"{arguments.network} in Keras, seed {arguments.seed}: {100 * found['test_accuracy'][-1]:.2f} %")
