"""What the page is told: about the network once, and for every drawing its answer and its maps."""

import base64
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parsimony.data.sources import Digits
from parsimony.draw.digit import like_mnist, like_uci
from parsimony.errors import InputError
from parsimony.explain.colours import largest, signed
from parsimony.explain.layers import Stage, stages
from parsimony.summary import summarize
from parsimony.trained import Trained

SIDE = 112  # of the drawing that the page sends, in pixels
MOST_MAPS = 32  # of a layer, that are shown
LEVELS = 255  # a map's numbers go from 0, its scale below zero, to 254, that above; 127 is zero


class Artist:
    """Answers drawings with a network of digits. Raises InputError for any other network."""

    def __init__(self, trained: Trained) -> None:
        channels, height, width = trained.shape
        if trained.classes != Digits.classes or channels != 1 or height != width:
            names = f"{', '.join(trained.classes[:3])} and so on"
            raise InputError(
                f"draw is for networks of digits, and {trained.name} was trained on {channels}x{height}x{width} "
                f"pictures of {names}; parsimony explain shows what it learned."
            )
        self.trained = trained
        self.id = secrets.token_hex(8)
        self.side = height
        self.like_trained: Callable[[Tensor, int], Tensor] = (
            like_uci if isinstance(trained.source(), Digits) else like_mnist
        )

    def network(self) -> dict[str, Any]:
        """Name, classes, layers and the colours of the maps' numbers; `id` tells a page if the network was changed."""
        summary, epochs = summarize(self.trained.net, self.trained.shape), len(self.trained.history)
        scale = signed(torch.linspace(-1, 1, LEVELS)[None], 1.0)[0]
        return {
            "id": self.id,
            "name": self.trained.name,
            "about": f"{summary.total:,} parameters, {epochs} epoch{'' if epochs == 1 else 's'}",
            "classes": self.trained.classes,
            "side": self.side,
            "colours": scale.tolist(),
            "layers": [_described(stage) for stage in self._stages(torch.zeros(1, self.side, self.side))],
        }

    def answer(self, drawing: bytes) -> dict[str, Any]:
        """`drawing` is SIDE x SIDE bytes, row by row, 255 for ink. Probabilities are null where there is none."""
        pixels = torch.from_numpy(np.frombuffer(drawing, np.uint8).reshape(SIDE, SIDE).copy())
        image = self.like_trained(pixels.float() / 255, self.side)
        with torch.no_grad():
            probabilities = self.trained.logits(image[None])[0].softmax(0).tolist()
        return {
            "network": self.id,
            "probabilities": probabilities if image.any() else None,
            "picture": _coded((image * 255).round()),
            "maps": [_levels(stage.maps[0, :MOST_MAPS], largest(stage.maps)) for stage in self._stages(image)],
        }

    def _stages(self, image: Tensor) -> list[Stage]:
        return stages(self.trained.net, image[None])


def _described(stage: Stage) -> dict[str, Any]:
    _, count, height, width = stage.maps.shape
    after = f", {stage.activation}" if stage.activation else ""
    shown = min(count, MOST_MAPS)
    some = f", {shown} shown" if shown < count else ""
    title = f"{stage.kind}{after}: {count} maps of {height}x{width}{some}"
    return {"title": title, "count": shown, "height": height, "width": width}


def _levels(maps: Tensor, scale: float) -> str:
    half = LEVELS // 2
    return _coded((maps / scale * half).round() + half)


def _coded(values: Tensor) -> str:
    return base64.b64encode(values.byte().numpy().tobytes()).decode()
