"""Every network has exactly the parameters that its table has, and takes the pictures it is made for."""

import pytest
import torch
from torch import nn

from parsimony.config import CONF
from parsimony.nets import cifar, mnist

# network: (total, trainable, non-trainable), counted as Keras does
COUNTS = {
    mnist.mnist_wide: (208_970, 208_970, 0),
    mnist.mnist_plain: (21_656, 21_656, 0),
    mnist.mnist_sep: (13_794, 13_582, 212),
    mnist.mnist_dropout: (14_060, 13_848, 212),
    mnist.mnist_taper: (14_750, 14_518, 232),
    mnist.mnist_taper_small: (9_928, 9_740, 188),
    mnist.mnist_narrow: (5_904, 5_756, 148),
    mnist.mnist_narrow_early_pool: (6_570, 6_430, 140),
    mnist.mnist_squeeze: (14_568, 14_292, 276),
    mnist.mnist_micro: (2_394, 2_218, 176),
    mnist.mnist_residual: (117_210, 116_602, 608),
    cifar.cifar_base: (1_172_410, 1_172_410, 0),
    cifar.cifar_sep: (92_901, 91_237, 1_664),
    cifar.cifar_plain: (98_626, 98_018, 608),
    cifar.cifar_convnext: (98_218, 95_626, 2_592),
    cifar.cifar_resnet9: (1_648_362, 1_646_122, 2_240),
}
networks = pytest.mark.parametrize("network", COUNTS, ids=lambda network: network.__name__)


@networks
def test_parameters_are_those_of_the_table(network) -> None:
    net = network()
    trainable = sum(p.numel() for p in net.parameters())
    non_trainable = sum(b.numel() for b in net.buffers() if b.is_floating_point())
    assert (trainable + non_trainable, trainable, non_trainable) == COUNTS[network]


@networks
def test_its_config_tells_its_parameters(network) -> None:
    config = (CONF / "model" / f"{network.__name__}.yaml").read_text()
    assert f"# {COUNTS[network][0]:,} parameters" in config.splitlines()[:2]


@networks
def test_one_logit_a_class(network) -> None:
    shape = (3, 32, 32) if network.__module__.endswith("cifar") else (1, 28, 28)
    assert network()(torch.rand(4, *shape)).shape == (4, 10)


@networks
def test_dropout_changes_neither_parameters_nor_their_names(network) -> None:
    assert [*network(dropout=0.0).state_dict()] == [*network(dropout=0.5).state_dict()]
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in network(dropout=0.5).modules())
