"""The notions that are about weights: convolution, kernels, 3x3 and 1x1 convolutions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from parsimony.explain.colours import colour_kernel, largest, picture, sheet, signed
from parsimony.explain.document import Figure, Row, Section, Sum, Table, Tile, count, percent
from parsimony.explain.layers import Stage, kind, padding

MOST_KERNELS = 32  # of a layer, that are shown
MOST_SIDE = 16  # outputs and inputs of a layer, whose kernels are shown side by side
COLOURS = ("red", "green", "blue")


def convolution(image: Tensor, found: list[Stage]) -> Section:
    """One place of the first convolution, worked out."""
    stage = next(stage for stage in found if isinstance(stage.module, nn.Conv2d))
    conv = stage.module
    assert isinstance(conv, nn.Conv2d)
    given, raw = stage.given[0], stage.raw[0]
    rows, columns = _inside(conv, given, raw)
    inner = raw[:, rows, columns]
    channel, row, column = (int(i) for i in torch.unravel_index(inner.argmax(), inner.shape))
    row, column = row + rows.start, column + columns.start
    (down, across), (above, left), (high, wide) = conv.stride, padding(conv), _extent(conv)
    top, left = row * down - above, column * across - left
    inputs = given.shape[0] // conv.groups
    first = channel // (conv.out_channels // conv.groups) * inputs  # of the channels that this output reads
    window = _padded(conv, given)[:, row * down :, column * across :][:, :high, :wide]
    patch = window[first : first + inputs, :: conv.dilation[0], :: conv.dilation[1]]
    names = [COLOURS[first + i] if given.shape[0] == 3 else "" for i in range(inputs)]
    terms = [(names[i], patch[i].numpy(), conv.weight[channel, i].detach().numpy()) for i in range(inputs)]
    bias = 0.0 if conv.bias is None else float(conv.bias[channel].detach())
    place = f"row {row + 1}, column {column + 1}"
    return Section(
        "Convolution",
        [
            "A convolution moves a small window over the picture. At each place it multiplies the numbers under the "
            "window by the window's weights and adds the products up: one number for each place, a new picture.",
            f"Here the first layer of this network, a {stage.kind}, at the place where it answers most strongly "
            f"({place} of map {channel + 1}). Pixels go from 0 (black) to 1 (white).",
        ],
        [
            Figure(
                "The picture with the window, and the map that the convolution makes of it with the place's number.",
                [
                    Row(
                        "",
                        [
                            Tile(picture(image), "picture", (left, top, max(high, wide))),
                            Tile(signed(raw[channel], largest(raw)), f"map {channel + 1}", (column, row, 1)),
                        ],
                        140,
                    )
                ],
            ),
            Sum("Pixels times weights, added up.", terms, bias, float(raw[channel, row, column])),
        ],
    )


def kernels(net: nn.Module, initial: nn.Module, seed: int) -> Section:
    """Those of the first convolution, before and after training."""
    name, conv = convolutions(net)[0]
    before, after = kernel_weights(initial, name), kernel_weights(net, name)
    scale = max(largest(before), largest(after))
    shown = min(len(after), MOST_KERNELS)
    return Section(
        "Kernels",
        [
            "A kernel is the window's weights, what a convolution looks for: it answers strongly where the picture "
            "looks like it. Nobody designs them. They begin as random numbers, and training moves each a little at "
            "every step so that the loss falls.",
            f"The first layer has {count(len(after), 'kernel')}, {conv.weight[0].numel()} weights each"
            f"{_colours(conv)}. Its weights were drawn with seed {seed}; training changed them by "
            f"{percent(moved(before, after))} of their size.",
        ],
        [
            Figure(
                f"The first layer's kernels{_of(shown, len(after))}, on one scale.",
                [
                    Row("before training", _kernel_tiles(before[:shown], conv, scale)),
                    Row("after training", _kernel_tiles(after[:shown], conv, scale)),
                ],
            )
        ],
    )


def three_by_three(net: nn.Module, initial: nn.Module) -> Section:
    """All 3x3 convolutions, before and after."""
    found = [(name, conv) for name, conv in convolutions(net) if conv.kernel_size == (3, 3)]
    text = [
        "The smallest window with a middle: nine weights for each channel that it reads. Two in a row see 5x5 pixels "
        "with 18 weights where one 5x5 window takes 25, and three see 7x7 with 27 instead of 49. An activation after "
        "each makes them able to do more as well. That is why small networks stack 3x3 convolutions."
    ]
    if not found:
        return Section("3x3 convolution", [*text, "This network has none."])
    if any(conv.groups > 1 for _, conv in found):
        text.append(
            "A depthwise one reads a single channel for each map: all the mixing of channels is left to the 1x1 "
            "convolution after it, which together take far fewer weights."
        )
    rows, figures = [], []
    for name, conv in found:
        before, after = kernel_weights(initial, name), kernel_weights(net, name)
        shape = f"{conv.in_channels} → {conv.out_channels}"
        rows.append([name, kind(conv), shape, f"{after.numel():,}", percent(moved(before, after))])
        figures.append(Row(f"{name}: {kind(conv)}, {shape}", _sheets(before, after), 189))
    return Section(
        "3x3 convolution",
        text,
        [
            Table(
                "The network's 3x3 convolutions; the last column is how far training moved the weights, in parts of "
                "their initial size.",
                ["Layer", "Kind", "Channels", "Weights", "Moved"],
                rows,
            ),
            Figure(
                "Their kernels, before and after training: a row of kernels makes one map, a column reads one channel; "
                f"at most {MOST_SIDE} of each are shown. A depthwise layer has one kernel a map.",
                figures,
                compact=True,
            ),
        ],
    )


def one_by_one(net: nn.Module, initial: nn.Module, found: list[Stage]) -> Section:
    """The weights of all 1x1 convolutions, and what the first mixes for one of its maps."""
    text = [
        "A window of one pixel sees no shapes. It mixes: each of its maps is a weighted sum of the maps before, pixel "
        "by pixel. With fewer maps out than in it squeezes what was found into fewer channels, which makes the layers "
        "after it cheaper; after a depthwise convolution it brings the channels together."
    ]
    mixing = [(name, conv) for name, conv in convolutions(net) if conv.kernel_size == (1, 1) and conv.groups == 1]
    if not mixing:
        return Section("1x1 convolution", [*text, "This network has none."])
    rows = []
    for name, conv in mixing:
        before, after = (kernel_weights(n, name)[:64, :64, 0, 0] for n in (initial, net))
        scale = max(largest(before), largest(after))
        tiles = [Tile(signed(before, scale), "before"), Tile(signed(after, scale), "after")]
        rows.append(Row(f"{name}: {conv.in_channels} → {conv.out_channels}", tiles, 192))
    stage = next(stage for stage in found if stage.name == mixing[0][0])
    return Section(
        "1x1 convolution",
        text,
        [
            _mixture(stage),
            Figure(
                "Which channels each 1x1 layer mixes, before and after training: a row is a map that it makes, a "
                "column a channel that it reads; at most 64 of each are shown.",
                rows,
                compact=True,
            ),
        ],
    )


def convolutions(net: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]


def kernel_weights(net: nn.Module, name: str) -> Tensor:
    conv = net.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.detach()


def moved(before: Tensor, after: Tensor) -> float:
    """The length of the change in parts of the length before."""
    return float((after - before).norm() / before.norm().clamp(min=1e-30))


def _mixture(stage: Stage) -> Figure:
    conv = stage.module
    assert isinstance(conv, nn.Conv2d)
    given, raw = stage.given[0], stage.raw[0]
    spread = raw.flatten(1).std(1, correction=0)
    channel = int(spread.argmax())
    parts = given * conv.weight[channel, :, 0, 0].detach()[:, None, None]
    order = parts.abs().mean((1, 2)).argsort(descending=True, stable=True)[:5].tolist()
    scale = largest(given)
    tiles = [Tile(signed(given[i], scale), f"{conv.weight[channel, i, 0, 0].item():+.2f} x map {i + 1}") for i in order]
    share = float(parts[order].abs().sum() / parts.abs().sum().clamp(min=1e-30))
    total = Tile(signed(raw[channel]), f"map {channel + 1} of {stage.name}")
    return Figure(
        f"What {stage.name} mixes for its map {channel + 1}: the {len(order)} of {len(given)} maps before it that "
        f"count most on this picture ({percent(share)} of the sum's absolute values) with their weights, and the sum.",
        [Row("", [*tiles, total], 78)],
    )


def _kernel_tiles(weights: Tensor, conv: nn.Conv2d, scale: float) -> list[Tile]:
    if weights.shape[1] == 3 and conv.in_channels == 3:
        return [Tile(colour_kernel(kernel, scale)) for kernel in weights]
    if weights.shape[1] == 1:
        named = conv.in_channels == 3 and conv.out_channels == 3
        return [Tile(signed(kernel[0], scale), COLOURS[i] if named else "") for i, kernel in enumerate(weights)]
    return [Tile(signed(sheet(kernel[None, :MOST_SIDE]), scale)) for kernel in weights]


def _sheets(before: Tensor, after: Tensor) -> list[Tile]:
    scale = max(largest(before), largest(after))
    sheets = []
    for label, weights in (("before", before), ("after", after)):
        shown = weights[:MOST_SIDE, :MOST_SIDE] if weights.shape[1] > 1 else _in_rows(weights)
        sheets.append(Tile(signed(sheet(shown), scale), label))
    return sheets


def _in_rows(weights: Tensor) -> Tensor:
    """(n, 1, h, w) in rows of eight or fewer, all of them full."""
    shown = weights[: MOST_SIDE * 2, 0]
    columns = min(8, len(shown))
    rows = len(shown) // columns
    return shown[: rows * columns].unflatten(0, (rows, columns))


def _inside(conv: nn.Conv2d, given: Tensor, raw: Tensor) -> tuple[slice, slice]:
    """The rows and columns of the map whose window is wholly inside the picture; all where none is."""
    slices = []
    for side in (0, 1):
        edge, stride = padding(conv)[side], conv.stride[side]
        first = -(-edge // stride)
        last = (given.shape[side + 1] - _extent(conv)[side] + edge) // stride
        end = min(last + 1, raw.shape[side + 1])
        slices.append(slice(first, end) if first < end else slice(0, raw.shape[side + 1]))
    return slices[0], slices[1]


def _extent(conv: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns from the first pixel to the last that the window reads."""
    high, wide = (spread * (side - 1) + 1 for spread, side in zip(conv.dilation, conv.kernel_size, strict=True))
    return high, wide


def _padded(conv: nn.Conv2d, given: Tensor) -> Tensor:
    """The picture (c, h, w) with what the convolution adds around it."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return pad(given[None], conv._reversed_padding_repeated_twice, mode)[0]


def _colours(conv: nn.Conv2d) -> str:
    if conv.in_channels != 3:
        return ""
    return (
        ", one for each colour"
        if conv.groups == 3
        else f", {conv.weight[0, 0].numel()} for each of red, green and blue"
    )


def _of(shown: int, total: int) -> str:
    return f" ({shown} of {total})" if shown < total else ""
