"""What TensorBoard's HPARAMS tab compares runs by."""

from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from parsimony.config import leaves
from parsimony.runs import Epoch

# The tab shows the first five by name, those that differ before the others: by these names dropout and learning rate
# are always among them.
NAMES = {
    "data.batch_size": "batch_size",
    "model.dropout": "dropout",
    "trainer.max_epochs": "epochs",
    "label_smoothing": "label_smoothing",
    "optimizer.lr": "lr",
    "model._target_": "model",
    "optimizer._target_": "optimizer",
    "scheduler._target_": "scheduler",
    "seed": "seed",
    "data.source.name": "train.data",
    "data.train_images": "train.images",
}
GROUPS = {
    "model": "model",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "augment": "train.augment",
    "distillation": "train.distillation",
}


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """Of a run's config what people compare, by short names: {"dropout": 0.1, "model": "mnist_sep", ...}."""
    found = {}
    taught = config.get("distillation", {}).get("teacher")
    for key, value in leaves(config):
        group, _, rest = key.partition(".")
        if key.endswith("._target_"):
            value = str(value).rpartition(".")[2]
        if group == "distillation" and not taught:
            continue
        if value is None or not (key in NAMES or (group in GROUPS and not rest.startswith("_"))):
            continue
        plain = isinstance(value, bool | int | float | str)
        found[NAMES.get(key) or f"{GROUPS[group]}.{rest}"] = value if plain else str(value)
    return found


@rank_zero_only
def log(logger: TensorBoardLogger, config: dict[str, Any], final: Epoch, step: int) -> None:
    """Hyperparameters, and the final figures at the last `step`, where a run that goes on from it drops them.

    Lightning's own `log_hyperparams` writes a list of the columns too, from which TensorBoard cannot tell what differs.
    """
    figures = {
        f"final/{metric}_{split}": value  # by this name the accuracies come first
        for split in ("train", "validation", "test")
        for metric, value in (getattr(final, split) or {}).items()
    }
    logger.log_metrics(figures, step)
    logger.hparams.update(compared(config))  # for its hparams.yaml
    summary = hparams_pb(logger.hparams, trial_id="")  # without an id it is shown by its folder
    logger.experiment._get_file_writer().add_summary(summary)
    logger.finalize("success")  # or they would wait, unwritten, for the process to end
