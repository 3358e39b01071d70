"""Compiles kernels.c for this machine, once, and loads it."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from ctypes import POINTER, Structure, c_float, c_int, c_long, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import pooch
from filelock import FileLock

SOURCE = Path(__file__).with_name("kernels.c")
# -march=native: the vectors of this very CPU. Not -ffast-math: a loss that is no number has to be seen.
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)


class Unavailable(RuntimeError):
    """Why there are no native layers on this machine."""


class Shape(Structure):
    """Of a convolution: images, their height and width, channels in and out, side of the kernel, padding."""

    _fields_ = [(name, c_long) for name in ("n", "height", "width", "inputs", "outputs", "kernel", "pad")]


class Tail(Structure):
    """Of what follows a convolution: elements, channels, where the ReLU stands, dropout's rate / 65536 and its seed.

    The tensors are in bfloat16 or in float32.
    """

    _fields_ = [
        ("count", c_long),
        ("channels", c_long),
        ("relu", c_int),
        ("bf16", c_int),
        ("drop", c_uint32),
        ("seed", c_uint64),
    ]


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises Unavailable where there are none and none can be made."""
    try:
        path = _cached()
        if not path.exists():  # else the folder may well be one in which nothing can be written
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # one of several processes compiles, the others wait
                if not path.exists():
                    _compile(path)
        kernels = ctypes.CDLL(str(path))
    except (OSError, ValueError) as error:  # ValueError: a CC that is no command line, or says no readable version
        raise Unavailable(f"the kernels cannot be compiled or loaded ({error})") from error
    strides, pointer = POINTER(c_long), c_void_p
    for name, arguments in {
        "conv_forward": (pointer, pointer, strides, pointer, pointer, Shape),
        "conv_backward_data": (pointer, pointer, strides, pointer, Shape),
        "conv_backward_weight": (pointer, pointer, pointer, strides, pointer, Shape),
        "depthwise_forward": (pointer, pointer, strides, pointer, Shape),
        "depthwise_backward_data": (pointer, pointer, strides, pointer, Shape),
        "depthwise_backward_weight": (pointer, pointer, pointer, strides, Shape),
        "tail_forward": (*[pointer] * 5, c_float, c_float, c_int, pointer, pointer, Tail),
        "tail_backward": (*[pointer] * 6, Tail),
        "pool_forward": (pointer, pointer, *[c_long] * 4, c_int),
        "pool_backward": (pointer, pointer, pointer, *[c_long] * 4, c_int),
    }.items():
        function = getattr(kernels, name)
        function.argtypes, function.restype = arguments, None
    return kernels


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CC", "cc"))
    if not command or not shutil.which(command[0]):
        raise Unavailable(f"there is no C compiler ({' '.join(command) or 'CC'}): install gcc")
    return command


def _cached() -> Path:
    """Another source, compiler or CPU, another file."""
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, text=True).stdout
    try:
        cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line[:5] in ("flags", "Featu"))
    except (OSError, StopIteration):
        cpu = ""
    made_of = "\n".join([SOURCE.read_text(), *FLAGS, version, cpu])
    return pooch.os_cache("parsimony") / f"kernels-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"


def _compile(path: Path) -> None:
    """Beside `path`, then renamed: an interrupted compilation leaves nothing that looks whole."""
    print("Compiling the native layers for this machine, once ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*_compiler(), *FLAGS, "-o", str(made), str(SOURCE), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise Unavailable(f"the C compiler failed ({lines[0]})")
        with made.open("rb") as written:
            os.fsync(written.fileno())  # or a loss of power might leave a name without contents
        made.replace(path)
