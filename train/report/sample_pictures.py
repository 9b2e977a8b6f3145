"""Pictures of single samples, labels above predictions, drawn from the arrays that a run has saved."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from shards.draw import Picture, panel, stack_panels
from train.run_folder import PIECES
from train.sample_pieces import Pieces, View, load_pieces


def draw_pictures(folder: Path) -> None:
    """Write `<key>.png` into the folder for each array file in its `pieces` folder."""
    for path in sorted((folder / PIECES).glob("*.npz")):
        Image.fromarray(draw_sample(load_pieces(path))).save(folder / f"{path.stem}.png")


def draw_sample(pieces: Pieces) -> Picture:
    """(H, W, 3) uint8 RGB: a row with the labels, under it a row with the predictions."""
    return stack_panels([_row(pieces, "truth", pieces.truth), _row(pieces, "prediction", pieces.prediction)])


def _row(pieces: Pieces, title: str, view: View) -> Picture:
    return panel(
        pieces.image,
        title=title,
        segmentation=view.segmentation,
        depth_m=view.depth_m,
        boxes=view.boxes,
        angles_deg=view.angles_deg,
        max_m=pieces.max_m,
    )
