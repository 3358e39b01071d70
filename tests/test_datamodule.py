"""Which images make up the split, the epochs and the batches: every image where it belongs, whoever asks."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from parsimony.data.augment import Augment
from parsimony.data.datamodule import EVALUATION_BATCH, EvaluationBatches, ImageData, stratified
from parsimony.data.sources import Digits, ImageSet, Source, Split
from parsimony.errors import InputError

TRAIN, TEST = 103, 37

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")  # of Lightning's insides


class Numbered:
    """Images that hold their own number in their first two pixels, unevenly spread over three classes."""

    name = "numbered"
    classes = ("a", "b", "c")
    shape = (1, 4, 4)

    def download(self) -> None:
        pass

    def load(self) -> ImageSet:
        splits = [self.split(count) for count in (TRAIN, TEST)]
        return ImageSet(self.name, self.classes, *splits, sha256={}, publisher=True)

    def split(self, count: int) -> Split:
        numbers = torch.arange(count)
        images = torch.zeros(count, *self.shape, dtype=torch.uint8)
        images[:, 0, 0, 0] = numbers // 256
        images[:, 0, 0, 1] = numbers % 256
        return Split(images, (numbers % 7).clamp(max=2))


def make(source: Source | None = None, **keys) -> ImageData:
    defaults = {"batch_size": 8, "validation": 0, "augment": Augment(), "seed": 0}
    data = ImageData(source or Numbered(), **{**defaults, **keys})
    data.prepare_data()
    data.setup()
    return data


def as_process(data: ImageData, rank: int, world: int) -> ImageData:
    data.trainer = SimpleNamespace(
        world_size=world, global_rank=rank, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    return data


def epoch_batches(data: ImageData, epoch: int = 0) -> list[list[int]]:
    """Each batch's indices, as the loops of Lightning draw them."""
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [indices.tolist() for _, _, indices in loader]


def numbers(batch: tuple[Tensor, Tensor, Tensor]) -> list[int]:
    images = batch[0].long()
    return (images[:, 0, 0, 0] * 256 + images[:, 0, 0, 1]).tolist()


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_the_split_is_stratified() -> None:
    labels = Digits().load().train.labels
    held_out = stratified(labels, 200)
    assert len(held_out) == len(held_out.unique()) == 200
    shares = torch.bincount(labels, minlength=10) * 200 / len(labels)
    assert (torch.bincount(labels[held_out], minlength=10) - shares).abs().max() < 1


@pytest.mark.parametrize("count", [1, 2, 51, TRAIN - 1])
def test_any_number_of_images_can_be_held_out(count: int) -> None:
    labels = Numbered().load().train.labels
    shares = torch.bincount(labels) * count / TRAIN
    assert (torch.bincount(labels[stratified(labels, count)], minlength=3) - shares).abs().max() < 1


def test_the_held_out_images_are_not_simply_the_first_of_their_class() -> None:
    labels = Numbered().load().train.labels
    held_out = stratified(labels, 30)
    assert not set(held_out.tolist()) <= set(range(40))


def test_training_and_validation_images_are_disjoint_and_all_there() -> None:
    data = make(validation=20)
    trained, watched = numbers((data.train.images,)), numbers((data.watched.images,))
    assert data.images.train is data.train  # not in memory a second time
    assert len(watched) == 20
    assert sorted(trained + watched) == list(range(TRAIN))


def test_only_the_first_images_are_taken_where_that_is_asked_for() -> None:
    data = make(train_images=50, validation=20)
    assert sorted(numbers((data.train.images,)) + numbers((data.watched.images,))) == list(range(50))
    assert len(data.images.test.labels) == TEST


def test_labels_stay_with_their_images() -> None:
    data = make(validation=20)
    whole = Numbered().load().train.labels
    for split in (data.train, data.watched):
        assert torch.equal(split.labels, whole[numbers((split.images,))])
    for batch in data.train_dataloader():
        assert torch.equal(batch[1], whole[numbers(batch)])


def test_the_split_does_not_depend_on_the_seed_nor_on_what_ran_before() -> None:
    first = make(validation=20, seed=1)
    torch.manual_seed(99)
    second = make(validation=20, seed=2)
    assert torch.equal(first.watched.images, second.watched.images)


def test_validation_of_zero_trains_on_everything_and_watches_nothing() -> None:
    data = make(validation=0)
    assert len(data.train.labels) == TRAIN
    assert data.val_dataloader() == []


def test_validation_of_test_trains_on_everything_and_watches_the_test_set() -> None:
    data = make(validation="test")
    assert len(data.train.labels) == TRAIN
    watched = [index for batch in data.val_dataloader() for index in numbers(batch)]
    tested = [index for batch in data.test_dataloader() for index in numbers(batch)]
    assert watched == tested == list(range(TEST))


@pytest.mark.parametrize("batch_size", [1, 8, TRAIN])
def test_an_epoch_visits_each_image_once(batch_size: int) -> None:
    batches = epoch_batches(make(batch_size=batch_size))
    assert sorted(flat(batches)) == list(range(TRAIN))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_the_order_comes_from_seed_and_epoch_alone() -> None:
    data = make(seed=3)
    first = epoch_batches(data, epoch=5)
    torch.manual_seed(99)
    epoch_batches(data, epoch=1)
    assert epoch_batches(data, epoch=5) == epoch_batches(make(seed=3), epoch=5) == first
    assert epoch_batches(data, epoch=6) != first
    assert epoch_batches(make(seed=4), epoch=5) != first
    assert flat(first) != sorted(flat(first))


def test_neighbouring_seeds_never_share_an_order() -> None:
    orders = [epoch_batches(make(seed=seed), epoch) for seed in range(3) for epoch in range(3)]
    assert len({str(order) for order in orders}) == len(orders)


def test_making_and_reading_loaders_draws_nothing_from_the_global_stream() -> None:
    data = make(validation=20)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_out_the_batches_of_one_process(world: int) -> None:
    alone = epoch_batches(make(batch_size=8), epoch=2)
    shares = [epoch_batches(as_process(make(batch_size=8), rank, world), epoch=2) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for whole, *parts in zip(alone, *shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert sorted(flat(parts)) == sorted(whole)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_mean_of_the_weighted_means_is_that_of_the_global_batch(world: int) -> None:
    loaders = [as_process(make(batch_size=8), rank, world).train_dataloader() for rank in range(world)]
    for index, parts in enumerate(zip(*loaders, strict=True)):
        weighted = [
            part[2].double().mean() * loader.batch_sampler.weight(index)
            for part, loader in zip(parts, loaders, strict=True)
        ]
        whole = torch.cat([part[2] for part in parts])
        assert sum(weighted) / world == pytest.approx(whole.double().mean().item())


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("total", [1, 2, 3, 7, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 1, 10_000])
def test_evaluation_visits_each_image_once_in_equally_many_batches(total: int, world: int) -> None:
    shares = [list(EvaluationBatches(total, world, rank)) for rank in range(world)]
    assert sorted(flat(flat(shares))) == list(range(total))
    assert len({len(share) for share in shares}) == 1
    assert max(len(batch) for share in shares for batch in share) <= EVALUATION_BATCH


def test_a_process_without_images_has_an_empty_batch() -> None:
    data = as_process(make(validation=1), rank=1, world=2)
    (batch,) = data.val_dataloader()
    assert [len(part) for part in batch] == [0, 0, 0]


def test_processes_share_out_the_evaluation() -> None:
    shares = [as_process(make(validation=20), rank, 2) for rank in range(2)]
    tested = [numbers(batch) for data in shares for batch in data.test_dataloader()]
    assert sorted(flat(tested)) == list(range(TEST))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": TRAIN + 1}, r"batch_size=104 is larger than the 103 training images"),
        ({"batch_size": 84, "validation": 20}, r"batch_size=84 is larger than the 83 training images"),
        ({"validation": TRAIN}, r"validation=103 leaves nothing to train on: there are 103"),
        ({"validation": 10_000}, r"validation=10000 leaves nothing"),
        ({"augment": Augment(crop_padding=4)}, r"crop_padding=4 is too much"),
        ({"augment": Augment(cutout=5)}, r"cutout=5 is larger"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**keys)


class Recorder(nn.Module):
    """In the place of Augment: notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, list[int]]] = []

    def check(self, shape: tuple[int, ...]) -> None:
        pass

    def forward(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        assert images.dtype == torch.uint8
        self.calls.append((epoch, indices.tolist()))
        return torch.full(images.shape, 0.5)


class Watcher(pl.LightningModule):
    """Notes what reaches a network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen["train"].append(batch[0])
        return self.weight * batch[0].sum()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.seen["val"].append(batch[0])

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        self.seen["test"].append(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def two_epochs(watcher: Watcher, data: ImageData) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, enable_model_summary=False, use_distributed_sampler=False, **quiet
    )
    trainer.fit(watcher, data)
    return trainer


def test_lightning_draws_each_epoch_anew_and_augments_in_training_only() -> None:
    recorder, watcher = Recorder(), Watcher()
    data = make(validation=20, augment=recorder, seed=7)
    trainer = two_epochs(watcher, data)
    trainer.test(watcher, data, verbose=False)
    expected = [(epoch, batch) for epoch in (0, 1) for batch in epoch_batches(make(validation=20, seed=7), epoch)]
    assert recorder.calls == expected
    assert all((images == 0.5).all() for images in watcher.seen["train"])
    assert torch.equal(torch.cat(watcher.seen["val"][:1]), data.watched.images.float() / 255)
    assert torch.equal(torch.cat(watcher.seen["test"]), data.images.test.images.float() / 255)


def test_the_last_epochs_can_go_without_augmentation() -> None:
    recorder, watcher = Recorder(), Watcher()
    data = make(augment=recorder, augment_epochs=1)
    two_epochs(watcher, data)
    assert [epoch for epoch, _ in recorder.calls] == [0] * 13
    for images, batch in zip(watcher.seen["train"][13:], epoch_batches(data, 1), strict=True):
        assert torch.equal(images, data.train.images[batch].float() / 255)
