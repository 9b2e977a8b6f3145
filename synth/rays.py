"""One function for camera and LiDAR: rays through a view -> depth, and what each ray meets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from shards.geometry import FRONT_CENTER, raw_rays
from synth.road import CAMERA_HEIGHT_M, SURFACES, Floats, Road
from synth.solids import Solid, entry_depth

# What a ray meets, as a code: sky, distant woods, one of SURFACES, or one of the view's solids.
SKY, WOODS, FIRST_SURFACE = 0, 1, 2
FIRST_SOLID = FIRST_SURFACE + len(SURFACES)

WOODS_HEIGHT = 0.028  # above the horizon, at distance 1; the ridge's waves are lower than that
COARSE_PX = 8  # spacing of the rays that only count what hides what
Window = tuple[slice, slice] | EllipsisType


@dataclass(frozen=True)
class View:
    """Everything that rays can meet: the ground with its road, solids, and woods too far away to have a depth."""

    road: Road
    solids: tuple[Solid, ...]
    ridge: tuple[tuple[float, float, float], ...]  # the woods' outline: waves of (height, frequency, phase)

    @property
    def entries(self) -> tuple[str, ...]:
        """code -> its entry in class_list.json."""
        return ("Sky", "Nature object", *SURFACES, *(solid.entry for solid in self.solids))


@dataclass(frozen=True)
class Rays:
    """Rays from the camera's eye as (right, down) at distance 1, in arrays of one shape, (H, W) or (N,)."""

    right: Floats
    down: Floats
    # of an image: the least and the largest `right` of each column, and of `down` of each row
    columns: tuple[Floats, Floats] | None = None
    rows: tuple[Floats, Floats] | None = None

    def window(self, solid: Solid) -> Window:
        """The part of the arrays outside of which no ray meets the solid; all of them where that is not known."""
        if self.columns is None or self.rows is None:
            return ...
        x, y, z = solid.corners.T
        return _between(self.rows, -z / x), _between(self.columns, -y / x)


def _between(limits: tuple[Floats, Floats], values: Floats) -> slice:
    """The lines of the image whose rays come into the values' range."""
    least, largest = limits
    hit = np.flatnonzero((largest >= values.min()) & (least <= values.max()))
    return slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0)


def image_rays(right: Floats, down: Floats) -> Rays:
    """Rays of an image's pixels, (H, W) each."""
    columns = right.min(axis=0), right.max(axis=0)
    return Rays(right, down, columns, (down.min(axis=1), down.max(axis=1)))


@cache
def camera_rays() -> Rays:
    """(1208, 1920) float32: a ray for every pixel of the stored, distorted image; a second's work, once a process."""
    rays = raw_rays(FRONT_CENTER).astype(np.float32)
    return image_rays(np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1]))


@cache
def coarse_rays() -> Rays:
    """Every eighth of the camera's rays, both ways."""
    rays = camera_rays()
    return image_rays(rays.right[::COARSE_PX, ::COARSE_PX], rays.down[::COARSE_PX, ::COARSE_PX])


def woods_ridge(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """A random outline of distant woods."""
    frequencies, heights = (5.0, 13.0, 47.0, 131.0), (0.010, 0.005, 0.003, 0.0015)
    return tuple((h, f, float(rng.uniform(0, 6))) for h, f in zip(heights, frequencies, strict=True))


def trace(rays: Rays, view: View) -> tuple[Floats, NDArray[np.int16]]:
    """Depth (x in metres, inf in the sky and the woods) and code of what each ray meets, both of the rays' shape.

    Depth is along the camera's axis: a ray's point is depth * (1, -right, -down) in the view frame.
    """
    with np.errstate(divide="ignore"):
        depth = np.where(rays.down > 0, rays.down.dtype.type(CAMERA_HEIGHT_M) / rays.down, np.inf)
    codes = np.full(depth.shape, FIRST_SURFACE, dtype=np.int16)
    _trace_backdrop(rays, view, depth, codes)
    for number, solid in enumerate(view.solids):
        window = rays.window(solid)
        found = entry_depth(solid, rays.right[window], rays.down[window])
        nearer = found < depth[window]
        depth[window][nearer] = found[nearer]
        codes[window][nearer] = FIRST_SOLID + number
    ground = codes == FIRST_SURFACE
    codes[ground] += view.road.surface(depth[ground], -depth[ground] * rays.right[ground])
    return depth, codes


def _trace_backdrop(rays: Rays, view: View, depth: Floats, codes: NDArray[np.int16]) -> None:
    """Sky above the horizon, with woods along it."""
    depth[rays.down <= 0] = np.inf
    codes[rays.down <= 0] = SKY
    low = (rays.down <= 0) & (rays.down > -2 * WOODS_HEIGHT)
    right = rays.right[low]
    waves = sum(height * np.sin(frequency * right + phase) for height, frequency, phase in view.ridge)
    codes[low] = np.where(-rays.down[low] < WOODS_HEIGHT + waves, WOODS, SKY)
