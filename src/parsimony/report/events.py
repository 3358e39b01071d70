"""The scalars and hyperparameters of one folder's event files, read as TensorBoard reads them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub import errors

# The reader that TensorBoard has of its own. Its EventFileLoader takes seconds to import where TensorFlow is
# installed, and does not tell a file that was cut off from one that ended.
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New as RecordReader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray


@dataclass
class Log:
    """What the event files of `folder` hold. A step that was logged again has its later value."""

    folder: Path
    scalars: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))  # tag -> step -> value
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    written: float = 0.0  # when a file was last written to: seconds since 1970
    warnings: list[str] = field(default_factory=list)


def read_log(folder: Path, names: Sequence[str]) -> Log:
    """The event files `names` of `folder`, in this order. What cannot be read is told in the log's warnings."""
    log = Log(folder)
    for name in names:
        path = folder / name
        scalar_tags: set[str] = set()  # a tensor says once a file that it is a scalar
        try:
            log.written = max(log.written, path.stat().st_mtime)
            for record in _records(path, log.warnings):
                _add(log, Event.FromString(record), scalar_tags)
        except OSError as error:
            log.warnings.append(f"{path}: {error.strerror}")
        except (DecodeError, ValueError, TypeError):
            log.warnings.append(f"{path}: a record holds no event that TensorBoard knows; the rest is left out")
    return log


def _records(path: Path, warnings: list[str]) -> Iterator[bytes]:
    size, read = path.stat().st_size, 0
    reader = RecordReader(str(path))
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return
        except errors.DataLossError as error:
            # A file that has grown meanwhile has only shown its end too early.
            if read < size:
                why = "ends within a record, as while it is written" if "truncated" in str(error) else "is damaged"
                warnings.append(f"{path}: {why}; the last {size - read:,} of {size:,} bytes are left out")
            return
        record = reader.record()
        read += len(record) + 16  # its length and two checksums
        yield record


def _add(log: Log, event: Event, scalar_tags: set[str]) -> None:
    if event.HasField("session_log") and event.session_log.status == SessionLog.START:
        # A run that goes on from a checkpoint: it logs again what it had logged after it.
        for steps in log.scalars.values():
            for step in [step for step in steps if step >= event.step]:
                del steps[step]
    for value in event.summary.value:
        plugin = value.metadata.plugin_data.plugin_name
        if plugin == "scalars":
            scalar_tags.add(value.tag)
        if value.HasField("simple_value"):
            log.scalars[value.tag][event.step] = value.simple_value
        elif value.tag in scalar_tags and all(dim.size == 1 for dim in value.tensor.tensor_shape.dim):
            log.scalars[value.tag][event.step] = float(make_ndarray(value.tensor).item())
        elif plugin == "hparams":
            content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for name, hyperparameter in content.session_start_info.hparams.items():
                log.hyperparameters[name] = getattr(hyperparameter, hyperparameter.WhichOneof("kind") or "null_value")
