"""The engine changes how fast a network trains, not what it computes."""

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from parsimony.engine import Engine
from parsimony.errors import InputError
from parsimony.native import layers as native
from parsimony.native.library import Unavailable, library
from parsimony.nets import cifar, mnist
from parsimony.nets.layers import FastDropout
from parsimony.runs import PROJECT

FAST = Engine(allocator=True, threads=None, channels_last=True, precision="auto", layers="auto")
PLAIN = Engine(allocator=False, threads=None, channels_last=False, precision="32-true", layers="torch")


def compiles() -> bool:
    try:
        library()
    except Unavailable:
        return False
    return True


needs_a_compiler = pytest.mark.skipif(not compiles(), reason="no native layers without a C compiler")
NATIVE = pytest.param("native", marks=needs_a_compiler)


@pytest.mark.parametrize("layers", [NATIVE, "fast"])
@pytest.mark.parametrize("network", [mnist.mnist_sep, mnist.mnist_narrow, cifar.cifar_sep, cifar.cifar_base])
def test_one_step_agrees_with_the_plain_engine(network, layers: str) -> None:
    torch.manual_seed(0)
    plain = network(dropout=0.0, **({"dropout_dense": 0.0} if "cifar" in network.__name__ else {}))
    plain = PLAIN.prepare(plain, "torch")
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fast = FAST.prepare(copy.deepcopy(plain), layers)
    shape = (3, 32, 32) if "cifar" in network.__name__ else (1, 28, 28)
    images, labels = torch.rand(16, *shape), torch.arange(16) % 10
    losses = []
    for net in (plain, fast):
        loss = cross_entropy(net(images), labels)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    total = sum(p.grad.square().sum() for p in plain.parameters()).sqrt()
    for p, q in zip(plain.parameters(), fast.parameters(), strict=True):
        # channels_last batch norm sums in another order; a rounding that flips a ReLU moves a gradient by more
        assert (p.grad - q.grad).norm() < 1e-2 * total


SWAPPED = {
    "fast": {nn.Dropout: FastDropout},
    "native": {
        nn.Dropout: FastDropout,
        nn.Conv2d: native.Conv2d,
        nn.MaxPool2d: native.MaxPool2d,
        nn.Sequential: native.Sequential,
    },
    "torch": {},
}


@pytest.mark.parametrize("layers", [NATIVE, "fast", "torch"])
def test_the_engine_replaces_layers_and_keeps_their_state(layers: str) -> None:
    net = mnist.mnist_dropout()
    before = [(name, type(module)) for name, module in net.named_modules()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    fast = FAST.prepare(net, layers)
    after = [(name, type(module)) for name, module in fast.named_modules()]
    assert after == [(name, SWAPPED[layers].get(kind, kind)) for name, kind in before]
    assert [m.p for m in fast.modules() if isinstance(m, nn.Dropout)] == [0.1] * 7
    assert all(torch.equal(value, weights[name]) for name, value in fast.state_dict().items())


@needs_a_compiler
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", 32, "32", "bf16"])
def test_native_layers_are_for_a_cpu(precision: str) -> None:
    engine = dataclasses.replace(FAST, precision=precision)
    assert engine.layers_on(on_gpu=False) == "native"
    assert engine.layers_on(on_gpu=True) == "fast"


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_in_other_precisions_and_in_the_plain_engine_no_layer_is_native(precision: str) -> None:
    assert dataclasses.replace(FAST, precision=precision).layers_on(on_gpu=False) == "fast"
    assert PLAIN.layers_on(on_gpu=False) == "torch"


@pytest.fixture
def sealed_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of compiled kernels in which nothing can be written."""
    compiled = Path(library()._name)
    with tempfile.TemporaryDirectory() as cache:  # not tmp_path, which is below folders that nobody may enter
        Path(cache).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        folder = Path(cache, "parsimony")
        folder.mkdir()
        shutil.copy(compiled, folder)
        folder.chmod(0o555)
        library.cache_clear()
        yield folder
        library.cache_clear()
        folder.chmod(0o755)


@needs_a_compiler
def test_compiled_kernels_are_used_where_nothing_can_be_written(sealed_cache: Path, powerless) -> None:
    assert Path(library()._name).parent == sealed_cache


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-cc", "no C compiler"),
        ("false", "the C compiler failed"),
        ("'gcc", "No closing quotation"),
        ("{folder}/no_program", "Exec format error"),
    ],
)
def test_without_a_compiler_the_engine_says_so(
    compiler: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no_program").write_bytes(b"\0")
    (tmp_path / "no_program").chmod(0o755)
    monkeypatch.setenv("CC", compiler.format(folder=tmp_path))
    monkeypatch.setattr(Engine, "lightning_precision", lambda self, on_gpu: "32-true")
    library.cache_clear()
    try:
        assert FAST.layers_on(on_gpu=False) == "fast"
        assert reason in capsys.readouterr().out
        with pytest.raises(InputError, match=reason):
            dataclasses.replace(FAST, layers="native").layers_on(on_gpu=False)
    finally:
        library.cache_clear()


def test_auto_precision_on_a_cpu_is_bf16_only_with_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert FAST.lightning_precision(on_gpu=False) == "32-true"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert FAST.lightning_precision(on_gpu=False) == "bf16-mixed"
    assert PLAIN.lightning_precision(on_gpu=False) == "32-true"


@pytest.mark.parametrize("precision", ["16-mixed", "16", 16])
def test_float16_is_for_gpus(precision: str | int) -> None:
    engine = dataclasses.replace(FAST, precision=precision)
    assert engine.lightning_precision(on_gpu=True) == "16-mixed"
    with pytest.raises(InputError, match=f"engine.precision={precision} is for GPUs"):
        engine.lightning_precision(on_gpu=False)


@pytest.mark.parametrize(("engine", "searches"), [(FAST, True), (PLAIN, False)])
def test_the_plain_engine_leaves_a_gpu_as_it_is(
    engine: Engine, searches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    dataclasses.replace(engine, allocator=False).start()
    assert torch.backends.cudnn.benchmark == searches
    assert torch.get_float32_matmul_precision() == "highest"


PAGE_FAULTS = """
import resource, sys, torch
from parsimony.engine import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
images = torch.rand(16, 64, 128, 128)  # 67 MB
for _ in range(3):
    torch.relu(images)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.relu(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator settings are glibc's")
def test_kept_memory_is_not_asked_for_again() -> None:
    def faults(setting: str) -> int:
        done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, setting], capture_output=True, text=True, check=True)
        return int(done.stdout)

    # Not none: a kernel that reclaims idle memory, or one more block, makes a process fault for what it keeps.
    assert faults("keep") * 10 < faults("return")


@pytest.mark.parametrize("asked", [None, "300"])
def test_threads_spin_little_before_torch_is_loaded(asked: str | None) -> None:
    code = (
        "import os, runpy, sys; runpy.run_path('train.py'); print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": asked} if asked else {}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [asked or "10000", "False"]
