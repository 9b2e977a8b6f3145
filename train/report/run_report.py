"""The documents of one run: pictures, loss curves, the table of results and the model card."""

from __future__ import annotations

from pathlib import Path

import orjson

from shards.writer import write_whole
from train.report.figures import draw_losses
from train.report.model_card import write_card
from train.report.sample_pictures import draw_pictures
from train.report.text import result_text
from train.run_folder import BEST, CONFIG_FILE, EVALUATION_FILE, METRICS_FILE, PICTURES, TABLE_FILE, metrics_lines


def write_run_report(folder: Path) -> str:
    """Write all documents of a finished run from the files in its folder. Returns a line about the model card."""
    record = orjson.loads((folder / EVALUATION_FILE).read_bytes())
    draw_pictures(folder / PICTURES)
    draw_losses(folder / PICTURES / "losses.png", metrics_lines(folder / METRICS_FILE))
    write_whole(folder / TABLE_FILE, (result_text(record, apart=True) + "\n").encode())
    return write_card(folder / BEST, record, (folder / CONFIG_FILE).read_text("utf-8"))
