"""Things that stand on the ground: upright boxes and ellipsoids, and where a ray enters them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth.road import Floats

# The order of A2D2's own 3d_points, as signs along length, width and height.
CORNERS = np.array(
    [(-1, 1, -1), (1, 1, -1), (1, -1, -1), (-1, -1, -1), (-1, 1, 1), (1, 1, 1), (1, -1, 1), (-1, -1, 1)],
    dtype=np.float64,
)


@dataclass(frozen=True)
class Solid:
    """One thing of the world, in the camera's view frame: x forward, y left, z up, metres."""

    look: str  # how it is painted, a key of looks.LOOKS
    entry: str  # its entry in class_list.json, the instance number included
    centre: tuple[float, float, float]
    size: tuple[float, float, float]  # length, width, height
    heading: float  # radians, left positive
    colour: tuple[float, float, float]  # RGB in 0..1
    round: bool = False  # the ellipsoid that fills the box
    box_class: str | None = None  # annotated with a 3D box of this class

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) float64."""
        x, y, z = (CORNERS * self.size / 2).T
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1) + self.centre

    def local(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Vectors of the view frame -> the same, turned into the solid's own axes (length, width, height)."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return cos * x + sin * y, cos * y - sin * x, z


def entry_depth(solid: Solid, right: Floats, down: Floats) -> Floats:
    """Rays from the camera as (right, down) at distance 1 -> depth in metres where they enter, inf where they miss."""
    half = np.array(solid.size) / 2
    ahead = np.ones((), dtype=right.dtype)
    ways = solid.local(ahead, -right, -down)
    origin = solid.local(*(-np.array(axis) for axis in solid.centre))
    if solid.round:
        return _enter_ellipsoid(half, origin, ways)
    return _enter_box(half, origin, ways)


def _enter_box(half: Floats, origin: tuple[Floats, ...], ways: tuple[Floats, ...]) -> Floats:
    """The slab method: the last of the three entries comes before the first of the three exits."""
    enter: Floats = np.zeros_like(ways[1])
    leave: Floats = np.full_like(ways[1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # a ray along a face: +-inf is the right answer
        for side, start, way in zip(half, origin, ways, strict=True):
            one, other = -float(side + start) / way, float(side - start) / way
            enter = np.maximum(enter, np.minimum(one, other))
            leave = np.minimum(leave, np.maximum(one, other))
    enter[~(enter <= leave)] = np.inf
    return enter


def _enter_ellipsoid(half: Floats, origin: tuple[Floats, ...], ways: tuple[Floats, ...]) -> Floats:
    """The nearer root of |origin + depth * way| = 1, in axes scaled to a unit ball."""
    start = [float(value) / float(side) for value, side in zip(origin, half, strict=True)]
    scaled = [way / float(side) for way, side in zip(ways, half, strict=True)]
    square = scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2
    inner = start[0] * scaled[0] + start[1] * scaled[1] + start[2] * scaled[2]
    under = inner * inner - square * (sum(value * value for value in start) - 1)
    depth = (-inner - np.sqrt(np.maximum(under, 0))) / square
    depth[(under <= 0) | (depth <= 0)] = np.inf
    return np.asarray(depth)
