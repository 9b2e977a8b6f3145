"""What a user asks to see predicted: images, folders of them, videos and shards, as frames with a name each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from shards.codec import decode_image
from shards.draw import Picture
from shards.reader import SampleRef, ShardSet
from shards.schema import MANIFEST

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".mjpeg", ".wmv")


@dataclass(frozen=True)
class ImageFile:
    """One picture on disk."""

    name: str  # of the results
    path: Path

    def count(self) -> int:
        """Frames, as far as can be told without reading them."""
        return 1


@dataclass(frozen=True)
class VideoFile:
    """A film; its frames are named `<name>_000000` and on."""

    name: str
    path: Path

    def count(self) -> int:
        """What the container says, which may be wrong."""
        film = _film(self.path)
        try:
            return max(1, int(film.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            film.release()


@dataclass(frozen=True)
class ShardSplit:
    """The samples of a split of a finished set, named by their keys."""

    shards: ShardSet
    samples: Sequence[SampleRef]

    def count(self) -> int:
        """Samples."""
        return len(self.samples)


Source = ImageFile | VideoFile | ShardSplit


@dataclass(frozen=True)
class Frame:
    """A picture to predict, or why there is none."""

    name: str  # of the results
    source: str  # the file, and for a sample its key, for people
    image: Picture | None  # (H, W, 3) uint8 RGB
    reason: str = ""


def find_sources(paths: Sequence[Path], split: str, skip: Path) -> tuple[list[Source], int]:
    """What the paths hold, with a name of its own each, and how many files of folders are no images by their names.

    Folders are searched to any depth, without what lies in `skip`. Raises ValueError where a folder holds nothing.
    """
    sources: list[Source] = []
    taken: Counter[str] = Counter()
    passed = 0
    for path in paths:
        if not path.is_dir():
            kind = VideoFile if path.suffix.lower() in VIDEOS else ImageFile
            sources.append(kind(_own_name(path.stem, taken), path))
        elif (path / MANIFEST).exists():
            sources.append(_open_split(path, split))
        else:
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _within(file, skip)]
            images = [file for file in files if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
            if not images:
                raise ValueError(f"{path} holds no image: {', '.join(IMAGES)} are looked for, and shards' {MANIFEST}")
            passed += len(files) - len(images)
            for file in images:
                name = "_".join(file.relative_to(path).with_suffix("").parts)
                sources.append(ImageFile(_own_name(name, taken), file))
    return sources, passed


def _own_name(name: str, taken: Counter[str]) -> str:
    """The name, or with a number behind it where another input has it."""
    taken[name] += 1
    return name if taken[name] == 1 else _own_name(f"{name}_{taken[name]}", taken)


def _within(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def _open_split(folder: Path, split: str) -> ShardSplit:
    shards = ShardSet(folder)
    shards.check_sizes()
    samples = shards.samples(split)
    if not samples:
        raise ValueError(f"{folder} has no sample in split {split}: give another --split")
    return ShardSplit(shards, samples)


class _Floats(Exception):
    """Pillow would clip them to 0..255, and show 0..1 as black."""


def read_image(path: Path) -> Picture:
    """Any format that Pillow reads, turned as its EXIF says -> (H, W, 3) uint8 RGB. Raises ValueError."""
    try:
        with Image.open(path) as opened:
            turned = ImageOps.exif_transpose(opened)
            if turned.mode == "F":
                raise _Floats
            if turned.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 255
                grey = (np.asarray(turned, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(turned.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except _Floats as error:
        raise ValueError("an image of floating point numbers, whose range is not known") from error
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError("a damaged image") from error


def _film(path: Path) -> cv2.VideoCapture:
    """Opened without FFmpeg's own words on stderr: what is wrong with it is said once, by us."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return cv2.VideoCapture(str(path))


def video_frames(source: VideoFile) -> Iterator[Frame]:
    """Every frame, or one that says that there is none."""
    film = _film(source.path)
    try:
        number = 0
        while True:
            there, bgr = film.read()
            if not there:
                break
            image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield Frame(f"{source.name}_{number:06d}", f"{source.path}, frame {number}", image)
            number += 1
        if not number:
            yield Frame(source.name, str(source.path), None, "a video without frames")
    finally:
        film.release()


def image_frame(source: ImageFile) -> Frame:
    """The picture of a file."""
    try:
        return Frame(source.name, str(source.path), read_image(source.path))
    except ValueError as error:
        return Frame(source.name, str(source.path), None, str(error))


def sample_frame(shards: ShardSet, ref: SampleRef) -> Frame:
    """The image of a sample."""
    where = f"{shards.folder / ref.shard}, {ref.key}"
    try:
        return Frame(ref.key, where, decode_image(shards.read(ref, ref.labels["image"])))
    except (ValueError, KeyError):
        return Frame(ref.key, where, None, "a damaged sample")


def jobs_of(source: Source) -> Iterator[tuple[Any, ...]]:
    """What a thread can do on its own for a source: a function and its arguments, a frame each.

    The frames of a video come one after the other, and are read here.
    """
    if isinstance(source, ImageFile):
        yield image_frame, source
    elif isinstance(source, ShardSplit):
        for ref in source.samples:
            yield sample_frame, source.shards, ref
    else:
        for frame in video_frames(source):
            yield (lambda same: same), frame


def names_of(source: Source) -> list[str]:
    """Of the results, as far as they are known before reading: those of a video's frames are not."""
    if isinstance(source, ShardSplit):
        return [ref.key for ref in source.samples]
    return [source.name]
