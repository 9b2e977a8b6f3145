"""Frames to measure on: a few drawn or real ones, dealt out as any number of frames under other ids.

Drawing a frame at full size costs more than converting it, so some are drawn once and kept; a set of any size is
made of hard links to their files.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from preprocess.absent import Absent
from preprocess.depth import read_returns
from preprocess.source import Frame, find_source
from synth.dataset import BOXES_TAR, BUS_TAR, write_dataset

SCENE = "20180807_145028"
STAMP = SCENE.replace("_", "")
_FILES = {  # what a frame has -> its folder and suffix
    "image": ("camera", "png"),
    "camera_json": ("camera", "json"),
    "segmentation": ("label", "png"),
    "depth": ("lidar", "npz"),
    "boxes": ("label3D", "json"),
}
_RGB = 2  # a PNG's colour type, its 26th byte
_DRAWN = 30  # of which some lack a file on purpose, and the whole ones are used


def prepare_files(cache: Path, root: Path | None, workers: int) -> None:
    """Fill `cache` with the files of a few frames: drawn ones, or those under `root` as far as it has them."""
    if (cache / "bus.json").exists():
        return
    drawn = cache / "drawn"
    if not (drawn / BOXES_TAR).exists():
        write_dataset(drawn, scenes=1, frames=_DRAWN, seed=0, workers=workers)
    whole = [frame for frame in _frames(drawn, cache) if _has_all(frame)]
    real = [] if root is None else _frames(root, cache)
    for kind in _FILES:
        if kind in ("segmentation", "camera_json"):
            continue  # beside its image, and with the time of its LiDAR
        own = [frame for frame in real if kind in frame.files and (kind != "image" or "segmentation" in frame.files)]
        for number, frame in enumerate(own or whole):
            for what in ("image", "segmentation") if kind == "image" else (kind,):
                path = cache / what / f"{number:03d}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(frame.files[what].read())
    with tarfile.open(drawn / BUS_TAR) as tar:
        file = tar.extractfile(next(member for member in tar if member.isfile()))
        assert file is not None
        records = orjson.loads(file.read())
    _write_times(cache, [frame.files["camera_json"].read() for frame in whole], records)


def _write_times(cache: Path, camera_jsons: list[bytes], records: list[dict[str, Any]]) -> None:
    """A camera JSON and a bus record for each LiDAR file, moved to its time, so that the files belong together."""
    (cache / "camera_json").mkdir(exist_ok=True)
    moved = []
    for number, (path, camera_json, record) in enumerate(
        zip(sources(cache, "depth"), cycle(camera_jsons), cycle(records), strict=False)
    ):
        times_us = read_returns(path.read_bytes()).time_us
        assert times_us is not None
        time_us = int(np.median(times_us))
        document = {**orjson.loads(camera_json), "cam_tstamp": time_us}
        (cache / "camera_json" / f"{number:03d}").write_bytes(orjson.dumps(document))
        by_us = time_us - record["timestamp"]
        flexray = {name: {**series, "timestamps": [time + by_us for time in series["timestamps"]]}
                   for name, series in record["flexray"].items()}  # fmt: skip
        moved.append({**record, "timestamp": time_us, "flexray": flexray})
    (cache / "bus.json").write_bytes(orjson.dumps(moved))


def _frames(root: Path, skip: Path) -> list[Frame]:
    return find_source(root, cameras={"frontcenter"}, skip=skip / "none").frames


def _has_all(frame: Frame) -> bool:
    """Whether a drawn frame is without the defects that take a label away, or give it another form."""
    if len(frame.files) < len(_FILES) or frame.files["segmentation"].read()[25] != _RGB:
        return False
    try:
        return len(read_returns(frame.files["depth"].read()).row) > 0
    except Absent:
        return False


def sources(cache: Path, kind: str) -> list[Path]:
    """The distinct files of a kind."""
    return sorted((cache / kind).iterdir())


def deal(cache: Path, frames: int) -> Path:
    """A folder with a data set of so many frames: the distinct files in turn, under ids of their own."""
    out = cache / f"{frames}-frames"
    if out.exists():
        return out
    making = cache / f"{frames}-frames.part"
    shutil.rmtree(making, ignore_errors=True)
    for kind, (folder, suffix) in _FILES.items():
        place = making / SCENE / folder / "cam_front_center"
        place.mkdir(parents=True, exist_ok=True)
        for frame_id, file in zip(_ids(frames), cycle(sources(cache, kind)), strict=False):
            os.link(file, place / f"{STAMP}_{folder}_frontcenter_{frame_id}.{suffix}")
    bus = making / SCENE / "bus" / f"{STAMP}_bus_signals.json"
    bus.parent.mkdir()
    records = orjson.loads((cache / "bus.json").read_bytes())
    bus.write_bytes(orjson.dumps([
        {**record, "frame_name": f"{STAMP}_camera_frontcenter_{frame_id}.json"}
        for frame_id, record in zip(_ids(frames), cycle(records), strict=False)
    ]))  # fmt: skip
    making.rename(out)
    return out


def _ids(frames: int) -> Iterator[str]:
    return islice((f"{100 + 90 * number:09d}" for number in range(frames)), frames)


def file_beside(image: Path, what: str) -> Path:
    """Another file of the frame of a dealt set's image."""
    folder, suffix = _FILES[what]
    place = image.parents[2] / folder / image.parent.name
    return place / image.with_suffix(f".{suffix}").name.replace("_camera_", f"_{folder}_")


def image_and_label(root: Path) -> Iterator[tuple[Path, Path]]:
    """The two PNGs of each frame of a dealt set."""
    for image in sorted((root / SCENE / "camera" / "cam_front_center").glob("*.png")):
        yield image, file_beside(image, "segmentation")


def tar_of_small_members(path: Path, members: int) -> None:
    """A tar as A2D2's: as many members under its names, each of 100 bytes."""
    if path.exists():
        return
    making = path.with_suffix(".part")
    block = bytes(512)
    with making.open("wb") as file:
        for number in range(members // len(_FILES)):
            for folder, suffix in _FILES.values():
                name = f"camera_lidar_semantic_bboxes/{SCENE}/{folder}/cam_front_center/"
                info = tarfile.TarInfo(f"{name}{STAMP}_{folder}_frontcenter_{number:09d}.{suffix}")
                info.size = 100
                file.write(info.tobuf(tarfile.GNU_FORMAT) + block)
        file.write(2 * block)
    making.rename(path)
