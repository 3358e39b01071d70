"""What a run refuses, before it writes anything."""

from pathlib import Path

import pytest
import torch
from short_runs import QUICK, QUIET, train_in

from parsimony.errors import InputError

pytestmark = pytest.mark.filterwarnings(*(f"ignore:.*{message}.*" for message in QUIET))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("budget.parameters=5903", "5,904 parameters are 1 more than budget.parameters=5903"),
        ("budget.epochs=1 trainer.max_epochs=2", "2 epochs are 1 more than budget.epochs=1"),
        ("model=mnist_sep data=cifar10", "cannot take 3x32x32 images"),
        ("model=cifar_sep", "cannot take 1x28x28 images"),
        ("data=mnist data.source.classes=[a,b]", "gives 10 outputs on the images of mnist, which has 2 classes"),
        ("data.batch_size=309", "leaves a batch of 1 of the 1,237 training images, and batch norm needs two"),
        ("data.batch_size=103 trainer=ddp_cpu", "a batch of 1 of the 1,237 training images for 2 processes"),
        ("trainer.strategy=fsdp", "trainer.strategy takes one of auto, ddp, not fsdp"),
        ("data.validation=0 callbacks=[default,early_stopping]", "callbacks.early_stopping needs a validation split"),
        ("data.validation=test callbacks=[default,early_stopping]", "would choose the last epoch by the test set"),
        ("augment.crop_padding=40", "crop_padding=40 is too much"),
        ("+optimizer.lrr=1", "unexpected keyword argument 'lrr'"),
        ("scheduler=one_cycle scheduler.pct_start=2", "scheduler.pct_start must be a number from 0 to 1"),
        ("+trainer.profiler=foo", "Trainer cannot be built: .*simple"),
        ("+model.foo=1", "mnist_narrow cannot be built: .*'foo'"),
        ("model=mnist_micro model.width=1", "mnist_micro cannot be built: width takes a whole number of at least 2"),
        ("+model._partial_=true", "mnist_narrow gives no Module"),
        ("+model._recursive_=foo", "_recursive_ flag must be a bool"),
        ("data._target_=pytorch_lightning.LightningDataModule", "gives no ImageData"),
        ("data.source._target_=torch.nn.ReLU", "data.source gives a ReLU, which is no source of images"),
        ("+callbacks.x._target_=torch.nn.ReLU", "torch.nn.ReLU gives no Callback"),
        ("+logger.x._target_=torch.nn.ReLU", "torch.nn.ReLU gives no Logger"),
        ("optimizer=sgd optimizer.momentum=0", "refuses its settings: Nesterov momentum requires a momentum"),
        ("+trainer.limit_val_batches=1", "There is no trainer.limit_val_batches here"),
        ("+trainer.check_val_every_n_epoch=2", "There is no trainer.check_val_every_n_epoch here"),
        ("data.train_images=1438", "data.train_images=1438 is more than the 1,437 training images of digits"),
        ("engine.precision=16-mixed", "engine.precision=16-mixed is for GPUs: take bf16-mixed or 32-true on a CPU"),
        ("distillation.weight=0.9", "distillation.weight does nothing without distillation.teacher"),
        ("name=../up", "name takes a text such as mine or mine/first"),
        ("name=/tmp/mine", "name takes a text such as mine or mine/first"),
        ("trainer.devices=1000", "trainer.devices=1000 is out of range"),
        ("engine.precision=foo", "engine.precision takes one of auto, 32-true, .*, not foo"),
    ],
)
def test_refusals_leave_nothing_behind(
    overrides: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train_in(tmp_path / "run", *QUICK, *overrides.split())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trainer.accelerator=gpu needs a GPU .* shows none"):
        train_in(tmp_path / "run", *QUICK, "trainer=gpu")


def test_a_monitor_that_is_never_logged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"early_stopping.monitor takes one of train/loss, .*, not foo"):
        train_in(tmp_path, *QUICK, "callbacks=[default,early_stopping]", "callbacks.early_stopping.monitor=foo")


def test_training_builds_nothing_that_is_refused(tmp_path: Path) -> None:
    target = ("+callbacks.x._target_=torch.os.mkdir", f"+callbacks.x.path={tmp_path / 'proof'}")
    with pytest.raises(InputError, match=r"would run torch\.os\.mkdir"):
        train_in(tmp_path / "run", *QUICK, *target)
    assert list(tmp_path.iterdir()) == []
