"""Inputs of a prediction: images, folders of images, films and shards, as frames with a name each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.codec import decode_image
from shards.draw import Picture
from shards.reader import SampleRef, ShardSet
from shards.schema import MANIFEST
from train.deploy.film import expected_frames, read_film
from train.deploy.film_decode import FilmFrame
from train.deploy.image_file import ImageRules, Page, is_image, nearly, page_count, read_pages
from train.deploy.names import Names, numbered

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".apng")
PAGED = (".png", ".apng", ".tif", ".tiff", ".webp", ".gif")  # these may hold several pictures
FILMS = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts",
         ".mjpeg", ".mjpg", ".h264", ".h265", ".hevc", ".ivf", ".flv", ".wmv", ".asf", ".ogv", ".mxf")  # fmt: skip


@dataclass(frozen=True)
class ImageFile:
    """A file of one picture, or of several pages; the frames of pages are named `<name>_000000` and on."""

    name: str  # of the results
    path: Path
    pages: int = 1
    rules: ImageRules = field(default_factory=ImageRules)

    def count(self) -> int:
        """Frames, as far as can be told without reading them."""
        return self.pages


@dataclass(frozen=True)
class FilmFile:
    """A film; its frames are named `<name>_000000` and on, by their places in the film."""

    name: str
    path: Path

    def count(self) -> int:
        """Frames by the film's header, which may be wrong."""
        return expected_frames(self.path)


@dataclass(frozen=True)
class ShardSplit:
    """The samples of a split of a finished set, named by their keys where no other input has those names."""

    shards: ShardSet
    samples: Sequence[SampleRef]
    names: Sequence[str]

    def count(self) -> int:
        """Samples."""
        return len(self.samples)


Source = ImageFile | FilmFile | ShardSplit


@dataclass(frozen=True)
class Frame:
    """A picture to predict, or why there is none."""

    name: str  # of the results
    source: str  # the file, and for a sample its key, for people
    image: Picture | None  # (H, W, 3) uint8 RGB
    reason: str = ""
    number: int | None = None  # of the frame or page in its file, from 0
    time_s: float | None = None  # of a film's frame since frame 0
    film: str | None = None  # the name of the film that it is of
    lost: int = 1  # pictures that it stands for, where it has none; 0: it is a remark on its source
    remarks: tuple[str, ...] = ()  # on a picture that is there


def find_sources(
    paths: Sequence[Path], split: str, skip: Path, rules: ImageRules | None = None
) -> tuple[list[Source], int]:
    """Return the sources that the paths hold, each with its own name, and the number of files that are no images.

    Folders are searched to any depth, without what lies in `skip`. Raises ValueError where a folder holds nothing.
    """
    sources: list[Source] = []
    names, rules = Names(), rules or ImageRules()
    passed = 0
    for path in paths:
        if not path.is_dir():
            sources.append(_open_file(path, path.stem, names, rules))
        elif (path / MANIFEST).exists():
            sources.append(_open_split(path, split, names))
        else:
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _within(file, skip)]
            images = [file for file in files if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
            if not images:
                raise ValueError(f"{path} holds no image: {', '.join(IMAGES)} are looked for, and shards' {MANIFEST}")
            passed += len(files) - len(images)
            for file in images:
                name = "_".join(file.relative_to(path).with_suffix("").parts)
                sources.append(_open_file(file, name, names, rules))
    return sources, passed


def _open_file(path: Path, name: str, names: Names, rules: ImageRules) -> Source:
    """A film by the name's end, and where that tells nothing, whatever Pillow does not know."""
    if path.suffix.lower() in FILMS or (path.suffix.lower() not in IMAGES and not is_image(path)):
        return FilmFile(names.take(name, many=True), path)
    pages = page_count(path) if path.suffix.lower() in PAGED else 1
    return ImageFile(names.take(name, many=pages > 1), path, pages, rules)


def _within(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def _open_split(folder: Path, split: str, names: Names) -> ShardSplit:
    shards = ShardSet(folder)
    shards.check_sizes()
    samples = shards.samples(split)
    if not samples:
        raise ValueError(f"{folder} has no sample in split {split}: give another --split")
    return ShardSplit(shards, samples, [names.take(ref.key) for ref in samples])


def image_frames(source: ImageFile) -> Iterator[Frame]:
    """The picture of a file, or its pages."""
    for number, page in enumerate(read_pages(source.path, source.rules)):
        yield _page_frame(source, number, page)


def image_frame(source: ImageFile) -> Frame:
    """The picture of a file of one."""
    return next(image_frames(source))


def _page_frame(source: ImageFile, number: int, page: Page) -> Frame:
    if source.pages == 1:
        return Frame(source.name, str(source.path), page.image, page.reason, remarks=page.remarks)
    where = f"{source.path}, page {number}"
    return Frame(numbered(source.name, number), where, page.image, page.reason, number, remarks=page.remarks)


def film_frames(source: FilmFile) -> Iterator[Frame]:
    """The frames of a film; the last may say what is lost of it."""
    for read in read_film(source.path):
        if not isinstance(read, FilmFrame):
            yield Frame(source.name, str(source.path), None, read.words, film=source.name, lost=read.lost)
            continue
        shade = nearly(read.image)
        yield Frame(
            numbered(source.name, read.number),
            f"{source.path}, frame {read.number}",
            read.image,
            number=read.number,
            time_s=read.time_s,
            film=source.name,
            remarks=(f"nearly {shade}",) if shade else (),
        )


def sample_frame(shards: ShardSet, ref: SampleRef, name: str) -> Frame:
    """The image of a sample."""
    where = f"{shards.folder / ref.shard}, {ref.key}"
    try:
        return Frame(name, where, decode_image(shards.read(ref, ref.labels["image"])))
    except (ValueError, KeyError):
        return Frame(name, where, None, "a damaged sample")


def jobs_of(source: Source) -> Iterator[tuple[Any, ...]]:
    """Yield the jobs of a source that threads can do independently: a function with arguments, one frame each.

    The frames of a film, and the pages of a file, come one after the other, and are read here.
    """
    if isinstance(source, ShardSplit):
        for ref, name in zip(source.samples, source.names, strict=True):
            yield sample_frame, source.shards, ref, name
    elif isinstance(source, ImageFile) and source.pages == 1:
        yield image_frame, source
    else:
        for frame in film_frames(source) if isinstance(source, FilmFile) else image_frames(source):
            yield (lambda same: same), frame


def names_of(source: Source) -> list[str]:
    """Names of the results, as far as they are known before reading: those of a film's frames are not."""
    if isinstance(source, ShardSplit):
        return list(source.names)
    if isinstance(source, ImageFile) and source.pages > 1:
        return [numbered(source.name, number) for number in range(source.pages)]
    return [source.name]
