"""The layers in C compute what PyTorch's compute in float64, to the precision of float32."""

import copy
from pathlib import Path

import pytest
import torch
from native_layers import TAILS, native_version
from torch import Tensor, nn

from parsimony.native import layers as native
from parsimony.native.library import FLAGS, library
from parsimony.nets.layers import FastDropout

CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


def both(net: nn.Module, *shape: int) -> tuple[list[Tensor], list[Tensor]]:
    """Output, the input's gradient, parameters' gradients, buffers: by native layers, and by PyTorch's in float64."""
    found = []
    images, weights = torch.randn(shape), None
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(nn.Sequential(net)).to(dtype)
        if dtype == torch.float32:
            native.use(own)
        entry = images.to(dtype, copy=True)
        if entry.ndim == 4:
            entry = entry.to(memory_format=torch.channels_last)
            own = own.to(memory_format=torch.channels_last)
        entry.requires_grad_()
        output = own(entry)
        weights = torch.randn(output.shape) if weights is None else weights
        (output * weights.to(dtype)).sum().backward()
        found.append([output, entry.grad, *(p.grad for p in own.parameters()), *own.buffers()])
    return found[0], found[1]


def agree(found: list[Tensor], exact: list[Tensor], tolerance: float = 2e-6) -> None:
    for value, expected in zip(found, exact, strict=True):
        assert (value.double() - expected).norm() <= tolerance * expected.double().norm()


@pytest.mark.parametrize("shape", [(3, 8, 9, 7), (1, 1, 5, 5), (2, 10, 12, 12), (5, 33, 6, 6), (40, 16, 5, 5)])
@pytest.mark.parametrize(("outputs", "kernel", "padding"), [(8, 3, 0), (10, 3, 1), (17, 1, 0), (40, 5, 2), (3, 5, 4)])
def test_convolution(shape: tuple[int, ...], outputs: int, kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], outputs, kernel, padding=padding, bias=outputs != 10)
    agree(*both(conv, *shape))
    assert type(native_version(conv)) is native.Conv2d


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(
    ("shape", "outputs"), [((2, 32, 9, 12), 17), ((3, 16, 8, 8), 32), ((1, 33, 30, 7), 40), ((70, 48, 6, 6), 24)]
)
def test_convolution_of_many_channels(shape: tuple[int, ...], outputs: int, padding: int) -> None:
    """By Winograd's algorithm: even and odd sides, whole batches of tiles and what is left of them."""
    torch.manual_seed(0)
    agree(*both(nn.Conv2d(shape[1], outputs, 3, padding=padding, bias=outputs != 40), *shape))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (20, 16, 6, 6), (1, 10, 3, 3), (3, 64, 8, 8), (2, 12, 5, 30)])
def test_depthwise_convolution(shape: tuple[int, ...], padding: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], shape[1], 3, padding=padding, groups=shape[1], bias=False)
    agree(*both(conv, *shape))
    assert type(native_version(conv)) is native.Conv2d


@pytest.mark.parametrize("shape", [(3, 8, 9, 7), (64, 10, 1, 1), (2, 3, 5, 5), (8, 48, 24, 24)])
@pytest.mark.parametrize("order", TAILS)
def test_norm_and_relu(shape: tuple[int, ...], order: str) -> None:
    torch.manual_seed(0)
    made = [kind(shape[1], eps=1e-3, momentum=0.3) if kind is nn.BatchNorm2d else kind() for kind in TAILS[order]]
    norm = next(module for module in made if isinstance(module, nn.BatchNorm2d))
    nn.init.uniform_(norm.weight, -1, 2)
    nn.init.normal_(norm.bias)
    agree(*both(nn.Sequential(*made), *shape))
    agree(*both(nn.Sequential(Shift(), *made), *shape), tolerance=1e-4)  # a mean 30 deviations from zero


class Shift(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + 30


def test_norm_of_a_dense_layer() -> None:
    torch.manual_seed(0)
    agree(*both(nn.Sequential(nn.BatchNorm1d(7), nn.ReLU()), 16, 7))


def test_evaluation_takes_the_running_statistics() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.BatchNorm2d(10), nn.Dropout(0.5)).eval()
    nn.init.uniform_(net[2].running_mean)
    nn.init.uniform_(net[2].running_var, 0.5, 2)
    images = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        output = native_version(net)(images)
    assert (output - net(images)).abs().max() < 1e-5
    agree(*both(net, 4, 3, 8, 8))  # its gradients: PyTorch's


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 26, 26), (2, 10, 13, 13), (1, 3, 2, 2), (4, 10, 5, 7)])
def test_pooling_is_the_same_to_the_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.randn(shape).round(decimals=1).to(dtype, memory_format=torch.channels_last)  # with equal maxima
    images[0, 0, 0, 0] = torch.nan
    results = []
    for net in (nn.MaxPool2d(2), native_version(nn.MaxPool2d(2))):
        entry = images.clone().requires_grad_()
        output = net(entry)
        (output * torch.arange(output.numel()).view(output.shape)).nansum().backward()
        results.append((output, entry.grad))
    for plain, own in zip(*results, strict=True):
        assert plain.dtype == own.dtype == dtype
        assert torch.equal(plain.nan_to_num(-1), own.nan_to_num(-1))


def whole_block() -> nn.Sequential:
    block = nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(10),
        nn.Dropout(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 10, 3, groups=10, bias=False),
        nn.Conv2d(10, 20, 1),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(20, 32, 3, padding=1),
    )
    return native_version(block)


def one_step() -> list[Tensor]:
    torch.manual_seed(0)
    net = whole_block()
    images = torch.randn(50, 3, 12, 12, requires_grad=True)
    output = net(images)
    output.square().sum().backward()
    return [output, images.grad, *(p.grad for p in net.parameters()), *net.buffers()]


def test_the_number_of_threads_changes_no_bit() -> None:
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(one_step())
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif("avx512f" not in CPU, reason="this CPU has no vectors of 512 bits")
def test_vectors_of_512_bits_change_no_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wide = one_step()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("parsimony.native.library.FLAGS", (*FLAGS, "-mno-avx512f"))
    library.cache_clear()
    try:
        narrow = one_step()
    finally:
        library.cache_clear()
    assert [path.suffix for path in (tmp_path / "parsimony").glob("*.so")] == [".so"]
    assert all(torch.equal(a, b) for a, b in zip(wide, narrow, strict=True))


def test_batches_are_counted() -> None:
    net = whole_block()
    net(torch.randn(4, 3, 12, 12))
    net.eval()(torch.randn(4, 3, 12, 12))
    assert [int(m.num_batches_tracked) for m in net if isinstance(m, nn.BatchNorm2d)] == [1, 1]


def test_a_nan_is_not_lost_in_a_relu() -> None:
    images = torch.randn(4, 3, 12, 12)
    images[1, 2, 3, 4] = torch.nan
    images = images.to(memory_format=torch.channels_last)
    for kinds in TAILS.values():
        net = native_version(nn.Sequential(*(kind(3) if kind is nn.BatchNorm2d else kind() for kind in kinds)))
        assert net(images).isnan().any()


def test_who_looks_into_a_layer_sees_it() -> None:
    net, seen = whole_block(), []
    for layer in net:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(layer))
    net(torch.randn(4, 3, 12, 12))
    assert seen == list(net)


class Doubled(nn.BatchNorm2d):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


class Everything(nn.Dropout):
    def forward(self, images: Tensor) -> Tensor:
        return images * 0


def test_a_subclass_keeps_its_own_forward() -> None:
    images = torch.randn(4, 3, 12, 12).to(memory_format=torch.channels_last)
    doubled = native_version(nn.Sequential(nn.ReLU(), Doubled(3)))
    assert torch.allclose(doubled(images), 2 * nn.BatchNorm2d(3)(images.relu()), atol=1e-5)
    assert native_version(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), Everything(0.1)))(images).count_nonzero() == 0


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, (3, 1)),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 5, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 16, 3, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 1, padding=1),
    ],
    ids=str,
)
def test_other_convolutions_stay_pytorchs(conv: nn.Conv2d) -> None:
    assert type(native_version(conv)) is nn.Conv2d


def test_what_does_not_fit_a_layer_is_pytorchs_to_refuse() -> None:
    conv, pool = native_version(nn.Conv2d(3, 8, 3)), native_version(nn.MaxPool2d(2))
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels, but got 5"):
        conv(torch.randn(2, 5, 6, 6))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        conv(torch.randn(2, 3, 2, 6))
    with pytest.raises(RuntimeError, match="Output size is too small"):
        pool(torch.randn(2, 3, 1, 6))
    image = torch.randn(3, 6, 6)
    assert torch.allclose(conv(image), nn.functional.conv2d(image, conv.weight, conv.bias))
    with pytest.raises(RuntimeError, match="should be the same"):
        conv.double()(torch.randn(2, 3, 6, 6))


def test_other_precisions_run_pytorchs_code() -> None:
    net = whole_block().eval()
    images = torch.randn(4, 3, 12, 12)
    exact = net.double()(images.double())
    assert exact.dtype == torch.float64
    assert net.bfloat16()(images.bfloat16()).dtype == torch.bfloat16  # the norm's own weights too: not native
    with torch.autocast("cpu", torch.float16):
        assert net.float()(images).dtype == torch.float16


def test_evaluation_in_bfloat16() -> None:
    net = whole_block().eval()
    images = torch.randn(4, 3, 12, 12)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = net(images)
    assert output.dtype == torch.bfloat16
    assert (output - net(images)).abs().max() < 0.05


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_pytorchs_default_type_changes_nothing(default: torch.dtype) -> None:
    """Lightning changes it for precision=bf16-true: a kernel would write beyond what had been asked for."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    fast, images = native_version(net), torch.randn(4, 1, 28, 28)
    outputs = []
    for type_ in (torch.float32, default):
        torch.set_default_dtype(type_)
        try:
            torch.manual_seed(0)
            outputs.append(fast(images))
            outputs[-1].sum().backward()
        finally:
            torch.set_default_dtype(torch.float32)
    assert outputs[1].dtype == torch.float32
    assert torch.equal(*outputs)


def test_parameters_that_are_no_plain_float32_are_left_to_pytorch() -> None:
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    conv, norm = nn.Conv2d(3, 16, 3), nn.Sequential(nn.BatchNorm2d(3))
    conv.bias = nn.Parameter(torch.randn(1).expand(16))
    norm[0].weight = nn.Parameter(torch.randn(6)[::2])
    for net in (conv, norm):
        found = native_version(net)(images)
        assert torch.allclose(found, net(images), atol=1e-5)
    conv.bias = nn.Parameter(torch.randn(16, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="bias type"):
        native_version(conv)(images)


def test_there_is_no_second_derivative() -> None:
    """PyTorch's own mark for that says nothing where the gradient that comes in has no history, as a logit's."""
    net = native_version(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()))
    images = torch.randn(2, 1, 5, 5, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"engine\.layers=fast"):
        torch.autograd.grad(net(images)[0, 0], images, create_graph=True)


def test_dropout_of_everything_leaves_nothing() -> None:
    images = torch.ones(64, 8, 32, 32).to(memory_format=torch.channels_last)
    for dropout in (nn.Dropout(1.0), FastDropout(1.0)):
        assert not native_version(nn.Sequential(nn.ReLU(), dropout))(images).any()
