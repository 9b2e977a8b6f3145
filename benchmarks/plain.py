"""The plain way to the same shards: Pillow, OpenCV's defaults, numpy, json and tarfile, as one would write it first.

No checks, no checksums, no resume. What costs nothing to do well is done well: maps and tables are made once, the
bus file is read once, nothing is decoded twice.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.frames import SCENE, STAMP, file_beside
from shards.classes import BOX_ID, CLASS_LIST, SEGMENTATION_ID, class_of_entry, rgb_of_hex
from shards.geometry import FRONT_CENTER

SIZE, MAX_M, POINT_PX = 1024, 123.0, 3
WIDTH, HEIGHT = FRONT_CENTER.width_px, FRONT_CENTER.height_px


def make_maps() -> tuple[Any, Any]:
    """OpenCV's maps of the undistorted image."""
    raw, undistorted = FRONT_CENTER.raw.matrix, FRONT_CENTER.undistorted.matrix
    distortion = np.array(FRONT_CENTER.distortion)
    return cv2.initUndistortRectifyMap(raw, distortion, None, undistorted, (WIDTH, HEIGHT), cv2.CV_16SC2)


def make_table() -> NDArray[np.uint8]:
    """Class id by packed colour."""
    table = np.full(1 << 24, 255, dtype=np.uint8)
    for colour, entry in CLASS_LIST.items():
        red, green, blue = rgb_of_hex(colour)
        table[red << 16 | green << 8 | blue] = SEGMENTATION_ID[class_of_entry(entry)]
    return table


def decode(path: Path) -> NDArray[np.uint8]:
    """A PNG by Pillow."""
    return np.asarray(Image.open(path).convert("RGB"))


def resize_image(rgb: NDArray[np.uint8], maps: tuple[Any, Any]) -> NDArray[np.uint8]:
    """Undistort, then average areas."""
    undistorted = cv2.remap(rgb, *maps, cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(undistorted, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


def encode_jpg(rgb: NDArray[np.uint8]) -> bytes:
    """JPEG by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """PNG by OpenCV."""
    return bytes(cv2.imencode(".png", array)[1])


def class_map(rgb: NDArray[np.uint8], maps: tuple[Any, Any], table: NDArray[np.uint8]) -> bytes:
    """Undistort and resize by nearest neighbour, then look colours up."""
    undistorted = cv2.remap(rgb, *maps, cv2.INTER_NEAREST)
    small = cv2.resize(undistorted, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    return encode_png(table[small[..., 0] << 16 | small[..., 1] << 8 | small[..., 2]])


def depth_map(path: Path) -> bytes:
    """Points, the nearest last, drawn as squares."""
    with np.load(path) as arrays:
        row, col, distance = arrays["row"], arrays["col"], arrays["distance"]
    x, y = ((col + 0.5) * SIZE / WIDTH).astype(int), ((row + 0.5) * SIZE / HEIGHT).astype(int)
    inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE) & (distance > 0)
    x, y, distance = x[inside], y[inside], distance[inside]
    levels = np.maximum(1, np.round(np.minimum(distance, MAX_M) * 255 / MAX_M)).astype(np.uint8)
    order = np.argsort(-distance, kind="stable")
    reach = POINT_PX // 2
    depth = np.full((SIZE + 2 * reach, SIZE + 2 * reach), 256, dtype=np.int32)
    for down in range(POINT_PX):
        for right in range(POINT_PX):
            np.minimum.at(depth, (y[order] + down, x[order] + right), levels[order])
    depth[depth == 256] = 0
    return encode_png(depth[reach:-reach, reach:-reach].astype(np.uint8))


def box_grid(path: Path) -> bytes:
    """The boxes of a frame in the YOLO grid, the largest first."""
    boxes = set()  # some are there twice
    for box in json.loads(path.read_text()).values():
        x1, y1, x2, y2 = np.clip(np.array(box["2d_bbox"]) * SIZE / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]), 0, SIZE)
        if x2 - x1 >= 2 and y2 - y1 >= 2:
            boxes.add((x1, y1, x2, y2, BOX_ID[box["class"].replace(" ", "")]))
    grid = np.zeros((8, 8, 10, 19), dtype=np.float32)
    filled = np.zeros((8, 8), dtype=int)
    for x1, y1, x2, y2, number in sorted(boxes, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1])):
        x, y = (x1 + x2) / 2 / SIZE * 8, (y1 + y2) / 2 / SIZE * 8
        cell = min(int(y), 7), min(int(x), 7)
        if filled[cell] < 10:
            grid[(*cell, filled[cell])][:5] = 1, x - cell[1], y - cell[0], (x2 - x1) / SIZE, (y2 - y1) / SIZE
            grid[(*cell, filled[cell], 5 + number)] = 1
            filled[cell] += 1
    buffer = io.BytesIO()
    np.save(buffer, grid)
    return buffer.getvalue()


def read_bus(path: Path) -> dict[str, Any]:
    """The records of a scene by frame id."""
    return {record["frame_name"][-14:-5]: record for record in json.loads(path.read_text())}


def steering(record: dict[str, Any] | None) -> bytes | None:
    """Signed angles, where the record has them."""
    if record is None:
        return None
    series = record["flexray"].get("steering_angle_calculated")
    if not series or len(series["values"]) < 10 or max(series["values"][-10:]) > 614:
        return None
    signs = record["flexray"]["steering_angle_calculated_sign"]["values"]
    angles = [-value if sign == 0 else value for value, sign in zip(series["values"], signs, strict=False)]
    return json.dumps({"timestamps_us": series["timestamps"], "angles_deg": angles, "unit": "deg"}).encode()


def add_all(tar: tarfile.TarFile, members: dict[str, bytes]) -> None:
    """A sample's members, as webdataset's TarWriter adds them."""
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o444
        tar.addfile(info, io.BytesIO(content))


def build(root: Path, out: Path) -> None:
    """All frames of a dealt set into tars of 128."""
    cv2.setNumThreads(1)
    maps, table = make_maps(), make_table()
    records = read_bus(root / SCENE / "bus" / f"{STAMP}_bus_signals.json")
    images = sorted((root / SCENE / "camera" / "cam_front_center").glob("*.png"))
    for start in range(0, len(images), 128):
        with tarfile.open(out / f"plain-{start // 128:06d}.tar", "w") as tar:
            for image in images[start : start + 128]:
                members = convert(image, maps, table, records)
                key = f"{STAMP}_frontcenter_{image.stem[-9:]}"
                add_all(tar, {f"{key}.{name}": content for name, content in members.items()})


def convert(image: Path, maps: tuple[Any, Any], table: NDArray[np.uint8], records: dict[str, Any]) -> dict[str, bytes]:
    """A frame's members."""
    members = {
        "image.jpg": encode_jpg(resize_image(decode(image), maps)),
        "segmentation.png": class_map(decode(file_beside(image, "segmentation")), maps, table),
        "depth.png": depth_map(file_beside(image, "depth")),
        "boxes.npy": box_grid(file_beside(image, "boxes")),
    }
    window = steering(records.get(image.stem[-9:]))
    if window is not None:
        members["steering.json"] = window
    camera = json.loads(file_beside(image, "camera_json").read_text())
    meta = {"frame_id": image.stem[-9:], "scene": SCENE, "timestamp_us": camera["cam_tstamp"]}
    return {**members, "meta.json": json.dumps(meta).encode()}
