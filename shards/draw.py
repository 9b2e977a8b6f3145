"""Pictures: classes over the image, depth in colour with its scale, boxes, the steering path, one panel of all.

Every picture is (H, W, 3) uint8 RGB. Class colours are A2D2's own; depth uses cividis' order of dark to light,
which colour-blind readers see too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shards.classes import BOX_COLOURS, IGNORE_INDEX, SEGMENTATION_CLASSES, segmentation_colours

Picture = NDArray[np.uint8]


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


def overlay_classes(image: Picture, classes: NDArray[np.uint8], alpha: float = 0.6) -> Picture:
    """Class colours over the image; ignored pixels keep the image."""
    colours = segmentation_colours()[classes]
    mixed = cv2.addWeighted(image, 1 - alpha, colours, alpha, 0)
    return np.asarray(np.where((classes == IGNORE_INDEX)[..., None], image, mixed), dtype=np.uint8)


def colour_depth(depth_m: NDArray[np.float32], max_m: float) -> Picture:
    """(H, W) metres, 0 = no return, on a square-root scale: near is light, far is dark, no return is black."""
    share = np.sqrt(np.clip(depth_m / max_m, 0, 1))
    levels = np.round(255 * (1 - 0.9 * share)).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    coloured[depth_m <= 0] = 0
    return np.asarray(coloured, dtype=np.uint8)


def thicken_sparse(coloured: Picture, depth_m: NDArray[np.float32]) -> Picture:
    """Sparse returns made visible in a reduced picture: each grows by a pixel where nothing else is."""
    grown = cv2.dilate(coloured, np.ones((3, 3), np.uint8))
    return np.where((depth_m > 0)[..., None], coloured, grown).astype(np.uint8)


def outline_boxes(image: Picture, boxes: Sequence[Box]) -> Picture:
    """Boxes with class and score; the outline's pixels are the box's own outermost ones."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    font = _font(max(10, image.shape[0] // 50))
    for box in boxes:
        colour = tuple(int(value) for value in BOX_COLOURS[box.class_id % len(BOX_COLOURS)])
        left, top = int(np.floor(box.x1)), int(np.floor(box.y1))
        right, bottom = max(left, int(np.ceil(box.x2)) - 1), max(top, int(np.ceil(box.y2)) - 1)
        draw.rectangle((left, top, right, bottom), outline=colour, width=max(1, image.shape[0] // 256))
        text = box.name if box.score is None else f"{box.name} {box.score:.2f}"
        anchor = (left + 1, top) if top < 2 * font.size else (left + 1, top - font.size - 3)
        draw.rectangle(draw.textbbox(anchor, text, font=font), fill=(0, 0, 0))
        draw.text(anchor, text, fill=colour, font=font)
    return np.asarray(canvas)


def steering_dial(angles_deg: Sequence[float], size_px: int) -> Picture:
    """A steering wheel turned by the last angle, with the window's values as a curve under it; left is negative."""
    canvas = Image.new("RGB", (size_px, size_px), (24, 24, 24))
    draw = ImageDraw.Draw(canvas)
    font = _font(max(10, size_px // 20))
    centre, radius, last = (size_px / 2, size_px * 0.32), size_px * 0.22, angles_deg[-1]
    ring = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    draw.ellipse(ring, outline=(230, 230, 230), width=max(2, size_px // 40))
    for spoke_deg in (-180.0, -90.0, 0.0):
        turn = np.deg2rad(last + spoke_deg - 90)
        tip = (centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn))
        colour = (230, 159, 0) if spoke_deg == 0 else (230, 230, 230)
        draw.line((*centre, *tip), fill=colour, width=max(2, size_px // 40))
    side = "left" if last < 0 else "right" if last > 0 else "straight"
    draw.text((size_px * 0.06, size_px * 0.58), f"{abs(last):.1f} deg {side}", fill=(230, 230, 230), font=font)
    _draw_curve(draw, angles_deg, size_px, font)
    return np.asarray(canvas)


def _draw_curve(
    draw: ImageDraw.ImageDraw, angles_deg: Sequence[float], size_px: int, font: ImageFont.FreeTypeFont
) -> None:
    left, right, top, bottom = 0.16 * size_px, 0.94 * size_px, 0.70 * size_px, 0.94 * size_px
    limit = max(10.0, *(abs(angle) for angle in angles_deg))
    middle = (top + bottom) / 2
    draw.line((left, middle, right, middle), fill=(110, 110, 110))
    for value, y in ((limit, top), (-limit, bottom)):
        draw.text((0, y - font.size / 2), f"{value:+.0f}", fill=(150, 150, 150), font=font)
    steps = max(1, len(angles_deg) - 1)
    points = [
        (left + (right - left) * step / steps, middle - (bottom - top) / 2 * angle / limit)
        for step, angle in enumerate(angles_deg)
    ]
    draw.line(points, fill=(86, 180, 233), width=max(1, size_px // 120))


def depth_scale(height_px: int, max_m: float) -> Picture:
    """The colours of depth with metres beside them."""
    width_px = max(56, height_px // 6)
    column = np.linspace(0.02, max_m, height_px, dtype=np.float32)[::-1, None].repeat(width_px // 3, axis=1)
    canvas = Image.new("RGB", (width_px, height_px), (24, 24, 24))
    canvas.paste(Image.fromarray(colour_depth(np.ascontiguousarray(column), max_m)), (0, 0))
    draw, font = ImageDraw.Draw(canvas), _font(max(10, height_px // 25))
    for metres in (0, 10, 25, 50, 75, 100):
        if metres < max_m:
            y = (height_px - 1) * (1 - metres / max_m)
            draw.text((width_px // 3 + 3, min(max(0.0, y - font.size), height_px - 1.3 * font.size)), f"{metres} m",
                      fill=(230, 230, 230), font=font)  # fmt: skip
    return np.asarray(canvas)


def class_legend(classes: NDArray[np.uint8], width_px: int, limit: int = 12) -> Picture:
    """The commonest classes of a map with their colours, one line each."""
    ids, counts = np.unique(classes[classes < len(SEGMENTATION_CLASSES)], return_counts=True)
    commonest = ids[np.argsort(-counts, kind="stable")][:limit]
    line = max(14, width_px // 16)
    canvas = Image.new("RGB", (width_px, line * max(1, len(commonest)) + 4), (24, 24, 24))
    draw, font, colours = ImageDraw.Draw(canvas), _font(int(line * 0.75)), segmentation_colours()
    for row, class_id in enumerate(commonest):
        colour = tuple(int(value) for value in colours[class_id])
        draw.rectangle((4, row * line + 3, 4 + line, (row + 1) * line - 1), fill=colour)
        draw.text((10 + line, row * line + 1), SEGMENTATION_CLASSES[class_id], fill=(230, 230, 230), font=font)
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
    """One row of a sample: boxes on the image, classes with their legend, depth with its scale, steering.

    What is absent says so. depth_m may be sparse (0 = no return).
    """
    side = image.shape[0]
    line = max(16, side // 24)
    plots = [
        titled(outline_boxes(image, boxes or ()), f"{title}: boxes" + ("" if boxes is not None else " absent"), line)
    ]
    if segmentation is None:
        plots.append(titled(image // 3, "segmentation absent", line))
    else:
        plots.append(titled(overlay_classes(image, segmentation), "segmentation", line))
    if depth_m is None:
        plots.append(titled(image // 3, "depth absent", line))
    else:
        coloured = thicken_sparse(colour_depth(depth_m, max_m), depth_m)
        seen = np.where((coloured == 0).all(axis=2, keepdims=True), image // 3, coloured).astype(np.uint8)
        plots.append(titled(np.hstack([seen, depth_scale(side, max_m)]), "depth", line))
    width = side // 2
    dial = np.full((1, width, 3), 24, np.uint8) if not angles_deg else steering_dial(angles_deg, width)
    column = [titled(dial, "steering" if angles_deg else "steering absent", line)]
    if segmentation is not None:
        column.append(titled(class_legend(segmentation, width), "commonest classes", line))
    plots.append(np.vstack(column))
    height = plots[0].shape[0]
    return np.hstack([_fit_height(plot, height) for plot in plots])


def _fit_height(picture: Picture, height_px: int) -> Picture:
    """Cut or filled with grey at the bottom."""
    filler = np.full((max(0, height_px - picture.shape[0]), *picture.shape[1:]), 24, np.uint8)
    return np.vstack([picture[:height_px], filler])


def stack_panels(rows: Sequence[Picture]) -> Picture:
    """Panels under each other, filled with grey at the right where their widths differ."""
    width = max(row.shape[1] for row in rows)
    return np.vstack([cv2.copyMakeBorder(row, 0, 4, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(24, 24, 24))
                      for row in rows])  # fmt: skip
