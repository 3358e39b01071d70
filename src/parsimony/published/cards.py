"""Model cards: what a trained network is for, what made it, how good it is and where it fails, in Markdown.

Every figure comes from result.json files; nothing is typed.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from parsimony.errors import InputError
from parsimony.published.rows import Row, recipe
from parsimony.published.tables import spread, taught_by
from parsimony.runs import Result


def card(row: Row, allow: Sequence[str] = ()) -> str:
    """That of a network, by its completed runs, which differ in the seed alone; their config may use packages `allow`.

    Raises InputError otherwise.
    """
    _check(row.runs)
    run = row.runs[0]
    name = row.network.rpartition("/")[2]
    channels, classes, size = _task(run, allow)
    parts = [
        f"# {name}",
        f"A convnet of {run.parameters['total']:,} parameters, trained from scratch on {run.data['name']}. "
        f"`parsimony card` wrote this from {_files(row)}.",
        f"## Task\n\nTells which one of {len(classes)} classes a {channels} picture of {size} pixels shows: "
        f"{', '.join(classes)}.",
        f"## Data\n\n{_data(row.runs)}",
        f"## Network\n\n{_network(run)}",
        f"## Recipe\n\n{_recipe(row)}",
        f"## Figures\n\n{_figures(row)}",
        f"## Known limits\n\n{_limits(row, channels, classes)}",
    ]
    return "\n\n".join(parts) + "\n"


def _check(runs: list[Result]) -> None:
    for run in runs:
        if run.status != "completed" or run.final is None:
            raise InputError(f"A card is of completed runs, and {run.name}, seed {run.seed}, is not: {run.status}.")
    if any(recipe(run.config) != recipe(runs[0].config) for run in runs):
        raise InputError("These runs were made by several recipes: make a card of those of one recipe.")
    if any(run.data.get("sha256") != runs[0].data.get("sha256") for run in runs):
        raise InputError("These runs were made with several data files: make a card of those of one.")


def _files(row: Row) -> str:
    return "its run's result.json" if len(row.runs) == 1 else f"the result.json files of its {len(row.runs)} runs"


def _task(run: Result, allow: Sequence[str]) -> tuple[str, tuple[str, ...], str]:
    """Kind of picture, classes, size."""
    from parsimony.data.sources import Source  # torch
    from parsimony.targets import RUN_OPTION, build, check_objects

    node = run.config["data"]["source"]
    check_objects([node], allow, RUN_OPTION)
    source = build(OmegaConf.create(node), Source)
    channels, height, width = source.shape
    return ("grey" if channels == 1 else "colour"), tuple(source.classes), f"{height} x {width}"


def _data(runs: list[Result]) -> str:
    data, config = runs[0].data, runs[0].config["data"]
    origin = (
        "its publisher's files, byte for byte" if data["publisher"] else "not its publisher's files, as the name says"
    )
    taken = f"the first {config['train_images']:,}" if config["train_images"] else "all"
    if config["validation"] in (0, "test"):
        trained = f"Trained on {taken} training images; no validation split was cut from them."
    else:
        trained = f"Of {taken} training images {config['validation']:,} were held out for validation."
    files = [f"| `{name}` | `{checksum}` |" for name, checksum in data["sha256"].items()]
    return "\n".join([f"{data['name']}: {origin}. {trained}", "", "| file | sha256 |", "|---|---|", *files])


def _network(run: Result) -> str:
    model = dict(run.config["model"])
    target = model.pop("_target_")
    given = ", ".join(f"{key}={value}" for key, value in model.items())
    total = run.parameters["total"]
    rows = [
        ("definition", f"`{target}({given})`"),
        ("parameters", f"{total:,}, as Keras counts them: batch-norm statistics included"),
        ("of these trainable", f"{run.parameters['trainable']:,}"),
        ("as 32-bit floats", f"{4 * total / 1000:.1f} KB"),
        ("multiply-accumulates an image", f"{run.macs:,}"),
    ]
    return _table(rows)


def _recipe(row: Row) -> str:
    run, config = row.runs[0], row.runs[0].config
    augmented = {key: value for key, value in config["augment"].items() if value and value != "none"}
    callbacks = config.get("callbacks") or {}
    averaged, stopping = callbacks.get("ema"), callbacks.get("early_stopping")
    typed = [override for override in run.overrides if not override.startswith("hydra.")]
    command = row.command if run.name == row.name else shlex.join(["python", "train.py", *typed])
    rows = [
        ("epochs", str(run.epochs)),
        ("batch size", str(config["data"]["batch_size"])),
        ("optimizer", _object(config["optimizer"])),
        ("learning-rate schedule", _object(config["scheduler"])),
        ("augmentation", _object(augmented)),
        ("label smoothing", str(config["label_smoothing"])),
        *([("distilled from", taught_by(run))] if run.teacher else []),
        ("weight averaging", f"exponential moving average, decay {averaged['decay']}" if averaged else "none"),
        *([("early stopping", _object(stopping))] if stopping else []),
        ("command", f"`{command}`"),
        ("made on", "; ".join(sorted({f"{r.device}, precision {r.precision}" for r in row.runs}))),
        ("versions", ", ".join(sorted({f"torch {r.versions['torch']}" for r in row.runs}))),
    ]
    return _table(rows)


def _object(node: dict[str, Any]) -> str:
    """`torch.optim.Adam` and its keys: Adam (lr 0.001, eps 1e-07)."""
    name = str(node.get("_target_", "")).rpartition(".")[2]
    keys = ", ".join(f"{key} {value}" for key, value in node.items() if not key.startswith("_"))
    if name == "Augment":
        return keys or "none"
    return f"{name} ({keys})" if keys else name


def _figures(row: Row) -> str:
    lines = ["| seed | test accuracy, final epoch | test loss | commit |", "|--:|--:|--:|---|"]
    for run in row.runs:
        assert run.final is not None
        assert run.final.test is not None
        changed = ", files changed" if run.dirty else ""
        commit = f"`{run.commit[:10]}`{changed}" if run.commit else "-"
        scores = run.final.test
        lines.append(f"| {run.seed} | {100 * scores['accuracy']:.2f} % | {scores['loss']:.4f} | {commit} |")
    lines += ["", f"Test accuracy at the final epoch: {spread(row.accuracies())}."]
    if len(row.runs) > 1:
        lines[-1] += " The figure after ± is the standard deviation of a single run."
    if row.reported is not None:
        lines.append(f"The original reported {row.reported:.2f} %, of a single run: {row.verdict}. {row.note}".rstrip())
    return "\n".join(lines)


def _limits(row: Row, channels: str, classes: tuple[str, ...]) -> str:
    run = row.runs[0]
    name, n = run.data["name"], len(row.runs)
    lines = [
        f"It answers with one of its {len(classes)} classes whatever it is shown, and often with a high probability.",
        f"It has never seen anything but {name}: pictures taken, cropped or scaled otherwise are recognised less well. "
        "`parsimony evaluate RUN --data NAME` measures how much.",
        "Its probabilities are those of a softmax and were not calibrated: `parsimony evaluate RUN` tells the error.",
    ]
    if channels == "grey":
        lines.append("It expects light on dark, as its training images are; `parsimony predict` turns others round.")
    if not run.data["publisher"]:
        lines.append(f"{name} is not the publisher's data, so the figures are not comparable with those on it.")
    if run.config["data"]["validation"] == "test":
        lines.append("The test set was scored each epoch. Nothing was chosen by it: the figures are the last epoch's.")
    if n < 5:
        spread_known = "nothing is known of" if n == 1 else "little is known of"
        lines.append(f"n={n}: {spread_known} the spread over seeds.")
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
