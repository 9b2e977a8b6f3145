"""Pictures: classes over the image, depth in colour with its scale, boxes, the steering path, one panel of all.

Every picture is (H, W, 3) uint8 RGB. Class colours are A2D2's own, over the image in grey, so that no other colour
mixes in; depth uses viridis, whose order from light to dark colour-blind readers see too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shards.classes import BOX_COLOURS, IGNORE_INDEX, SEGMENTATION_CLASSES, segmentation_colours

Picture = NDArray[np.uint8]
_Value = TypeVar("_Value", bound=np.generic)
_LEAST_PX = 512  # of a panel's pictures: smaller ones are enlarged, so that their words can be read
_DEPTH_RANGE = 60  # the farthest distance of the scale of colours, over the nearest
_MOST_EDGES = 0.35  # of the pixels around an edge, for it to be drawn
_GROUND, _WORDS, _FAINT = (24, 24, 24), (230, 230, 230), (150, 150, 150)


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@dataclass(frozen=True)
class Box:
    """A box in sample pixels, edge-based, with its class and, where predicted, its score."""

    x1: float
    y1: float
    x2: float
    y2: float
    class_id: int
    name: str
    score: float | None = None


def grey(image: Picture) -> Picture:
    """The picture without its colours."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def overlay_classes(image: Picture, classes: NDArray[np.uint8], alpha: float = 0.7) -> Picture:
    """Class colours over the image in grey; ignored pixels are the dimmed image.

    Regions have a dark edge, except where so many small ones meet that edges would hide the colours.
    """
    colours = segmentation_colours()[classes]
    mixed = cv2.addWeighted(grey(image), 1 - alpha, colours, alpha, 0)
    mixed[classes == IGNORE_INDEX] = grey(image)[classes == IGNORE_INDEX] // 3
    edge = np.zeros(classes.shape, dtype=bool)
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    edge[1:] |= classes[1:] != classes[:-1]
    edge &= cv2.blur(edge.astype(np.float32), (9, 9)) < _MOST_EDGES  # an uncertain map would be black all over
    mixed[edge] = mixed[edge] // 3
    return np.asarray(mixed, dtype=np.uint8)


def colour_depth(depth_m: NDArray[np.float32], max_m: float) -> Picture:
    """(H, W) metres, 0 = no return, on a logarithmic scale: near is light, far is dark, no return is black."""
    share = depth_share(depth_m, max_m)
    levels = np.round(255 * (1 - 0.85 * share)).astype(np.uint8)  # the darkest would be lost on a dark ground
    coloured = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    coloured[depth_m <= 0] = 0
    return np.asarray(coloured, dtype=np.uint8)


def depth_share(depth_m: NDArray[np.float32], max_m: float) -> NDArray[np.float32]:
    """Positions of distances along the scale of colours, 0..1: logarithmic from max_m / 60 to max_m."""
    near = max_m / _DEPTH_RANGE
    share = np.log(np.clip(depth_m, near, max_m) / near) / np.log(_DEPTH_RANGE)
    return np.asarray(share, dtype=np.float32)


def depth_colours(count: int, max_m: float) -> Picture:
    """(count, 3) uint8 RGB, evenly spaced along the scale of colours from near to far."""
    metres = max_m * _DEPTH_RANGE ** (np.linspace(0, 1, count) - 1)
    return colour_depth(metres.astype(np.float32)[None], max_m)[0]


def depth_ticks(max_m: float) -> list[tuple[float, str]]:
    """Positions along the scale of colours and labels of the distances 1, 2 and 5 times a power of ten, in metres."""
    powers = range(int(np.floor(np.log10(max_m / _DEPTH_RANGE))), int(np.ceil(np.log10(max_m))) + 1)
    marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [mark for mark in marks if max_m / _DEPTH_RANGE <= mark <= max_m]
    return [(float(depth_share(np.array(mark, np.float32), max_m)), f"{mark:g}") for mark in inside]


def thicken_sparse(coloured: Picture, depth_m: NDArray[np.float32]) -> Picture:
    """Sparse returns made visible in a reduced picture: each grows by a pixel where nothing else is."""
    grown = cv2.dilate(coloured, np.ones((3, 3), np.uint8))
    return np.where((depth_m > 0)[..., None], coloured, grown).astype(np.uint8)


def outline_boxes(image: Picture, boxes: Sequence[Box]) -> Picture:
    """Boxes with class and score on a patch of their colour; the outline's pixels are the box's own outermost ones."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    font = _font(max(10, image.shape[0] // 50))
    for box in boxes:
        colour = tuple(int(value) for value in BOX_COLOURS[box.class_id % len(BOX_COLOURS)])
        left, top = int(np.floor(box.x1)), int(np.floor(box.y1))
        right, bottom = max(left, int(np.ceil(box.x2)) - 1), max(top, int(np.ceil(box.y2)) - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=max(1, image.shape[0] // 256))
        text = box.name if box.score is None else f"{box.name} {box.score:.2f}"
        width = draw.textlength(text, font=font)
        x = max(0.0, min(left + 2, image.shape[1] - width - 2))
        y = top if top < 2 * font.size else top - font.size - 4
        draw.rectangle((x - 2, y, x + width + 2, y + font.size + 3), fill=colour)
        draw.text((x, y + 1), text, fill=(0, 0, 0) if _is_light(colour) else (255, 255, 255), font=font)
    return np.asarray(canvas)


def _is_light(colour: tuple[int, ...]) -> bool:
    return float(np.dot(colour, (0.299, 0.587, 0.114))) > 110  # luma, ITU-R BT.601


def steering_dial(
    angles_deg: Sequence[float], size_hw: tuple[int, int], alike: Sequence[Sequence[float]] = ()
) -> Picture:
    """A steering wheel turned by the last angle, and the window's values as a curve; left is negative.

    The curve lies under the wheel or, where the picture is much wider than high, beside it. `alike` are windows shown
    near this one: the curves of all have one scale.
    """
    height, width = size_hw
    wide = width >= 1.5 * height
    canvas = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(canvas)
    side = height if wide else min(height, width)  # of the square that the wheel, or wheel and curve, are drawn in
    font = _font(max(10, side // 20))
    centre, radius, last = (side / 2, side * 0.32), side * 0.22, angles_deg[-1]
    ring = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    draw.ellipse(ring, outline=_WORDS, width=max(2, side // 40))
    for spoke_deg in (-180.0, -90.0, 0.0):
        turn = np.deg2rad(last + spoke_deg - 90)
        tip = (centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn))
        colour = (230, 159, 0) if spoke_deg == 0 else _WORDS
        draw.line((*centre, *tip), fill=colour, width=max(2, side // 40))
    direction = "left" if last < 0 else "right" if last > 0 else "straight"
    draw.text((side * 0.06, side * 0.58), f"{abs(last):.1f} deg {direction}", fill=_WORDS, font=font)
    limit = max(10.0, *(abs(angle) for window in (angles_deg, *alike) for angle in window))
    box = (side, 0.1 * height, 0.96 * width, 0.9 * height) if wide else (0.0, 0.70 * side, 0.94 * side, 0.94 * side)
    _draw_curve(draw, angles_deg, box, font, limit)
    return np.asarray(canvas)


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    angles_deg: Sequence[float],
    box: tuple[float, float, float, float],
    font: ImageFont.FreeTypeFont,
    limit: float,
) -> None:
    """The values between -limit and limit, with these two written at the left of the box."""
    left, top, right, bottom = box
    start, middle = left + 3.2 * font.size, (top + bottom) / 2
    draw.line((start, middle, right, middle), fill=(110, 110, 110))
    for value, y in ((limit, top), (-limit, bottom)):
        draw.text((left, y - font.size / 2), f"{value:+.0f}", fill=_FAINT, font=font)
    steps = max(1, len(angles_deg) - 1)
    points = [
        (start + (right - start) * step / steps, middle - (bottom - top) / 2 * angle / limit)
        for step, angle in enumerate(angles_deg)
    ]
    draw.line(points, fill=(86, 180, 233), width=max(1, round(font.size / 6)))


def depth_scale(height_px: int, max_m: float) -> Picture:
    """The colours of depth from near, at the bottom, to far, with metres beside them."""
    width_px = height_px // 5
    canvas = Image.new("RGB", (width_px, height_px), _GROUND)
    canvas.paste(Image.fromarray(depth_colours(height_px, max_m)[::-1, None].repeat(width_px // 4, axis=1)), (0, 0))
    draw, font = ImageDraw.Draw(canvas), _font(max(10, height_px // 25))
    for share, label in depth_ticks(max_m):
        y = (height_px - 1) * (1 - share)
        draw.line((0, y, width_px // 4, y), fill=_GROUND)
        draw.text((width_px // 4 + 4, min(max(0.0, y - font.size / 2), height_px - 1.3 * font.size)), f"{label} m",
                  fill=_WORDS, font=font)  # fmt: skip
    return np.asarray(canvas)


def class_legend(classes: NDArray[np.uint8], width_px: int, height_px: int, line_px: int) -> Picture:
    """The classes of a map, commonest first, with their colours and shares, in as many columns as fit; then how many
    more there are. (height_px, width_px, 3)"""
    ids, counts = np.unique(classes[classes < len(SEGMENTATION_CLASSES)], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    columns, rows = max(1, width_px // (14 * line_px)), max(1, (height_px - 4) // line_px)
    room = columns * rows
    shown = order[: room if len(order) <= room else room - 1]
    canvas = Image.new("RGB", (width_px, height_px), _GROUND)
    draw, font, colours = ImageDraw.Draw(canvas), _font(int(line_px * 0.72)), segmentation_colours()
    for place, number in enumerate(shown):
        x, y = place // rows * (width_px // columns), place % rows * line_px
        colour = tuple(int(value) for value in colours[ids[number]])
        draw.rectangle((x + 4, y + 3, x + 4 + line_px, y + line_px - 1), fill=colour)
        share = counts[number] / classes.size
        words = f"{SEGMENTATION_CLASSES[ids[number]]}  " + (f"{share:.1%}" if share >= 0.001 else "< 0.1%")
        draw.text((x + 10 + line_px, y + 1), words, fill=_WORDS, font=font)
    if len(shown) < len(order):
        x, y = (room - 1) // rows * (width_px // columns), (room - 1) % rows * line_px
        draw.text((x + 10 + line_px, y + 1), f"and {len(order) - len(shown)} more", fill=_FAINT, font=font)
    return np.asarray(canvas)


def titled(picture: Picture, title: str, height_px: int) -> Picture:
    """The picture under a line of that height that says what it is."""
    canvas = Image.new("RGB", (picture.shape[1], height_px), (0, 0, 0))
    font = _font(int(height_px * 0.7))
    ImageDraw.Draw(canvas).text((4, 1), title, fill=(255, 255, 255), font=font)
    return np.vstack([np.asarray(canvas), picture])


def panel(
    image: Picture,
    *,
    title: str,
    segmentation: NDArray[np.uint8] | None = None,
    depth_m: NDArray[np.float32] | None = None,
    boxes: Sequence[Box] | None = None,
    angles_deg: Sequence[float] | None = None,
    max_m: float = 123.0,
) -> Picture:
    """One row of a sample: boxes on the image, classes, depth with its scale, steering and the classes' legend.

    What is absent says so. depth_m may be sparse (0 = no return).
    """
    times = -(-_LEAST_PX // image.shape[0])
    image, side = _enlarge(image, times), image.shape[0] * times
    line = side // 24
    boxed = outline_boxes(image, [_enlarged(box, times) for box in boxes or ()])
    plots = [titled(boxed, f"{title}: boxes" + ("" if boxes is not None else " absent"), line)]
    if segmentation is None:
        plots.append(titled(image // 3, "segmentation absent", line))
    else:
        segmentation = _enlarge(segmentation, times)
        plots.append(titled(overlay_classes(image, segmentation), "segmentation", line))
    if depth_m is None:
        plots.append(titled(image // 3, "depth absent", line))
    else:
        depth_m = _enlarge(depth_m, times)
        coloured = thicken_sparse(colour_depth(depth_m, max_m), depth_m)
        seen = np.where((coloured == 0).all(axis=2, keepdims=True), grey(image) // 4, coloured).astype(np.uint8)
        plots.append(titled(np.hstack([seen, depth_scale(side, max_m)]), "depth", line))
    width = side - line if angles_deg and segmentation is None else side // 2  # a dial alone fills the height
    dial = np.full((1, width, 3), 24, np.uint8) if not angles_deg else steering_dial(angles_deg, (width, width))
    column = [titled(dial, "steering" if angles_deg else "steering absent", line)]
    if segmentation is not None:
        left_px = side - column[0].shape[0]
        column.append(titled(class_legend(segmentation, width, left_px, width // 16), "classes, share of pixels", line))
    plots.append(np.vstack(column))
    height = plots[0].shape[0]
    return np.hstack([_fit_height(plot, height) for plot in plots])


def _enlarge(array: NDArray[_Value], times: int) -> NDArray[_Value]:
    """Each pixel as a square."""
    return array.repeat(times, axis=0).repeat(times, axis=1)


def _enlarged(box: Box, times: int) -> Box:
    return replace(box, x1=box.x1 * times, y1=box.y1 * times, x2=box.x2 * times, y2=box.y2 * times)


def _fit_height(picture: Picture, height_px: int) -> Picture:
    """Cut or filled with grey at the bottom."""
    filler = np.full((max(0, height_px - picture.shape[0]), *picture.shape[1:]), 24, np.uint8)
    return np.vstack([picture[:height_px], filler])


def stack_panels(rows: Sequence[Picture]) -> Picture:
    """Panels under each other, filled with grey at the right where their widths differ."""
    width = max(row.shape[1] for row in rows)
    return np.vstack([cv2.copyMakeBorder(row, 0, 4, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=_GROUND)
                      for row in rows])  # fmt: skip


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures next to each other, filled with grey at the bottom where they are lower."""
    height = max(picture.shape[0] for picture in pictures)
    lower = [height - picture.shape[0] for picture in pictures]
    filled = [cv2.copyMakeBorder(picture, 0, rows, 0, 4, cv2.BORDER_CONSTANT, value=_GROUND)
              for picture, rows in zip(pictures, lower, strict=True)]  # fmt: skip
    return np.hstack(filled)
