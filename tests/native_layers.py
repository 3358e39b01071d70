"""What the tests of the native layers share. Without a C compiler they are skipped."""

import copy
from collections import OrderedDict

import pytest
from torch import nn

from parsimony.native import layers as native
from parsimony.native.library import Unavailable, library

try:
    library()
except Unavailable as error:
    pytest.skip(f"no native layers here: {error}", allow_module_level=True)

TAILS = {
    "relu, norm": (nn.ReLU, nn.BatchNorm2d),
    "norm, relu": (nn.BatchNorm2d, nn.ReLU),
    "norm": (nn.BatchNorm2d,),
}


def native_version(net: nn.Module) -> nn.Module:
    whole = nn.Sequential(OrderedDict(net=copy.deepcopy(net)))
    native.use(whole)
    return whole.net
