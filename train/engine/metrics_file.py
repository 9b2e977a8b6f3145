"""Writing `metrics.jsonl`, a JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from shards.writer import write_whole
from train.engine.run import Progress
from train.run_folder import metrics_lines


def append_line(path: Path, line: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    try:
        with path.open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error


def rewind_metrics(path: Path, progress: Progress) -> None:
    """Lines beyond the checkpoint are of groups that will be trained again."""
    lines = metrics_lines(path)
    kept = [
        line
        for line in lines
        if (line["epoch"] <= progress.epoch if line["kind"] == "epoch" else line["step"] <= progress.groups)
    ]
    if kept != lines or path.exists():
        write_whole(path, b"".join(orjson.dumps(line) + b"\n" for line in kept))
