"""What `parsimony explain` finds out about layers: exact where it follows from the geometry."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, relu

from parsimony.explain.colours import sheet, signed
from parsimony.explain.layers import Field, fields, gradients, measured_side, stages
from parsimony.nets import cifar, mnist

NETS = {
    **{name: (build, (1, 28, 28)) for name, build in vars(mnist).items() if name.startswith("mnist_")},
    **{name: (build, (3, 32, 32)) for name, build in vars(cifar).items() if name.startswith("cifar_")},
}


@pytest.mark.parametrize("name", NETS)
def test_an_output_depends_on_its_receptive_field_and_on_nothing_else(name: str) -> None:
    build, shape = NETS[name]
    torch.manual_seed(0)
    net = build().double().eval()
    found = fields(net, shape)
    images = torch.rand(8, *shape, dtype=torch.double)
    assert len(found) >= 7
    for field, gradient in zip(found, gradients(net, images, found), strict=True):
        inside = torch.zeros(shape[1:], dtype=torch.bool)
        top, left = max(field.top, 0), max(field.left, 0)
        inside[top : field.top + field.side, left : field.left + field.side] = True
        assert gradient[~inside].eq(0).all(), field
        reached = (gradient > 0).nonzero()
        edges = inside.nonzero()
        assert torch.equal(reached.amin(0), edges.amin(0)), field
        # A global pool leaves out what earlier pools and strides did not reach at the far edge.
        assert (reached.amax(0) <= edges.amax(0)).all()
        assert torch.equal(reached.amax(0), edges.amax(0)) or field.side >= shape[1], field
        assert 1 <= measured_side(gradient, field) <= field.side


def test_the_measured_side_holds_95_percent() -> None:
    field = Field("conv", "", side=7, jump=1, left=2, top=2, place=(0, 0))
    gradient = torch.zeros(11, 11)
    gradient[5, 5] = 1
    assert measured_side(gradient, field) == 1
    gradient[4:7, 4:7] = 1
    assert measured_side(gradient, field) == 3
    gradient[2, 2] = 0.4  # under 5 % of 9.4
    assert measured_side(gradient, field) == 3
    gradient[2, 2] = 0.6
    assert measured_side(gradient, field) == 7


def test_stages_hold_each_step_of_a_layer() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
    norm.running_mean.fill_(0.1)
    after = nn.BatchNorm2d(4)
    net = nn.Sequential(conv, norm, nn.ReLU(inplace=True), after, nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)).eval()
    images = torch.rand(2, 1, 8, 8)
    first, pool, last = stages(net, images)
    with torch.no_grad():
        raw = conv2d(images, conv.weight, conv.bias)
        assert torch.equal(first.given, images)
        assert torch.equal(first.raw, raw)
        assert torch.equal(first.before, norm(raw))
        assert torch.equal(first.maps, relu(norm(raw)))
        assert torch.equal(pool.given, after(first.maps))
        assert torch.equal(last.raw, net(images))
    assert (first.activation, pool.activation, last.activation) == ("ReLU", "", "")
    assert (first.kind, pool.kind, last.kind) == ("3x3 convolution", "2x2 max pool", "1x1 convolution")
    assert torch.equal(last.maps, last.raw)
    assert not any(module._forward_hooks for module in net.modules())


def test_colours_tell_zero_and_the_two_signs_apart() -> None:
    pixels = signed(torch.tensor([[-2.0, 0.0, 2.0, 1.0]]))
    assert pixels.shape == (1, 4, 3)
    below, zero, above, half = pixels[0].astype(int)
    assert zero.max() < 20
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert half.sum() < above.sum()
    holes = signed(torch.tensor([[float("nan"), 1.0]]))
    assert holes[0, :, 3].tolist() == [0, 255]


def test_a_sheet_keeps_every_kernel() -> None:
    weights = torch.arange(2 * 3 * 9.0).view(2, 3, 3, 3)
    side_by_side = sheet(weights)
    assert side_by_side.shape == (7, 11)
    assert torch.equal(side_by_side[4:7, 8:11], weights[1, 2])
    assert side_by_side[3].isnan().all()
    assert side_by_side[:, 3].isnan().all()
