"""A whole synthetic set on disk: the two tars and the loose calibration file, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import multiprocessing
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import orjson

from shards.classes import CLASS_LIST
from synth.bus import bus_signals
from synth.calibration import cams_lidars
from synth.frame import CAMERA_FOLDER, SUBTREES, frame_files, json_bytes
from synth.world import DrawnFrame, plan

TOP = "camera_lidar_semantic_bboxes"
BOXES_TAR = f"{TOP}.tar"
BUS_TAR = "camera_lidar_semantic_bus.tar"
CALIBRATION = "cams_lidars.json"
MTIME = 1_586_822_400  # of every member, 14 April 2020: the bytes of a tar depend on its content alone


def write_dataset(
    out: Path,
    *,
    scenes: int,
    frames: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the set into `out`, calling progress(frames done, frames of the set) after each frame.

    Raises ValueError where a number is out of range, or where `out` already has one of the three files.
    """
    for name, value, least in (
        ("scenes", scenes, 1),
        ("frames", frames, 1),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")
    for name in (CALIBRATION, BUS_TAR, BOXES_TAR):
        if (out / name).exists():
            raise ValueError(f"{out / name} must not be there already: nothing is overwritten, choose another folder")
    planned = plan(scenes, frames, seed)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".synth-", dir=out) as name:
        room = Path(name)
        (room / CALIBRATION).write_bytes(json_bytes(cams_lidars()))
        _write_bus(room / BUS_TAR, planned)
        _write_boxes(room / BOXES_TAR, planned, workers, progress or (lambda done, total: None))
        for written in (CALIBRATION, BUS_TAR, BOXES_TAR):  # the tar that names the set comes last
            (room / written).rename(out / written)


def _write_bus(path: Path, planned: Sequence[Sequence[DrawnFrame]]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for frames in planned:
            scene = frames[0].scene
            _add_folders(tar, scene.name, f"{scene.name}/bus")
            _add(tar, f"{scene.name}/bus/{scene.stamp}_bus_signals.json", orjson.dumps(bus_signals(frames)))


def _write_boxes(
    path: Path, planned: Sequence[Sequence[DrawnFrame]], workers: int, progress: Callable[[int, int], None]
) -> None:
    """A scene's files are kept in a folder beside the tar until all are drawn: the tar has them subtree by subtree."""
    spool = path.parent / "spool"
    every = [frame for frames in planned for frame in frames]
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar, _drawn(every, spool, workers) as drawn:
        _add_folders(tar, TOP)
        _add(tar, f"{TOP}/class_list.json", json.dumps(CLASS_LIST, indent=4).encode())
        done = 0
        for frames in planned:
            for _ in frames:
                next(drawn)
                done += 1
                progress(done, len(every))
            _add_scene(tar, frames[0].scene.name, spool)


@contextlib.contextmanager
def _drawn(frames: Sequence[DrawnFrame], spool: Path, workers: int) -> Iterator[Iterator[None]]:
    """An iterator that goes on when the next frame's files are in the spool."""
    draw = functools.partial(draw_to, spool)
    if workers == 1:
        yield map(draw, frames)
        return
    # spawn: a fork would take over threads and locks of OpenCV and of whoever calls this
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(frames)), context, initializer=_start_worker)
    try:
        yield pool.map(draw, frames)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # a process a core is enough


def draw_to(spool: Path, frame: DrawnFrame) -> None:
    """Draw one frame into `spool/<scene>/<subtree>/`."""
    for (subtree, name), content in frame_files(frame).items():
        folder = spool / frame.scene.name / subtree
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _add_scene(tar: tarfile.TarFile, scene: str, spool: Path) -> None:
    """Move a scene's files from the spool into the tar."""
    _add_folders(tar, f"{TOP}/{scene}")
    for subtree in SUBTREES:
        files = sorted((spool / scene / subtree).glob("*"))
        if files:
            _add_folders(tar, f"{TOP}/{scene}/{subtree}", f"{TOP}/{scene}/{subtree}/{CAMERA_FOLDER}")
        for file in files:
            _add(tar, f"{TOP}/{scene}/{subtree}/{CAMERA_FOLDER}/{file.name}", file.read_bytes())
            file.unlink()


def _add_folders(tar: tarfile.TarFile, *names: str) -> None:
    for name in names:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, MTIME
        tar.addfile(member)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, MTIME
    tar.addfile(member, io.BytesIO(content))
