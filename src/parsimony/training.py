"""train(cfg) -> Result: the one straight road from a config to a result."""

import logging
import statistics
import sys
import threading
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import nn

from parsimony import checkpoints, hparams, runs
from parsimony.callbacks import CtrlC, Reseed, StaysStopped
from parsimony.checkpoint_files import CheckpointFiles
from parsimony.checks import check_averaging, check_batches, check_clipping, check_devices, check_outputs
from parsimony.classifier import Classifier
from parsimony.config import override_key, watched_tag
from parsimony.data.augment import Augment
from parsimony.data.datamodule import ImageData
from parsimony.distillation import check_files, teacher_of
from parsimony.distributed.batch_norm import SyncOnCpu, check_shared
from parsimony.distributed.group import Group, share_cores
from parsimony.distributed.strategy import Together, environment_of, register
from parsimony.distributed.watch import Ended
from parsimony.endings import ends_explained, quiet_about_disks, status
from parsimony.engine import Engine
from parsimony.errors import InputError
from parsimony.resume import alone, default_settings, settings
from parsimony.runs import Epoch, Result
from parsimony.summary import check_budget, summarize
from parsimony.targets import build, check_objects

# What Lightning says of its own insides, or of choices made here on purpose.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
for message in (
    "`broadcast_buffers` is deprecated",  # in favour of a key that PyTorch 2.11 does not have
    "LeafSpec",
    "smaller than the logging interval",
    "does not have many workers",
    "Total length of `list` across ranks is zero",  # no validation split
    "The ``compute`` method of metric .* was called before",  # by a process that has no image of a small split
    "recommended to use `self.log.*sync_dist=True",  # of figures that are summed over the processes already
    "Experiment logs directory .* exists and is not empty",  # the run's own folder
    "Checkpoint directory .* exists and is not empty",
):
    warnings.filterwarnings("ignore", f".*{message}")


def train(cfg: DictConfig) -> Result:
    """Trains what `cfg` describes in the folder it names, and leaves result.json there, after a failure too.

    Goes on from the last checkpoint where the folder has one. Raises InputError for what cannot be trained, before
    anything is written.
    """
    threading.excepthook = quiet_about_disks
    plain_config: Any = OmegaConf.to_container(cfg, resolve=True)
    with Group(Path(cfg.folder), plain_config) as group, group.told():
        return _train(cfg, plain_config, group)


def _train(cfg: DictConfig, plain_config: dict[str, Any], group: Group) -> Result:
    check_objects(plain_config, cfg.allow_targets)
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    typed = "trainer.devices" in map(override_key, overrides)
    devices = group.devices(plain_config["trainer"]["devices"], typed)
    check_devices(cfg.trainer.accelerator, devices["devices"])
    engine = build(cfg.engine, Engine)
    engine.start()
    pl.seed_everything(cfg.seed, verbose=False)
    net = build(cfg.model, nn.Module)
    data: ImageData = build(cfg.data, ImageData, augment=build(cfg.augment, Augment), seed=cfg.seed)
    summary = summarize(net, data.source.shape)
    check_outputs(summary, data, cfg.name)
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    layers = engine.layers_on(on_gpu)
    net = engine.prepare(net, layers)
    teacher = teacher_of(plain_config, data, cfg.allow_targets)
    if teacher:
        engine.prepare(teacher.net, layers)
    check_budget(summary, cfg.trainer.max_epochs, max_parameters=cfg.budget.parameters, max_epochs=cfg.budget.epochs)
    group.load(data)
    if teacher:
        check_files(teacher, data)
    assert data.images is not None

    classifier = Classifier(
        net,
        build(cfg.optimizer),
        build(cfg.scheduler),
        classes=len(data.images.classes),
        label_smoothing=cfg.label_smoothing,
        teacher=teacher,
        watched=watched_tag(cfg.data.validation),
        hparams=settings(plain_config),
    )
    classifier.check_optimizer(cfg.trainer.max_epochs)
    precision = engine.lightning_precision(on_gpu)
    check_clipping(precision, cfg.trainer.gradient_clip_val, cfg.optimizer)
    callbacks = _callbacks(cfg)
    check_averaging(precision, callbacks)
    folder = Path(cfg.folder)
    taught_by = teacher.origin["sha256"] if teacher else None
    checkpoint, at_step = checkpoints.to_resume(
        folder, net, settings(plain_config), defaults=default_settings(), teacher=taught_by
    ) or (None, 0)
    register()
    environment = environment_of(group)
    sync_on_cpu = cfg.trainer.sync_batchnorm and not on_gpu
    if sync_on_cpu:
        check_shared(net)
    trainer = build(
        cfg.trainer,
        pl.Trainer,
        **devices,
        **({"sync_batchnorm": False} if sync_on_cpu else {}),
        callbacks=[Reseed(cfg.seed), CtrlC(), StaysStopped(), *callbacks, Together(group)],
        plugins=[CheckpointFiles(), environment, *([SyncOnCpu()] if sync_on_cpu else [])],
        logger=_loggers(cfg, at_step),
        precision=precision,
        default_root_dir=cfg.folder,
    )
    if trainer.world_size > 1 and not engine.threads:
        share_cores(trainer.num_devices)
    environment.sees = {
        "config": settings(plain_config),
        "checkpoint": at_step,
        "data": data.images.sha256,
        "version of PyTorch": torch.__version__,
        "teacher": teacher.origin if teacher else None,
    }
    check_batches(net, data, trainer.world_size)
    result = Result(
        name=str(cfg.name),
        overrides=overrides,
        seed=cfg.seed,
        parameters={"total": summary.total, "trainable": summary.trainable, "non_trainable": summary.non_trainable},
        macs=summary.macs,
        validation=_validation_name(cfg.data.validation),
        device=_device_name(trainer),
        threads=torch.get_num_threads(),
        precision=str(trainer.precision),
        layers=layers,
        teacher=teacher.origin if teacher else None,
        versions=runs.versions(),
        data={"name": data.images.name, "publisher": data.images.publisher, "sha256": data.images.sha256},
        config=runs.portable(plain_config, cfg.folder),
        folder=str(cfg.folder),
    )
    result.commit, result.dirty = runs.commit()

    def record_end(error: BaseException) -> None:
        result.status = status(error)
        _tell_epochs(result, classifier)
        if trainer.is_global_zero:
            with suppress(OSError):  # a full disk may be what it ends of
                result.write(folder)

    def last_words(ended: Ended) -> None:
        record_end(group.error(ended))
        print(f"error: {group.sentence(ended)}", file=sys.stderr, flush=True)

    group.last_words = last_words
    with alone(folder) if trainer.is_global_zero else nullcontext():
        try:
            with ends_explained(folder, cfg.trainer.max_epochs), group.told():
                if trainer.is_global_zero:
                    print(f"{summary.table()}\n", flush=True)
                    runs.replace_file(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(result.config)))
                    checkpoints.drop_unsound(checkpoint)
                    for logger in trainer.loggers:
                        if isinstance(logger, TensorBoardLogger) and not checkpoint:
                            logger.experiment.add_text("layers", summary.markdown())
                _fit_and_test(trainer, classifier, data, result, checkpoint)
                if trainer.is_global_zero:
                    result.write(folder)
        except BaseException as error:
            record_end(error)
            raise
    if trainer.is_global_zero:
        print(f"\n{result.table()}\nresult in {folder}{runs.curves(folder)}", flush=True)
    return result


def _tell_epochs(result: Result, classifier: Classifier) -> None:
    result.history, result.resumed = classifier.history, classifier.resumed
    result.epochs = len(classifier.history)


def _fit_and_test(
    trainer: pl.Trainer, classifier: Classifier, data: ImageData, result: Result, checkpoint: Path | None
) -> None:
    trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
    if classifier.resumed[-1:] == [len(classifier.history)]:  # it broke off after its last epoch
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_train_end(trainer, classifier)  # Lightning calls it after an epoch only
    _tell_epochs(result, classifier)
    result.seconds["fit"] = classifier.history[-1]["elapsed"]
    result.seconds["epoch"] = statistics.median(epoch["seconds"] for epoch in classifier.history)
    result.images_per_second = statistics.median(epoch["images_per_second"] for epoch in classifier.history)

    result.final = _epoch(classifier.history[-1], classifier.watched)
    if classifier.watched == "val":
        result.final.test = _test(trainer, classifier, data, "test")
    else:
        _test(trainer, classifier, data, "test")  # for the pictures; the figures are the watched ones
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            hparams.log(logger, result.config, result.final, trainer.global_step)

    monitors = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    if monitors and (path := monitors[0].best_model_path):
        result.best = _best(trainer, classifier, data, result.final, path)
    result.status = "completed"


def _best(trainer: pl.Trainer, classifier: Classifier, data: ImageData, final: Epoch, path: str) -> Epoch:
    kept = checkpoints.load(Path(path))
    best = _epoch(classifier.history[kept["epoch"]], classifier.watched)
    if best.epoch == final.epoch:
        return final
    if classifier.watched == "val":
        classifier.load_state_dict(kept["state_dict"])
        best.test = _test(trainer, classifier, data, "test_at_best_validation")
    return best


def _test(trainer: pl.Trainer, classifier: Classifier, data: ImageData, tag: str) -> runs.Scores:
    classifier.test_tag = tag
    (metrics,) = trainer.test(classifier, data, verbose=False)
    return _scores(metrics, tag)


def _epoch(entry: dict[str, float], watched: str) -> Epoch:
    scored = _scores(entry, watched)
    return Epoch(
        epoch=int(entry["epoch"]),
        train=_scores(entry, "train"),
        validation=scored if watched == "val" else None,
        test=scored if watched != "val" else None,
    )


def _scores(metrics: Any, tag: str) -> runs.Scores:
    if f"{tag}/loss" not in metrics:
        return None
    return {"loss": float(metrics[f"{tag}/loss"]), "accuracy": float(metrics[f"{tag}/accuracy"])}


def _callbacks(cfg: DictConfig) -> list[pl.Callback]:
    """Without a validation split there is no best checkpoint to keep; other callbacks cannot do without one."""
    nodes = {name: node for name, node in (cfg.get("callbacks") or {}).items() if node}
    if not any((cfg.get("logger") or {}).values()):
        nodes.pop("learning_rate", None)  # it has nowhere to write to
    if cfg.data.validation == 0:
        nodes.pop("best", None)
    logged = [
        f"{split}/{metric}" for split in ("train", watched_tag(cfg.data.validation)) for metric in ("loss", "accuracy")
    ]
    for name, node in nodes.items():
        if not (monitor := node.get("monitor")):
            continue
        if cfg.data.validation == 0:
            raise InputError(f"callbacks.{name} needs a validation split: set data.validation above 0.")
        if node["_target_"].endswith(".EarlyStopping") and monitor.startswith("watched_test/"):
            raise InputError(
                f"callbacks.{name} would choose the last epoch by the test set: hold out images, such as "
                "data.validation=5000."
            )
        if monitor not in logged:
            raise InputError(f"callbacks.{name}.monitor takes one of {', '.join(logged)}, not {monitor}.")
    return [build(node, pl.Callback) for node in nodes.values()]


def _loggers(cfg: DictConfig, at_step: int) -> list[Any]:
    # What a run logged after the checkpoint that it goes on from will be logged again: these can be told to drop it.
    drops = ("pytorch_lightning.loggers.TensorBoardLogger", "parsimony.loggers.CSVLogger")
    nodes = [node for node in (cfg.get("logger") or {}).values() if node]
    return [build(node, Logger, **{"purge_step": at_step} if node["_target_"] in drops else {}) for node in nodes]


def _validation_name(validation: int | str) -> str | None:
    if validation == "test":
        return "test set, watched each epoch"
    return f"{validation:,} images of the training set" if validation else None


def _device_name(trainer: pl.Trainer) -> str:
    count = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    if trainer.strategy.root_device.type == "cuda":
        return count + torch.cuda.get_device_name(trainer.strategy.root_device)
    return count + runs.cpu_name()
