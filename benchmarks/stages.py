"""Each stage of a frame's conversion alone, ours beside the plain way: CPU ms, medians over frames and rounds."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import plain
from benchmarks.frames import SCENE, STAMP, deal, file_beside, image_and_label
from preprocess.absent import Absent
from preprocess.boxes import convert_boxes
from preprocess.bus import bus_windows
from preprocess.depth import agreeing, convert_depth, read_returns
from preprocess.image import convert_image, make_pixel_maps
from preprocess.rules import Rules
from preprocess.segmentation import convert_segmentation, count_pixels
from preprocess.source import find_source
from preprocess.steering import convert_steering, window_signals
from shards.codec import decode_json, encode_image, encode_json, encode_npy
from shards.geometry import FRONT_CENTER
from shards.png import decode_rgb_png, encode_grey_png
from shards.writer import ShardWriter

SIZE_HW = (FRONT_CENTER.height_px, FRONT_CENTER.width_px)
FRAMES = 20


class Ours:
    """The stages of `preprocess.convert`, one by one."""

    def __init__(self, root: Path) -> None:
        self.rules = Rules()
        self.maps = make_pixel_maps(FRONT_CENTER, SIZE_HW[1], SIZE_HW[0], self.rules.image.size)
        source = find_source(root, cameras={"frontcenter"}, skip=root / "none")
        (bus,) = source.bus.values()
        windows = bus_windows(bus.read(), window_signals(self.rules.steering), source.frames, lambda _: None)
        self.windows = {frame.frame_id: windows[frame.key] for frame in source.frames}

    def classes(self, label: NDArray[np.uint8]) -> bytes:
        """The class map's PNG."""
        classes = convert_segmentation(label, self.maps)
        count_pixels(classes, self.maps)
        return encode_grey_png(classes)

    def depth(self, path: Path) -> bytes:
        """The depth map's PNG."""
        size, rule = self.rules.image.size, self.rules.depth
        found = read_returns(path.read_bytes())
        agreeing(found, None, rule)
        points = found.row, found.col, found.distance_m
        return encode_grey_png(convert_depth(*points, original_hw=SIZE_HW, size=size, rule=rule))

    def boxes(self, path: Path) -> bytes:
        """The grid."""
        document, size = decode_json(path.read_bytes()), self.rules.image.size
        return encode_npy(convert_boxes(document, original_hw=SIZE_HW, size=size, rule=self.rules.boxes)[0])

    def steering(self, frame_id: str) -> bytes:
        """The window; nothing where the frame has none."""
        try:
            return encode_json(convert_steering(self.windows[frame_id].signals(), self.rules.steering))
        except Absent:
            return b""


class Timer:
    """CPU ms by stage and whose."""

    def __init__(self) -> None:
        self.ms: dict[tuple[str, str], list[float]] = {}

    def __call__(self, stage: str, whose: str, work: Callable[[], Any]) -> Any:
        """The work's result."""
        begin = time.process_time()
        result = work()
        self.ms.setdefault((stage, whose), []).append((time.process_time() - begin) * 1000)
        return result


def stage_rows(cache: Path, rounds: int) -> Iterator[tuple[str, str, str]]:
    """(stage, ours, plain) for a table."""
    cv2.setNumThreads(1)
    root, timer = deal(cache, FRAMES), Timer()
    ours, plain_maps, table = Ours(root), plain.make_maps(), plain.make_table()
    records = plain.read_bus(root / SCENE / "bus" / f"{STAMP}_bus_signals.json")
    with ShardWriter(cache / "stages.tar") as writer, tarfile.open(cache / "plain-stages.tar", "w") as tar:
        for image, label in rounds * list(image_and_label(root)):
            _time_ours(timer, ours, image, label, writer)
            _time_plain(timer, image, label, plain_maps, table, records, tar)
    sums = {"ours": 0.0, "plain": 0.0}
    for stage in dict.fromkeys(stage for stage, _ in timer.ms):
        found = {whose: median(timer.ms[stage, whose]) for whose in sums}
        sums = {whose: sums[whose] + found[whose] for whose in sums}
        yield stage, f"{found['ours']:.2f}", f"{found['plain']:.2f}"
    yield "sum", f"{sums['ours']:.1f}", f"{sums['plain']:.1f}"


def _time_ours(timer: Timer, ours: Ours, image: Path, label: Path, writer: ShardWriter) -> None:
    measure = partial(timer, whose="ours")
    frame_id = image.stem[-9:]
    stored = measure("decode image", work=lambda: decode_rgb_png(image.read_bytes()))
    colours = measure("decode label", work=lambda: decode_rgb_png(label.read_bytes()))
    sample = measure("undistort and resize", work=lambda: convert_image(stored, ours.maps))
    members = [
        measure("JPEG", work=lambda: encode_image(sample, "jpg", 95)),
        measure("class map", work=lambda: ours.classes(colours)),
        measure("depth map", work=lambda: ours.depth(file_beside(image, "depth"))),
        measure("boxes", work=lambda: ours.boxes(file_beside(image, "boxes"))),
        measure("steering", work=lambda: ours.steering(frame_id)),
    ]
    measure("writing", work=lambda: [writer.add(f"{frame_id}.{i}", member) for i, member in enumerate(members)])


def _time_plain(
    timer: Timer, image: Path, label: Path, maps: Any, table: Any, records: dict[str, Any], tar: tarfile.TarFile
) -> None:
    measure = partial(timer, whose="plain")
    frame_id = image.stem[-9:]
    stored = measure("decode image", work=lambda: plain.decode(image))
    colours = measure("decode label", work=lambda: plain.decode(label))
    sample = measure("undistort and resize", work=lambda: plain.resize_image(stored, maps))
    members = [
        measure("JPEG", work=lambda: plain.encode_jpg(sample)),
        measure("class map", work=lambda: plain.class_map(colours, maps, table)),
        measure("depth map", work=lambda: plain.depth_map(file_beside(image, "depth"))),
        measure("boxes", work=lambda: plain.box_grid(file_beside(image, "boxes"))),
        measure("steering", work=lambda: plain.steering(records.get(frame_id)) or b""),
    ]
    measure("writing", work=lambda: plain.add_all(tar, {f"{frame_id}.{i}": data for i, data in enumerate(members)}))
