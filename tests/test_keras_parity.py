"""Every network computes what its Keras original computes: counts, logits, gradients, batch-norm statistics, start.

Keras 3 on its torch backend; `keras_nets.py` was written from the published tables alone.
"""

import importlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod, sqrt
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from test_nets import COUNTS
from torch import Tensor, nn

# Keras on PyTorch calls NumPy in an old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BATCH = 8
# A layer's name in the comparison of orders, once a kernel; flattening depends on the layout, so it has none
KINDS = {
    "Conv2D": "conv",
    "Conv2d": "conv",
    "SeparableConv2D": "conv conv",
    "Dense": "dense",
    "Linear": "dense",
    "ReLU": "relu",
    "BatchNormalization": "norm",
    "BatchNorm1d": "norm",
    "BatchNorm2d": "norm",
    "MaxPooling2D": "max",
    "MaxPool2d": "max",
    "GlobalAveragePooling2D": "mean",
    "AdaptiveAvgPool2d": "mean",
    "Flatten": "",
    "InputLayer": "",
    "Add": "",  # ours is no layer of its own
}
# Random values far from the initial ones: nothing left uncopied, or swapped, goes unseen
RANGES = {
    "bias": (-0.3, 0.3),
    "gamma": (0.5, 1.5),
    "beta": (-0.5, 0.5),
    "moving_mean": (-0.5, 0.5),
    "moving_variance": (0.5, 1.5),
}


@pytest.fixture(scope="module")
def keras_nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Keras writes a settings file and environment variables, and draws random numbers: none of it may stay."""
    settings = {
        "KERAS_BACKEND": "torch",
        "KERAS_TORCH_DEVICE": "cpu",
        "KERAS_HOME": str(tmp_path_factory.mktemp("keras")),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    python_random = random.getstate()
    with patch.dict(os.environ, settings), torch.random.fork_rng(devices=[]):
        pytest.importorskip("keras", reason="Keras is not installed: `pip install -e .[dev]` brings it")
        yield importlib.import_module("keras_nets")
    random.setstate(python_random)


@dataclass(repr=False)
class Pair:
    """One array of a network: Keras's variable, our tensor, and how the first's layout becomes the second's."""

    variable: Any
    tensor: Tensor
    layout: Callable[[Tensor], Tensor] = lambda vector: vector


@dataclass(repr=False)
class Twins:
    keras: Any
    ours: nn.Sequential
    pairs: list[Pair]

    def copy_random_weights(self) -> None:
        draw = np.random.default_rng(0)
        for pair in self.pairs:
            name, shape = pair.variable.name, pair.variable.shape
            if name in RANGES:
                values = draw.uniform(*RANGES[name], size=shape)
            else:
                fan_in = prod(shape[:2] if name == "depthwise_kernel" else shape[:-1])
                values = draw.normal(scale=sqrt(2 / fan_in), size=shape)
            pair.variable.assign(values.astype(np.float32))
            ours = pair.layout(pair.variable.value.detach())
            assert ours.shape == pair.tensor.shape
            pair.tensor.data.copy_(ours)

    def images(self, seed: int = 0) -> Tensor:
        """(n, c, h, w), in this order in memory too: PyTorch's batch norm on a CPU rounds channels_last far more."""
        height, width, channels = self.keras.input_shape[1:]
        return torch.rand(BATCH, channels, height, width, generator=torch.Generator().manual_seed(seed))

    def train_pass(self, seed: int = 0) -> None:
        """In training mode without dropout: once forwards, from new random weights, and once backwards."""
        import keras

        self.copy_random_weights()
        labels = torch.arange(BATCH)
        for layer in self.keras.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0
        for module in self.ours.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0
        self.keras.zero_grad()
        self.ours.zero_grad()
        keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        keras_loss(labels, self.keras(self.images(seed).permute(0, 2, 3, 1), training=True)).backward()
        nn.functional.cross_entropy(self.ours.train()(self.images(seed)), labels).backward()


def conv_layout(kernel: Tensor) -> Tensor:
    """(h, w, in, out) -> (out, in, h, w)."""
    return kernel.permute(3, 2, 0, 1)


def depthwise_layout(kernel: Tensor) -> Tensor:
    """(h, w, in, 1) -> (in, 1, h, w)."""
    return kernel.permute(2, 3, 0, 1)


def dense_layout(flattened: tuple[int, int, int] | None) -> Callable[[Tensor], Tensor]:
    """(in, out) -> (out, in); right after a Flatten, `in` also goes from (h, w, c) order to (c, h, w)."""
    if flattened is None:
        return lambda kernel: kernel.T
    return lambda kernel: conv_layout(kernel.reshape(*flattened, -1)).flatten(1)


def pair_up(keras_net: Any, ours: nn.Sequential) -> list[Pair]:
    """All arrays of both networks, matched by the order of their layers."""
    pairs: list[Pair] = []
    layers = (m for m in ours.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d))
    flattened = None
    for layer in keras_net.layers:
        match type(layer).__name__:
            case "Flatten":
                flattened = layer.input.shape[1:]
            case "Conv2D":
                last = next(layers)
                pairs.append(Pair(layer.kernel, last.weight, conv_layout))
            case "SeparableConv2D":
                pairs.append(Pair(layer.depthwise_kernel, next(layers).weight, depthwise_layout))
                last = next(layers)
                pairs.append(Pair(layer.pointwise_kernel, last.weight, conv_layout))
            case "Dense":
                last = next(layers)
                pairs.append(Pair(layer.kernel, last.weight, dense_layout(flattened)))
                flattened = None
            case "BatchNormalization":
                norm = next(layers)
                pairs += [Pair(layer.gamma, norm.weight), Pair(layer.beta, norm.bias)]
                pairs += [Pair(layer.moving_mean, norm.running_mean), Pair(layer.moving_variance, norm.running_var)]
        if getattr(layer, "use_bias", False):
            pairs.append(Pair(layer.bias, last.bias))
    arrays = [t for t in ours.state_dict(keep_vars=True).values() if t.is_floating_point()]
    assert {id(pair.tensor) for pair in pairs} == {id(array) for array in arrays}
    return pairs


@pytest.fixture(scope="module", params=COUNTS, ids=lambda network: network.__name__)
def network(request: pytest.FixtureRequest) -> Callable[[], nn.Sequential]:
    return request.param


@pytest.fixture(scope="module")
def twins(network: Callable[[], nn.Sequential], keras_nets: ModuleType) -> Twins:
    keras_net, ours = getattr(keras_nets, network.__name__)(), network()
    return Twins(keras_net, ours, pair_up(keras_net, ours))


def test_same_counts(network, twins) -> None:
    trainable, non_trainable = (
        sum(prod(w.shape) for w in weights)
        for weights in (twins.keras.trainable_weights, twins.keras.non_trainable_weights)
    )
    assert (twins.keras.count_params(), trainable, non_trainable) == COUNTS[network]
    assert sum(p.numel() for p in twins.ours.parameters()) == trainable
    assert sum(b.numel() for b in twins.ours.buffers() if b.is_floating_point()) == non_trainable


def test_same_layers_and_dropout_in_the_same_order(network, keras_nets) -> None:
    def kinds(layers: list[Any]) -> list[str]:
        names: list[str] = []
        for layer in layers:
            if type(layer).__name__ == "Dropout":
                names.append(f"dropout {layer.p if isinstance(layer, nn.Dropout) else layer.rate}")
            else:
                names += KINDS[type(layer).__name__].split()
        return names

    leaves = [module for module in network().modules() if not [*module.children()]]
    assert kinds(leaves) == kinds(getattr(keras_nets, network.__name__)().layers)


def test_same_logits(twins) -> None:
    twins.copy_random_weights()
    with torch.no_grad():
        expected = twins.keras(twins.images().permute(0, 2, 3, 1), training=False)
        logits = twins.ours.eval()(twins.images())
    assert expected.std(dim=0).max() > 0.01  # the pictures tell on the logits, or anything would agree
    large = 1e-5 * expected.abs().max().item()  # of the sums of a deep residual network
    torch.testing.assert_close(logits, expected, rtol=0, atol=max(1e-4, large))


def test_same_gradients(twins) -> None:
    """On one of three batches: sums in another order may turn a ReLU or a maximum near a tie, by the CPU, on a few."""
    trainable = [pair for pair in twins.pairs if pair.variable.trainable]
    differing = []
    for seed in range(3):
        twins.train_pass(seed)
        gradients = [pair.layout(pair.variable.value.grad) for pair in trainable]
        # some are zero but for rounding: whatever only shifts the input of a norm
        zero = 1e-6 * sqrt(sum(gradient.square().sum() for gradient in gradients))
        differing = [
            pair.variable.path
            for pair, expected in zip(trainable, gradients, strict=True)
            if not (pair.tensor.grad - expected).norm() < 1e-3 * expected.norm() + zero
        ]
        if not differing:
            break
    assert not differing


def test_same_batch_norm_statistics(twins) -> None:
    """Exactly, but for the batch variance that enters the moving one, over n values: Keras 3 divides by n,
    PyTorch by n - 1, as Keras 2 did."""
    twins.copy_random_weights()
    before = {pair.variable.path: pair.variable.numpy().copy() for pair in twins.pairs}
    twins.train_pass()
    sizes = {
        layer.moving_variance.path: BATCH * prod(layer.input.shape[1:-1])
        for layer in twins.keras.layers
        if type(layer).__name__ == "BatchNormalization"
    }
    for pair in [pair for pair in twins.pairs if not pair.variable.trainable]:
        expected = pair.variable.numpy()
        assert np.abs(expected - before[pair.variable.path]).min() > 0
        if (path := pair.variable.path) in sizes:
            expected = expected + (expected - 0.99 * before[path]) / (sizes[path] - 1)
        np.testing.assert_allclose(pair.tensor.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_same_initial_weights(network, keras_nets) -> None:
    import keras

    keras_net = getattr(keras_nets, network.__name__)()
    names = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")
    initializers = [getattr(layer, name) for layer in keras_net.layers for name in names if hasattr(layer, name)]
    assert {type(initializer) for initializer in initializers} == {keras.initializers.GlorotUniform}

    seeds = range(8)
    draws = []
    for seed in seeds:
        torch.manual_seed(seed)
        draws.append(pair_up(keras_net, network()))
    for same in zip(*draws, strict=True):
        variable = same[0].variable
        ours = torch.stack([pair.tensor.detach() for pair in same])
        if variable.name in RANGES:  # a bias or a norm
            assert (ours == variable.value).all(), variable.path
            continue
        theirs = torch.stack([keras.initializers.GlorotUniform(seed)(variable.shape) for seed in seeds])
        limit = sqrt(6 / (prod(variable.shape[:-1]) + prod(variable.shape[:-2]) * variable.shape[-1]))
        for uniform in (ours, theirs):
            assert 0.9 * limit < uniform.abs().max() <= limit * (1 + 1e-6), variable.path
            assert uniform.square().mean().sqrt().item() == pytest.approx(limit / sqrt(3), rel=0.1), variable.path


def adam_paths(gradients: np.ndarray, *, keras_epsilon: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where Keras's and PyTorch's Adam have come from zero, after one step for each row of `gradients`."""
    import keras

    theirs, ours = keras.Variable(np.zeros(gradients.shape[1])), torch.zeros(gradients.shape[1])
    keras_adam = keras.optimizers.Adam(1e-3, epsilon=1e-7)
    adam = torch.optim.Adam([ours], lr=1e-3, eps=1e-7)
    for step, gradient in enumerate(torch.tensor(gradients, dtype=torch.float32), start=1):
        if keras_epsilon:
            adam.param_groups[0]["eps"] = 1e-7 / sqrt(1 - 0.999**step)
        ours.grad = gradient.clone()
        adam.step()
        keras_adam.apply([gradient.clone()], [theirs])
    return theirs.numpy(), ours.numpy()


def test_adam_differs_by_its_epsilon_alone(keras_nets) -> None:
    """Keras adds epsilon to the square root before its bias is corrected, PyTorch after."""
    draw = np.random.default_rng(0)
    gradients = draw.choice([-1, 1], (5, 1000)) * 10 ** draw.uniform(-8, 0, (5, 1000))
    theirs, ours = adam_paths(gradients, keras_epsilon=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4])
def test_epsilon_matters_for_tiny_gradients_only(keras_nets, size: float) -> None:
    theirs, ours = adam_paths(np.full((5, 1), size), keras_epsilon=False)
    difference = np.abs(ours / theirs - 1).item()
    assert 1e-6 / size < difference < 3.2e-6 / size  # 1e-7 / sqrt(1 - 0.999) at the first step
