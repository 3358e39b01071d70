"""A trained network as ONNX, in 32-bit floats and in 8-bit integers, checked with onnxruntime."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from parsimony.data.datamodule import EVALUATION_BATCH, stratified
from parsimony.data.sources import Split
from parsimony.trained import Trained
from parsimony.use.data import split_of
from parsimony.use.deployed import (
    INPUT,
    OUTPUT,
    check_probabilities,
    deployed,
    difference,
    kept_if_sound,
    kilobytes,
    samples,
    written,
)

CALIBRATION = 500  # training images, their classes in proportion
# Not the softmax: probabilities in steps of 1/256 would be a loss for nothing.
QUANTISED = ["Conv", "Gemm", "MatMul", "MaxPool", "Relu"]


def export(trained: Trained, path: Path) -> str:
    """Writes the network in 32-bit floats; says what was written."""
    return _write(trained, _model(trained), path)


def export_with_int8(trained: Trained, path: Path) -> list[str]:
    """As `export`, and NAME-int8 beside it, calibrated on training images; says what each is worth on the test set."""
    _, train = split_of(trained, "train")
    title, test = split_of(trained, "test")
    model = _model(trained)
    small = _quantised(trained, model, train)
    first = _write(trained, model, path)
    second = path.with_stem(f"{path.stem}-int8")
    with kept_if_sound(second) as beside:
        onnx.save(small, beside)
        check_probabilities(_session(beside)(samples(trained)))
    rows = [("float32", path), ("int8", second)]
    table = [f"{kind:<8} {kilobytes(file):>10}  {100 * accuracy(file, test):.2f} %" for kind, file in rows]
    return [
        first,
        f"{second}: {kilobytes(second)}, quantised on {min(CALIBRATION, len(train.labels))} training images",
        f"accuracy on {title}, {len(test.labels):,} images, by onnxruntime:",
        *table,
    ]


def accuracy(path: Path, split: Split) -> float:
    """That of an exported file, from 0 to 1."""
    run = _session(path)
    parts = zip(split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True)
    right = sum((run(images.permute(0, 2, 3, 1)).argmax(1) == labels).sum().item() for images, labels in parts)
    return right / len(split.labels)


def _model(trained: Trained) -> Any:
    """As torch exports it."""
    with _quiet():
        program = torch.onnx.export(
            deployed(trained),
            (samples(trained, 2),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _write(trained: Trained, model: Any, path: Path) -> str:
    with kept_if_sound(path) as beside:
        onnx.save(_compact(model, trained), beside)
        largest = difference(trained, _session(beside))
    return written(path, largest, f"float32, opset {model.opset_import[0].version}, any batch")


def _compact(model: Any, trained: Trained) -> Any:
    """A copy without what nobody runs: the exporter's notes, and names longer than some of the tensors they name."""
    compact = onnx.ModelProto()
    compact.CopyFrom(model)
    graph = compact.graph
    short = {value.name: value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)
        for names in (node.input, node.output):
            names[:] = [short.setdefault(name, f"{len(short):x}") if name else "" for name in names]
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
        tensor.ClearField("doc_string")
    for field in ("value_info", "metadata_props", "doc_string"):
        graph.ClearField(field)
    used = {node.domain for node in graph.node}
    opsets = [opset for opset in compact.opset_import if opset.domain in used]
    compact.ClearField("opset_import")
    compact.opset_import.extend(opsets)
    compact.ClearField("metadata_props")
    about = {"name": trained.name, "classes": json.dumps(trained.classes), "weights": trained.weights}
    onnx.helper.set_model_props(compact, about)
    onnx.checker.check_model(compact, full_check=True)
    return compact


def _quantised(trained: Trained, model: Any, train: Split) -> Any:
    """Weights in signed 8 bits a channel, activations in signed 8 bits, in the QDQ form that most runtimes read.

    Of the weights' 8 bits 7 are used: processors without VNNI add pairs of products in 16 bits, which 8 would overflow.
    """
    chosen = train.images[stratified(train.labels, min(CALIBRATION, len(train.labels)))]
    with TemporaryDirectory() as folder, _quiet():
        plain, ready, done = (str(Path(folder, name)) for name in ("plain.onnx", "ready.onnx", "done.onnx"))
        onnx.save(model, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            _Calibration(chosen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return _compact(onnx.load(done), trained)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxruntime say of their own insides, and advice to do what is done here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Calibration(CalibrationDataReader):
    def __init__(self, images: Tensor) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{INPUT: part.permute(0, 2, 3, 1).numpy()} for part in images.split(100)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def _session(path: Path) -> Any:
    """The file as a function of uint8 images (n, h, w, c)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
