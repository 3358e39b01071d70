"""The pictures show what they say: read back from the figures."""

import pytest
import torch

from parsimony.pictures import confusion_matrix, grid, worst_mistakes

CLASSES = ("ant", "bee", "cat")


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (7, 3), (9, 3)])
def test_the_grid_holds_every_image_in_reading_order(count: int, rows: int) -> None:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 4, 5) / count
    sheet = grid(images, columns=3)
    assert sheet.shape == (3, rows * 5, 3 * 6)
    for i in range(count):
        row, column = divmod(i, 3)
        tile = sheet[:, row * 5 : row * 5 + 4, column * 6 : column * 6 + 5]
        assert (tile == i / count).all()
    assert (sheet[:, 4] == 1).all()
    assert (sheet[:, :, 5] == 1).all()


def test_the_confusion_matrix_counts_truth_by_answer() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])  # no cat at all
    guesses = torch.tensor([0, 0, 2, 1, 0])
    (axes,) = confusion_matrix(labels, guesses, CLASSES).axes
    counts = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    expected = [["2", "0", "1"], ["1", "1", "0"], ["0", "0", "0"]]
    assert counts == {(row, column): expected[row][column] for row in range(3) for column in range(3)}
    assert axes.get_ylabel() == "true class"
    shares = axes.images[0].get_array() ** 2
    assert shares[0, 0] == pytest.approx(2 / 3)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)


@pytest.mark.parametrize("channels", [1, 3])
def test_worst_mistakes_are_wrong_and_the_worst_comes_first(channels: int) -> None:
    images = torch.arange(5).view(-1, 1, 1, 1).expand(-1, channels, 4, 4) / 5
    labels = torch.tensor([0, 1, 2, 0, 1])
    guesses = torch.tensor([1, 1, 0, 2, 0])
    losses = torch.tensor([0.9, 99.0, 3.0, 2.0, 0.1])  # the second is right, however great its loss
    axes = worst_mistakes(images, labels, guesses, losses, classes=CLASSES, count=3).axes
    shown = [(a.get_title(), float(a.images[0].get_array().flat[0])) for a in axes if a.images]
    assert [title for title, _ in shown] == ["ant, not cat", "cat, not ant", "bee, not ant"]
    assert [value for _, value in shown] == pytest.approx([0.4, 0.6, 0.0])


@pytest.mark.parametrize("count", [1, 3, 25, 26])
def test_there_is_room_for_every_mistake(count: int) -> None:
    images, wrong = torch.zeros(30, 1, 2, 2), torch.ones(30, dtype=torch.int64)
    axes = worst_mistakes(images, wrong * 0, wrong, torch.rand(30), classes=CLASSES, count=count).axes
    assert sum(len(a.images) for a in axes) == count


def test_no_mistakes_make_an_empty_picture() -> None:
    right = torch.zeros(4, dtype=torch.int64)
    axes = worst_mistakes(torch.zeros(4, 1, 2, 2), right, right, torch.rand(4), classes=CLASSES, count=25).axes
    assert not any(a.images for a in axes)
