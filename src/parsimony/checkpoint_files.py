"""How a run writes its checkpoints: whole or not at all, the one before kept."""

import glob
import io
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from parsimony.checkpoints import LAST, PREVIOUS
from parsimony.runs import inside

HERE = "<checkpoints>"  # in a checkpoint, in the place of its folder, which may move


class CheckpointFiles(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; keeps the last but one, should the last be damaged.

    The checksum is the archive's own: a CRC-32 of each tensor and of the pickle that names them.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        if path.name.startswith("hpc_ckpt"):
            return  # Lightning's, when Slurm requeues in mid-epoch: a run goes on from last.ckpt, bit for bit
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(_moved(checkpoint, str(path.parent), HERE), content)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.exists():
                path.replace(path.with_name(PREVIOUS))
            beside.replace(path)
        finally:
            for left in path.parent.glob(f".{glob.escape(path.name)}.*"):  # or of a process that was killed
                left.unlink()

    def load_checkpoint(self, path: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        checkpoint = super().load_checkpoint(path, *arguments, **keywords)
        return _moved(checkpoint, HERE, os.path.realpath(Path(path).parent))


def _moved(checkpoint: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The checkpoint with what its callbacks remember of files under `old` under `new`."""

    def move(node: Any) -> Any:
        if isinstance(node, dict):
            return {move(key): move(value) for key, value in node.items()}
        return new + node.removeprefix(old) if inside(node, old) else node

    return {**checkpoint, "callbacks": move(checkpoint["callbacks"])} if "callbacks" in checkpoint else checkpoint
