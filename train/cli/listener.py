"""The listener of a training run: it writes TensorBoard's event files and lines on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from train.report.sample_pictures import draw_sample
from train.report.tensorboard import EventFiles
from train.report.text import EpochTable
from train.sample_pieces import Pieces


class TrainingListener:
    """Passes on each event of the training loop."""

    def __init__(
        self, folder: Path, step: int, wandb_project: str | None, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._table: EpochTable | None = None
        self._events = EventFiles(folder, at=step, wandb_project=wandb_project, config=config)

    def line(self, line: Mapping[str, Any]) -> None:
        """Add the curves of a line of `metrics.jsonl`."""
        self._events.line(line)

    def epoch(self, record: Mapping[str, Any], epochs: int, best: bool) -> None:
        """Print the validation of an epoch."""
        self._table = self._table or EpochTable(epochs)
        for line in self._table.lines(record, best):
            self._say(line)

    def sample(self, pieces: Pieces, step: int) -> None:
        """Add the picture of a val sample."""
        self._events.picture(pieces.key, draw_sample(pieces), step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._events.close()
