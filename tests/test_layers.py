"""The fast dropout is dropout, in distribution."""

import pytest
import torch
from torch import nn

from parsimony.nets.layers import FastDropout

SHAPE = (64, 8, 24, 24)


def kept(p: float, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return (FastDropout(p)(torch.ones(shape)) != 0).float()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.25, 0.5, 0.9])
def test_rate(p: float) -> None:
    torch.manual_seed(0)
    share = torch.stack([kept(p) for _ in range(4)])
    sd = (p * (1 - p) / share.numel()) ** 0.5
    assert abs(share.mean().item() - (1 - p)) < 4 * sd + 2**-17


def test_what_is_kept_is_scaled_to_keep_the_mean() -> None:
    output = FastDropout(0.2)(torch.full(SHAPE, 3.0))
    assert output.unique().tolist() == pytest.approx([0, 3 / (1 - round(0.2 * 2**16) / 2**16)])
    torch.manual_seed(0)
    output = FastDropout(0.999999)(torch.ones(2**20))  # the rate is one of 65,536
    assert output.unique().tolist() == [0, 2**16]


def test_positions_channels_images_and_steps_are_independent() -> None:
    torch.manual_seed(1)
    first, second = kept(0.3), kept(0.3)
    centred = first - first.mean()
    neighbours = {
        "step": centred * (second - second.mean()),
        **{f"dim {dim} shift {by}": centred * centred.roll(by, dim) for dim in range(4) for by in (1, 2, 4)},
    }
    for pair, product in neighbours.items():
        correlation = product.mean().item() / 0.21
        assert abs(correlation) < 4.5 / product.numel() ** 0.5, pair


def test_each_of_the_four_draws_of_a_word_has_the_rate() -> None:
    torch.manual_seed(2)
    lanes = kept(0.1, (400_000,)).view(-1, 4).mean(0)
    assert (lanes - 0.9).abs().max() < 4.5 * (0.09 / 100_000) ** 0.5


def test_the_gradient_passes_where_the_signal_did() -> None:
    images = torch.rand(SHAPE).add(1).to(memory_format=torch.channels_last).requires_grad_()
    output = FastDropout(0.4)(images)
    output.sum().backward()
    assert torch.equal(images.grad != 0, output != 0)
    assert torch.allclose(images.grad * images, output)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "expanded", "odd size"])
def test_any_layout_keeps_its_shape_and_drops(layout: str) -> None:
    images = torch.ones(6, 3, 5, 7)
    images = {
        "contiguous": images,
        "channels_last": images.to(memory_format=torch.channels_last),
        "transposed": images.transpose(0, 3),
        "expanded": torch.ones(1, 3, 1, 7).expand(6, 3, 5, 7),
        "odd size": images[:1, :1, :, :3],
    }[layout]
    output = FastDropout(0.5)(images)
    assert output.shape == images.shape
    assert {0.0, 2.0} == set(output.unique().tolist())


def test_torch_manual_seed_repeats_the_masks() -> None:
    torch.manual_seed(3)
    first = kept(0.5), kept(0.5)
    torch.manual_seed(3)
    assert torch.equal(first[0], kept(0.5))
    assert torch.equal(first[1], kept(0.5))
    assert not torch.equal(first[0], first[1])


def test_evaluation_and_p_zero_change_nothing() -> None:
    images = torch.rand(SHAPE)
    assert FastDropout(0.5).eval()(images) is images
    assert torch.equal(FastDropout(0.0)(images), images)


def test_reduced_precision_stays_reduced() -> None:
    assert FastDropout(0.5)(torch.ones(8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_is_a_dropout_to_every_tool() -> None:
    assert isinstance(FastDropout(0.5), nn.Dropout)
