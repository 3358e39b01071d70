"""`parsimony export`: the files give the network's probabilities to programs that know nothing of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from example_run import EXAMPLE, copied, typed
from hydra.utils import instantiate
from safetensors import safe_open

from parsimony.data.sources import Digits, Split
from parsimony.nets.cifar import cifar_sep
from parsimony.trained import Trained, load
from parsimony.use import deployed, onnx_format
from parsimony.use.evaluation import score

TEST = Digits().load().test


@pytest.fixture
def parsimony(monkeypatch: pytest.MonkeyPatch):
    return lambda *words: typed(monkeypatch, "export", *words)


def probabilities(count: int) -> np.ndarray:
    with torch.inference_mode():
        return load(EXAMPLE).logits(TEST.images[:count]).softmax(1).numpy()


def pictures(count: int) -> np.ndarray:
    """As other programs have them: (n, h, w, c)."""
    return TEST.images[:count].permute(0, 2, 3, 1).numpy()


def run(path: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path)).run(None, {"images": images})[0]


def test_onnx_and_int8(parsimony, capsys, tmp_path: Path) -> None:
    path, small = tmp_path / "new" / "net.onnx", tmp_path / "new" / "net-int8.onnx"
    assert parsimony(EXAMPLE, "--int8", "--out", path) == 0
    shown = capsys.readouterr()
    assert sorted(file.name for file in path.parent.iterdir()) == ["net-int8.onnx", "net.onnx"]

    for count in (1, 7, 0):
        found = run(path, pictures(count))
        assert found.shape == (count, 10)
        assert np.abs(found - probabilities(count)).max(initial=0) < 1e-5
    model = onnx.load(path)
    (image,), (answer,) = model.graph.input, model.graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim][1:] == [28, 28, 1]
    assert answer.name == "probabilities"
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["classes"]) == list("0123456789")

    assert small.stat().st_size < 0.6 * path.stat().st_size
    weights = onnx.load(small).graph.initializer
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4 for tensor in weights) == 9
    before, after = ((run(file, pictures(360)).argmax(1) == TEST.labels.numpy()).mean() for file in (path, small))
    assert after > before - 0.02
    table = shown.out.splitlines()[-2:]
    for line, file, accuracy in zip(table, (path, small), (before, after), strict=True):
        assert line.split()[1:] == [f"{file.stat().st_size / 1000:.1f}", "KB", f"{100 * accuracy:.2f}", "%"]
    assert before == pytest.approx(score(load(EXAMPLE), "", TEST)[0].accuracy, abs=0.003)
    assert "largest difference from the network" in shown.out


def test_a_colour_network_with_dense_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, classes = cifar_sep().eval(), tuple("abcdefghij")
    config = {"model": {}, "trainer": {"max_epochs": 1}}
    trained = Trained(tmp_path, "cifar_sep", net, classes, (3, 32, 32), [], config, epoch=1)
    model = onnx_format._model(trained)
    onnx_format._write(trained, model, tmp_path / "net.onnx")
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = trained.logits(images).softmax(1).numpy()
    assert np.abs(run(tmp_path / "net.onnx", images.permute(0, 2, 3, 1).numpy()) - expected).max() < 1e-5
    onnx.save(onnx_format._quantised(trained, model, Split(images, torch.arange(20) % 10)), tmp_path / "small.onnx")
    assert np.abs(run(tmp_path / "small.onnx", images.permute(0, 2, 3, 1).numpy()) - expected).max() < 0.05
    assert (tmp_path / "small.onnx").stat().st_size < 0.45 * (tmp_path / "net.onnx").stat().st_size


def test_the_program_of_torch(parsimony, tmp_path: Path) -> None:
    assert parsimony(EXAMPLE, "--format", "torch", "--out", tmp_path / "net.pt2") == 0
    program = torch.export.load(tmp_path / "net.pt2").module()
    for count in (1, 7):
        found = program(torch.from_numpy(pictures(count)))
        assert np.abs(found.detach().numpy() - probabilities(count)).max() < 1e-6


def test_safetensors_hold_all_that_builds_the_network_again(parsimony, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assert parsimony(EXAMPLE, "--format", "safetensors", "--out", path) == 0
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        net = instantiate(json.loads(about["model"]))
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    with torch.inference_mode():
        assert np.abs(net.eval()(TEST.images[:5] / 255).softmax(1).numpy() - probabilities(5)).max() < 1e-6
    assert json.loads(about["classes"]) == list("0123456789")


def test_a_file_that_differs_is_refused_and_not_kept(parsimony, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deployed, "TOLERANCE", -1.0)
    (tmp_path / "net.pt2").write_text("of before")
    answer = str(parsimony(EXAMPLE, "--format", "torch", "--out", tmp_path / "net.pt2"))
    assert answer.startswith("error: The exported network's probabilities differ by up to")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert (tmp_path / "net.pt2").read_text() == "of before"


def test_the_difference_is_that_of_the_worst_probability() -> None:
    trained = load(EXAMPLE)
    net = deployed.deployed(trained)
    assert deployed.difference(trained, net) == 0
    assert deployed.difference(trained, lambda images: net(images) + 5e-5) == pytest.approx(5e-5, rel=0.01)
    for wrong in (2e-4, float("nan")):
        with pytest.raises(ValueError, match="no file was written"):
            deployed.difference(trained, lambda images, wrong=wrong: net(images) + wrong)


def test_what_gives_no_probabilities_is_not_kept(parsimony, monkeypatch, tmp_path: Path) -> None:
    sound = torch.tensor([[0.25, 0.75], [1, 0]])
    deployed.check_probabilities(sound)
    for wrong in (sound.log(), 2 * sound, torch.tensor([[-0.5, 1.5]]), sound * float("nan")):
        with pytest.raises(ValueError, match="are no probabilities: no file was written"):
            deployed.check_probabilities(wrong)
    quantised = onnx_format._quantised

    def ending_in_logarithms(*given):
        model = quantised(*given)
        next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "LogSoftmax"
        return model

    monkeypatch.setattr(onnx_format, "_quantised", ending_in_logarithms)
    assert "are no probabilities" in str(parsimony(EXAMPLE, "--int8", "--out", tmp_path / "net.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_is_no_file_to_write(out: str, parsimony) -> None:
    assert parsimony(EXAMPLE, "--out", out) == f"error: {out} is a folder: name a file."


def test_a_folder_that_bears_the_usual_name_is_no_file_to_write(parsimony, tmp_path: Path) -> None:
    folder = copied(tmp_path / "run")
    (folder / "export" / "mnist_narrow.onnx").mkdir(parents=True)
    assert parsimony(folder) == f"error: {folder}/export/mnist_narrow.onnx is a folder: name a file."


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_missing_extra_is_one_sentence(form: str, parsimony, monkeypatch) -> None:
    monkeypatch.setattr("parsimony.use.export.find_spec", lambda name: None)
    answer = str(parsimony(EXAMPLE, "--format", form))
    assert answer.startswith(f"error: --format {form} needs ")
    assert answer.endswith("pip install -e '.[export]'")


def test_int8_is_of_onnx_alone(parsimony) -> None:
    assert "--int8 quantises ONNX files: leave out --format torch." in str(
        parsimony(EXAMPLE, "--format", "torch", "--int8")
    )


def test_nothing_of_it_is_imported_before_it_is_needed() -> None:
    code = "import sys, parsimony.use.export; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_int8_is_calibrated_on_training_images_channel_by_channel_in_7_bits(parsimony, capsys, tmp_path) -> None:
    assert parsimony(EXAMPLE, "--int8", "--out", tmp_path / "net.onnx") == 0
    assert "quantised on 500 training images" in capsys.readouterr().out  # the test set has 360
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "net-int8.onnx").graph.initializer]
    kernels = [t for t in tensors if t.dtype == np.int8 and t.ndim == 4]
    assert kernels
    for kernel in kernels:
        assert np.abs(kernel.astype(int)).reshape(len(kernel), -1).max(1).tolist() == [64] * len(kernel)
