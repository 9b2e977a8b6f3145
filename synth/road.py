"""The road: an arc with the car's own curvature that runs out straight, and the bands beside its middle line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

CAMERA_HEIGHT_M = 1.70  # the ground is the plane z = -1.70 of the camera's frame, as under the real boxes
BEND_M = 50.0  # the arc ends here: a full circle would come back into view
TIGHTEST_RADIUS_M = 60.0  # at 90 degrees of the wheel; a real car turns twice as tightly, and out of the view

EDGE_M = 0.3  # asphalt beyond the edge line's middle
LINE_M = 0.2  # width of a painted line
KERB_M = 0.3
DASH_M, DASH_PERIOD_M = 4.0, 8.0

SURFACES = (  # what the ground can be; the first four are bands outwards from the middle, both sides alike
    "RD normal street",
    "Solid line",
    "Curbstone",
    "Sidewalk",
    "Nature object",
    "Dashed line",
)


@dataclass(frozen=True)
class Road:
    """Positions on it are (along, across): metres of the car's own path, and metres to the left of it."""

    curvature: float  # 1/m, left positive
    lane_m: float  # width of one of the two lanes; the car drives in the middle of the right one
    sidewalk_m: float

    @property
    def edge_m(self) -> float:
        """From the road's middle line to its kerb."""
        return self.lane_m + EDGE_M

    @property
    def verge_m(self) -> float:
        """From the road's middle line to where the green begins."""
        return self.edge_m + KERB_M + self.sidewalk_m

    def across(self, from_middle_m: float) -> float:
        """Metres to the left of the road's middle line -> metres to the left of the car's path."""
        return from_middle_m + self.lane_m / 2

    def place(self, along: float, across: float) -> tuple[float, float, float]:
        """A position on the road -> x, y in metres and the road's heading there, radians, left positive."""
        bend = min(along, BEND_M)
        heading = self.curvature * bend
        half = heading / 2
        chord = bend * (math.sin(half) / half if half else 1.0)
        x = chord * math.cos(half) + (along - bend) * math.cos(heading) - across * math.sin(heading)
        y = chord * math.sin(half) + (along - bend) * math.sin(heading) + across * math.cos(heading)
        return x, y, heading

    def locate(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The way back: x, y in metres, of any one shape -> along, across."""
        kappa = self.curvature or 1e-9
        # R - |point - centre|, written so that nothing cancels when the radius R = 1 / kappa is huge
        root = np.hypot(kappa * x, 1 - kappa * y)
        across = (2 * y - kappa * (x * x + y * y)) / (1 + root)
        along = np.arctan2(kappa * x, 1 - kappa * y) / kappa
        end_x, end_y, heading = self.place(BEND_M, 0.0)
        cos, sin = math.cos(heading), math.sin(heading)
        straight = along > BEND_M
        along = np.where(straight, BEND_M + (x - end_x) * cos + (y - end_y) * sin, along)
        return along, np.where(straight, (y - end_y) * cos - (x - end_x) * sin, across)

    def surface(self, x: Floats, y: Floats) -> NDArray[np.int16]:
        """Ground points x, y -> index in SURFACES, of the same shape."""
        along, across = self.locate(x, y)
        off_middle = np.abs(across - self.lane_m / 2)
        half_line = LINE_M / 2
        limits = [
            self.lane_m - half_line,
            self.lane_m + half_line,
            self.edge_m,
            self.edge_m + KERB_M,
            self.verge_m,
        ]
        band = np.searchsorted(np.array(limits, dtype=off_middle.dtype), off_middle, side="right")
        surface = np.array([0, 1, 0, 2, 3, 4], dtype=np.int16)[band]
        surface[(off_middle < half_line) & (along % DASH_PERIOD_M < DASH_M)] = SURFACES.index("Dashed line")
        return surface


def curvature_of_wheel(angle_deg: float) -> float:
    """Angle of the steering wheel, left negative -> curvature in 1/m, left positive."""
    return -angle_deg / 90.0 / TIGHTEST_RADIUS_M
