"""The one optimizer that PyTorch does not have whole: Muon for a convnet."""

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
        others = [p for p in params if p.ndim < 2]
        self._matrices = [nn.Parameter(p.detach().flatten(1)) for p in kernels]
        self._muon = torch.optim.Muon(
            [{"params": self._matrices, "name": "muon"}],
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            weight_decay=weight_decay,
            adjust_lr_fn=adjust_lr_fn,
        )
        self._adamw = torch.optim.AdamW(
            [{"params": others, "name": "adamw"}],
            lr=lr if adamw_lr is None else adamw_lr,
            betas=adamw_betas,
            eps=adamw_eps,
            weight_decay=adamw_weight_decay,
        )
        # AdamW's first beta is its momentum, under the name by which schedules move Muon's.
        adamw = {**self._adamw.param_groups[0], "momentum": adamw_betas[0]}
        groups = [{**self._muon.param_groups[0], "params": kernels}, adamw]
        super().__init__(groups, defaults={"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Schedulers edit this optimizer's groups, checkpoints replace its groups and state, a move to another device or
        # memory format replaces the parameters' storage: so the two inner optimizers are handed everything anew.
        kernels, others = self.param_groups
        self._muon.param_groups[0] = {**kernels, "params": self._matrices}
        for kernel, matrix in zip(kernels["params"], self._matrices, strict=True):
            matrix.data = kernel.detach().flatten(1)
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
            if matrix.grad is not None:
                self._muon.state[matrix] = self.state[kernel]
        self._muon.step()
        for kernel, matrix in zip(kernels["params"], self._matrices, strict=True):
            _write_back(matrix, kernel)
            matrix.grad = None

        others["betas"] = (others["momentum"], others["betas"][1])
        self._adamw.param_groups[0] = others
        self._adamw.state = self.state
        self._adamw.step()
        return loss


def _write_back(matrix: Tensor, kernel: Tensor) -> None:
    # A contiguous kernel shares its memory with its matrix; a channels_last one cannot, and was copied.
    if matrix.data_ptr() != kernel.data_ptr():
        kernel.copy_(matrix.view_as(kernel))
