"""One contender in a process of its own: it trains a slice when the parent says so, and waits on its pipe otherwise.

Started by bench.py with one JSON argument: contender, network, batch, folder (of images.npy and labels.npy), threads.
Each line that it writes is a JSON object: first what it is, then a slice's seconds; it answers each line it reads.
Imports no torch for the contender `keras`, so that this one can have another interpreter.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

EPOCHS = 10_000  # an epoch is a slice, and the parent says when it is enough


class Turns:
    """The worker's end of the pipe."""

    def __init__(self) -> None:
        self.replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever the libraries print goes to the log

    def next(self, **message: Any) -> None:
        """Tells the parent what came of the last turn, then waits for the next one. Ends the process after the last."""
        self.replies.write(json.dumps({**message, "peak_mb": peak_mb()}) + "\n")
        self.replies.flush()
        if not sys.stdin.readline():
            os._exit(0)


def peak_mb() -> float:
    """The most memory that this process has held, in MB of 10**6 bytes."""
    try:  # ru_maxrss starts at what the parent held when it forked, VmHWM does not
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6


def keras(task: dict[str, Any], turns: Turns) -> None:
    """Keras + TensorFlow as their manuals have it: compile() and fit() on float32 arrays in memory."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    import keras
    import keras_nets
    import numpy as np
    import tensorflow as tf

    if task["threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(task["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(task["threads"])

    class Slices(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
            self.message = {"versions": versions, "precision": "float32"}

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            turns.next(**self.message)
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.message = {"seconds": time.perf_counter() - self.started}

    folder = Path(task["folder"])
    images = np.ascontiguousarray(np.load(folder / "images.npy").transpose(0, 2, 3, 1)).astype("float32") / 255
    model = getattr(keras_nets, task["network"])()
    model.compile(
        keras.optimizers.Adam(epsilon=1e-7),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    labels = np.load(folder / "labels.npy")
    model.fit(images, labels, task["batch"], EPOCHS, shuffle=True, verbose=0, callbacks=[Slices()])


def main() -> NoReturn:
    task, turns = json.loads(sys.argv[1]), Turns()
    if task["contender"] == "keras":
        keras(task, turns)
    else:
        import torch_ways

        getattr(torch_ways, task["contender"])(task, turns)
    sys.exit("The training ended before the parent did.")


if __name__ == "__main__":
    main()
