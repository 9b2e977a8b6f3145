"""Files of plausible but wrong content, made from right ones: bus records, LiDAR, class maps and boxes.

Each function takes a random generator, the frames of a scene and the place of one of them, and returns the bytes of
that frame's file as it might be after somebody's mistake: another time, unit, place, order, coding or frame.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

STEERING, SIGN = "steering_angle_calculated", "steering_angle_calculated_sign"


@dataclass(frozen=True)
class Files:
    """The files of a frame, decoded."""

    record: dict[str, Any]
    lidar: dict[str, NDArray[Any]]
    classes: NDArray[np.uint8]  # RGB
    boxes: dict[str, dict[str, Any]]


Random = np.random.Generator
Scene = list[Files]
Wrong = Callable[[Random, Scene, int], bytes]


def _offset_us(random: Random) -> int:
    """Between 10 ms and a day, either way, each order of magnitude as likely."""
    return int(random.choice([-1, 1]) * 10 ** random.uniform(4, 10.9))


def _bus(change: Callable[[Random, dict[str, Any], Scene, int], None]) -> Wrong:
    def wrong(random: Random, scene: Scene, place: int) -> bytes:
        record = orjson.loads(orjson.dumps(scene[place].record))
        change(random, record, scene, place)
        return orjson.dumps([record])

    return wrong


def _times(record: dict[str, Any], names: tuple[str, ...], function: Callable[[int], float]) -> None:
    for name in names:
        series = record["flexray"][name]
        series["timestamps"] = [int(function(time)) for time in series["timestamps"]]


def _shift(random: Random, record: dict[str, Any], names: tuple[str, ...]) -> None:
    by_us = _offset_us(random)
    _times(record, names, lambda time: time + by_us)


def _scale(random: Random, record: dict[str, Any], names: tuple[str, ...]) -> None:
    factor = random.choice([1e-6, 1e-3, 1e3])
    _times(record, names, lambda time: time * factor)


def _jump(random: Random, record: dict[str, Any], *_: Any) -> None:
    start, by_us = int(random.integers(1, 20)), abs(_offset_us(random))
    for name in (STEERING, SIGN):
        times = record["flexray"][name]["timestamps"]
        record["flexray"][name]["timestamps"] = [time - by_us * (i < start) for i, time in enumerate(times)]


def _of_another_frame(random: Random, record: dict[str, Any], scene: Scene, place: int) -> None:
    other = scene[(place + int(random.integers(1, len(scene)))) % len(scene)].record
    record |= {"timestamp": other["timestamp"], "flexray": other["flexray"]}


def _values_of_another_frame(random: Random, record: dict[str, Any], scene: Scene, place: int) -> None:
    other = scene[(place + int(random.integers(1, len(scene)))) % len(scene)].record["flexray"]
    for name in (STEERING, SIGN):
        record["flexray"][name]["values"] = other[name]["values"]


def _unit(random: Random, record: dict[str, Any], *_: Any) -> None:
    unit, factor = [("Unit_Radian", np.pi / 180), ("rad", np.pi / 180), ("Unit_PerCent", 1 / 6.14)][random.integers(3)]
    series = record["flexray"][STEERING]
    series |= {"unit": unit, "values": [value * factor for value in series["values"]]}


def _radians_named_degrees(_: Random, record: dict[str, Any], *__: Any) -> None:
    series = record["flexray"][STEERING]
    series["values"] = [value * np.pi / 180 for value in series["values"]]


def _signs_exchanged(_: Random, record: dict[str, Any], *__: Any) -> None:
    series = record["flexray"][SIGN]
    series["values"] = [1 - value for value in series["values"]]


BUS: dict[str, Wrong] = {
    "values at another time": _bus(lambda random, record, *_: _shift(random, record, (STEERING, SIGN))),
    "record and values of another frame": _bus(_of_another_frame),
    "values of another frame, its own times": _bus(_values_of_another_frame),
    "times in another unit": _bus(lambda random, record, *_: _scale(random, record, (STEERING, SIGN))),
    "sign's times in another unit": _bus(lambda random, record, *_: _scale(random, record, (SIGN,))),
    "sign at another time": _bus(lambda random, record, *_: _shift(random, record, (SIGN,))),
    "a jump inside": _bus(_jump),
    "another unit, said": _bus(_unit),
    "radians, said to be degrees": _bus(_radians_named_degrees),
    "left and right exchanged": _bus(_signs_exchanged),
}


def _lidar(change: Callable[[Random, dict[str, NDArray[Any]], Scene, int], None]) -> Wrong:
    def wrong(random: Random, scene: Scene, place: int) -> bytes:
        arrays = {name: array.copy() for name, array in scene[place].lidar.items()}
        change(random, arrays, scene, place)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    return wrong


def _later(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    arrays["timestamp"] += _offset_us(random)


def _half_later(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    arrays["timestamp"][: len(arrays["timestamp"]) // 2] += _offset_us(random)


def _time_unit(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    arrays["timestamp"] = (arrays["timestamp"] * random.choice([1e-6, 1e-3, 1e3])).astype(np.int64)


def _distance_unit(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    arrays["distance"] *= random.choice([1000.0, 100.0, 3.2808, 0.001])


def _all_lengths_unit(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    factor = random.choice([1000.0, 100.0, 3.2808, 0.001])
    for name in ("distance", "depth", "points"):
        arrays[name] *= factor


def _ahead_for_distance(_: Random, arrays: dict[str, NDArray[Any]], *__: Any) -> None:
    arrays["distance"] = arrays["depth"].copy()


def _pixels_moved(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    arrays["row"] += random.uniform(-60, 60)
    arrays["col"] += random.uniform(-60, 60)


def _pixels_exchanged(_: Random, arrays: dict[str, NDArray[Any]], *__: Any) -> None:
    arrays["row"], arrays["col"] = arrays["col"], arrays["row"]


def _pixels_mirrored(_: Random, arrays: dict[str, NDArray[Any]], *__: Any) -> None:
    arrays["col"] = 1919 - arrays["col"]


def _behind(random: Random, arrays: dict[str, NDArray[Any]], *_: Any) -> None:
    """Points behind the camera, added at the pixels of real returns, a quarter as far."""
    chosen = random.permutation(len(arrays["row"]))[:500]
    extra = {name: array[chosen] for name, array in arrays.items()}
    extra |= {"points": -extra["points"] / 4, "depth": -extra["depth"] / 4, "distance": extra["distance"] / 4}
    arrays |= {name: np.concatenate([array, extra[name]]) for name, array in arrays.items()}


def _all_of_another_frame(random: Random, arrays: dict[str, NDArray[Any]], scene: Scene, place: int) -> None:
    arrays |= scene[(place + int(random.integers(1, len(scene)))) % len(scene)].lidar


LIDAR: dict[str, Wrong] = {
    "at another time": _lidar(_later),
    "half of it at another time": _lidar(_half_later),
    "times in another unit": _lidar(_time_unit),
    "distances in another unit": _lidar(_distance_unit),
    "all lengths in another unit": _lidar(_all_lengths_unit),
    "depth for distance": _lidar(_ahead_for_distance),
    "pixels moved": _lidar(_pixels_moved),
    "rows and columns exchanged": _lidar(_pixels_exchanged),
    "columns mirrored": _lidar(_pixels_mirrored),
    "points behind the camera": _lidar(_behind),
    "of another frame": _lidar(_all_of_another_frame),
}


def _classes(change: Callable[[Random, NDArray[np.uint8], Scene, int], NDArray[Any]]) -> Wrong:
    def wrong(random: Random, scene: Scene, place: int) -> bytes:
        rgb = np.ascontiguousarray(change(random, scene[place].classes, scene, place), dtype=np.uint8)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])

    return wrong


def _through_jpeg(random: Random, rgb: NDArray[np.uint8], *_: Any) -> NDArray[Any]:
    data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(80, 100))])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))


def _resized(random: Random, rgb: NDArray[np.uint8], *_: Any) -> NDArray[Any]:
    small = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def _moved(random: Random, rgb: NDArray[np.uint8], *_: Any) -> NDArray[Any]:
    return np.roll(rgb, tuple(random.integers(-60, 60, 2)), axis=(0, 1))


CLASSES: dict[str, Wrong] = {
    "red and blue exchanged": _classes(lambda _, rgb, *__: rgb[..., ::-1]),
    "class ids in the place of colours": _classes(lambda _, rgb, *__: np.repeat(rgb[..., :1] // 7, 3, axis=2)),
    "brightness changed": _classes(lambda random, rgb, *_: rgb * random.uniform(0.8, 0.99)),
    "through a JPEG": _classes(_through_jpeg),
    "resized with interpolation": _classes(_resized),
    "mirrored": _classes(lambda _, rgb, *__: rgb[:, ::-1]),
    "moved": _classes(_moved),
    "of another frame": _classes(lambda _, __, scene, place: scene[(place + 1) % len(scene)].classes),
}


def _boxes(change: Callable[[Random, list[float]], list[float]]) -> Wrong:
    def wrong(random: Random, scene: Scene, place: int) -> bytes:
        boxes = orjson.loads(orjson.dumps(scene[place].boxes))
        state = random.bit_generator.state
        for box in boxes.values():
            random.bit_generator.state = state  # the same mistake for each box of a file
            box["2d_bbox"] = [float(value) for value in change(random, box["2d_bbox"])]
        return orjson.dumps(boxes)

    return wrong


def _other_names(random: Random, scene: Scene, place: int) -> bytes:
    respell = [str.lower, str.upper, lambda name: f"{name}s", lambda name: f"vehicle.{name}"][random.integers(4)]
    boxes = {name: {**box, "class": respell(box["class"])} for name, box in scene[place].boxes.items()}
    return orjson.dumps(boxes)


def _boxes_of_another_frame(_: Random, scene: Scene, place: int) -> bytes:
    return orjson.dumps(scene[(place + 1) % len(scene)].boxes)


def _scaled_box(random: Random, box: list[float]) -> list[float]:
    factor = random.choice([0.5, 1 / 1920, 2.0])
    return [value * factor for value in box]


def _moved_box(random: Random, box: list[float]) -> list[float]:
    by_px = random.uniform(-80, 80)
    return [value + by_px for value in box]


BOXES: dict[str, Wrong] = {
    "rows before columns": _boxes(lambda _, box: [box[1], box[0], box[3], box[2]]),
    "width and height for the far corner": _boxes(lambda _, box: [*box[:2], box[2] - box[0], box[3] - box[1]]),
    "of another image size": _boxes(_scaled_box),
    "moved": _boxes(_moved_box),
    "mirrored": _boxes(lambda _, box: [1919 - box[2], box[1], 1919 - box[0], box[3]]),
    "class names in another spelling": _other_names,
    "of another frame": _boxes_of_another_frame,
}
