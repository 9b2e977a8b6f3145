"""The camera's view of a frame: image and label as stored, that is distorted, pixel for pixel of one trace."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.classes import CLASS_LIST, rgb_of_hex
from synth.looks import paint
from synth.rays import FIRST_SOLID, FIRST_SURFACE, WOODS, Rays, View, camera_rays, trace
from synth.road import CAMERA_HEIGHT_M, SURFACES, Floats
from synth.solids import Solid
from synth.world import Light

COLOUR_OF_ENTRY = {entry: rgb_of_hex(colour) for colour, entry in CLASS_LIST.items()}
FOG_M = 160.0  # distance at which 63 % of a colour is the horizon's
FARTHEST_M = 400.0  # the woods' distance, for fog alone
SHADOW_M = 0.7  # width of the soft dark edge around what stands on the ground, no wider than the thing itself
NOISE = 4  # grey values, in blocks of 2x2 pixels


def render(view: View, light: Light, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label, (1208, 1920, 3) uint8 RGB each."""
    rays = camera_rays()
    depth, codes = trace(rays, view)
    palette = np.array([COLOUR_OF_ENTRY[entry] for entry in view.entries], dtype=np.uint8)
    return _finish(_paint(rays, view, depth, codes, light, rng), light, rng), palette[codes]


def _paint(
    rays: Rays, view: View, depth: Floats, codes: NDArray[np.int16], light: Light, rng: np.random.Generator
) -> Floats:
    """(H, W, 3) float32 RGB in 0..1, without tint and noise."""
    image = np.empty((*codes.shape, 3), dtype=np.float32)
    above = slice(0, int(np.count_nonzero((rays.down <= 0).any(axis=1))))
    image[above] = _sky(rays.down[above], light, rng)
    woods = codes == WOODS
    image[woods] = _fog(np.array([light.grass], dtype=np.float32) * 0.6, np.array([FARTHEST_M]), light)
    ground = (codes >= FIRST_SURFACE) & (codes < FIRST_SOLID)
    x = depth[ground]
    image[ground] = _fog(_ground(codes[ground], x, -x * rays.right[ground], light), x, light)
    for number, solid in enumerate(view.solids):
        _drop_shadow(image, rays, depth, ground, solid)
        window = rays.window(solid)
        mine = codes[window] == FIRST_SOLID + number
        x = depth[window][mine]
        points = (x, -x * rays.right[window][mine], -x * rays.down[window][mine])
        image[window][mine] = _fog(paint(solid, points, light.sun), x, light)
    return image


def _sky(down: Floats, light: Light, rng: np.random.Generator) -> Floats:
    """(H, W, 3): from the horizon's colour up to the zenith's, with soft clouds."""
    high = np.sqrt(np.clip(-down / 0.42, 0, 1))[..., None]
    blue = np.array(light.horizon, dtype=np.float32) * (1 - high) + np.array(light.zenith, dtype=np.float32) * high
    coarse = rng.random((9, 14), dtype=np.float32)
    soft = cv2.resize(coarse, (down.shape[1], down.shape[0]), interpolation=cv2.INTER_CUBIC)
    cloud = (np.clip(2.2 * soft - 1.9 + light.clouds, 0, 1) * np.float32(0.8))[..., None]
    return np.asarray(blue * (1 - cloud) + np.float32(0.94) * cloud)


def _ground(codes: NDArray[np.int16], x: Floats, y: Floats, light: Light) -> Floats:
    """Codes of surfaces and ground points, (N,) each -> (N, 3)."""
    grey = light.asphalt
    colours = {
        "RD normal street": (grey, grey, grey * 1.03),
        "Solid line": (0.92, 0.92, 0.90),
        "Dashed line": (0.92, 0.92, 0.90),
        "Curbstone": (0.70, 0.69, 0.66),
        "Sidewalk": (0.58, 0.53, 0.49),
        "Nature object": light.grass,
    }
    roughness = {"Nature object": 0.12, "Sidewalk": 0.05, "RD normal street": 0.04}
    surface = codes - FIRST_SURFACE
    base = np.array([colours[name] for name in SURFACES], dtype=np.float32)[surface]
    rough = np.array([roughness.get(name, 0.02) for name in SURFACES], dtype=np.float32)[surface]
    near = np.clip(x, 0, FARTHEST_M)
    waves = np.sin(2.1 * near + 1.3 * y) * np.sin(1.7 * y - 0.6 * near) + 0.6 * np.sin(0.31 * near) * np.sin(0.47 * y)
    return base * (1 + rough * waves)[:, None]


def _fog(colours: Floats, x: Floats, light: Light) -> Floats:
    """(N, 3) colours seen through the haze of their distance."""
    clear = np.exp(-np.minimum(x, FARTHEST_M) / FOG_M).astype(np.float32)[:, None]
    return colours * clear + np.array(light.horizon, dtype=np.float32) * (1 - clear)


def _drop_shadow(image: Floats, rays: Rays, depth: Floats, ground: NDArray[np.bool_], solid: Solid) -> None:
    """Darken the ground under and around what stands on it."""
    length, width, _ = solid.size
    soft = min(SHADOW_M, width)
    if solid.centre[2] - solid.size[2] / 2 > 0.1 - CAMERA_HEIGHT_M or solid.corners[:, 0].min() < 2 * soft:
        return
    pad = replace(
        solid,
        size=(length + 2 * soft, width + 2 * soft, 0.0),
        centre=(*solid.centre[:2], -CAMERA_HEIGHT_M),
        round=False,
    )
    window = rays.window(pad)
    here = ground[window]
    x = depth[window][here]
    ahead, aside, _ = solid.local(x - solid.centre[0], -x * rays.right[window][here] - solid.centre[1], x)
    away = np.maximum(np.abs(ahead) - length / 2, np.abs(aside) - width / 2)
    image[window][here] *= (0.45 + 0.55 * np.clip(away / soft, 0, 1))[:, None]


def _finish(image: Floats, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tint and grain, as (H, W, 3) uint8."""
    height, width = image.shape[:2]
    grain = rng.integers(-NOISE, NOISE + 1, (height // 2, width // 2), dtype=np.int8).astype(np.float32)
    image *= 255 * np.array(light.tint, dtype=np.float32)
    image += grain.repeat(2, axis=0).repeat(2, axis=1)[..., None]
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3 or 4) uint8 RGB or RGBA -> a PNG file, packed fast rather than small."""
    swapped = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    done, packed = cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return packed.tobytes()
