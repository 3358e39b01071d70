"""The notions that are about what the layers make of a picture: activation, feature maps, receptive field."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parsimony.explain.colours import heat, largest, signed
from parsimony.explain.document import Figure, Row, Section, Table, Tile, percent
from parsimony.explain.layers import Field, Stage, fields, gradients, measured_side

MOST_MAPS = 32  # of a layer, that are shown


def activation(found: list[Stage]) -> Section:
    activated = [stage for stage in found if stage.activation]
    text = [
        "What a layer passes on of its sums. ReLU passes on what is above zero and turns the rest into zero: a map "
        "then says where its kernel was found, and not where it was not. Without activations all layers together "
        "could do no more than a single one, since sums of sums are sums."
    ]
    if not activated:
        return Section("Activation", [*text, "This network has none between its convolutions."])
    first = activated[0]
    before, after = first.before[0], first.maps[0]
    shown = _liveliest(before, 8)
    scale = largest(before)
    shares = [[stage.name, stage.activation, percent((stage.maps == 0).float().mean().item())] for stage in activated]
    return Section(
        "Activation",
        text,
        [
            Figure(
                f"{len(shown)} maps of {first.name} before its {first.activation} and after it: what was blue, below "
                "zero, is gone.",
                [
                    Row("before", [Tile(signed(before[i], scale), f"map {i + 1}") for i in shown], 78),
                    Row("after", [Tile(signed(after[i], scale), f"map {i + 1}") for i in shown], 78),
                ],
            ),
            Table(
                "How much of its maps each activation turns into zero on this picture.",
                ["Layer", "Activation", "Zeros"],
                shares,
            ),
        ],
    )


def feature_maps(found: list[Stage], classes: Sequence[str]) -> Section:
    rows = []
    for stage in found:
        maps = stage.maps[0]
        scale = largest(maps)
        count, height, width = maps.shape
        shown = maps[:MOST_MAPS]
        scores = (height, width) == (1, 1) and count == len(classes)
        labels = classes if scores else [""] * len(shown)
        after = f", {stage.activation}" if stage.activation else ""
        some = f", {len(shown)} of them shown" if len(shown) < count else ""
        title = f"{stage.name}: {stage.kind}{after}: {count} maps of {height}x{width}{some}"
        rows.append(Row(title, [Tile(signed(m, scale), label) for m, label in zip(shown, labels, strict=False)]))
    return Section(
        "Feature maps",
        [
            "A feature map is the picture that a kernel makes: bright where it found what it looks for. The next layer "
            "reads all maps of the one before as its channels. The first maps still look like the picture, edges and "
            "strokes of one direction; deeper ones are small, and say what is there rather than how it looks.",
        ],
        [Figure("The picture layer by layer, each layer on a scale of its own.", rows)],
    )


def receptive_field(net: nn.Module, picture: Tensor, images: Tensor) -> Section:
    """Drawn over `picture` (c, h, w); measured on `images` (n, c, h, w)."""
    found = _growing(fields(net, (picture.shape[0], picture.shape[1], picture.shape[2])))
    measured = gradients(net, images, found)
    tiles, rows = [], []
    for field, gradient in zip(found, measured, strict=True):
        side = measured_side(gradient, field)
        label = f"{field.name}: {field.side}x{field.side}, measured {side}x{side}"
        tiles.append(Tile(heat(picture, gradient), label, (field.left, field.top, field.side)))
        rows.append([field.name, field.kind, f"{field.side}", f"{side}", f"{field.jump}"])
    height, width = picture.shape[1:]
    whole = next((field.name for field in found if field.covers(height, width)), None)
    reach = f"from {whole} on it covers the whole picture" if whole else "in no layer does it cover the whole picture"
    return Section(
        "Receptive field",
        [
            "The part of the picture that one number of a map can depend on. A 3x3 convolution sees 3x3 pixels, a "
            "second one 5x5; after a 2x2 pool, or with a stride of 2, everything grows twice as fast, since "
            "neighbouring numbers lie two pixels apart.",
            f"In this network {reach}. The square follows from the layers' sizes alone. How much each pixel really "
            "counts is measured: the gradient of the number in the middle of a layer with respect to the pixels, its "
            f"absolute value averaged over {len(images)} test images. Pixels in the middle reach the number by more "
            "paths than those at the edge, so the measured field is usually smaller than the square.",
        ],
        [
            Figure("The square, and in orange what is measured in it, over the picture.", [Row("", tiles, 142)]),
            Table(
                "Sides in pixels. Measured: the smallest square about the middle that holds 95 % of the gradient. "
                "Jump: how far the squares of neighbouring numbers lie apart.",
                ["Layer", "Kind", "Field", "Measured", "Jump"],
                rows,
            ),
        ],
    )


def _growing(found: list[Field]) -> list[Field]:
    """Without the layers that see what the one before them saw."""
    return [field for place, field in enumerate(found) if place == 0 or field.side > found[place - 1].side]


def _liveliest(maps: Tensor, count: int) -> list[int]:
    """The maps with the greatest spread, in their order."""
    spread = maps.flatten(1).std(1, correction=0)
    return sorted(torch.topk(spread, min(count, len(maps))).indices.tolist())
