"""Statistics of answers, by hand; and the views of test-time averaging."""

import math

import pytest
import torch

from parsimony.use.scores import ClassScore, calibration_error, confusion, losses, per_class, wilson
from parsimony.use.views import MOVED, described, probabilities, views


@pytest.mark.parametrize(("correct", "total"), [(8, 10), (1, 3), (9929, 10_000), (0, 10), (10, 10)])
def test_the_interval_is_wilsons(correct: int, total: int) -> None:
    """Its ends are the proportions from which the observed one lies 1.96 of their standard errors away."""
    for end in wilson(correct, total):
        distance = abs(correct / total - end)
        assert distance == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), abs=1e-7)
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert low < high


def test_the_interval_covers_as_often_as_it_says() -> None:
    n, p = 200, 0.97
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    covered = sum(chance for k, chance in enumerate(chances) if wilson(k, n)[0] <= p <= wilson(k, n)[1])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_precision_is_of_the_answers_and_recall_of_the_images() -> None:
    counts = confusion(torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 1, 1, 1, 1]), 4)
    assert counts.tolist() == [[1, 2, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert per_class(counts, ("ant", "bee", "cat", "dog")) == [
        ClassScore("ant", precision=1.0, recall=1 / 3, images=3),
        ClassScore("bee", precision=1 / 4, recall=1.0, images=1),
        ClassScore("cat", precision=None, recall=0.0, images=1),
        ClassScore("dog", precision=None, recall=None, images=0),
    ]


def test_the_calibration_error_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    sure = torch.tensor([[0.9, 0.1]] * 10)  # one bin: confidence 0.9
    right_in_six = torch.tensor([0] * 6 + [1] * 4)
    assert calibration_error(sure, right_in_six) == pytest.approx(0.3)
    both = torch.cat([sure, torch.tensor([[0.4, 0.6]] * 10)])  # and another bin: 0.6, always right
    assert calibration_error(both, torch.cat([right_in_six, torch.ones(10).long()])) == pytest.approx((0.3 + 0.4) / 2)


def test_the_last_bin_of_confidence_has_one_in_it() -> None:
    """1,000 answers in one bin, 985 of them right; their confidence is 0.98 on average."""
    sure = torch.tensor([[1.0, 0.0]] * 600 + [[0.95, 0.05]] * 400)
    right = torch.tensor([1] * 15 + [0] * 985)
    assert calibration_error(sure, right) == pytest.approx(0.005, abs=1e-5)


def test_the_loss_is_the_cross_entropy() -> None:
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(20) % 5
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(losses(logits.softmax(1), labels), expected)
    assert losses(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).isfinite().all()


def test_grey_images_are_moved_by_a_pixel_each_way() -> None:
    image = torch.zeros(1, 1, 5, 7, dtype=torch.uint8)
    image[0, 0, 2, 3] = 255
    assert [tuple(view[0, 0].nonzero()[0].tolist()) for view in views(image)] == [
        (2, 3),
        (1, 3),
        (3, 3),
        (2, 2),
        (2, 4),
    ]
    assert all(view.shape == image.shape and view.dtype == torch.uint8 for view in views(image))
    corner = torch.full((1, 1, 2, 2), 9, dtype=torch.uint8)
    assert views(corner)[1].tolist() == [[[[9, 9], [0, 0]]]], "black comes in from outside"
    assert described(1) == MOVED


def test_colour_images_are_mirrored() -> None:
    image = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4).to(torch.uint8)
    first, second = views(image)
    assert torch.equal(first, image)
    assert torch.equal(second[..., 0], image[..., 3])


def test_averaged_probabilities_are_the_mean_over_the_views() -> None:
    images = torch.randint(0, 256, (7, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).float()[:, :5] / 50

    seen = [logits(view).double().softmax(1) for view in views(images)]
    assert torch.allclose(probabilities(logits, images), seen[0])
    assert torch.allclose(probabilities(logits, images, averaged=True), (seen[0] + seen[1]) / 2)
    assert not torch.allclose(seen[0], seen[1])
