"""What a network makes of a picture layer by layer, and what each layer sees of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parsimony.data.augment import to_float
from parsimony.summary import summarize

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
WINDOWS = (nn.Conv2d, *POOLS)
BETWEEN = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.Identity)
MASS = 0.95  # of the gradient, that the measured receptive field holds


@dataclass(frozen=True)
class Stage:
    """A convolution or pool and the activation that follows it. Tensors are (n, c, h, w).

    `raw` is what the convolution or pool makes of `given`; `before` is the activation's input, which a norm may have
    been at, and `maps` its output. Without an activation all three are the same. A norm after it is in none of them.
    """

    name: str
    module: nn.Module
    given: Tensor
    raw: Tensor
    before: Tensor
    maps: Tensor
    activation: str  # "ReLU", say; empty without

    @property
    def kind(self) -> str:
        return kind(self.module)


@dataclass(frozen=True)
class Field:
    """The receptive field of one output of a convolution or pool: the one in the middle of its map.

    `side`, `jump`, `left` and `top` are in pixels of the picture; the square may exceed it where the layers pad.
    """

    name: str
    kind: str
    side: int
    jump: int
    left: int
    top: int
    place: tuple[int, int]  # row and column of that output in its map

    def covers(self, height: int, width: int) -> bool:
        """All of a picture of that size: a side as long as the picture's may lie beside its middle."""
        down, right = self.top + self.side, self.left + self.side
        return self.top <= 0 and self.left <= 0 and down >= height and right >= width


def stages(net: nn.Module, images: Tensor) -> list[Stage]:
    """Of images (n, c, h, w), uint8 or floats in [0, 1]; the layers in the order they are called."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def keep(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if output.ndim == 4:
            calls.append((name, module, given, output.clone()))  # cloned: an in-place activation comes next

    with _watching(net, keep), torch.no_grad():
        net(to_float(images))
    found = []
    for place, (name, module, given, raw) in enumerate(calls):
        if isinstance(module, WINDOWS):
            before, maps, activation = raw, raw, ""
            for _, after, _, output in calls[place + 1 :] if isinstance(module, nn.Conv2d) else ():
                if is_activation(after):
                    maps, activation = output, type(after).__name__
                if not isinstance(after, BETWEEN):
                    break
                before = output
            found.append(Stage(name, module, given, raw, before if activation else raw, maps, activation))
    return found


def fields(net: nn.Module, shape: tuple[int, int, int]) -> list[Field]:
    """Theoretical receptive fields, from the layers' geometry alone, for networks whose layers follow one another,
    residual ones included."""
    found, jump, left, top = [], 1, 0, 0
    for layer in summarize(net, shape).layers:
        module = net.get_submodule(layer.name)
        if layer.receptive_field is None or layer.jump is None:
            break
        if not isinstance(module, WINDOWS):
            continue
        down, across = padding(module)
        left, top = left - across * jump, top - down * jump
        jump = layer.jump
        row, column = layer.output[1] // 2, layer.output[2] // 2
        corner = (left + column * jump, top + row * jump)
        found.append(Field(layer.name, kind(module), layer.receptive_field, jump, *corner, (row, column)))
    return found


def gradients(net: nn.Module, images: Tensor, fields: list[Field]) -> list[Tensor]:
    """What each field's output truly depends on: (h, w), the mean over images and sum over colours of |gradient|.

    The gradient is that of the sum over channels of the output in the middle of the map, before its activation; after
    Luo et al., "Understanding the Effective Receptive Field" (2016).
    """
    places = {field.name: field.place for field in fields}
    middles: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if name in places:
            row, column = places[name]
            middles[name] = output[:, :, row, column].sum()

    pixels = to_float(images).clone().requires_grad_()
    with _watching(net, keep):
        net(pixels)
    return [
        torch.autograd.grad(middles[field.name], pixels, retain_graph=True)[0].abs().sum(1).mean(0) for field in fields
    ]


def measured_side(gradient: Tensor, field: Field) -> int:
    """Side of the smallest square about the field's centre that holds 95 % of the gradient (h, w)."""
    middle = (field.side - 1) / 2
    rows = (torch.arange(gradient.shape[0]) - field.top - middle).abs()
    columns = (torch.arange(gradient.shape[1]) - field.left - middle).abs()
    distances = torch.maximum(rows[:, None], columns[None]).flatten()
    order = distances.argsort(stable=True)
    mass = gradient.flatten()[order].double().cumsum(0)
    reached = int((mass < MASS * mass[-1]).sum())
    return min(int(2 * distances[order[min(reached, len(order) - 1)]]) + 1, field.side)


def is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__


def kind(module: nn.Module) -> str:
    """As in "3x3 convolution, depthwise"."""
    if isinstance(module, nn.Conv2d):
        depthwise = ", depthwise" if module.groups == module.in_channels > 1 else ""
        return f"{module.kernel_size[0]}x{module.kernel_size[1]} convolution{depthwise}"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        size = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
        return f"{size[0]}x{size[1]} {'max' if isinstance(module, nn.MaxPool2d) else 'average'} pool"
    return f"global {'average' if isinstance(module, nn.AdaptiveAvgPool2d) else 'max'} pool"


@contextmanager
def _watching(net: nn.Module, see: Callable[[str, nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Calls `see` with each childless module's name, itself, its input and its output as the network runs."""
    leaves = [(name, module) for name, module in net.named_modules() if not any(module.children())]
    hooks = [leaf.register_forward_hook(lambda m, x, y, name=name: see(name, m, x[0], y)) for name, leaf in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def padding(window: nn.Module) -> tuple[int, int]:
    """Rows above and columns to the left that a convolution or pool adds."""
    added = getattr(window, "padding", 0)
    if added == "same":
        assert isinstance(window, nn.Conv2d)
        (high, wide), (down, across) = window.kernel_size, window.dilation
        return down * (high - 1) // 2, across * (wide - 1) // 2
    if added == "valid":
        return 0, 0
    return (added, added) if isinstance(added, int) else added
