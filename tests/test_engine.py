"""The engine changes how fast a network trains, not what it computes."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from parsimony.engine import Engine
from parsimony.nets import cifar, mnist
from parsimony.nets.layers import FastBatchNorm2d, FastDropout

FAST = Engine(allocator=True, threads=None, channels_last=True, precision="auto", layers="fast")
PLAIN = Engine(allocator=False, threads=None, channels_last=False, precision="32-true", layers="torch")


@pytest.mark.parametrize("network", [mnist.mnist_sep, mnist.mnist_narrow, cifar.cifar_sep, cifar.cifar_base])
def test_one_step_agrees_with_the_plain_engine(network) -> None:
    torch.manual_seed(0)
    plain = PLAIN.prepare(network(dropout=0.0, **({"dropout_dense": 0.0} if "cifar" in network.__name__ else {})))
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fast = FAST.prepare(copy.deepcopy(plain))
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


def test_fast_engine_replaces_every_dropout_and_batch_norm_and_nothing_else() -> None:
    net = mnist.mnist_dropout()
    before = [(name, type(module)) for name, module in net.named_modules()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    fast = FAST.prepare(net)
    swapped = {nn.Dropout: FastDropout, nn.BatchNorm2d: FastBatchNorm2d}
    after = [(name, type(module)) for name, module in fast.named_modules()]
    assert after == [(name, swapped.get(kind, kind)) for name, kind in before]
    assert [m.p for m in fast.modules() if isinstance(m, nn.Dropout)] == [0.1] * 7
    assert all(torch.equal(value, weights[name]) for name, value in fast.state_dict().items())


def test_plain_engine_changes_nothing() -> None:
    net = mnist.mnist_dropout()
    assert PLAIN.prepare(net) is net
    assert not any(isinstance(module, FastDropout | FastBatchNorm2d) for module in net.modules())


def test_auto_precision_is_bf16_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert FAST.lightning_precision(on_gpu=False) == "32-true"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert FAST.lightning_precision(on_gpu=False) == "bf16-mixed"
    assert PLAIN.lightning_precision(on_gpu=False) == "32-true"


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
