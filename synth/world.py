"""The plan of a synthetic drive: scenes, their light and steering, frames and their times."""

from __future__ import annotations

import calendar
import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.defects import Defect, place_defects, scene_has_lidar
from synth.road import Road, curvature_of_wheel

FIRST_DAY = datetime.date(2018, 8, 7)  # that of A2D2's first scene
DAYS_BETWEEN_SCENES = 5
FRAME_US = 33_333  # the camera's 30 frames a second; a scene keeps about one in ninety
ID_GAP = (75, 106)  # between the ids of two kept frames

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """The look of a scene: one time of day, one weather, one kind of street. Colours are RGB in 0..1."""

    sun: RGB  # unit vector towards it, in the camera's view frame
    tint: RGB
    horizon: RGB
    zenith: RGB
    asphalt: float  # grey
    grass: RGB
    clouds: float  # 0..1
    lane_m: float
    sidewalk_m: float


@dataclass(frozen=True)
class Steering:
    """The wheel's angle over time: two sine waves that cross zero together once."""

    zero_us: int
    amplitudes_deg: tuple[float, float]
    periods_s: tuple[float, float]

    def angle_deg(self, times_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Times in us, of any shape -> signed angle of the steering wheel in degrees, left negative."""
        seconds = (times_us - self.zero_us) * 1e-6
        waves = zip(self.amplitudes_deg, self.periods_s, strict=True)
        return np.asarray(sum(top * np.sin(2 * np.pi / period * seconds) for top, period in waves))


@dataclass(frozen=True)
class Scene:
    """One recording."""

    index: int
    name: str  # 20180807_145028
    has_lidar: bool
    light: Light
    steering: Steering

    @property
    def stamp(self) -> str:
        """The name as file names have it."""
        return self.name.replace("_", "")


@dataclass(frozen=True)
class DrawnFrame:
    """One exposure of the front centre camera."""

    scene: Scene
    index: int
    frame_id: str  # nine digits
    timestamp_us: int
    defect: Defect | None
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator for what this frame draws, the same wherever and whenever it is drawn."""
        return np.random.default_rng([self.seed, self.scene.index, self.index + 1])

    @property
    def road(self) -> Road:
        """The road that the wheel's angle at the image's time follows."""
        light = self.scene.light
        angle_deg = float(self.scene.steering.angle_deg(np.array(self.timestamp_us)))
        return Road(curvature_of_wheel(angle_deg), light.lane_m, light.sidewalk_m)

    def file_name(self, kind: str, extension: str) -> str:
        """`label`, `png` -> `20180807145028_label_frontcenter_000006882.png`."""
        return f"{self.scene.stamp}_{kind}_frontcenter_{self.frame_id}.{extension}"


def plan(scenes: int, frames: int, seed: int) -> list[list[DrawnFrame]]:
    """All frames of a set, a list per scene."""
    defects = place_defects(scenes, frames)
    return [_plan_scene(index, frames, seed, scene_has_lidar(index, scenes), defects) for index in range(scenes)]


def _plan_scene(
    index: int, frames: int, seed: int, has_lidar: bool, defects: dict[tuple[int, int], Defect]
) -> list[DrawnFrame]:
    # the third number is 0 here and 1 or more in DrawnFrame.rng: numpy takes [a, b] and [a, b, 0] for the same seed
    rng = np.random.default_rng([seed, index, 0])
    day = FIRST_DAY + datetime.timedelta(days=DAYS_BETWEEN_SCENES * index)
    noon = datetime.datetime.combine(day, datetime.time(8))
    start = noon + datetime.timedelta(seconds=int(rng.integers(0, 9 * 3600)))
    ids = np.cumsum(rng.integers(*ID_GAP, size=frames))
    times_us = calendar.timegm(start.timetuple()) * 1_000_000 + ids * FRAME_US
    steering = _draw_steering(rng, int(times_us[min(2, frames - 1)]) + 60_000)
    scene = Scene(index, start.strftime("%Y%m%d_%H%M%S"), has_lidar, _draw_light(rng), steering)
    return [
        DrawnFrame(scene, number, f"{frame_id:09d}", int(time_us), defects.get((index, number)), seed)
        for number, (frame_id, time_us) in enumerate(zip(ids, times_us, strict=True))
    ]


def _draw_steering(rng: np.random.Generator, zero_us: int) -> Steering:
    """Slow enough to be smooth, fast enough that eight frames in a row see both signs; up to about 90 degrees."""
    side = rng.choice([-1.0, 1.0])
    slow, quick = rng.uniform(52.0, 64.0), rng.uniform(16.0, 26.0)
    periods_s = (float(rng.uniform(15.0, 19.0)), float(rng.uniform(6.5, 8.0)))
    return Steering(zero_us, (float(side * slow), float(side * quick)), periods_s)


def _draw_light(rng: np.random.Generator) -> Light:
    warm = float(rng.uniform(-1.0, 1.0))
    bright = float(rng.uniform(0.9, 1.05))
    azimuth, height = rng.uniform(-2.6, 2.6), rng.uniform(0.45, 0.8)
    reach = float(np.sqrt(1 - height**2))
    grass = (rng.uniform(0.28, 0.42), rng.uniform(0.42, 0.52), rng.uniform(0.16, 0.24))
    return Light(
        sun=_floats(reach * np.cos(azimuth), reach * np.sin(azimuth), height),
        tint=_floats(bright * (1 + 0.05 * warm), bright, bright * (1 - 0.07 * warm)),
        horizon=_floats(0.83 + 0.05 * warm, 0.86, 0.90 - 0.04 * warm),
        zenith=_floats(0.36 + 0.1 * rng.random(), 0.56 + 0.08 * rng.random(), 0.84),
        asphalt=float(rng.uniform(0.30, 0.40)),
        grass=_floats(*grass),
        clouds=float(rng.uniform(0.2, 0.9)),
        lane_m=float(rng.uniform(3.3, 3.7)),
        sidewalk_m=float(rng.uniform(1.9, 2.5)),
    )


def _floats(*values: Any) -> RGB:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
