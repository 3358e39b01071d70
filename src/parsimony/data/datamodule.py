"""One data module for every image set: uint8 tensors are split, shuffled and batched by index, never image by image."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler

from parsimony.data.augment import Augment, to_float
from parsimony.data.sources import ImageSet, Source, Split
from parsimony.errors import InputError

SPLIT_SEED = 2024  # the validation images stay the same whatever the run's seed
EVALUATION_BATCH = 500  # images; larger is no faster on a CPU and takes gigabytes with cifar_sep

Batch = tuple[Tensor, Tensor, Tensor]


class ImageData(pl.LightningDataModule):
    """Batches of (images (n, c, h, w) in [0, 1], labels (n,)), augmented in training, on the batch's device.

    `batch_size` is the global batch, shared out among the processes. `validation` is how many images are cut from the
    training set, stratified; 0 trains on all of them; "test" trains on all and watches the test set each epoch.
    `train_images` takes only the first so many; only the first `augment_epochs` are augmented. `download` gets files
    that are missing. `root` is there for the source's config to refer to.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        validation: int | str,
        augment: Augment,
        seed: int,
        train_images: int | None = None,
        augment_epochs: int | None = None,
        download: bool = True,
        root: str = "",
    ) -> None:
        super().__init__()
        if not isinstance(source, Source):
            raise InputError(f"data.source gives a {type(source).__name__}, which is no source of images.")
        self.source = source
        self.batch_size = batch_size
        self.validation = validation
        self.augment = augment
        self.seed = seed
        self.train_images = train_images
        self.augment_epochs = augment_epochs
        self.download = download
        self.images: ImageSet | None = None

    def prepare_data(self) -> None:
        if self.download:
            self.source.download()

    def setup(self, stage: str | None = None) -> None:
        """Reads the files once. Raises InputError if they, the split or the batch size do not fit."""
        if self.images is not None:
            return
        self.augment.check(self.source.shape)
        try:
            self.images = self.source.load()
        except InputError as error:
            if self.download:
                raise
            raise InputError(
                f"{error} Nothing was downloaded, since data.download is false or this run's data.source is in no file "
                "of conf/data: put the files there."
            ) from error
        train = self.images.train
        if self.train_images is not None and self.train_images > len(train.labels):
            raise InputError(
                f"data.train_images={self.train_images} is more than the {len(train.labels):,} training images of "
                f"{self.images.name}: take fewer, or null for all."
            )
        self.train, self.watched = self._split(
            Split(train.images[: self.train_images], train.labels[: self.train_images])
        )
        self.images = replace(self.images, train=self.train)  # those held out are not kept twice
        if self.batch_size > len(self.train.labels):
            raise InputError(
                f"data.batch_size={self.batch_size} is larger than the {len(self.train.labels):,} training images of "
                f"{self.images.name}: take a smaller batch."
            )

    def _split(self, train: Split) -> tuple[Split, Split | None]:
        assert self.images is not None
        if self.validation == "test":
            return train, self.images.test
        if self.validation == 0:
            return train, None
        total = len(train.labels)
        if int(self.validation) >= total:
            raise InputError(
                f"data.validation={self.validation} leaves nothing to train on: there are {total:,} training images of "
                f"{self.images.name}, take fewer of them."
            )
        held_out = stratified(train.labels, int(self.validation))
        kept = torch.ones(total, dtype=torch.bool)
        kept[held_out] = False
        return _take(train, kept.nonzero().squeeze(1)), _take(train, held_out)

    def train_dataloader(self) -> DataLoader[Batch]:
        # Shuffled by (seed, epoch) alone, so that an epoch's order does not depend on what ran before it. The sampler
        # adds the two, hence the factor: neighbouring seeds must not go through one another's orders.
        images = self._on_device(self.train)
        sampler: DistributedSampler[Any] = DistributedSampler(
            images, num_replicas=1, rank=0, seed=1_000_003 * self.seed
        )
        return _loader(images, TrainingBatches(sampler, self.batch_size, *self._processes()))

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        return self._evaluation(self.watched) if self.watched else []

    def test_dataloader(self) -> DataLoader[Batch]:
        assert self.images is not None
        return self._evaluation(self.images.test)

    def _evaluation(self, split: Split) -> DataLoader[Batch]:
        return _loader(self._on_device(split), EvaluationBatches(len(split.labels), *self._processes()))

    def _on_device(self, split: Split) -> "_Images":
        """The whole split where the training is, so that a GPU indexes its own memory and waits for no copy."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return _Images(Split(split.images.to(device), split.labels.to(device)))

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        images, labels, indices = batch
        if self.trainer is None:
            return to_float(images), labels
        epoch = self.trainer.current_epoch
        augmented = self.trainer.training and (self.augment_epochs is None or epoch < self.augment_epochs)
        images = self.augment(images, indices, epoch) if augmented else to_float(images)
        return images.to(self.trainer.lightning_module.dtype), labels  # float32 but under engine.precision=64-true


class TrainingBatches:
    """Index lists of one process's share of each global batch, which is the same however many processes there are."""

    def __init__(self, sampler: "DistributedSampler[Any]", batch_size: int, world: int, rank: int) -> None:
        self.sampler = sampler  # Lightning tells it the epoch
        self.batches = BatchSampler(sampler, batch_size, drop_last=False)
        self.world, self.rank = world, rank

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.rank :: self.world] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def weight(self, index: int) -> float:
        """By which to multiply the mean loss over this process's share of batch `index`.

        The mean over the processes, which DDP takes of the gradients, is then the mean over the global batch.
        """
        size = self.batches.batch_size
        whole = min(size, len(self.sampler) - index * size)
        share = len(range(self.rank, whole, self.world))
        return self.world * share / whole


class EvaluationBatches:
    """Index lists that visit each of `total` images once over all processes, in equally many batches on each.

    Equally many, since under DDP every forward pass is a meeting of the processes.
    """

    def __init__(self, total: int, world: int, rank: int) -> None:
        count = math.ceil(math.ceil(total / world) / EVALUATION_BATCH)
        self.batches = [part.tolist() for part in np.array_split(np.arange(rank, total, world), count)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Images(Dataset[Batch]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        """(images uint8, labels, indices): the whole batch in one indexing."""
        index = torch.tensor(indices, dtype=torch.int64).to(self.split.images.device, non_blocking=True)
        return self.split.images[index], self.split.labels[index], index


def stratified(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images, ascending, their classes in the proportions of `labels`; always the same ones."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    by_class = order[labels[order].argsort(stable=True)]  # shuffled within each class
    # Evenly spaced positions along the classes laid end to end take from each class its share, to within one image.
    positions = torch.arange(count, dtype=torch.float64).add(0.5).mul(len(labels) / count).long()
    return by_class[positions].sort().values


def _take(split: Split, indices: Tensor) -> Split:
    return Split(split.images[indices], split.labels[indices])


def _loader(images: _Images, batches: TrainingBatches | EvaluationBatches) -> DataLoader[Batch]:
    # Its own generator, so that making an iterator draws nothing from the global stream: resuming depends on it.
    return DataLoader(images, batch_sampler=batches, collate_fn=_as_is, generator=torch.Generator())


def _as_is(batch: Any) -> Any:
    return batch
