"""The files of predictions: a picture, a JSON file and the arrays of each frame, and one record of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from shards.codec import encode_image
from shards.draw import Picture, beside, stack_panels, titled
from shards.writer import PARTIAL, flush_to_disk, write_whole
from train.deploy.film_writer import FilmWriter
from train.deploy.inputs import FilmFile, Frame, Source, names_of
from train.deploy.names import is_numbered
from train.deploy.predictor import Prediction
from train.tasks import DEFINITIONS
from train.tasks.definition import TaskContext

TOOL = "amtl-predict"
RECORD = "predictions.json"
PICTURES, VALUES, ARRAYS, FILMS = "pictures", "values", "arrays", "films"  # folders
_SUFFIX = {PICTURES: ".jpg", VALUES: ".json", ARRAYS: ".npz", FILMS: ".mp4"}
_PICTURE_PX = 960  # the longer side of a frame in a picture
_LEAST_PX = 320  # of scales and dials, however low the frame is
_LINE_PX = 28
_QUALITY = 92

_PIXELS = "of the input, or with --undistort of the input without distortion, which has the same size"
_FRAME = "of a film or a file with pages: its place, from 0; lost frames are counted, so later ones keep their numbers"
_TIME = "of a film's frame: seconds since its first frame by the film's own time stamps; null where it has none"


class OutputFolder:
    """The folder of the results. Each result has a name of its own; `overwrite` allows files of earlier runs to go."""

    def __init__(self, folder: Path, kinds: Iterable[str], context: TaskContext, overwrite: bool) -> None:
        """`kinds` are the folders to fill; `context` says what the predictions mean."""
        self.folder = folder
        self.context = context
        self.kinds = tuple(kinds)
        self.overwrite = overwrite
        self._written: set[Path] = set()
        self._drawn: dict[str, Picture] = {}  # by frame name: pictures that wait for their place in a film
        self._film: FilmWriter | None = None

    def claim(self, sources: Iterable[Source]) -> None:
        """Make the folders. Raises ValueError where that cannot be, or a file of another run is there."""
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
            if isinstance(source, FilmFile) and FILMS in self.kinds:
                self._check(self._path(FILMS, source.name))
            for kind in (kind for kind in self.kinds if kind != FILMS):
                for name in names_of(source):
                    self._check(self._path(kind, name))
                if isinstance(source, FilmFile):
                    for path in (self.folder / kind).glob("*" + _SUFFIX[kind]):
                        if is_numbered(path.stem, source.name):
                            self._check(path)

    def _check(self, path: Path) -> None:
        if path.exists():
            raise ValueError(f"{path} exists: give another --out, or --overwrite")

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / (name + _SUFFIX[kind])

    def _new(self, kind: str, name: str) -> Path:
        """The path of a result. Raises ValueError where this run wrote it, or, without `overwrite`, another did."""
        path = self._path(kind, name)
        if path in self._written:
            raise ValueError(f"{path} must be the result of one input, got a second one of that name")
        if not self.overwrite:
            self._check(path)
        self._written.add(path)
        return path

    def write(self, frame: Frame, found: Prediction) -> None:
        """Write everything that was asked for of one frame, but for its place in a film."""
        assert frame.image is not None, "a prediction has a picture"
        of_film = FILMS in self.kinds and frame.film is not None
        if PICTURES in self.kinds or of_film:
            drawn = draw_prediction(frame.image, found, frame.name, self.context)
            if PICTURES in self.kinds:
                write_whole(self._new(PICTURES, frame.name), encode_image(drawn, "jpg", _QUALITY))
            if of_film:
                self._drawn[frame.name] = drawn
        if ARRAYS in self.kinds:
            _write_arrays(self._new(ARRAYS, frame.name), arrays_of(found))
        if VALUES in self.kinds:
            document = orjson.dumps(values_of(frame, found, self.context), option=orjson.OPT_INDENT_2)
            write_whole(self._new(VALUES, frame.name), document)

    def add_to_film(self, frame: Frame) -> None:
        """Put a written frame into its film; frames come in the order of time, films one after the other."""
        drawn = self._drawn.pop(frame.name, None)
        if drawn is None or frame.film is None:
            return
        if self._film is not None and self._film.path != self._path(FILMS, frame.film):
            self._film.close()
            self._film = None
        if self._film is None:
            self._film = FilmWriter(self._new(FILMS, frame.film))
        self._film.add(drawn, frame.time_s)

    def finish_films(self, keep: bool) -> None:
        """End the film that is being written; `keep` is false where the run did not come to its end."""
        if self._film is not None:
            if keep:
                self._film.close()
            else:
                self._film.discard()
            self._film = None

    def write_record(self, document: Mapping[str, Any]) -> None:
        """Write the record of inputs, checkpoint and the meaning of all numbers; written last."""
        if not self.overwrite:
            self._check(self.folder / RECORD)
        whole = {
            "written_by": TOOL,
            **document,
            "segmentation_classes": self.context.segmentation_classes,
            "box_classes": self.context.box_classes,
            "meaning": meaning(document["tasks"]),
        }
        write_whole(self.folder / RECORD, orjson.dumps(whole, option=orjson.OPT_INDENT_2))


def meaning(tasks: Iterable[str]) -> dict[str, str]:
    """Return what the names in `values` and `arrays` mean."""
    found = {"pixels": _PIXELS, "frame": _FRAME, "time_s": _TIME}
    for task in tasks:
        found |= DEFINITIONS[task].meaning
    return found


def values_of(frame: Frame, found: Prediction, context: TaskContext) -> dict[str, Any]:
    """Return the JSON document of a frame."""
    document: dict[str, Any] = {"input": frame.source}
    if frame.number is not None:
        document |= {"frame": frame.number, "time_s": frame.time_s}
    if frame.remarks:
        document["remarks"] = frame.remarks
    document |= {"width_px": found.width_px, "height_px": found.height_px}
    for task, value in found.values.items():
        document |= DEFINITIONS[task].to_json(value, context)
    return document


def arrays_of(found: Prediction) -> dict[str, NDArray[Any]]:
    """Return the arrays of a frame, as `meaning` describes them."""
    arrays: dict[str, NDArray[Any]] = {}
    for task, value in found.values.items():
        arrays |= DEFINITIONS[task].to_arrays(value)
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


def draw_prediction(image: Picture, found: Prediction, title: str, context: TaskContext) -> Picture:
    """Draw what the heads predict, two pictures a row, or three: on the image itself, then each task's own picture.

    The dial and the legends come last, under each other.
    """
    longer = max(found.width_px, found.height_px)
    width, height = (max(1, round(_PICTURE_PX * side / longer)) for side in (found.width_px, found.height_px))
    how = cv2.INTER_AREA if longer > _PICTURE_PX else cv2.INTER_CUBIC
    image, found = np.asarray(cv2.resize(image, (width, height), interpolation=how)), found.resized(width, height)
    drawn, panels, gauges = image, [], []
    probe = (_LEAST_PX, _LEAST_PX)
    gauging = [task for task in found.values if DEFINITIONS[task].gauge(found.values[task], context, probe) is not None]
    gauge_hw = (max(_LEAST_PX, height // max(1, len(gauging)) - _LINE_PX), max(_LEAST_PX, width))
    for task, value in found.values.items():
        definition = DEFINITIONS[task]
        drawn = definition.overlay(drawn, value)
        panel = definition.panel(image, value, context)
        gauge = definition.gauge(value, context, gauge_hw) if task in gauging else None
        panels += [] if panel is None else [titled(panel, task, _LINE_PX)]
        gauges += [] if gauge is None else [titled(gauge, task, _LINE_PX)]
    pictures = [titled(drawn, title, _LINE_PX), *panels, *([np.vstack(gauges)] if gauges else [])]
    across = 3 if len(pictures) == 3 else 2  # no place in the picture stays empty
    return stack_panels([beside(pictures[first : first + across]) for first in range(0, len(pictures), across)])
