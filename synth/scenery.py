"""Houses, trees, hedges, lamps and signs beside the road: drawn and hit by LiDAR, not annotated with boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from synth.defects import Defect
from synth.road import CAMERA_HEIGHT_M, KERB_M, Road
from synth.solids import Solid
from synth.world import RGB, DrawnFrame

NEAREST_M, FARTHEST_M = 7.0, 95.0  # along the road
LEAST_X_M = 3.0  # nothing beside or behind the camera
WIDEST_VIEW = 0.8  # |y| / x beyond which nothing is in the image

WALLS: tuple[RGB, ...] = (
    (0.86, 0.80, 0.66), (0.80, 0.62, 0.52), (0.78, 0.78, 0.76), (0.83, 0.72, 0.48), (0.66, 0.46, 0.38),
)  # fmt: skip
LEAVES: tuple[RGB, ...] = ((0.20, 0.40, 0.14), (0.30, 0.44, 0.14), (0.16, 0.34, 0.18), (0.45, 0.42, 0.14))


def draw_scenery(frame: DrawnFrame, road: Road, rng: np.random.Generator) -> tuple[Solid, ...]:
    """Both sides of the road, from the camera to the fog."""
    drawn = [solid for side in (-1, 1) for solid in _side(road, side, rng)]
    # a car that stands beside the road is there on purpose: the trees make way
    near = 16.0 if frame.defect is Defect.PARTLY_OUTSIDE else LEAST_X_M
    return tuple(solid for solid in drawn if _in_view(solid, near))


def _in_view(solid: Solid, near: float) -> bool:
    x, y, _ = solid.corners.T
    return bool(x.min() > near and (np.abs(y) < WIDEST_VIEW * x).any())


def _side(road: Road, side: int, rng: np.random.Generator) -> Iterator[Solid]:
    """One side of the road (-1 right, 1 left), from plot to plot."""
    along = NEAREST_M + float(rng.uniform(0, 8))
    while along < FARTHEST_M:
        plot_m = float(rng.uniform(14, 26))
        if rng.random() < 0.6:
            yield _house(road, side, along + plot_m / 2, plot_m, rng)
            if rng.random() < 0.5:
                yield _hedge(road, side, along + plot_m / 2, plot_m, rng)
        else:
            for part in (0.25, 0.7):
                yield from _tree(road, side, along + plot_m * part, rng)
        yield from _roadside(road, side, along, rng)
        along += plot_m


def _stand(
    road: Road, along: float, across: float, size: tuple[float, float, float], look: str, entry: str, colour: RGB,
    lift_m: float = 0.0, round_: bool = False,
) -> Solid:  # fmt: skip
    """A thing on the ground, or lift_m above it, turned as the road is."""
    x, y, heading = road.place(along, across)
    centre = (x, y, size[2] / 2 + lift_m - CAMERA_HEIGHT_M)
    return Solid(look, entry, centre, size, heading, colour, round_)


def _house(road: Road, side: int, along: float, plot_m: float, rng: np.random.Generator) -> Solid:
    size = (plot_m * float(rng.uniform(0.55, 0.8)), float(rng.uniform(8, 11)), float(rng.choice([5.6, 8.4, 11.2])))
    setback_m = float(rng.uniform(4, 8))
    across = road.across(side * (road.verge_m + setback_m + size[1] / 2))
    return _stand(road, along, across, size, "house", "Buildings", _choice(WALLS, rng))


def _hedge(road: Road, side: int, along: float, plot_m: float, rng: np.random.Generator) -> Solid:
    size = (plot_m * 0.6, 0.9, float(rng.uniform(0.8, 1.4)))
    return _stand(
        road, along, road.across(side * (road.verge_m + 1.5)), size, "hedge", "Nature object", _choice(LEAVES, rng)
    )


def _tree(road: Road, side: int, along: float, rng: np.random.Generator) -> Iterator[Solid]:
    width_m, trunk_m = float(rng.uniform(3.0, 5.0)), float(rng.uniform(1.8, 2.6))
    across = road.across(side * (road.verge_m + 0.7 + width_m / 2 + float(rng.uniform(0, 3))))
    size = (width_m, width_m, width_m * float(rng.uniform(1.0, 1.5)))
    brown = (0.32, 0.24, 0.17)
    yield _stand(road, along, across, (0.35, 0.35, trunk_m + 0.6), "plain", "Nature object", brown)
    yield _stand(road, along, across, size, "crown", "Nature object", _choice(LEAVES, rng), trunk_m, round_=True)


def _roadside(road: Road, side: int, along: float, rng: np.random.Generator) -> Iterator[Solid]:
    """Now and then a street lamp, now and then a traffic sign, on the sidewalk's edge nearest to the road."""
    across = road.across(side * (road.edge_m + KERB_M + 0.2))
    chance, grey = rng.random(), (0.55, 0.56, 0.58)
    if chance < 0.35:
        yield _stand(road, along, across, (0.16, 0.16, 6.5), "plain", "Poles", grey)
        yield _stand(road, along, across - side * 0.5, (0.3, 1.2, 0.15), "plain", "Poles", grey, 6.5)
    elif chance < 0.6:
        sign = (0.9, 0.1, 0.1) if rng.random() < 0.5 else (0.1, 0.3, 0.8)
        yield _stand(road, along, across, (0.1, 0.1, 2.2), "plain", "Poles", grey)
        yield _stand(road, along, across, (0.1, 0.8, 0.8), "sign", "Traffic sign 1", sign, 2.2)


def _choice(colours: tuple[RGB, ...], rng: np.random.Generator) -> RGB:
    red, green, blue = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.88, 1.12)
    return float(red), float(green), float(blue)
