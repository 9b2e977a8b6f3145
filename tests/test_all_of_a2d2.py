"""Every part of A2D2 through the whole conversion: the sets beside each other, six cameras, sensor fusion."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest

from shards.classes import CLASS_LIST, IGNORE_INDEX, SEGMENTATION_ID
from shards.geometry import CAMERAS, Calibration, parse_calibrations, raw_from_undistorted, sample_from_pixel
from shards.reader import SampleRef, ShardSet
from synth.bus import VALUES_AFTER, VALUES_BEFORE
from tests.conftest import png, prep
from tests.test_depth import npz

BOXES_TAR, BUS_TAR = "camera_lidar_semantic_bboxes.tar", "camera_lidar_semantic_bus.tar"
SCENE = "20180807_145028"


def unpack(tar: Path) -> dict[str, bytes]:
    """The files of a tar by name."""
    with tarfile.open(tar) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened if member.isfile()}  # type: ignore


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def convert(root: Path, *options: object, rules: str = "[image]\nsize = 256\n") -> ShardSet:
    (root / "rules.toml").write_text(rules)
    result = prep("shard", "--root", root, "--out", root / "shards", "--rules", root / "rules.toml", "--workers", 1,
                  *options)  # fmt: skip
    assert result.exit_code == 0, result.output
    return ShardSet(root / "shards")


def samples(opened: ShardSet) -> dict[str, SampleRef]:
    return {ref.key: ref for split in ("train", "val") for ref in opened.samples(split)}


def members(opened: ShardSet, ref: SampleRef) -> dict[str, bytes]:
    return {name: opened.read(ref, name) for name in ref.sample.members if name != "meta.json"}


@pytest.fixture(scope="module")
def scene(synthetic: Path) -> dict[str, bytes]:
    """The files of the first scene, its bus file among them."""
    files = {**unpack(synthetic / BOXES_TAR), **unpack(synthetic / BUS_TAR)}
    first = min(re.findall(r"\d{8}_\d{6}", " ".join(files)))
    return only(files, first, "class_list.json")


def only(files: Mapping[str, bytes], *patterns: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if any(re.search(pattern, name) for pattern in patterns)}


def renamed(files: Mapping[str, bytes], *changes: tuple[str, str]) -> dict[str, bytes]:
    """The same files under other names."""
    names = {name: name for name in files}
    for old, new in changes:
        names = {name: re.sub(old, new, changed) for name, changed in names.items()}
    return {names[name]: data for name, data in files.items()}


def keys(files: Mapping[str, bytes]) -> list[str]:
    """Only of the frames that have a camera image."""
    found = (re.search(r"(\d{14})_camera_([a-z]+_\d+)\.png$", name) for name in files)
    return sorted(f"{match[1]}_{match[2]}" for match in found if match)


# The semantic set beside the one with boxes


def test_a_frame_of_two_sets_is_one_sample_with_the_labels_of_both(
    scene: dict[str, bytes], shards: Path, tmp_path: Path
) -> None:
    """Three frames are in both sets; of the rest the semantic set knows all but the boxes."""
    in_both = keys(scene)[:3]
    ids = "|".join(key[-9:] for key in in_both)
    pack(tmp_path / BOXES_TAR, only(scene, rf"/(camera|label3D|label|lidar)/.*_({ids})\.", "class_list"))
    semantic = renamed(
        only(scene, "/(camera|label|lidar)/"), ("^camera_lidar_semantic_bboxes", "camera_lidar_semantic")
    )
    pack(tmp_path / "camera_lidar_semantic.tar", semantic)
    pack(tmp_path / BUS_TAR, only(scene, "/bus/"))
    opened, whole = convert(tmp_path), ShardSet(shards)
    assert sorted(samples(opened)) == keys(scene)
    for key, ref in samples(opened).items():
        expected = members(whole, samples(whole)[key])
        if key not in in_both:
            del expected["boxes.npy"]
        assert members(opened, ref) == expected, key


def test_frames_with_nothing_but_classes_are_samples_too(scene: dict[str, bytes], tmp_path: Path) -> None:
    """Two of the real scenes have neither LiDAR nor camera JSON nor bus."""
    pack(tmp_path / "semantic.tar", only(scene, r"/(camera|label)/.*\.png$"))
    opened = convert(tmp_path)
    for ref in samples(opened).values():
        assert set(members(opened, ref)) == {"image.jpg", "segmentation.png"}
        meta = opened.meta(ref)
        assert meta["timestamp_us"] is None
        assert [meta[label]["absent"] for label in ("depth", "boxes", "steering")] == [
            *["no file"] * 2,
            "no bus record",
        ]


# Sensor fusion


def as_sensor_fusion(data: bytes) -> bytes:
    """A LiDAR file with the names of sensor fusion, with returns that are not valid, and some outside the image."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    points = arrays.pop("points")
    arrays["valid"] = np.ones(len(points), dtype=bool)
    arrays["boundary"] = arrays["rectime"] = np.zeros(len(points), dtype=np.int64)
    for row, col, valid in ((600.0, 900.0, False), (np.nan, np.nan, False), (-50.0, 4000.0, True)):
        odd = {"row": row, "col": col, "distance": 2.0, "valid": valid}
        arrays = {
            name: np.append(array, np.array(odd.get(name, 0)).astype(array.dtype)) for name, array in arrays.items()
        }
    attributes = {f"pcloud_attr.{name}": array for name, array in arrays.items()}
    return npz(pcloud_points=np.concatenate([points, np.ones((3, 3))]), **attributes)


PERIOD_US = 20_000


def angle_deg(time_us: int) -> float:
    """A signal of the invented drive: its magnitude tells the time, left and right by turns."""
    count = time_us // PERIOD_US
    return round(count % 1000 * 0.15, 2) * (1 if count % 2 else -1)


def drive_bus(first_us: int, last_us: int) -> bytes:
    times_us = range(first_us // PERIOD_US * PERIOD_US - 10**6, last_us + 10**6, PERIOD_US)
    magnitudes = [[time_us, abs(angle_deg(time_us))] for time_us in times_us]
    signs = [[time_us + 700, int(angle_deg(time_us) > 0)] for time_us in times_us]
    signal = "steering_angle_calculated"
    return orjson.dumps(
        {
            signal: {"unit": "Unit_DegreOfArc", "values": magnitudes},
            f"{signal}_sign": {"unit": None, "values": signs},
            "vehicle_speed": {"unit": "Unit_KiloMeterPerHour", "values": magnitudes},
        }
    )


def test_sensor_fusion_gives_depth_and_steering(scene: dict[str, bytes], shards: Path, tmp_path: Path) -> None:
    stamp = keys(scene)[0][:14]
    drive = ((f"{stamp[:8]}_{stamp[8:]}", "20190401_121727"), (stamp, "20190401121727"))
    cameras = renamed(only(scene, "/camera/"), (r"^[^/]+/", "./camera_lidar/"), *drive)
    lidars = renamed(only(scene, "/lidar/"), (r"^[^/]+/", "./camera_lidar/"), *drive)
    times_us = {name: orjson.loads(data)["cam_tstamp"] for name, data in cameras.items() if name.endswith("json")}
    untimed = max(times_us)
    del cameras[untimed]
    name = "camera_lidar-20190401121727"
    pack(tmp_path / f"{name}_camera_frontcenter.tar", cameras)
    pack(tmp_path / f"{name}_lidar_frontcenter.tar", {name: as_sensor_fusion(data) for name, data in lidars.items()})
    bus = "camera_lidar/20190401_121727/bus/20190401121727_bus_signals.json"
    pack(tmp_path / f"{name}_bus_signals.tar", {bus: drive_bus(min(times_us.values()), max(times_us.values()))})

    opened, whole = convert(tmp_path), ShardSet(shards)
    assert sorted(samples(opened)) == keys(cameras)
    for key, ref in samples(opened).items():
        found, expected = members(opened, ref), members(whole, samples(whole)[key.replace("20190401121727", stamp)])
        window = found.pop("steering.json", None)
        assert found == {name: expected[name] for name in ("image.jpg", "depth.png") if name in expected}
        meta = opened.meta(ref)
        if meta["frame_id"] in untimed:
            assert meta["steering"] == {"absent": "no bus record"}
            continue
        last_us = meta["timestamp_us"] // PERIOD_US * PERIOD_US
        wanted_us = [last_us + PERIOD_US * step for step in range(1 - VALUES_BEFORE, VALUES_AFTER + 1)]
        angles = [angle_deg(time_us) for time_us in wanted_us]
        assert window is not None
        assert orjson.loads(window) == {"timestamps_us": wanted_us, "angles_deg": angles, "unit": "deg"}


# Six cameras

WIDTH_PX, HEIGHT_PX = 640, 400
FISHEYE = {
    "CamMatrixOriginal": [[350.0, 0.0, 322.0], [0.0, 352.0, 203.0], [0.0, 0.0, 1.0]],
    "CamMatrix": [[240.0, 0.0, 318.0], [0.0, 260.0, 198.0], [0.0, 0.0, 1.0]],
    "Distortion": [[0.05, -0.02, 0.01, -0.004]],
    "Lens": "Fisheye",
    "Resolution": [WIDTH_PX, HEIGHT_PX],
}
TELECAM = {**FISHEYE, "Lens": "Telecam", "Distortion": [[-0.2, 0.03, 0.001, -0.002, 0.0]]}
DOTS = [(318.0, 198.0), (120.0, 90.0), (540.0, 80.0), (100.0, 330.0), (520.0, 320.0)]  # col, row, undistorted
CAR = next(colour for colour, entry in CLASS_LIST.items() if entry == "Car 1")
SKY = next(colour for colour, entry in CLASS_LIST.items() if entry == "Sky")


def dotted(calibration: Calibration, ground: str, dot: str) -> bytes:
    """A stored, distorted image with a dot where each of DOTS is seen."""
    ground_rgb, dot_rgb = ([int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in (ground, dot))
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), ground_rgb, dtype=np.uint8)
    for col, row in np.rint(raw_from_undistorted(calibration, np.array(DOTS))).astype(int):
        cv2.circle(image, (int(col), int(row)), 7, dot_rgb, cv2.FILLED)
    return png(image)


def camera_files(token: str, calibration: Calibration) -> dict[str, bytes]:
    """A frame of one camera, with an image, a class map and LiDAR returns that agree."""
    stamp, folder = SCENE.replace("_", ""), f"cam_{CAMERAS[token]}"
    cols, rows = np.array(DOTS).T
    return {
        f"{SCENE}/camera/{folder}/{stamp}_camera_{token}_000000091.png": dotted(calibration, "#404040", "#ffffff"),
        f"{SCENE}/label/{folder}/{stamp}_label_{token}_000000091.png": dotted(calibration, SKY, CAR),
        f"{SCENE}/lidar/{folder}/{stamp}_lidar_{token}_000000091.npz": npz(row=rows, col=cols, distance=0 * rows + 9),
    }


def bus_of_cameras() -> bytes:
    """A record per camera; its angle is the camera's place in CAMERAS."""

    def series(value: float) -> dict[str, Any]:
        return {"timestamps": list(range(12)), "values": [value] * 12, "unit": None}

    signal = "steering_angle_calculated"
    names = {token: f"{SCENE.replace('_', '')}_camera_{token}_000000091.json" for token in CAMERAS}
    flexray = [{signal: series(place), f"{signal}_sign": series(1)} for place in range(len(CAMERAS))]
    records = [
        {"frame_name": names[token], "timestamp": 1, "flexray": signals}
        for token, signals in zip(CAMERAS, flexray, strict=True)
    ]
    return orjson.dumps(records)


def centres(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N, 2) x, y positions of a mask's connected regions, edge-based as a sample's positions are."""
    count, _, _, middles = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return np.array(sorted((middles[1:count] + 0.5).tolist()))


def test_six_cameras_are_undistorted_by_their_own_lenses(tmp_path: Path) -> None:
    document = {"cameras": {name: TELECAM if name == "front_center" else FISHEYE for name in CAMERAS.values()}}
    (tmp_path / "cams_lidars.json").write_bytes(orjson.dumps(document))
    calibrations = parse_calibrations(document)
    for token in CAMERAS:
        pack(tmp_path / f"{token}.tar", camera_files(token, calibrations[token]))
    pack(tmp_path / "bus.tar", {f"{SCENE}/bus/20180807145028_bus_signals.json": bus_of_cameras()})
    opened = convert(tmp_path, "--camera", "all", rules='[image]\nsize = 512\nformat = "png"\n')
    assert sorted(ref.key.split("_")[1] for ref in samples(opened).values()) == sorted(CAMERAS)
    cols, rows = np.array(DOTS).T
    wanted = np.array(
        sorted(zip(sample_from_pixel(cols, WIDTH_PX, 512), sample_from_pixel(rows, HEIGHT_PX, 512), strict=True))
    )
    for ref in samples(opened).values():
        token = ref.key.split("_")[1]
        loaded = opened.load(ref, ["image", "segmentation", "depth", "steering"])
        seen = {
            "image": loaded["image"].min(axis=2) > 150,
            "segmentation": loaded["segmentation"] == SEGMENTATION_ID["Car"],
            "depth": loaded["depth"] > 0,
        }
        for label, mask in seen.items():
            np.testing.assert_allclose(centres(mask), wanted, atol=1, err_msg=f"{label} of {token}")
        assert loaded["steering"]["angles_deg"] == [float(list(CAMERAS).index(token))] * 12
        check_outside(calibrations[token], loaded["image"], loaded["segmentation"])


def check_outside(calibration: Calibration, image: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> None:
    """Black and 255 where the camera did not see, which is not nowhere; sky or car elsewhere."""
    outside = classes == IGNORE_INDEX
    np.testing.assert_array_equal(outside, (image == 0).all(axis=2))
    x, y = (np.arange(512) + 0.5) * WIDTH_PX / 512 - 0.5, (np.arange(512) + 0.5) * HEIGHT_PX / 512 - 0.5
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    beyond = raw_from_undistorted(calibration, pixels) - [WIDTH_PX / 2 - 0.5, HEIGHT_PX / 2 - 0.5]
    far = (abs(beyond) - [WIDTH_PX / 2, HEIGHT_PX / 2]).max(axis=1).reshape(512, 512)  # px beyond the stored image
    assert outside[far > 1].all()
    assert not outside[far < 0].any()
    assert 0.05 < outside.mean() < 0.6
