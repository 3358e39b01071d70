"""Muon against torch's own two optimizers applied by hand; every optimizer config lowers a loss."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from parsimony.optimizers import Muon, orthogonalise
from parsimony.schedules import cosine, one_cycle

CONFIGS = sorted((Path(__file__).parents[1] / "conf/optimizer").glob("*.yaml"))


def make_net(channels_last: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    return net.to(memory_format=torch.channels_last) if channels_last else net


def make_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    labels = torch.arange(32) % 4
    images = torch.rand(32, 3, 8, 8) + labels.view(-1, 1, 1, 1) * torch.tensor([0.1, -0.1, 0.2]).view(1, 3, 1, 1)
    return images, labels


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, scheduler=None) -> list[float]:
    images, labels = make_batch()

    def closure() -> Tensor:  # as Lightning's automatic optimization calls it
        optimizer.zero_grad()
        loss = cross_entropy(net(images), labels)
        loss.backward()
        return loss

    losses = []
    for _ in range(steps):
        losses.append(optimizer.step(closure).item())
        if scheduler:
            scheduler.step()
    return losses


def by_hand(net: nn.Module, steps: int) -> None:
    """Muon's rule on (out, in*k*k) matrices that stand beside the network, AdamW's on its vectors."""
    kernels = [p for p in net.parameters() if p.ndim >= 2]
    matrices = [nn.Parameter(p.detach().reshape(len(p), -1).clone()) for p in kernels]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
    adamw = torch.optim.AdamW([p for p in net.parameters() if p.ndim < 2], lr=0.005, eps=1e-7, weight_decay=0.0)
    images, labels = make_batch()
    for _ in range(steps):
        net.zero_grad()
        cross_entropy(net(images), labels).backward()
        for kernel, matrix in zip(kernels, matrices, strict=True):
            matrix.grad = kernel.grad.reshape(len(kernel), -1).clone()
        muon.step()
        adamw.step()
        with torch.no_grad():
            for kernel, matrix in zip(kernels, matrices, strict=True):
                kernel.copy_(matrix.view_as(kernel))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_muon_is_torchs_muon_and_adamw_by_hand(channels_last, steps, monkeypatch) -> None:
    # All but the precision of the iteration, for which see below.
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", lambda m, *a: orthogonalise(m[None], *a)[0])
    net, reference = make_net(channels_last), make_net(channels_last)
    optimizer = Muon(net.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="original", adamw_lr=0.005)
    train(net, optimizer, steps)
    by_hand(reference, steps)
    start = make_net(channels_last)
    for (name, p), q, before in zip(net.named_parameters(), reference.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6, msg=name)
        assert not torch.equal(p, before), name
        assert p.stride() == before.stride(), name


@pytest.mark.parametrize("shape", [(16, 9), (10, 16), (16, 16)])
def test_orthogonalise_changes_singular_values_alone(shape) -> None:
    matrices = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    a, b, c = coefficients = (3.4445, -4.775, 2.0315)
    u, values, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    values /= values.norm(dim=1, keepdim=True)
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    found = orthogonalise(matrices, coefficients, 5, 1e-7)
    torch.testing.assert_close(found, (u @ values.diag_embed() @ vh).float(), rtol=0, atol=1e-4)
    for matrix, one in zip(matrices, found, strict=True):
        torchs = torch.optim._muon._zeropower_via_newtonschulz(matrix, coefficients, 5, 1e-7)
        assert (torchs.float() - one).norm() < 0.1 * one.norm(), "torch's is in bfloat16"
    assert orthogonalise(torch.zeros_like(matrices), coefficients, 5, 1e-7).count_nonzero() == 0


def test_kernels_and_the_rest_are_two_groups() -> None:
    net = make_net()
    kernels, others = Muon(net.parameters(), lr=0.02).param_groups
    assert [p.ndim for p in kernels["params"]] == [4, 4, 4, 2]
    assert [p.ndim for p in others["params"]] == [1] * 5
    assert (kernels["name"], kernels["lr"]) == ("muon", 0.02)
    assert (others["name"], others["lr"]) == ("adamw", 0.02)


def test_schedules_move_both_rates() -> None:
    net = make_net()
    optimizer = Muon(net.parameters(), lr=0.02, adamw_lr=0.002)
    schedule = cosine(optimizer, total_steps=10, max_epochs=1, warmup=0.0)
    train(net, optimizer, 5, schedule["scheduler"])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.001])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.clone() for p in net.parameters()]
    train(net, optimizer, 1)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    one_cycle(optimizer, total_steps=10, max_epochs=1, cycle_momentum=True, max_momentum=0.8)
    assert optimizer.param_groups[0]["momentum"] == 0.8
    train(net, optimizer, 1)
    assert optimizer.param_groups[1]["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("channels_last", [False, True])
def test_muon_resumes_bit_for_bit(channels_last, tmp_path) -> None:
    whole = make_net(channels_last)
    train(whole, Muon(whole.parameters()), 6)

    net = make_net(channels_last)
    optimizer = Muon(net.parameters())
    train(net, optimizer, 3)
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "last.ckpt")

    net = make_net(channels_last)
    optimizer = Muon(net.parameters(), lr=1.0)
    loaded = torch.load(tmp_path / "last.ckpt", weights_only=True)
    net.load_state_dict(loaded["net"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.01
    train(net, optimizer, 3)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), whole.parameters(), strict=True))


def test_muon_follows_parameters_that_change_their_memory() -> None:
    net, reference = make_net(), make_net()
    optimizers = [Muon(net.parameters()), Muon(reference.parameters())]
    net.to(torch.float64).to(torch.float32).to(memory_format=torch.channels_last)  # new storage, after the optimizer
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        q.grad = torch.randn_like(q)
        p.grad = torch.empty_like(p).copy_(q.grad)
    for optimizer in optimizers:
        optimizer.step()
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), reference.parameters(), strict=True))
    assert not torch.equal(net[0].weight, make_net()[0].weight)


def test_muon_leaves_what_has_no_gradient() -> None:
    net = make_net()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = Muon(net.parameters())
    train(net, optimizer, 2)
    assert torch.equal(net[0].weight, before)
    assert net[0].weight not in optimizer.state
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("net", [nn.Linear(4, 2, bias=False), nn.BatchNorm1d(4)], ids=["kernels", "vectors"])
def test_muon_with_one_kind_of_parameter(net) -> None:
    optimizer = Muon(net.parameters())
    before = next(net.parameters()).clone()
    net(torch.arange(12.0).view(3, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(next(net.parameters()), before)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_lowers_the_loss(path) -> None:
    config = OmegaConf.load(path)
    net = make_net()
    optimizer = instantiate(config, _convert_="all")(net.parameters())
    assert optimizer.param_groups[0]["lr"] == config.lr
    losses = train(net, optimizer, 150)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_negative_rate_is_refused(path) -> None:
    config = OmegaConf.merge(OmegaConf.load(path), {"lr": -1})
    with pytest.raises(Exception, match=r"(?i)learning rate"):
        instantiate(config, _convert_="all")(make_net().parameters())


def test_muon_hands_on_every_key() -> None:
    given = {"lr": 0.02, "momentum": 0.8, "nesterov": False, "ns_steps": 3, "weight_decay": 0.1}
    others = {"betas": (0.8, 0.9), "eps": 1e-5, "weight_decay": 0.2}
    of_adamw = {f"adamw_{key}": value for key, value in others.items()}
    kernels, rest = Muon(make_net().parameters(), **given, adamw_lr=0.003, **of_adamw).param_groups
    assert {key: kernels[key] for key in given} == given
    assert {key: rest[key] for key in (*others, "lr")} == {**others, "lr": 0.003}
