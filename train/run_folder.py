"""The files of a run folder: their names, and the two that both training and reporting read."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.toml"  # the effective config; --config accepts it unchanged
METRICS_FILE = "metrics.jsonl"  # a line per log interval, training epoch and validation
EVALUATION_FILE = "eval.json"  # the validation of best.pt; only a finished run has it
BASELINES_FILE = "baselines.json"  # scores of constant predictions
TABLE_FILE = "table.txt"  # eval.json for people
CARD_FILE = "model-card.md"
LAST, BEST = "last.pt", "best.pt"  # checkpoints: to resume from, and the one with the best validation
PICTURES = "pictures"  # folder of PNG files
PIECES = "pieces"  # folder below it with the arrays that the pictures are drawn from
EXTREMES = "extremes"  # folder beside it with those of the samples with the lowest and highest losses
WANDB_FILE = "wandb-id.txt"  # the id of the run at Weights & Biases
EVENTS = "tensorboard"  # folder of event files

# Config keys that may change when a run is resumed, because they change no weight.
FREE_KEYS = ("out", "shards", "device", "workers", "epochs", "log_every", "checkpoint_minutes", "older_checkpoints",
             "wandb")  # fmt: skip


def read_config(folder: Path) -> dict[str, Any]:
    """The tables of `config.toml`. Raises ValueError where the file cannot be read or is not TOML."""
    path = folder / CONFIG_FILE
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def metrics_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; one cut short by a kill is left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
