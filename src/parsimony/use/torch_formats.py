"""A trained network as torch.export's program, and its weights as safetensors."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from parsimony.errors import InputError
from parsimony.trained import Trained
from parsimony.use.deployed import INPUT, deployed, difference, kept_if_sound, kilobytes, samples, written


def export_program(trained: Trained, path: Path) -> str:
    """Writes what `torch.export.load(path).module()` runs without this package; says what was written."""
    with kept_if_sound(path) as beside, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own insides
        batch = {INPUT: {0: torch.export.Dim("n")}}
        program = torch.export.export(deployed(trained), (samples(trained, 2),), dynamic_shapes=batch)
        with beside.open("wb") as file:
            torch.export.save(program, file)
        with beside.open("rb") as file:
            largest = difference(trained, torch.export.load(file).module())
    return written(path, largest, "program of torch.export, any batch")


def export_weights(trained: Trained, path: Path) -> str:
    """Writes the state dict, with the network's config and classes as metadata; says what was written."""
    from safetensors.torch import load_file, save

    weights = {name: tensor.contiguous() for name, tensor in trained.net.state_dict().items()}
    about = {
        "name": trained.name,
        "model": json.dumps(trained.config["model"]),
        "classes": json.dumps(trained.classes),
        "shape": json.dumps(trained.shape),
        "weights": trained.weights,
    }
    with kept_if_sound(path) as beside:
        beside.write_bytes(save(weights, metadata=about))
        found = load_file(beside)
        if not _same(weights, found):
            raise InputError(f"{path} does not hold the network's weights when read back: no file was written.")
    return f"{path}: {kilobytes(path)}, {len(weights)} tensors, the network's own when read back"


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
