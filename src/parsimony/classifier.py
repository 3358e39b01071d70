"""The LightningModule that wraps any network."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from parsimony.distillation import Teacher
from parsimony.errors import InputError, RunError


class Classifier(pl.LightningModule):
    """Trains `net` on (images, labels) with cross-entropy; logs loss and accuracy a step, an epoch and a split.

    A `teacher` has its part in the training loss.
    `watched` is the tag of each epoch's evaluation: "val" or "watched_test". `history` has one entry an epoch: its
    figures, its training's `seconds`, and those `elapsed` since the run began, evaluation included.
    `resumed` are the epochs after which a run that had broken off went on.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., dict[str, Any] | None],
        *,
        classes: int,
        label_smoothing: float = 0.0,
        teacher: Teacher | None = None,
        watched: str = "val",
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(dict(hparams or {}), logger=False)  # logged at the end, with the final figures
        self.net = net
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.teacher = teacher  # no module, so that neither checkpoints nor the optimizer see its weights
        self.watched = watched
        self.test_tag = "test"
        self.history: list[dict[str, float]] = []
        self.resumed: list[int] = []
        metrics = {stage: nn.ModuleDict(_metrics(classes)) for stage in ("watched", "test")}
        self.evaluation = nn.ModuleDict(metrics)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, c, h, w) in [0, 1]."""
        return self.net(images)

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return self.optimizer_and_schedule(total_steps=steps, max_epochs=self.trainer.max_epochs)

    def optimizer_and_schedule(self, *, total_steps: int, max_epochs: int | None) -> Any:
        """As Lightning takes them. Raises InputError for settings that they refuse."""
        try:
            optimizer = self.make_optimizer(self.net.parameters())
            schedule = self.make_scheduler(optimizer, total_steps=total_steps, max_epochs=max_epochs)
        except InputError:
            raise
        except Exception as error:
            raise _refused(error) from error
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}

    def check_optimizer(self, max_epochs: int) -> None:
        """Takes one step on a copy: only then do some settings show that they are wrong. Raises InputError."""
        trial = copy.deepcopy(self)
        for parameter in trial.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        configured = trial.optimizer_and_schedule(total_steps=1000, max_epochs=max_epochs)
        try:
            optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
            optimizer.step()
        except Exception as error:
            raise _refused(error) from error

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        plugin = self.trainer.precision_plugin
        if getattr(plugin, "scaler", None):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:  # Lightning refuses fused optimizers in all mixed precisions; only a scaler, float16's, is in their way
            Precision.clip_gradients(
                plugin, optimizer, gradient_clip_val or 0.0, GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            )

    def on_train_start(self) -> None:
        if self.teacher:
            self.teacher.net.to(self.device, next(self.net.parameters()).dtype)
        self.fit_started = time.perf_counter() - (self.history[-1]["elapsed"] if self.history else 0.0)

    def on_train_epoch_start(self) -> None:
        self.totals = torch.zeros(3, device=self.device)  # loss, correct answers, images
        self.started = time.perf_counter()
        self.logged = self.started, self.global_step

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if self.teacher:
            loss = self.teacher.loss(images, logits, of_labels=loss)
        due = self.global_step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if (due or loss.device.type == "cpu") and not loss.isfinite():  # on a GPU to look is to wait
            raise self._diverged(f"The loss is {loss.item()}")
        # Summed here rather than in torchmetrics: its bookkeeping costs more than these networks' smallest layers.
        with torch.no_grad():
            correct = (logits.argmax(1) == labels).sum()
            precise = loss.float()  # bfloat16 counts to 256
            sums = torch.stack([precise * len(labels), correct, torch.full_like(precise, len(labels))])
            self.totals += sums
        if due:
            self._log_step(sums)
        if self.trainer.world_size > 1:
            loss = loss * self.trainer.train_dataloader.batch_sampler.weight(batch_idx)  # type: ignore[union-attr]
        return loss

    def _log_step(self, sums: Tensor) -> None:
        """Of the global batch, from the `sums` of one process's share of it."""
        loss, correct, images = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        values = {"train/loss_step": loss / images, "train/accuracy_step": correct / images}
        now, (then, step) = time.perf_counter(), self.logged
        if self.global_step > step:  # not at an epoch's first step
            whole = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]  # this one may be an epoch's last
            values["images_per_second_step"] = whole * (self.global_step - step) / (now - then)
        self.logged = now, self.global_step
        for logger in self.loggers:
            logger.log_metrics(values, self.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.trainer.is_last_batch:
            return
        loss, correct, images = self.trainer.strategy.reduce(self.totals, reduce_op="sum").tolist()  # waits for a GPU
        self.seconds = time.perf_counter() - self.started  # before the epoch's evaluation, which is not training time
        values = {"train/loss": loss / images, "train/accuracy": correct / images}
        values["images_per_second"] = images / self.seconds
        self.log_dict(values, on_step=False, on_epoch=True, logger=False)

    def _diverged(self, what: str) -> RunError:
        rates = " and ".join(f"{group['lr']:g}" for group in self.trainer.optimizers[0].param_groups)
        return RunError(
            f"{what} in step {self.global_step:,} (epoch {self.current_epoch + 1}), at learning rate {rates}: take a "
            "lower optimizer.lr, or set trainer.gradient_clip_val."
        )

    def on_train_epoch_end(self) -> None:
        metrics = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")
        if not all(tensor.isfinite().all() for tensor in self.net.state_dict().values()):
            raise self._diverged("A weight is not finite")
        # Lightning's monitor of learning rates leaves the last it logged, of whatever step, and none after a resume.
        figures = {name: value for name, value in metrics.items() if not name.startswith("lr-")}
        # Lightning would log them after the checkpoint is saved: a run killed in between would lose them.
        for logger in self.loggers:
            logger.log_metrics({**figures, "epoch": self.current_epoch}, self.global_step - 1)
            logger.save()
        times = {"seconds": self.seconds, "elapsed": time.perf_counter() - self.fit_started}
        self.history.append({"epoch": self.current_epoch + 1, **times, **figures})

    def on_validation_start(self) -> None:
        self._count_precisely("watched")

    def on_test_start(self) -> None:
        self._count_precisely("test")

    def _count_precisely(self, stage: str) -> None:
        """Where the network is of 16 bits Lightning makes the sums so too; bfloat16 counts to 256."""
        loss: Any = self.evaluation[stage]
        loss = loss["loss"]
        loss.set_dtype(torch.promote_types(loss.dtype, torch.float32))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("watched", self.watched, batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._evaluate("test", self.test_tag, batch)

    def _evaluate(self, stage: str, tag: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self(images)
        metrics: Any = self.evaluation[stage]
        if len(labels):  # a process may have no image of a small split
            metrics["loss"].update(cross_entropy(logits, labels, reduction="none"))
            metrics["accuracy"].update(logits, labels)
        values = {f"{tag}/loss": metrics["loss"], f"{tag}/accuracy": metrics["accuracy"]}
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, logger=stage == "test")
        return logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["resumed"] = self.history, self.resumed
        checkpoint["teacher"] = self.teacher and self.teacher.origin["sha256"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        self.resumed = [*checkpoint["resumed"], len(self.history)]


def _refused(error: Exception) -> InputError:
    why = " ".join(str(error).split()).rstrip(".")
    return InputError(f"The optimizer or its schedule refuses its settings: {why}.")


def _metrics(classes: int) -> dict[str, nn.Module]:
    loss = MeanMetric(nan_strategy="disable")  # a mean that left out what is no number would flatter
    return {"loss": loss, "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False)}
