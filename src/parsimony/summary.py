"""The layer table: shapes, parameters, receptive field and multiply-accumulates of a network; and the budget check."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from parsimony.errors import InputError
from parsimony.nets.layers import Residual

Pair = tuple[int, int]

# Modules that are one layer whatever they hold (a parametrization, say), so their subclasses may be rewritten freely.
LAYERS = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class Layer:
    """One call of one layer.

    `output` is its shape without the batch. `parameters` is counted as Keras does: a batch norm over c channels has 2c
    trainable ones and 2c that are not, its running mean and variance. `macs` are the multiply-accumulates of
    convolutions and linear layers for one image; biases, norms, activations and pools count nothing.

    `receptive_field` is the side, in pixels of the input, of the square that one output depends on, and `jump` the
    distance in pixels between the squares of neighbouring outputs. Padding counts as picture, so the square may exceed
    it; a global pool spans its whole input. None where the output is no picture, or the layer's geometry is unknown.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: int
    macs: int
    receptive_field: int | None
    jump: int | None


@dataclass(frozen=True)
class Summary:
    layers: tuple[Layer, ...]
    output: tuple[int, ...]  # of the network itself, whatever it does after its last layer

    @property
    def total(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.layers)

    @property
    def non_trainable(self) -> int:
        return self.total - self.trainable

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def table(self) -> str:
        rows = [HEADER, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i in LEFT else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([rule, lines[0], rule, *lines[1:], rule, *self._totals()])

    def markdown(self) -> str:
        rule = [":--" if i in LEFT else "--:" for i in range(len(HEADER))]
        rows = ["| " + " | ".join(row) + " |" for row in [HEADER, rule, *self.rows()]]
        return "\n".join(rows) + "\n\n" + "  \n".join(self._totals())

    __str__ = table

    def rows(self) -> list[list[str]]:
        """The table's lines under HEADER; what changes neither shape nor geometry shares the line before it."""
        rows: list[list[str]] = []
        before = None
        for layer in self.layers:
            geometry = (layer.output, layer.receptive_field, layer.jump)
            if geometry == before and not layer.parameters and not layer.macs:
                rows[-1][1] += f", {layer.kind}"  # an activation or dropout: a row of its own would say nothing new
                continue
            before = geometry
            field = "-" if layer.receptive_field is None else f"{layer.receptive_field}"
            jump = "-" if layer.jump is None else f"{layer.jump}"
            numbers = [f"{layer.parameters:,}", field, jump, f"{layer.macs:,}"]
            rows.append([layer.name, layer.kind, _times(layer.output), *numbers])
        return rows

    def _totals(self) -> list[str]:
        return [
            f"Total params: {self.total:,}",
            f"Trainable params: {self.trainable:,}",
            f"Non-trainable params: {self.non_trainable:,}",
            f"Multiply-accumulates (MACs) an image: {self.macs:,}",
            "Field: side of the receptive field; jump: step between neighbouring outputs; both in input pixels",
        ]


HEADER = ["Layer", "Kind", "Output", "Params", "Field", "Jump", "MACs"]
LEFT = (0, 1)  # the columns aligned to the left


def summarize(net: nn.Module, shape: tuple[int, int, int]) -> Summary:
    """Runs one black image of `shape` (c, h, w) through the network, in eval mode, and leaves the network as it was.

    Layers come in the order they finish. One that is called twice has two rows, its parameters in the first; parameters
    outside any layer are counted at the module that holds them. `InputError` if the network cannot take such an image.
    """
    calls, output = _trace(net, shape)
    counts, trainable = _count(net, {call.name for call in calls})
    layers: list[Layer] = []
    for call in calls:
        parameters = counts.pop(call.name, 0)
        if parameters or call.is_layer:
            size, jump = (max(pair) for pair in call.field) if call.field else (None, None)
            kind = _kind(call.module)
            macs = _macs(call.module, call.output) if call.is_layer else 0
            learned = trainable.pop(call.name, 0)
            layers.append(Layer(call.name, kind, call.output, parameters, learned, macs, size, jump))
    return Summary(tuple(layers), output)


def check_budget(summary: Summary, epochs: int, *, max_parameters: int | None, max_epochs: int | None) -> None:
    """`InputError` if the network has more parameters in total, or the run more epochs, than allowed (None: any)."""
    over = []
    if max_parameters is not None and summary.total > max_parameters:
        excess = summary.total - max_parameters
        over.append(f"{summary.total:,} parameters are {excess:,} more than budget.parameters={max_parameters}")
    if max_epochs is not None and epochs > max_epochs:
        over.append(f"{epochs} epochs are {epochs - max_epochs} more than budget.epochs={max_epochs}")
    if over:
        raise InputError(f"Over budget: {' and '.join(over)}; spend less, or raise the budget.")


class _Field(NamedTuple):
    size: Pair
    jump: Pair


class _Call(NamedTuple):
    name: str
    module: nn.Module
    output: tuple[int, ...]
    field: _Field | None
    is_layer: bool


def _modules(net: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """(name, module, whether it is a layer), not looking inside layers; one in several places under its first name."""
    inside: set[nn.Module] = set()
    for name, module in net.named_modules():
        if module not in inside:
            is_layer = isinstance(module, LAYERS) or not any(module.children())
            if is_layer:
                inside.update(module.modules())
            yield name, module, is_layer


def _trace(net: nn.Module, shape: tuple[int, int, int]) -> tuple[list[_Call], tuple[int, ...]]:
    calls: list[_Call] = []
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    hooks = []

    def enter(name: str, module: nn.Module, inputs: tuple) -> None:
        entered.append((name, module, _shape(inputs[0]) if inputs else ()))

    def leave(name: str, module: nn.Module, is_layer: bool, inputs: tuple, output: object) -> None:
        entered.pop()
        if isinstance(output, Tensor):
            if is_layer:
                # The field travels on the tensor. Functional code between layers drops it: unknown, not wrong.
                output.field = _field(module, inputs, output)  # type: ignore[attr-defined]
            elif isinstance(module, Residual):  # what its layers, called last, depend on holds what its input does
                output.field = calls[-1].field  # type: ignore[attr-defined]
            calls.append(_Call(name, module, _shape(output), getattr(output, "field", None), is_layer))

    modes = {module: module.training for module in net.modules()}
    like = next(net.parameters(), torch.empty(0))
    image = torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    image.field = _Field((1, 1), (1, 1))  # type: ignore[attr-defined]
    try:
        for name, module, is_layer in _modules(net):
            hooks.append(module.register_forward_pre_hook(lambda m, i, n=name: enter(n, m, i)))
            hooks.append(module.register_forward_hook(lambda m, i, o, n=name, leaf=is_layer: leave(n, m, leaf, i, o)))
        net.eval()
        with torch.no_grad():
            output = net(image)
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(_complaint(shape, *entered[-1], error)) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    if not isinstance(output, Tensor) or not output.numel():
        raise InputError(f"The network must turn a {_times(shape)} image into one tensor of logits, and does not.")
    return calls, _shape(output)


def _field(module: nn.Module, inputs: tuple, output: Tensor) -> _Field | None:
    fields = {getattr(tensor, "field", None) for tensor in inputs}
    geometry = _geometry(module, _shape(inputs[0])[1:] if inputs else (), _shape(output)[1:])
    if len(fields) > 1 or geometry is None or (field := fields.pop()) is None:
        return None
    kernel, stride = geometry
    return _Field(
        (field.size[0] + (kernel[0] - 1) * field.jump[0], field.size[1] + (kernel[1] - 1) * field.jump[1]),
        (field.jump[0] * stride[0], field.jump[1] * stride[1]),
    )


def _geometry(module: nn.Module, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[Pair, Pair] | None:
    """Kernel (dilation included) and stride that lead from one height and width to another; None if unknown."""
    if len(before) != 2 or len(after) != 2:
        return None
    if isinstance(module, nn.Conv2d | nn.MaxPool2d):
        (kh, kw), (dh, dw) = _pair(module.kernel_size), _pair(module.dilation)
        return ((kh - 1) * dh + 1, (kw - 1) * dw + 1), _pair(module.stride)
    if isinstance(module, nn.AvgPool2d):
        return _pair(module.kernel_size), _pair(module.stride)
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        sides = [_adaptive(*side) for side in zip(before, after, strict=True)]
        kernel, stride = zip(*sides, strict=True)
        return (kernel, stride) if all(stride) else None
    # Whatever keeps height and width, and has no kernel of its own, works point by point.
    pointwise = before == after and not any(p.ndim > 2 for p in module.parameters())
    return ((1, 1), (1, 1)) if pointwise else None


def _adaptive(before: int, after: int) -> Pair:
    """The largest window of an adaptive pooling along one side, and the step between windows: 0 if they vary."""
    starts = [index * before // after for index in range(after)]
    ends = [-(-(index + 1) * before // after) for index in range(after)]
    steps = {later - start for start, later in pairwise(starts)} or {before}
    kernel = max(end - start for start, end in zip(starts, ends, strict=True))
    return kernel, steps.pop() if len(steps) == 1 else 0


def _macs(module: nn.Module, output: tuple[int, ...]) -> int:
    outputs = torch.Size(output).numel()
    if isinstance(module, nn.Conv2d):
        return outputs * (module.in_channels // module.groups) * module.kernel_size[0] * module.kernel_size[1]
    return outputs * module.in_features if isinstance(module, nn.Linear) else 0


def _count(net: nn.Module, called: set[str]) -> tuple[Counter[str], Counter[str]]:
    """Parameters, and the trainable ones of them, by the innermost called module that holds them."""
    counts: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    saved = net.state_dict().keys()
    statistics = [(n, b) for n, b in net.named_buffers() if n in saved and b.is_floating_point()]
    for name, tensor in [*net.named_parameters(), *statistics]:
        owner = name.rpartition(".")[0]
        while owner not in called and owner:
            owner = owner.rpartition(".")[0]
        counts[owner] += tensor.numel()
        trainable[owner] += tensor.numel() if tensor.requires_grad else 0
    return counts, trainable


def _kind(module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{kind} {module.p:g}"
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return kind
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    kind += f" {_times(kernel)}"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        kind += " depthwise" if module.groups == module.in_channels else f" groups {module.groups}"
    if stride != ((1, 1) if isinstance(module, nn.Conv2d) else kernel):
        kind += f" stride {stride[0]}" if stride[0] == stride[1] else f" stride {_times(stride)}"
    return kind


def _complaint(shape: tuple[int, ...], name: str, module: nn.Module, got: tuple[int, ...], error: Exception) -> str:
    where = f"its layer {name} ({_kind(module)})" if name else "it"
    reason = f"was given {_times(got)}: {(str(error) or type(error).__name__).splitlines()[0]}"
    channels = {"in_channels": "channel", "num_features": "channel", "in_features": "feature"}
    for attribute, unit in channels.items():
        expected = getattr(module, attribute, None)
        if isinstance(module, LAYERS) and expected is not None and got[:1] != (expected,):
            reason = f"takes {expected} {unit}{'' if expected == 1 else 's'}, got {_times(got)}"
            break
    else:
        if "can't be greater than actual input size" in str(error) or "Output size is too small" in str(error):
            reason = f"has a kernel larger than what is left of the image, {_times(got)}"
    return f"The network cannot take {_times(shape)} images: {where} {reason}; choose another network or data set."


def _shape(tensor: object) -> tuple[int, ...]:
    return tuple(tensor.shape[1:]) if isinstance(tensor, Tensor) else ()


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _times(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))
