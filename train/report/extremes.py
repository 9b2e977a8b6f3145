"""The val samples with the lowest and the highest losses of each regime's network, with their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.report.gallery import Tile, curve_plot, tile
from train.report.plots import BLACK, line_figure, to_svg
from train.report.runs import Column, RunResult
from train.report.text import number
from train.run_folder import EXTREMES, PICTURES
from train.sample_pieces import Pieces, load_pieces
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
    found = [_load(task, column.cells[task][0]) for column in held]
    places = dict.fromkeys(place for of_column in found for place in of_column)
    if not places:
        return None
    y_range = _common_range(task, [pieces for of_column in found for pieces in of_column.values()])
    rows = []
    for place in sorted(places, key=lambda place: (place[0] == "best", place[1])):
        cells = [_cell(task, column, place, of_column.get(place), y_range)
                 for column, of_column in zip(held, found, strict=True)]  # fmt: skip
        rows.append((place[0], cells))
    return ExtremesTable(task, [column.name for column in held], rows)


def _load(task: str, run: RunResult) -> dict[Place, Pieces]:
    """The samples of one run."""
    found = {}
    for path in (run.folder / PICTURES / EXTREMES).glob(f"{task}.*.npz"):
        _, kind, place, _ = path.name.split(".", 3)
        found[kind, int(place)] = load_pieces(path)
    return found


def _common_range(task: str, samples: Sequence[Pieces]) -> tuple[float, float]:
    """The least and the greatest value of all curves, with a margin."""
    curve = DEFINITIONS[task].curve
    values = [value for one in samples for of in (one.truth, one.prediction) for value in curve(of[task]) or ()]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _cell(
    task: str, column: Column, place: Place, pieces: Pieces | None, y_range: tuple[float, float]
) -> Extreme | None:
    if pieces is None:
        return None
    kind, number_of_kind = place
    losses = dict(column.cells[task][0].record.get("extremes", {}).get(task, {}).get(kind, ()))
    loss = f"loss {number(losses.get(pieces.key))}"
    if DEFINITIONS[task].curve(pieces.truth[task]) is None:
        tiles = [tile(task, pieces, pieces.truth, "label"), tile(task, pieces, pieces.prediction, loss)]
        return Extreme(loss, tiles, "")
    plot = curve_plot(task, pieces, [(BLACK, pieces.truth), (column.colour, pieces.prediction)])
    figure = line_figure([plot], 1, linear=True, y_range=y_range, size_in=(2.5, 1.8))
    name = f"{task}-{kind}-{number_of_kind}-{column.colour.removeprefix('#')}"
    return Extreme(loss, [], to_svg(figure, name))
