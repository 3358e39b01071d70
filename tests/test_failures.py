"""What becomes of a run that breaks off."""

from pathlib import Path

import pytest
from short_runs import QUICK, QUIET, train_in
from torch import Tensor, nn

from parsimony.endings import status
from parsimony.errors import InputError, RunError
from parsimony.runs import Result, replace_file

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))


def failing(dropout: float) -> nn.Module:
    """In the place of a network: breaks in the third training step."""
    return Failing(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(dropout))


class Failing(nn.Sequential):
    steps = 0

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        if self.steps == 3:
            raise RuntimeError("out of luck")
        return super().forward(input)


class Interrupting(Failing):
    def forward(self, input: Tensor) -> Tensor:
        try:
            return super().forward(input)
        except RuntimeError:
            raise KeyboardInterrupt from None


def interrupting(dropout: float) -> nn.Module:
    return Interrupting(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(dropout))


def broken_off(tmp_path: Path, network: str, error: type[BaseException]) -> Result:
    keys = (
        "model=mnist_plain",
        f"model._target_=test_failures.{network}",
        "allow_targets=[test_failures]",
        "++trainer.limit_train_batches=2",
    )
    with pytest.raises(error):
        train_in(tmp_path / "run", *QUICK, *keys, "trainer.max_epochs=3")
    return Result.read(tmp_path / "run" / "result.json")


def failure(folder: Path, error: type[Exception], *overrides: str) -> str:
    """The sentence with which a run ends that fails after it began, which its result.json repeats."""
    with pytest.raises(error) as caught:
        train_in(folder, *QUICK, *overrides)
    assert Result.read(folder / "result.json").status == f"failed: {caught.value}"
    return str(caught.value)


def test_what_lightning_finds_only_in_training_is_one_sentence(tmp_path: Path) -> None:
    text = failure(tmp_path / "run", InputError, "++trainer.limit_train_batches=0.001")
    assert "Please increase the `limit_train_batches` argument" in text


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = failure(tmp_path / "run", RunError, f"logger.tensorboard.name={tmp_path / 'file' / 'x'}")
    assert f"Not a directory: {tmp_path / 'file' / 'x'}. No epoch is kept; to go on: python train.py resume=" in text


def test_a_failure_is_recorded(tmp_path: Path) -> None:
    result = broken_off(tmp_path, "failing", RuntimeError)
    assert result.status == "failed: out of luck"
    assert (result.epochs, result.final, result.best) == (1, None, None)
    assert [epoch["epoch"] for epoch in result.history] == [1]
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_an_interruption_is_recorded(tmp_path: Path) -> None:
    result = broken_off(tmp_path, "interrupting", BaseException)
    assert (result.status, result.epochs) == ("interrupted", 1)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()  # a place where no file can go
    with pytest.raises(OSError, match=r"result\.json"):
        replace_file(tmp_path / "result.json", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    replace_file(tmp_path / "other", "old")
    replace_file(tmp_path / "other", "new")
    assert (tmp_path / "other").read_text() == "new"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RunError("out of luck"), "failed: out of luck"),
        (MemoryError(), "failed: MemoryError"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_a_result_says_of_the_end(error: BaseException, expected: str) -> None:
    assert status(error) == expected
