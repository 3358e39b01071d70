"""Lightning's CSV logger begins its file anew each time; a run that goes on needs the rows it has."""

import csv
import math
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment


class CSVLogger(loggers.CSVLogger):
    """Lightning's, with its keys. Of a metrics.csv that is there it keeps the rows of steps before `purge_step`."""

    def __init__(self, *args: Any, purge_step: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._purge_step = purge_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is not None:
            return super().experiment
        rows = self._rows()  # read now: Lightning's writer removes the file
        writer = super().experiment
        writer.metrics = [row for row in rows if _step(row) < self._purge_step]
        writer.save()
        return writer

    def _rows(self) -> list[dict[str, Any]]:
        path = Path(self.log_dir, ExperimentWriter.NAME_METRICS_FILE)
        if not path.is_file():
            return []
        with path.open(newline="", errors="replace") as file:
            # None: a line that is cut off, or longer than the header
            return [row for row in csv.DictReader(file) if None not in row and None not in row.values()]


def _step(row: dict[str, Any]) -> float:
    """Beyond all others where the row is damaged: it is not kept."""
    try:
        return int(row["step"])
    except (KeyError, ValueError):
        return math.inf
