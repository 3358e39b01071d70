"""`parsimony summary`: the layer table of a network that need not be trained, or of two side by side."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from parsimony.config import CONF, composed
from parsimony.errors import InputError
from parsimony.resume import kept_config
from parsimony.use import arguments as shared

if TYPE_CHECKING:
    from parsimony.summary import Summary

EXAMPLES = """\
  parsimony summary model=mnist_sep
  parsimony summary model=mnist_sep model=mnist_narrow model.dropout=0    an override belongs to the model before it
  parsimony summary runs/mnist_sep/TIME
"""


def main(arguments: Sequence[str]) -> None:
    parser = shared.parser(
        "summary",
        "The layers of a network, or of two side by side: output, parameters, receptive field, multiply-accumulates.\n"
        "Nothing is trained or downloaded.",
        EXAMPLES,
        of_a_run=False,
    )
    parser.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="model=NAME with any KEY=VALUE of train.py, or a run's folder"
    )
    shared.add_allow(parser)
    typed = parser.parse_args(arguments)
    networks = [_network(words, typed.allow) for words in _split(typed.networks)]
    print(side_by_side(networks) if len(networks) == 2 else networks[0][1])


def side_by_side(networks: Sequence[tuple[str, "Summary"]]) -> str:
    """Of two (title, summary): their tables in one, layer beside layer in their order, and totals with their ratio."""
    from parsimony.summary import HEADER  # torch

    titles, summaries = zip(*networks, strict=True)
    columns = ["Kind", "Output", "Params", "Field", "MACs"]
    picked = [HEADER.index(column) for column in columns]
    halves = [_aligned([columns, *([row[i] for i in picked] for row in s.rows())]) for s in summaries]
    widths = [max(len(title), len(half[0])) for title, half in zip(titles, halves, strict=True)]
    lines = ["   ".join(title.ljust(width) for title, width in zip(titles, widths, strict=True)).rstrip()]
    for pair in zip_longest(*halves, fillvalue=""):
        lines.append(" | ".join(part.ljust(width) for part, width in zip(pair, widths, strict=True)).rstrip())
    one, other = summaries
    totals = [["", *titles, "ratio"]]
    for label in ("total", "trainable", "macs"):
        first, second = getattr(one, label), getattr(other, label)
        ratio = f"{first / second:.2f}" if second else "-"
        totals.append([LABELS[label], f"{first:,}", f"{second:,}", ratio])
    return "\n".join([*lines, "", *_aligned(totals)])


LABELS = {"total": "parameters", "trainable": "trainable parameters", "macs": "MACs an image"}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _split(words: Sequence[str]) -> list[list[str]]:
    """A list a network: what names it, then its overrides."""
    networks: list[list[str]] = []
    for word in words:
        override = "=" in word or word.startswith("~")
        if not networks or word.startswith("model=") or not override:
            networks.append([])
        networks[-1].append(word)
    if len(networks) > 2:
        raise InputError(f"One network, or two side by side, not {len(networks)}.")
    return networks


def _network(words: Sequence[str], allow: Sequence[str]) -> tuple[str, "Summary"]:
    """Its title and its layers."""
    from parsimony.targets import RUN_OPTION, TRAINING_OPTION, check_objects

    folder = "=" not in words[0] and not words[0].startswith("~")
    title, model, source, allowed = _of_run(*words) if folder else _composed(words)
    check_objects([model, source], [*allowed, *allow], RUN_OPTION if folder else TRAINING_OPTION)

    from torch import nn

    from parsimony.data.sources import Source
    from parsimony.summary import summarize
    from parsimony.targets import build

    shape = build(OmegaConf.create(source), Source).shape
    return title, summarize(build(OmegaConf.create(model), nn.Module), shape)


def _of_run(folder: str, *overrides: str) -> tuple[str, Any, Any, Sequence[str]]:
    """Title, config of the network and of the data it is for, allowed targets."""
    if (CONF / "model" / f"{folder}.yaml").exists() and not Path(folder).exists():
        raise InputError(f"{folder} is no folder; for the network of that name: model={folder}")
    if overrides:
        raise InputError(f"{folder} has its own config: leave out {' '.join(overrides)}.")
    config = kept_config(Path(folder))
    return str(config["name"]), config["model"], config["data"]["source"], []


def _composed(overrides: Sequence[str]) -> tuple[str, Any, Any, Sequence[str]]:
    config = composed(overrides, return_hydra_config=True)
    model, source = OmegaConf.select(config, "model"), OmegaConf.select(config, "data.source")
    if not OmegaConf.is_dict(model) or not OmegaConf.is_dict(source):
        raise InputError("A summary needs model and data.source: take ~model, ~data and the like out of the command.")
    name = config.hydra.runtime.choices.get("model")
    title = " ".join([str(name), *(override for override in overrides if not override.startswith("model="))])
    parts = (OmegaConf.to_container(part, resolve=True) for part in (model, source))
    return title, *parts, config.get("allow_targets") or []  # type: ignore[return-value]
