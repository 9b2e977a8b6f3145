"""What is written of predictions: a picture, a JSON and the arrays of each frame, and one record of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.codec import encode_image
from shards.draw import (
    Picture,
    class_legend,
    colour_depth,
    depth_scale,
    outline_boxes,
    overlay_classes,
    stack_panels,
    steering_dial,
    titled,
)
from shards.writer import PARTIAL, flush_to_disk, write_whole
from train.deploy.inputs import Frame, Source, VideoFile, names_of
from train.deploy.path_overlay import draw_way
from train.deploy.predictor import Prediction

TOOL = "amtl-predict"
RECORD = "predictions.json"
PICTURES, VALUES, ARRAYS = "pictures", "values", "arrays"  # folders
_SUFFIX = {PICTURES: ".jpg", VALUES: ".json", ARRAYS: ".npz"}
_PICTURE_PX = 960  # the longer side of a frame in a picture
_LEAST_PX = 320  # of scales and dials, however low the frame is
_LINE_PX = 28
_QUALITY = 92
_GROUND = (24, 24, 24)

MEANING = {  # of what `values` and `arrays` hold
    "pixels": "of the input, or with --undistort of the input without distortion, which has the same size",
    "boxes": "x1, y1, x2, y2 from the left and upper edge of the first pixel, after non-maximum suppression",
    "steering_deg": "ten angles of the steering wheel in degrees, left negative, in order of time",
    "segmentation": "(height, width) uint8 class id, the position in segmentation_classes",
    "depth_m": "(height, width) float16 metres",
    "box_corners": "(n, 4) float32, as boxes; box_classes (n,) uint8, the position in box_classes; box_scores (n,)",
}


class Room:
    """The folder of the results. No file that is there is written over, unless `overwrite` says so."""

    def __init__(self, folder: Path, kinds: Iterable[str], max_m: float, overwrite: bool) -> None:
        """`kinds` are the folders to fill; `max_m` is where the colours of depth end."""
        self.folder = folder
        self.max_m = max_m
        self.kinds = tuple(kinds)
        self.overwrite = overwrite

    def claim(self, sources: Iterable[Source]) -> None:
        """Make the folders. Raises ValueError where that cannot be, or a file is in the way."""
        try:
            for kind in self.kinds:
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
                probe = self.folder / kind / f"probe{PARTIAL}"
                probe.touch()
                probe.unlink()
        except OSError as error:
            raise ValueError(f"--out {self.folder} cannot be written: {error.strerror}") from error
        if self.overwrite:
            return
        self._check(self.folder / RECORD)
        for source in sources:
            for kind in self.kinds:
                for name in names_of(source):
                    self._check(self._path(kind, name))
                if isinstance(source, VideoFile):
                    of_video = re.compile(re.escape(source.name) + r"_\d{6,}")
                    for path in (self.folder / kind).glob("*" + _SUFFIX[kind]):
                        if of_video.fullmatch(path.stem):
                            self._check(path)

    def _check(self, path: Path) -> None:
        if path.exists():
            raise ValueError(f"{path} exists: give another --out, or --overwrite")

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / (name + _SUFFIX[kind])

    def write(self, frame: Frame, found: Prediction) -> None:
        """All that was asked for of one frame."""
        assert frame.image is not None, "a prediction has a picture"
        if PICTURES in self.kinds:
            picture = encode_image(draw_prediction(frame.image, found, frame.name, self.max_m), "jpg", _QUALITY)
            write_whole(self._path(PICTURES, frame.name), picture)
        if ARRAYS in self.kinds:
            _write_arrays(self._path(ARRAYS, frame.name), arrays_of(found))
        if VALUES in self.kinds:
            document = orjson.dumps(values_of(frame, found), option=orjson.OPT_INDENT_2)
            write_whole(self._path(VALUES, frame.name), document)

    def write_record(self, document: Mapping[str, Any]) -> None:
        """What was predicted, with what, and what its numbers mean; written last."""
        whole = {
            "written_by": TOOL,
            **document,
            "segmentation_classes": SEGMENTATION_CLASSES,
            "box_classes": BOX_CLASSES,
            "meaning": MEANING,
        }
        write_whole(self.folder / RECORD, orjson.dumps(whole, option=orjson.OPT_INDENT_2))


def values_of(frame: Frame, found: Prediction) -> dict[str, Any]:
    """The JSON of a frame."""
    document: dict[str, Any] = {"input": frame.source, "width_px": found.width_px, "height_px": found.height_px}
    if found.steering_deg is not None:
        document["steering_deg"] = found.steering_deg
    if found.boxes is not None:
        document["boxes"] = [
            {"class": box.name, "score": round(box.score or 0.0, 4),
             **{corner: round(getattr(box, corner), 2) for corner in ("x1", "y1", "x2", "y2")}}
            for box in found.boxes
        ]  # fmt: skip
    if found.segmentation is not None:
        ids, counts = np.unique(found.segmentation, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        document["segmentation_share"] = {
            SEGMENTATION_CLASSES[ids[i]]: round(counts[i].item() / found.segmentation.size, 6) for i in order
        }
    if found.depth_m is not None:
        least, middle, most = np.quantile(found.depth_m, (0, 0.5, 1)).tolist()
        document["depth_m"] = {"nearest": round(least, 3), "median": round(middle, 3), "farthest": round(most, 3)}
    return document


def arrays_of(found: Prediction) -> dict[str, NDArray[Any]]:
    """The arrays of a frame, as MEANING says."""
    arrays: dict[str, NDArray[Any]] = {}
    if found.steering_deg is not None:
        arrays["steering_deg"] = np.array(found.steering_deg, np.float32)
    if found.segmentation is not None:
        arrays["segmentation"] = found.segmentation
    if found.depth_m is not None:
        arrays["depth_m"] = found.depth_m.astype(np.float16)
    if found.boxes is not None:
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in found.boxes]
        arrays["box_corners"] = np.array(corners, np.float32).reshape(-1, 4)
        arrays["box_classes"] = np.array([box.class_id for box in found.boxes], np.uint8)
        arrays["box_scores"] = np.array([box.score for box in found.boxes], np.float32)
    return arrays


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz, whole or not at all; NumPy's own writer compresses 8 % better and takes twice the time."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) as members:
                for name, array in arrays.items():
                    with members.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            flush_to_disk(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def draw_prediction(image: Picture, found: Prediction, title: str, max_m: float) -> Picture:
    """Two by two, as far as there are heads: boxes and way on the image, classes; depth, dial and legend."""
    longer = max(found.width_px, found.height_px)
    width, height = (max(1, round(_PICTURE_PX * side / longer)) for side in (found.width_px, found.height_px))
    how = cv2.INTER_AREA if longer > _PICTURE_PX else cv2.INTER_CUBIC
    image, found = np.asarray(cv2.resize(image, (width, height), interpolation=how)), found.resized(width, height)
    plots = [titled(_on_image(image, found), title, _LINE_PX)]
    if found.segmentation is not None:
        plots.append(titled(overlay_classes(image, found.segmentation), "segmentation", _LINE_PX))
    if found.depth_m is not None:
        coloured = colour_depth(found.depth_m, max_m)
        scale = depth_scale(max(_LEAST_PX, height), max_m)
        plots.append(titled(_beside([coloured, scale]), "depth", _LINE_PX))
    words = _words(found, height)
    plots += [] if words is None else [words]
    return stack_panels([_beside(plots[first : first + 2]) for first in range(0, len(plots), 2)])


def _on_image(image: Picture, found: Prediction) -> Picture:
    """Way and boxes."""
    drawn = image if found.steering_deg is None else draw_way(image, found.steering_deg)
    return drawn if not found.boxes else outline_boxes(drawn, found.boxes)


def _words(found: Prediction, height_px: int) -> Picture | None:
    """Dial and legend beside each other."""
    side = max(_LEAST_PX, height_px // 2)
    parts = []
    if found.steering_deg is not None:
        parts.append(titled(steering_dial(found.steering_deg, side), "steering", _LINE_PX))
    if found.segmentation is not None:
        legend = class_legend(found.segmentation, _PICTURE_PX - side, max(side, height_px), 22)
        parts.append(titled(legend, "classes, share of pixels", _LINE_PX))
    return _beside(parts) if parts else None


def _beside(plots: list[Picture]) -> Picture:
    """Next to each other, filled with grey at the bottom where they are lower."""
    height = max(plot.shape[0] for plot in plots)
    filled = [cv2.copyMakeBorder(plot, 0, height - plot.shape[0], 0, 4, cv2.BORDER_CONSTANT, value=_GROUND)
              for plot in plots]  # fmt: skip
    return np.hstack(filled)
