"""The one optimizer that PyTorch does not have whole: Muon for a convnet, and fast where kernels are many and small."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """torch's Muon for kernels, torch's AdamW for biases and norms, as two groups of one optimizer.

    Muon orthogonalises the update of a matrix, so a convolution's kernel (out, in, k, k) is taken as (out, in*k*k); a
    depthwise kernel (c, 1, k, k), whose channels never mix, as (c, k*k). Every parameter of two dimensions or more is
    a kernel, the last layer's included. The groups are named `muon` and `adamw`, and schedules scale both rates;
    `adamw_lr` of None means `lr`, which suits `adjust_lr_fn: match_rms_adamw`: it gives Muon's updates AdamW's size.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.01,
        adjust_lr_fn: str | None = "match_rms_adamw",
        adamw_lr: float | None = None,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-7,
        adamw_weight_decay: float = 0.0,
    ) -> None:
        params = list(params)
        kernels = [p for p in params if p.ndim >= 2]
        muon = torch.optim.Muon(  # for its checks and its group: the step is our own
            [{"params": [kernel.detach().flatten(1) for kernel in kernels], "name": "muon"}],
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            weight_decay=weight_decay,
            adjust_lr_fn=adjust_lr_fn,
        )
        self._adamw = torch.optim.AdamW(
            [{"params": [p for p in params if p.ndim < 2], "name": "adamw"}],
            lr=lr if adamw_lr is None else adamw_lr,
            betas=adamw_betas,
            eps=adamw_eps,
            weight_decay=adamw_weight_decay,
            fused=True,
        )
        # AdamW's first beta is its momentum, under the name by which schedules move Muon's.
        adamw = {**self._adamw.param_groups[0], "momentum": adamw_betas[0]}
        super().__init__([{**muon.param_groups[0], "params": kernels}, adamw], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        muon, adamw = self.param_groups
        alike = defaultdict(list)
        for kernel in muon["params"]:
            if kernel.grad is not None:
                gradient = kernel.grad.flatten(1)
                alike[gradient.device, gradient.shape].append((kernel, gradient))
        for pairs in alike.values():
            kernels, gradients = map(list, zip(*pairs, strict=True))
            self._step_alike(kernels, gradients, muon)

        adamw["betas"] = (adamw["momentum"], adamw["betas"][1])
        # Schedulers edit this optimizer's groups, and checkpoints replace its groups and state.
        self._adamw.param_groups[0] = adamw
        self._adamw.state = self.state
        self._adamw.step()
        return loss

    def _step_alike(self, kernels: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        # A small network's time with Muon is not in the arithmetic but in the number of operations, and all kernels of
        # one size take as many as one does.
        for kernel, gradient in zip(kernels, gradients, strict=True):
            if not self.state[kernel]:
                self.state[kernel]["momentum_buffer"] = torch.zeros_like(gradient)
        momenta = [self.state[kernel]["momentum_buffer"] for kernel in kernels]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        matrices = orthogonalise(torch.stack(ahead), group["ns_coefficients"], group["ns_steps"], group["eps"])

        rows, columns = gradients[0].shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        else:
            ratio = math.sqrt(max(1, rows / columns))
        torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
        updates = [matrix.view_as(kernel) for matrix, kernel in zip(matrices, kernels, strict=True)]
        torch._foreach_add_(kernels, updates, alpha=-group["lr"] * ratio)


def orthogonalise(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """(n, rows, columns) -> the same with all singular values near 1, by Newton and Schulz's iteration.

    As torch.optim.Muon has it after Keller Jordan, but of many matrices and in their own precision: his bfloat16 is
    slower on CPUs. `eps` is the least norm that is divided by.
    """
    a, b, c = coefficients
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
