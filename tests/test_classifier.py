"""The wrapped network's losses and metrics against the same sums done by hand."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from parsimony import schedules
from parsimony.classifier import Classifier
from parsimony.errors import InputError

Batches = list[tuple[Tensor, Tensor]]
SIZES = (8, 8, 3)  # of the batches: the last one is smaller, so that a mean of means is wrong
LR = 0.5

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # Lightning's advice on loggers and loaders


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def make_batches(seed: int) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, 1, 2, 2, generator=generator), torch.randint(3, (n,), generator=generator)) for n in SIZES]


def loader(seed: int) -> DataLoader:
    return DataLoader(make_batches(seed), batch_size=None)


def make_classifier(**keys) -> Classifier:
    return Classifier(make_net(), partial(torch.optim.SGD, lr=LR), schedules.constant, classes=3, **keys)


def make_trainer(epochs: int = 1, precision: Any = "32-true") -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        precision=precision,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(classifier: Classifier, epochs: int = 1) -> pl.Trainer:
    trainer = make_trainer(epochs)
    trainer.fit(classifier, loader(1), loader(2))
    return trainer


def by_hand(label_smoothing: float = 0.0) -> tuple[nn.Module, dict[str, float]]:
    """The network after one epoch, and the epoch's scores."""
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    totals = {"loss": 0.0, "correct": 0}
    for images, labels in make_batches(1):
        logits = net(images)
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        totals["loss"] += loss.item() * len(labels)
        totals["correct"] += int((logits.argmax(1) == labels).sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    train = {"train/loss": totals["loss"] / sum(SIZES), "train/accuracy": totals["correct"] / sum(SIZES)}
    return net, {**train, **evaluated_by_hand(net, "val")}


def evaluated_by_hand(net: nn.Module, tag: str) -> dict[str, float]:
    images, labels = (torch.cat(parts) for parts in zip(*make_batches(2), strict=True))
    with torch.no_grad():
        logits = net(images)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return {f"{tag}/loss": cross_entropy(logits, labels).item(), f"{tag}/accuracy": accuracy}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_loss_is_cross_entropy(label_smoothing: float) -> None:
    classifier = make_classifier(label_smoothing=label_smoothing)
    classifier.trainer = pl.Trainer(accelerator="cpu", logger=False)
    classifier.on_train_epoch_start()
    images, labels = make_batches(1)[0]
    likelihoods = make_net()(images).log_softmax(1)
    target = nn.functional.one_hot(labels, 3) * (1 - label_smoothing) + label_smoothing / 3
    expected = -(likelihoods * target).sum(1).mean()
    assert classifier.training_step((images, labels), 0).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_an_epochs_figures_are_those_by_hand(label_smoothing: float) -> None:
    classifier = make_classifier(label_smoothing=label_smoothing)
    fit(classifier)
    net, expected = by_hand(label_smoothing)
    (entry,) = classifier.history
    assert entry["epoch"] == 1
    assert entry["seconds"] > 0
    assert {name: entry[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    for parameter, other in zip(classifier.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)


def test_every_epoch_has_its_own_figures() -> None:
    classifier = make_classifier()
    fit(classifier, epochs=3)
    assert [entry["epoch"] for entry in classifier.history] == [1, 2, 3]
    assert len({entry["train/loss"] for entry in classifier.history}) == 3
    assert len({entry["val/loss"] for entry in classifier.history}) == 3


def test_testing_scores_under_the_tag_it_was_given() -> None:
    classifier = make_classifier()
    trainer = fit(classifier)
    classifier.test_tag = "test_at_best_validation"
    (metrics,) = trainer.test(classifier, loader(2), verbose=False)
    assert metrics == pytest.approx(evaluated_by_hand(classifier.net, "test_at_best_validation"), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
def test_evaluation_is_summed_in_float32(precision: str) -> None:
    """bfloat16 counts to 256."""
    classifier = make_classifier()
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    batches = [(torch.rand(500, 1, 2, 2).to(dtype), torch.randint(3, (500,))) for _ in range(20)]
    trainer = make_trainer(precision=precision)
    (metrics,) = trainer.test(classifier, DataLoader(batches, batch_size=None), verbose=False)
    with torch.no_grad():
        losses = [cross_entropy(classifier.net(images).float(), labels).item() for images, labels in batches]
    assert metrics["test/loss"] == pytest.approx(sum(losses) / len(losses), rel=2e-3)


def test_a_batch_without_images_counts_nothing() -> None:
    """A process may have none of a small split."""
    expected = make_trainer().test(make_classifier(), loader(2), verbose=False)
    batches = [(torch.rand(0, 1, 2, 2), torch.zeros(0, dtype=torch.long)), *make_batches(2)]
    assert make_trainer().test(make_classifier(), DataLoader(batches, batch_size=None), verbose=False) == expected


def test_the_watched_test_set_is_not_called_validation() -> None:
    classifier = make_classifier(watched="watched_test")
    fit(classifier)
    assert classifier.history[0].keys() >= {"watched_test/loss", "watched_test/accuracy"}
    assert not [name for name in classifier.history[0] if name.startswith("val/")]


def test_one_loss_that_is_no_number_is_not_left_out_of_the_mean() -> None:
    batches = make_batches(2)
    batches[0][0][0] = float("nan")
    trainer = fit(classifier := make_classifier())
    (metrics,) = trainer.test(classifier, DataLoader(batches, batch_size=None), verbose=False)
    assert math.isnan(metrics["test/loss"])


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "message"),
    [
        (partial(torch.optim.SGD, lr=0.1, nesterov=True), schedules.constant, "Nesterov momentum requires"),
        (partial(torch.optim.Adam, lrr=0.1), schedules.constant, "unexpected keyword argument 'lrr'"),
        (partial(torch.optim.SGD, lr=0.1), partial(schedules.cosine, warmup=2), "scheduler.warmup"),
        (partial(torch.optim.SGD, lr=0.1), partial(schedules.cosine, foo=2), "unexpected keyword argument 'foo'"),
    ],
)
def test_settings_that_an_optimizer_or_schedule_refuses(optimizer, scheduler, message: str) -> None:
    classifier = Classifier(make_net(), optimizer, scheduler, classes=3)
    with pytest.raises(InputError, match=message):
        classifier.optimizer_and_schedule(total_steps=10, max_epochs=1)


def test_trying_a_step_leaves_the_network_as_it_was() -> None:
    decaying = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)  # it moves weights without a gradient, too
    classifier = Classifier(make_net(), decaying, schedules.constant, classes=3)
    classifier.check_optimizer(max_epochs=1)
    untouched = make_net()
    for ours, theirs in zip(classifier.net.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None


def test_the_pace_is_that_of_the_training() -> None:
    classifier = make_classifier()
    fit(classifier)
    (entry,) = classifier.history
    assert entry["images_per_second"] * entry["seconds"] == pytest.approx(sum(SIZES), rel=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "clip"), [(None, clip_grad_norm_), ("norm", clip_grad_norm_), ("value", clip_grad_value_)]
)
def test_gradients_are_clipped_as_told(algorithm: str | None, clip: Callable[..., Any]) -> None:
    classifier, net = make_classifier(), make_net()
    keys = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": algorithm}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(accelerator="cpu", max_epochs=1, **keys, **quiet).fit(classifier, loader(1))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    for images, labels in make_batches(1):
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        clip(net.parameters(), 0.05)
        optimizer.step()
    for parameter, other in zip(classifier.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(parameter, other)
