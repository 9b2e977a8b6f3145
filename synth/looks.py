"""Colours of solids: one for each point of a surface, by the face it lies on. Outlines do not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.road import Floats
from synth.solids import Solid
from synth.world import RGB

Mask = NDArray[np.bool_]
Details = Iterator[tuple[Mask | np.bool_, RGB]]  # later ones are painted over earlier ones

GLASS: RGB = (0.10, 0.13, 0.17)
TYRE: RGB = (0.05, 0.05, 0.06)
SKIN: RGB = (0.85, 0.65, 0.52)
TROUSERS: RGB = (0.13, 0.15, 0.24)
WHITE: RGB = (0.92, 0.92, 0.88)
TAIL: RGB = (0.95, 0.05, 0.08)


@dataclass(frozen=True)
class Face:
    """Points on a solid's faces, (N,) each."""

    end: Mask  # on its front or back
    side: Mask  # on its left or right
    front: Mask  # on its front
    across: Floats  # -1..1 along the face: width on an end, length elsewhere
    across_m: Floats
    up: Floats  # 0..1 of the height
    up_m: Floats


def paint(solid: Solid, points: tuple[Floats, Floats, Floats], sun: RGB) -> Floats:
    """Points on the solid, x, y, z in the view frame, (N,) each -> (N, 3) RGB in 0..1, lit by the sun."""
    local = solid.local(*(axis - middle for axis, middle in zip(points, solid.centre, strict=True)))
    parts = [axis / (side / 2) for axis, side in zip(local, solid.size, strict=True)]
    colours = np.empty((len(local[0]), 3), dtype=np.float32)
    colours[:] = solid.colour
    if solid.round:
        normals = [part / side for part, side in zip(parts, solid.size, strict=True)]
        length = np.sqrt(sum(axis * axis for axis in normals))
        light = _light(solid, [axis / length for axis in normals], sun)
        return colours * (light * _leaves(local))[:, None]
    nearest = np.argmax(np.abs(parts), axis=0)
    normals = [np.where(nearest == axis, np.sign(parts[axis]), 0) for axis in range(3)]
    if look := LOOKS.get(solid.look):
        for mask, colour in look(_face(local, parts, nearest, solid)):
            colours[mask] = colour
    light = _light(solid, normals, sun)
    if solid.look == "hedge":
        light = light * _leaves(local)
    return colours * light[:, None]


def _face(local: tuple[Floats, ...], parts: list[Floats], nearest: NDArray[np.intp], solid: Solid) -> Face:
    end = nearest == 0
    return Face(
        end=end,
        side=nearest == 1,
        front=end & (parts[0] > 0),
        across=np.where(end, parts[1], parts[0]),
        across_m=np.where(end, local[1], local[0]),
        up=(parts[2] + 1) / 2,
        up_m=local[2] + solid.size[2] / 2,
    )


def _light(solid: Solid, normals: list[Any], sun: RGB) -> Floats:
    """Brightness by how far a face is turned to the sun."""
    x, y, z = solid.local(*(np.asarray(axis) for axis in sun))
    facing = normals[0] * float(x) + normals[1] * float(y) + normals[2] * float(z)
    return np.asarray(0.66 + 0.42 * np.maximum(facing, 0), dtype=np.float32)


def _leaves(local: tuple[Floats, ...]) -> Floats:
    """A leafy pattern, about 0.8..1.2."""
    x, y, z = local
    waves = np.sin(9.1 * x + 3 * z) * np.sin(7.3 * y - 2 * x) + np.sin(8.3 * z + 5 * y) * np.sin(17 * x + 13 * y)
    return np.asarray(1 + 0.11 * waves)


def _car(face: Face) -> Details:
    yield face.up < 0.1, TYRE
    glass = (face.up > 0.58) & (face.up < 0.93)
    yield glass & face.end & (np.abs(face.across) < 0.82), GLASS
    pillar = np.abs(face.across + 0.02) < 0.035
    yield glass & face.side & (np.abs(face.across + 0.08) < 0.68) & ~pillar, GLASS
    yield from _lamps_and_plate(face, 0.38, 0.52)
    yield from _wheels(face, 0.34, 0.62)


def _van(face: Face) -> Details:
    yield face.up < 0.1, TYRE
    glass = (face.up > 0.6) & (face.up < 0.9)
    yield glass & face.end & (np.abs(face.across) < 0.85), GLASS
    yield glass & face.side & (face.across > 0.3) & (face.across < 0.85), GLASS
    yield from _lamps_and_plate(face, 0.3, 0.48)
    yield from _wheels(face, 0.36, 0.65)


def _truck(face: Face) -> Details:
    cab = (face.side & (face.across > 0.62)) | face.front
    yield cab, (0.88, 0.88, 0.90)
    yield cab & (face.up > 0.5) & (face.up < 0.78) & (np.abs(face.across) < 0.93), GLASS
    yield face.end & ~face.front & (np.abs(face.across) < 0.02), (0.3, 0.3, 0.3)
    yield face.up < 0.18, (0.16, 0.16, 0.17)
    yield from _lamps_and_plate(face, 0.19, 0.25)
    yield from _wheels(face, 0.5, 0.7)


def _bus(face: Face) -> Details:
    yield face.up < 0.08, TYRE
    glass = (face.up > 0.42) & (face.up < 0.82)
    yield glass & face.side & (np.abs(face.across_m % 1.6 - 0.8) > 0.06), GLASS
    yield (face.up > 0.4) & (face.up < 0.85) & face.end & (np.abs(face.across) < 0.88), GLASS
    yield (face.up > 0.88) & (face.up < 0.97) & face.end & (np.abs(face.across) < 0.6), (0.95, 0.65, 0.1)
    yield from _lamps_and_plate(face, 0.16, 0.28)
    yield from _wheels(face, 0.5, 0.65)


def _lamps_and_plate(face: Face, low: float, high: float) -> Details:
    lamps = face.end & (np.abs(face.across) > 0.68) & (np.abs(face.across) < 0.97) & (face.up > low) & (face.up < high)
    yield lamps & face.front, (1.0, 0.97, 0.78)
    yield lamps & ~face.front, TAIL
    plate = (np.abs(face.across_m) < 0.26) & (face.up_m > 0.42) & (face.up_m < 0.56)
    yield face.end & plate, WHITE


def _wheels(face: Face, radius_m: float, at: float) -> Details:
    axle = (face.across_m / np.where(face.across == 0, 1, face.across)) * at  # metres from the middle to an axle
    away = np.hypot(np.abs(face.across_m) - axle, face.up_m - radius_m)
    yield face.side & (away < radius_m), TYRE
    yield face.side & (away < 0.55 * radius_m), (0.6, 0.6, 0.62)


def _pedestrian(face: Face) -> Details:
    yield face.up < 0.48, TROUSERS
    yield (face.up < 0.46) & (np.abs(face.across) < 0.08), (0.4, 0.4, 0.4)
    yield face.up < 0.05, TYRE
    yield (face.up > 0.85) & (np.abs(face.across) < 0.55), SKIN
    yield (face.up > 0.95) | ((face.up > 0.85) & (np.abs(face.across) > 0.55)), (0.22, 0.15, 0.1)


def _cyclist(face: Face) -> Details:
    """Seen from the side two wheels and a rider, from an end one wheel between two legs."""
    low = face.up < 0.5
    yield low, (0.44, 0.44, 0.45)
    yield low & face.side & (np.abs(face.across - 0.2 + face.up) < 0.16) & (face.up > 0.12), TROUSERS
    yield low & face.end & (np.abs(np.abs(face.across) - 0.45) < 0.22) & (face.up > 0.12), TROUSERS
    away = np.hypot(np.abs(face.across_m) - 0.56, face.up_m - 0.33)
    yield face.side & (away < 0.33) & (away > 0.24), TYRE
    yield face.end & (np.abs(face.across) < 0.16) & (face.up < 0.4), TYRE
    yield (face.up > 0.5) & (face.up < 0.58), TROUSERS
    yield face.end & ~face.front & (np.abs(face.across) < 0.2) & (np.abs(face.up - 0.44) < 0.03), TAIL
    yield (face.up > 0.84) & (np.abs(face.across) < 0.5), SKIN
    yield face.up > 0.92, WHITE


def _house(face: Face) -> Details:
    wall = face.end | face.side
    across, storey = (face.across_m + 50) % 2.6, face.up_m % 2.8
    frame = (across > 0.7) & (across < 1.9) & (storey > 0.85) & (storey < 2.25)
    roof = face.up > 0.86
    yield wall & frame & ~roof, WHITE
    glass = (np.abs(across - 1.3) < 0.48) & (np.abs(across - 1.3) > 0.04) & (storey > 0.98) & (storey < 2.12)
    yield wall & glass & ~roof, (0.24, 0.30, 0.36)
    yield roof, (0.55, 0.24, 0.17)
    yield wall & (face.up_m < 0.4), (0.45, 0.44, 0.42)


def _sign(face: Face) -> Details:
    yield face.end & (np.hypot(face.across, 2 * face.up - 1) < 0.62), WHITE


LOOKS: dict[str, Callable[[Face], Details]] = {
    "car": _car,
    "van": _van,
    "truck": _truck,
    "bus": _bus,
    "pedestrian": _pedestrian,
    "cyclist": _cyclist,
    "house": _house,
    "sign": _sign,
}
