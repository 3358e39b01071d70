"""What of the native layers takes bfloat16 computes in float32 and rounds."""

import copy

import pytest
import torch
from native_layers import TAILS, native_version
from torch import nn


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 8, 9, 7), (64, 10, 1, 1), (8, 48, 24, 24)])
@pytest.mark.parametrize("order", TAILS)
def test_bfloat16_is_what_float32_gives_rounded(shape: tuple[int, ...], order: str, p: float) -> None:
    torch.manual_seed(0)
    made = [kind(shape[1]) if kind is nn.BatchNorm2d else kind() for kind in TAILS[order]]
    images, grad = (torch.randn(shape).bfloat16().to(memory_format=torch.channels_last) for _ in range(2))
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        net = native_version(nn.Sequential(*made, nn.Dropout(p)))
        torch.manual_seed(1)  # the masks'
        entry = images.to(dtype, copy=True).requires_grad_()
        output = net(entry)
        output.backward(grad.to(dtype))
        results.append([output, entry.grad, *(parameter.grad for parameter in net.parameters()), *net.buffers()])
    for half, exact in zip(*results, strict=True):
        assert torch.equal(half, exact.to(half.dtype))
    assert [half.dtype for half in results[0][:3]] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_every_bfloat16_is_rounded_as_pytorch_does() -> None:
    images = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(1, 2**16 // 64, 8, 8)
    images = images.to(memory_format=torch.channels_last)
    output = native_version(nn.Sequential(nn.Dropout(0.3)))(images)
    kept = output != 0
    expected = (images.float() * (2**16 / (2**16 - round(0.3 * 2**16)))).bfloat16()
    torch.testing.assert_close(output[kept], expected[kept], rtol=0, atol=0, equal_nan=True)
    assert kept.sum() > 2**15


def test_a_network_in_bfloat16_is_close_to_pytorchs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.BatchNorm2d(10), nn.MaxPool2d(2)),
        *(nn.Conv2d(10, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)),
    )
    images, results = torch.randn(32, 3, 12, 12).to(memory_format=torch.channels_last), []
    for own in (copy.deepcopy(net), native_version(net)):
        own = own.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            output = own(images)
        output.float().logsumexp(1).sum().backward()
        results.append([output, *(parameter.grad for parameter in own.parameters())])
    for plain, native_one in zip(*results, strict=True):
        assert plain.dtype == native_one.dtype
        assert (plain.float() - native_one.float()).norm() <= 0.03 * plain.float().norm() + 1e-3
