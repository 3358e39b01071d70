"""What goes on beside a training: seeds, averaged weights, Ctrl-C, progress, pictures in TensorBoard."""

import signal
import sys
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar, WeightAveraging
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from parsimony import pictures

WORST = 25


class Reseed(Callback):
    """Seeds every epoch from (seed, epoch, rank), so that a resumed run draws what an unbroken one would have."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(self.seed + 1_000_003 * trainer.current_epoch + 7_368_787 * trainer.global_rank)


class CtrlC(Callback):
    """Ctrl-C waits for the end of the step, so that no checkpoint is left half done; pressed again it does not."""

    pressed = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.first = trainer.is_global_zero
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Lightning puts it back at the end
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed and self.first:
            raise KeyboardInterrupt
        self.pressed = True

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.pressed and self.first:  # the process that started the others ends them
            raise KeyboardInterrupt

    on_validation_batch_end = on_test_batch_end = on_train_batch_end


class StaysStopped(Callback):
    """A run that broke off after early stopping had ended it trains no further: Lightning keeps the count alone."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        reasons = [callback.stopping_reason for callback in trainer.early_stopping_callbacks]
        if any(reason != EarlyStoppingReason.NOT_STOPPED for reason in reasons):
            trainer.should_stop = True


class EMA(WeightAveraging):
    """Validates, tests and saves an exponential moving average of the weights and of batch norm's statistics.

    After n steps `decay` (0 to 1) of the average is kept, but at most (1 + n) / (10 + n), as TensorFlow's does: a short
    training would else be left with its first weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # the network is not moved to it yet, and Lightning takes its own
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None and trainer.precision == "64-true":
            self._average_model.double()  # as the network is later

    def _average(self, averages: Any, values: Any, count: Tensor) -> None:
        steps = int(count) + 1  # the first is copied, not averaged
        get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))(averages, values, count)


class Progress(TQDMProgressBar):
    """A bar on a terminal; elsewhere one line an epoch."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20)
        self.bar = sys.stdout.isatty() and sys.stderr.isatty()
        if not self.bar:
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not self.bar and trainer.is_global_zero:
            splits = ("train/", f"{pl_module.watched}/")
            scores = {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith(splits)}
            shown = "  ".join(f"{name} {value:.4f}" for name, value in sorted(scores.items()))
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", flush=True)


class Pictures(Callback):
    """To TensorBoard: the first batch as the network sees it; at the end the confusion matrix and worst mistakes."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 0 and (writer := _writer(trainer)):
            writer.add_image("first_batch", pictures.grid(batch[0][:64].cpu()), 0)

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.seen: list[tuple[Tensor, ...]] = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        images, labels = batch
        losses = cross_entropy(outputs, labels, reduction="none")
        guesses = outputs.argmax(1)
        worst = torch.where(guesses != labels, losses, -1.0).topk(min(WORST, len(labels))).indices
        self.seen.append((labels, guesses, images[worst], labels[worst], guesses[worst], losses[worst]))

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.test_tag != "test":
            return
        seen = [torch.cat(parts).cpu() for parts in zip(*self.seen, strict=True)]
        if trainer.world_size > 1:
            everyones: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyones, seen)
            seen = [torch.cat(parts) for parts in zip(*everyones, strict=True)]
        if not (writer := _writer(trainer)):
            return
        labels, guesses, *worst = seen
        classes = trainer.datamodule.source.classes  # type: ignore[attr-defined]
        step = trainer.fit_loop.epoch_loop.global_step
        writer.add_figure("confusion_matrix", pictures.confusion_matrix(labels, guesses, classes), step)
        writer.add_figure("worst_mistakes", pictures.worst_mistakes(*worst, classes=classes, count=WORST), step)


def _writer(trainer: pl.Trainer) -> SummaryWriter | None:
    """The TensorBoard writer of the first process; none elsewhere or when TensorBoard is off."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return loggers[0].experiment if loggers and trainer.is_global_zero else None
