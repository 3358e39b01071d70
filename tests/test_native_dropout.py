"""Dropout's mask is drawn in C: its distribution."""

import pytest
import torch
from native_layers import native_version
from torch import Tensor, nn


def kept(p: float, channels: int = 8, count: int = 2**17) -> Tensor:
    dropout = native_version(nn.Sequential(nn.Dropout(p)))
    images = torch.ones(count // 64, channels, 8, 8).to(memory_format=torch.channels_last)
    return (dropout(images) != 0).permute(0, 2, 3, 1).flatten().float()


@pytest.mark.parametrize("p", [0.001, 0.098, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("channels", [8, 10])
def test_rate_of_dropout(p: float, channels: int) -> None:
    torch.manual_seed(0)
    share = torch.stack([kept(p, channels) for _ in range(4)])
    assert abs(share.mean().item() - (1 - p)) < 4 * (p * (1 - p) / share.numel()) ** 0.5 + 2**-17


def test_masks_are_independent_across_positions_and_steps() -> None:
    torch.manual_seed(1)
    p = 0.3
    first, second = kept(p) - (1 - p), kept(p) - (1 - p)
    pairs = {"step": first * second}
    for distance in (*range(1, 65), 128, 256, 512, 1024, 4096, 2**16):
        pairs[f"distance {distance}"] = first[distance:] * first[:-distance]
    for name, product in pairs.items():
        assert abs(product.mean().item()) / (p * (1 - p)) < 5 / product.numel() ** 0.5, name


def test_the_gradient_passes_where_the_signal_did() -> None:
    images = torch.rand(8, 10, 9, 9).add(1).to(memory_format=torch.channels_last).requires_grad_()
    output = native_version(nn.Sequential(nn.Dropout(0.4)))(images)
    output.sum().backward()
    assert torch.equal(images.grad != 0, output != 0)
    assert torch.allclose(images.grad * images, output)
    assert images.grad.unique().tolist() == pytest.approx([0, 1 / 0.6], rel=1e-4)


def test_dropout_scales_and_masks_what_the_norm_gives() -> None:
    torch.manual_seed(0)
    net = native_version(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(10), nn.Dropout(0.5)))
    images = torch.randn(16, 10, 9, 9).to(memory_format=torch.channels_last)
    output, whole = net(images), nn.BatchNorm2d(10)(images.relu())
    assert torch.allclose(output, torch.where(output != 0, 2 * whole, 0), atol=1e-5)


def test_a_seed_repeats_the_masks() -> None:
    torch.manual_seed(3)
    first = kept(0.5), kept(0.5)
    torch.manual_seed(3)
    assert torch.equal(first[0], kept(0.5))
    assert torch.equal(first[1], kept(0.5))
    assert not torch.equal(first[0], first[1])
