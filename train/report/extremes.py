"""The val samples with the lowest and the highest losses of each regime's network, with their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.report.gallery import Tile, curve_plot, tile
from train.report.plots import BLACK, line_figure, to_svg
from train.report.runs import Column, RunResult
from train.report.text import number
from train.run_folder import EXTREMES, PICTURES
from train.sample_pieces import load_pieces
from train.tasks import DEFINITIONS

Place = tuple[str, int]  # worst or best, and the number among these


@dataclass(frozen=True)
class Extreme:
    """One sample: pictures of its label and its prediction, or a plot of both where the values are no pictures."""

    loss: str
    tiles: list[Tile]
    plot: str  # SVG


@dataclass(frozen=True)
class ExtremesTable:
    """One task's worst and best samples: a row per place, a cell per column."""

    task: str
    names: list[str]
    rows: list[tuple[str, list[Extreme | None]]]  # worst or best, and the cells


def build_extremes(task: str, columns: Sequence[Column]) -> ExtremesTable | None:
    """The samples that the first seed of each column has saved; None where none has."""
    held = [column for column in columns if task in column.cells]
    found = [_load(task, column.cells[task][0], column.colour, f"{task}-{n}") for n, column in enumerate(held)]
    places = dict.fromkeys(place for of_column in found for place in of_column)
    if not places:
        return None
    order = sorted(places, key=lambda place: (place[0] == "best", place[1]))
    rows = [(kind, [of_column.get((kind, number)) for of_column in found]) for kind, number in order]
    return ExtremesTable(task, [column.name for column in held], rows)


def _load(task: str, run: RunResult, colour: str, name: str) -> dict[Place, Extreme]:
    """The samples of one run; `name` keeps the ids of its plots apart."""
    found = {}
    for path in (run.folder / PICTURES / EXTREMES).glob(f"{task}.*.npz"):
        _, kind, place, _ = path.name.split(".", 3)
        pieces = load_pieces(path)
        losses = dict(run.record.get("extremes", {}).get(task, {}).get(kind, ()))
        loss = f"loss {number(losses.get(pieces.key))}"
        if DEFINITIONS[task].curve(pieces.truth[task]) is None:
            tiles = [tile(task, pieces, pieces.truth, "label"), tile(task, pieces, pieces.prediction, loss)]
            found[kind, int(place)] = Extreme(loss, tiles, "")
        else:
            plot = curve_plot(task, pieces, [(BLACK, pieces.truth), (colour, pieces.prediction)])
            figure = line_figure([plot], 1, linear=True, size_in=(2.5, 1.8))
            found[kind, int(place)] = Extreme(loss, [], to_svg(figure, f"{name}-{kind}-{place}"))
    return found
