"""The layer table against numbers worked out by hand, and against torch's own counts."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from parsimony.errors import InputError
from parsimony.nets import cifar, mnist
from parsimony.nets.layers import Residual
from parsimony.summary import Layer, check_budget, summarize

NETWORKS = [
    (getattr(module, name), shape)
    for module, shape in ((mnist, (1, 28, 28)), (cifar, (3, 32, 32)))
    for name in vars(module)
    if name.startswith(("mnist_", "cifar_"))
]
networks = pytest.mark.parametrize(("network", "shape"), NETWORKS, ids=lambda x: getattr(x, "__name__", ""))


def by_hand() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2, bias=False),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def test_every_number_by_hand() -> None:
    assert summarize(by_hand(), (2, 16, 16)).layers == (
        Layer("0", "Conv2d 3x3 stride 2", (4, 8, 8), 2 * 4 * 9 + 4, 76, 4 * 8 * 8 * 2 * 9, 3, 2),
        Layer("1", "BatchNorm2d", (4, 8, 8), 16, 8, 0, 3, 2),
        Layer("2", "ReLU", (4, 8, 8), 0, 0, 0, 3, 2),
        Layer("3", "Conv2d 3x3 depthwise", (4, 4, 4), 36, 36, 4 * 4 * 4 * 9, 3 + 4 * 2, 2),
        Layer("4", "MaxPool2d 2x2", (4, 2, 2), 0, 0, 0, 11 + 2, 4),
        Layer("5", "Flatten", (16,), 0, 0, 0, None, None),
        Layer("6", "Linear", (3,), 51, 51, 48, None, None),
    )


@networks
def test_totals_are_torchs(network, shape) -> None:
    net = network().eval()
    summary = summarize(net, shape)
    assert summary.trainable == sum(p.numel() for p in net.parameters())
    assert summary.non_trainable == sum(b.numel() for n, b in net.named_buffers() if "num_batches" not in n)
    assert summary.total == summary.trainable + summary.non_trainable
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape))
    assert summary.macs == counter.get_total_flops() // 2


@networks
def test_receptive_field_is_where_the_gradient_is(network, shape) -> None:
    """With positive weights, and every max pool an average, the pixels that move one output make up its field."""
    net = nn.Sequential(*[m for m in network(dropout=0.0).modules() if not any(m.children())]).eval()
    for i, module in enumerate(net):
        if isinstance(module, nn.MaxPool2d):
            net[i] = nn.AvgPool2d(module.kernel_size)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    wide = (shape[0], 88, 88)  # large enough that no field meets the edge
    flat = next((i for i, m in enumerate(net) if isinstance(m, nn.AdaptiveAvgPool2d | nn.Flatten)), len(net))
    net = net[:flat]
    image = torch.ones(1, *wide, requires_grad=True)
    output = net(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    assert image.grad is not None
    touched = image.grad[0, 0].any(dim=0).nonzero()
    assert summarize(net, wide).layers[-1].receptive_field == int(touched.max() - touched.min()) + 1


def test_known_receptive_fields() -> None:
    layers = summarize(mnist.mnist_sep(), (1, 28, 28)).layers
    sep = {layer.name: (layer.receptive_field, layer.jump) for layer in layers}
    assert sep["0.conv"] == (3, 1)
    assert sep["3"] == (6, 2)
    assert sep["8.conv"] == (28, 2)
    assert sep["9"] == (None, None)
    pool = summarize(nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1)), (1, 8, 8)).layers[-1]
    assert (pool.receptive_field, pool.jump) == (8, 6)


@pytest.mark.parametrize(
    ("side", "outputs", "field", "jump"),
    [(10, 5, 2, 2), (10, 1, 10, 10), (10, 4, None, None), (11, 4, None, None), (4, 8, None, None), (5, 3, None, None)],
)
def test_windows_of_an_adaptive_pool(side: int, outputs: int, field: int | None, jump: int | None) -> None:
    """Known where they lie at even steps. The largest counts."""
    (pool,) = summarize(nn.Sequential(nn.AdaptiveAvgPool2d(outputs)), (1, side, side)).layers
    assert (pool.receptive_field, pool.jump) == (field, jump)


def test_kernels_need_not_be_square() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 5)), nn.Conv2d(1, 1, (3, 1)), nn.AvgPool2d(2, stride=1))
    assert [layer.receptive_field for layer in summarize(net, (1, 9, 9)).layers] == [5, 5, 6]


class Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.conv(x)


def test_what_is_not_known_is_not_guessed() -> None:
    conv, residual, last = summarize(nn.Sequential(Adding(), nn.Conv2d(2, 1, 3)), (2, 8, 8)).layers
    assert (conv.name, conv.parameters, conv.receptive_field) == ("0.conv", 36, 3)
    assert (residual.name, residual.kind, residual.parameters) == ("0", "Adding", 2)
    assert (last.receptive_field, last.jump, last.macs) == (None, None, 36 * 18)


def test_a_residual_sum_sees_what_its_layers_see() -> None:
    block = Residual(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    layers = summarize(nn.Sequential(nn.MaxPool2d(2), block, nn.Conv2d(2, 1, 3)), (2, 16, 16)).layers
    assert [(layer.receptive_field, layer.jump) for layer in layers if layer.kind != "Residual"] == [
        (2, 2), (6, 2), (10, 2), (14, 2),
    ]  # fmt: skip


class NormReLU(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class Fused(nn.Module):
    """Uses its children's parameters without calling them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.inner[0].weight)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain[0]


def test_custom_modules_are_counted_once_under_their_class_name() -> None:
    frozen = nn.Conv2d(2, 2, 1, bias=False).requires_grad_(False)
    plain = nn.BatchNorm2d(2, affine=False)
    no_statistics = nn.BatchNorm2d(2, track_running_stats=False)
    normed = parametrizations.weight_norm(nn.Conv2d(2, 2, 1, bias=False))
    net = nn.Sequential(Fused(), NormReLU(2), Scale(), frozen, frozen, plain, no_statistics, normed)
    summary = summarize(net, (1, 8, 8))
    assert [(layer.kind, layer.parameters, layer.trainable) for layer in summary.layers] == [
        ("Fused", 18 + 8, 18 + 4),
        ("NormReLU", 8, 4),
        ("Scale", 3, 3),
        ("Conv2d 1x1", 4, 0),
        ("Conv2d 1x1", 0, 0),
        ("BatchNorm2d", 4, 0),
        ("BatchNorm2d", 4, 4),
        ("ParametrizedConv2d 1x1", 6, 6),
    ]
    assert summary.layers[-1].macs == 2 * 6 * 6 * 2


def test_a_layer_shared_by_two_blocks_has_a_row_for_each_call() -> None:
    shared = nn.Conv2d(2, 2, 1)
    net = nn.Sequential(nn.Sequential(shared), nn.ReLU(), nn.Sequential(shared))
    first, _, second = summarize(net, (2, 5, 5)).layers
    assert (first.name, first.parameters, first.macs) == ("0.0", 6, 100)
    assert (second.name, second.parameters, second.macs) == ("0.0", 0, 100)


def test_the_output_is_that_of_the_network_not_of_its_last_layer() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(1, 10, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.body(images).view(-1, 10).log_softmax(1)

    summary = summarize(Flattened(), (1, 5, 5))
    assert (summary.layers[-1].output, summary.output) == ((10, 1, 1), (10,))


def test_changes_nothing() -> None:
    net = by_hand().train()
    net[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    rng = torch.get_rng_state()
    first = summarize(net, (2, 16, 16))
    assert [module.training for module in net] == [True, False, True, True, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert summarize(net.to(memory_format=torch.channels_last), (2, 16, 16)) == first


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        (mnist.mnist_sep, (3, 32, 32), r"take 3x32x32 images: its layer 0\.conv .* takes 1 channel, got 3x32x32; "),
        (cifar.cifar_sep, (1, 28, 28), r"its layer 0\.depthwise \(Conv2d 3x3 depthwise\) takes 3 channels, got 1x28"),
        (mnist.mnist_sep, (1, 12, 12), r"its layer 5\.conv \(Conv2d 3x3\) has a kernel larger .* 16x2x2"),
        (cifar.cifar_base, (3, 8, 8), r"its layer 6 \(MaxPool2d 2x2\) has a kernel larger .* 96x1x1"),
        (cifar.cifar_base, (3, 40, 40), r"its layer 13\.linear \(Linear\) takes 768 features, got 1728"),
        (lambda: nn.Sequential(nn.BatchNorm2d(4)), (3, 8, 8), r"layer 0 \(BatchNorm2d\) takes 4 channels, got 3x8x8"),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 5))), (3, 8, 8), r"its layer 0 \(Unflatten\) was given 3x8x8: "),
        (lambda: nn.LSTM(8, 8), (3, 8, 8), r"cannot take 3x8x8 images"),
    ],
)
def test_says_which_layer_cannot_take_the_images(network, shape, words) -> None:
    net = network()
    with pytest.raises(InputError, match=words) as error:
        summarize(net, shape)
    assert "\n" not in str(error.value)
    assert all(module.training for module in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@networks
def test_table_fits_a_terminal(network, shape) -> None:
    summary = summarize(network(dropout=0.098), shape)
    lines = str(summary).splitlines()
    assert len(lines) < (65 if network is cifar.cifar_convnext else 45)  # it has 29 convolutions
    assert max(map(len, lines)) <= 100
    for words in ("Total params", "Trainable params", "Non-trainable params"):
        value = getattr(summary, words.removesuffix(" params").lower().replace("-", "_"))
        assert f"{words}: {value:,}" in lines


def test_table_as_text() -> None:
    assert summarize(by_hand(), (2, 16, 16)).table().splitlines()[1:-4] == [
        "Layer  Kind                  Output  Params  Field  Jump   MACs",
        "---------------------------------------------------------------",
        "0      Conv2d 3x3 stride 2    4x8x8      76      3     2  4,608",
        "1      BatchNorm2d, ReLU      4x8x8      16      3     2      0",
        "3      Conv2d 3x3 depthwise   4x4x4      36     11     2    576",
        "4      MaxPool2d 2x2          4x2x2       0     13     4      0",
        "5      Flatten                   16       0      -     -      0",
        "6      Linear                     3      51      -     -     48",
        "---------------------------------------------------------------",
        "Total params: 179",
    ]


def test_table_as_markdown() -> None:
    lines = summarize(by_hand(), (2, 16, 16)).markdown().splitlines()
    assert lines[:3] == [
        "| Layer | Kind | Output | Params | Field | Jump | MACs |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
        "| 0 | Conv2d 3x3 stride 2 | 4x8x8 | 76 | 3 | 2 | 4,608 |",
    ]
    assert lines[8:10] == ["", "Total params: 179  "]


def test_budget() -> None:
    summary = summarize(by_hand(), (2, 16, 16))
    check_budget(summary, 20, max_parameters=179, max_epochs=20)
    check_budget(summary, 10**6, max_parameters=None, max_epochs=None)
    with pytest.raises(InputError, match=r"^Over budget: 179 parameters are 79 more than budget\.parameters=100; "):
        check_budget(summary, 20, max_parameters=100, max_epochs=20)
    with pytest.raises(InputError, match=r"^Over budget: 21 epochs are 1 more than budget\.epochs=20; "):
        check_budget(summary, 21, max_parameters=179, max_epochs=20)
    with pytest.raises(InputError, match=r"179 parameters .* and 21 epochs"):
        check_budget(summary, 21, max_parameters=100, max_epochs=20)
