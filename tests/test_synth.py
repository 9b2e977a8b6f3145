"""The synthetic set as files: the real layout, names, keys and dtypes, and four labels that agree."""

from __future__ import annotations

import io
import itertools
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shards.classes import BOX_CLASSES, CLASS_LIST, class_of_entry, rgb_of_hex
from shards.geometry import FRONT_CENTER, parse_calibrations, project, raw_from_undistorted
from synth import dataset
from synth.bus import SIGNALS
from synth.dataset import BOXES_TAR, BUS_TAR, CALIBRATION, write_dataset
from synth.defects import Defect, place_defects
from synth.lidar import RANGE_M
from synth.world import DrawnFrame, plan

SCENES, FRAMES, SEED = 3, 6, 0
TOP = r"camera_lidar_semantic_bboxes"
PATHS = [
    rf"{TOP}/class_list\.json",
    rf"{TOP}/(?P<day>\d{{8}})_(?P<time>\d{{6}})/(?P<kind>camera|label|label3D|lidar)/cam_front_center/"
    r"(?P=day)(?P=time)_(?P=kind)_frontcenter_\d{9}\.(png|json|npz)",
]
NPZ_DTYPES = {
    "azimuth": "f8", "row": "f8", "lidar_id": "f8", "depth": "f8", "reflectance": "i8", "col": "f8", "points": "f8",
    "timestamp": "i8", "distance": "f8",
}  # fmt: skip
BOX_KEYS = {
    "2d_bbox", "3d_points", "alpha", "axis", "center", "class", "id", "occlusion", "rot_angle", "size", "truncation",
}  # fmt: skip
CLASS_OF_BOX = {
    "Car": "Car", "VanSUV": "Car", "Truck": "Truck", "Bus": "Truck", "Pedestrian": "Pedestrian", "Cyclist": "Bicycle",
}  # fmt: skip
PLANNED = plan(SCENES, FRAMES, SEED)
ALL_FRAMES = [frame for scene in PLANNED for frame in scene]

Files = dict[str, bytes]


def read_tar(path: Path) -> Files:
    with tarfile.open(path) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read() for name, file in opened.items() if file}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "set"
    write_dataset(folder, scenes=SCENES, frames=FRAMES, seed=SEED, workers=1)
    return folder


@pytest.fixture(scope="module")
def files(out: Path) -> Files:
    return read_tar(out / BOXES_TAR)


@pytest.fixture(scope="module")
def bus(out: Path) -> dict[str, dict[str, Any]]:
    """frame_name -> record."""
    scenes = [json.loads(content) for content in read_tar(out / BUS_TAR).values()]
    return {record["frame_name"]: record for scene in scenes for record in scene}


def content(files: Files, frame: DrawnFrame, kind: str, extension: str) -> bytes | None:
    name = frame.file_name(kind, extension)
    return files.get(f"{TOP}/{frame.scene.name}/{kind}/cam_front_center/{name}")


def pixels(files: Files, frame: DrawnFrame, kind: str) -> np.ndarray:
    packed = content(files, frame, kind, "png")
    assert packed is not None
    image = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_UNCHANGED)
    return image[..., 2::-1]  # RGB


def npz(files: Files, frame: DrawnFrame) -> dict[str, np.ndarray]:
    packed = content(files, frame, "lidar", "npz")
    return dict(np.load(io.BytesIO(packed))) if packed else {}


def boxes(files: Files, frame: DrawnFrame) -> list[dict[str, Any]]:
    text = content(files, frame, "label3D", "json")
    return list(json.loads(text).values()) if text else []


def frame_with(defect: Defect) -> DrawnFrame:
    (frame,) = (frame for frame in ALL_FRAMES if frame.defect is defect)
    return frame


def is_class(label: np.ndarray, name: str) -> np.ndarray:
    """(..., 3) RGB -> where the colour is one of the class's, its instances included."""
    colours = [rgb_of_hex(colour) for colour, entry in CLASS_LIST.items() if class_of_entry(entry) == name]
    return (label[..., None, :] == np.array(colours)).all(axis=-1).any(axis=-1)


def test_only_the_two_tars_and_the_calibration_are_left(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted([BOXES_TAR, BUS_TAR, CALIBRATION])


def test_members_are_laid_out_as_in_the_real_tar(out: Path, files: Files) -> None:
    assert all(any(re.fullmatch(path, name) for path in PATHS) for name in files)
    with tarfile.open(out / BOXES_TAR) as tar:
        members = tar.getmembers()
    folders = {member.name for member in members if member.isdir()}
    assert all(str(Path(name).parent) in folders for name in files)
    subtrees = [name.split("/")[1:3] for name in files if name.count("/") == 4]
    assert sum(one != other for one, other in itertools.pairwise(subtrees)) == SCENES * 4 - 2
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, dataset.MTIME)}


def test_bus_members_have_no_top_folder(out: Path) -> None:
    names = list(read_tar(out / BUS_TAR))
    assert names == [f"{scene[0].scene.name}/bus/{scene[0].scene.stamp}_bus_signals.json" for scene in PLANNED]


def test_documents_of_the_whole_set(out: Path, files: Files) -> None:
    assert list(json.loads(files[f"{TOP}/class_list.json"]).items()) == list(CLASS_LIST.items())
    document = json.loads((out / CALIBRATION).read_text())
    assert parse_calibrations(document) == {"frontcenter": FRONT_CENTER}
    assert set(document["cameras"]["front_center"]) == {
        "CamMatrix", "CamMatrixOriginal", "Distortion", "Lens", "Resolution", "tstamp_delay", "view",
    }  # fmt: skip
    for lidar in document["lidars"].values():
        axes = np.array([lidar["view"]["x-axis"], lidar["view"]["y-axis"]])
        np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-4)


def test_same_seed_same_bytes_at_any_number_of_workers(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        write_dataset(folder, scenes=1, frames=3, seed=7, workers=workers, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2
    for name in (BOXES_TAR, BUS_TAR, CALIBRATION):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("name", ["scenes", "frames", "seed", "workers"])
def test_numbers_out_of_range_are_refused(name: str, tmp_path: Path) -> None:
    numbers = {"scenes": 1, "frames": 1, "seed": 0, "workers": 1, name: -1}
    with pytest.raises(ValueError, match=rf"^{name} must be . or more, got -1$"):
        write_dataset(tmp_path / "out", **numbers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [BOXES_TAR, BUS_TAR, CALIBRATION])
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} must not be there already"):
        write_dataset(tmp_path, scenes=1, frames=1, seed=0, workers=1)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(frame: DrawnFrame) -> None:
        raise OSError("no room")

    monkeypatch.setattr(dataset, "frame_files", fail)
    with pytest.raises(OSError, match="no room"):
        write_dataset(tmp_path, scenes=1, frames=1, seed=0, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_every_frame_has_a_camera_image_and_a_label(files: Files) -> None:
    colours = {int(colour[1:], 16) for colour in CLASS_LIST}
    for frame in ALL_FRAMES:
        camera, label = pixels(files, frame, "camera"), pixels(files, frame, "label")
        assert camera.shape == label.shape == (1208, 1920, 3)
        assert camera.std() > 25  # a picture, not a plane
        assert set(np.unique(label @ np.array([1 << 16, 1 << 8, 1])).tolist()) <= colours
        about = json.loads(content(files, frame, "camera", "json") or b"")
        assert (about["cam_name"], about["cam_tstamp"]) == ("front_center", frame.timestamp_us)
        assert list(about["lidar_ids"]) == ["0", "1", "2", "3", "4"]


def test_lidar_arrays(files: Files) -> None:
    for frame in (frame for frame in ALL_FRAMES if frame.scene.has_lidar):
        arrays = npz(files, frame)
        points = arrays["points"]
        assert 5_500 < len(points) < 10_000
        wanted = dict(NPZ_DTYPES)
        if frame.defect is Defect.NPZ_WITHOUT_PIXELS:
            wanted = {name: dtype for name, dtype in wanted.items() if name in arrays}
        assert {name: array.dtype for name, array in arrays.items()} == wanted
        assert all(
            array.shape == ((len(points), 3) if name == "points" else (len(points),)) for name, array in arrays.items()
        )
        assert np.linalg.norm(points, axis=1).max() <= RANGE_M
        assert np.abs(arrays["timestamp"] - frame.timestamp_us).max() < 200_000
        assert set(np.unique(arrays["lidar_id"])) == {0, 1, 2, 3, 4}


def test_lidar_rows_columns_and_depth_follow_from_its_points(files: Files) -> None:
    arrays = npz(files, PLANNED[0][1])
    col, row = project(arrays["points"], FRONT_CENTER.undistorted).T
    np.testing.assert_array_equal(arrays["col"], col)
    np.testing.assert_array_equal(arrays["row"], row)
    assert (row.min(), col.min()) >= (0, 0)
    assert row.max() <= 1207
    assert col.max() <= 1919
    np.testing.assert_array_equal(arrays["depth"], arrays["points"][:, 0])
    np.testing.assert_allclose(arrays["distance"], np.linalg.norm(arrays["points"], axis=1))


@pytest.mark.parametrize("frame", [PLANNED[0][1], PLANNED[0][4], PLANNED[1][0], PLANNED[1][5]])
def test_ground_points_lie_on_the_plane_and_on_ground_pixels(files: Files, frame: DrawnFrame) -> None:
    arrays = npz(files, frame)
    ground = np.abs(arrays["points"][:, 2] + 1.70) < 1e-6
    assert ground.mean() > 0.3
    classes = ("RD normal street", "Solid line", "Dashed line", "Curbstone", "Sidewalk", "Nature object")
    label = pixels(files, frame, "label")[_raw_pixels(arrays, ground)]
    assert np.mean(np.any([is_class(label, name) for name in classes], axis=0)) > 0.995


def _raw_pixels(arrays: dict[str, np.ndarray], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the stored, distorted image under some of the points."""
    undistorted = np.stack([arrays["col"][chosen], arrays["row"][chosen]], axis=1)
    raw = np.rint(raw_from_undistorted(FRONT_CENTER, undistorted)).astype(int)
    return raw[:, 1], raw[:, 0]


def test_points_in_a_box_fall_on_pixels_of_its_class(files: Files) -> None:
    met = 0
    for frame in ALL_FRAMES:
        arrays, label = npz(files, frame), pixels(files, frame, "label")
        for box in boxes(files, frame) if "row" in arrays else []:
            inside = _inside(arrays["points"], box)
            if inside.any():
                rows, cols = _raw_pixels(arrays, inside)
                assert is_class(label[rows, cols], CLASS_OF_BOX[box["class"]]).mean() > 0.93  # edges round outwards
                met += 1
    assert met > 10


def _inside(points: np.ndarray, box: dict[str, Any]) -> np.ndarray:
    """Points in the box, found by its centre, size and rotation, without the ground it stands on."""
    turn, _ = cv2.Rodrigues(np.array(box["axis"]) * box["rot_angle"])
    local = (points - box["center"]) @ turn
    return (np.abs(local) <= np.array(box["size"]) / 2 + 1e-9).all(axis=1) & (points[:, 2] > -1.69)


def test_boxes_have_the_real_fields(files: Files) -> None:
    for frame in ALL_FRAMES:
        found = boxes(files, frame)
        assert [box["id"] for box in found] == list(range(len(found)))
        for box in found:
            assert set(box) == BOX_KEYS
            assert box["class"] in BOX_CLASSES
            turn, _ = cv2.Rodrigues(np.array(box["axis"]) * box["rot_angle"])
            local = (np.array(box["3d_points"]) - box["center"]) @ turn / (np.array(box["size"]) / 2)
            lower = [[-1, 1, -1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]]  # the real files' order
            np.testing.assert_allclose(local, lower + [[x, y, 1] for x, y, _ in lower], atol=1e-9)


def test_2d_boxes_are_the_outlines_of_the_3d_ones(files: Files) -> None:
    for box in (box for frame in ALL_FRAMES for box in boxes(files, frame)):
        corners = project(np.array(box["3d_points"]), FRONT_CENTER.undistorted)
        np.testing.assert_allclose(box["2d_bbox"], [*corners.min(axis=0), *corners.max(axis=0)], atol=0.01)


def test_records_of_the_bus(bus: dict[str, dict[str, Any]]) -> None:
    assert len(SIGNALS) == 26
    crossings = 0
    for frame in (frame for frame in ALL_FRAMES if frame.defect is not Defect.NO_BUS_RECORD):
        record = bus[frame.file_name("camera", "json")]
        assert record["timestamp"] == frame.timestamp_us
        for name, signal in record["flexray"].items():
            assert name in SIGNALS
            times_us = np.array(signal["timestamps"])
            assert len(signal["values"]) == len(times_us) == 21
            assert ((times_us > frame.timestamp_us) == ([False] * 11 + [True] * 10)).all()
        crossings += len(set(record["flexray"]["steering_angle_calculated_sign"]["values"])) == 2
    assert crossings > 0


def test_the_signed_angle_is_the_roads(files: Files, bus: dict[str, dict[str, Any]]) -> None:
    angles, columns = [], []
    for frame in ALL_FRAMES:
        if frame.defect in (Defect.NO_BUS_RECORD, Defect.MISSING_SIGNAL, Defect.ERROR_CODE):
            continue
        flexray = bus[frame.file_name("camera", "json")]["flexray"]
        magnitude = np.array(flexray["steering_angle_calculated"]["values"])
        np.testing.assert_allclose(magnitude / 0.15, np.round(magnitude / 0.15), atol=1e-4)
        angle = magnitude[10] * (1 if flexray["steering_angle_calculated_sign"]["values"][10] else -1)
        assert angle == pytest.approx(frame.road.curvature * -90 * 60, abs=1.5)
        far = is_class(pixels(files, frame, "label")[740:760], "RD normal street")  # about 45 m ahead
        if far.any():
            angles.append(angle)
            columns.append(np.nonzero(far)[1].mean())
    assert len(angles) > 10
    assert np.corrcoef(angles, columns)[0, 1] > 0.9  # left is negative, and the road is seen further left


def test_each_defect_is_where_the_table_says() -> None:
    placed = {(frame.scene.index, frame.index): frame.defect for frame in ALL_FRAMES if frame.defect}
    assert placed == place_defects(SCENES, FRAMES)
    assert set(placed.values()) == set(Defect)


def test_rgba_label(files: Files) -> None:
    odd = [frame for frame in ALL_FRAMES if _colour_type(content(files, frame, "label", "png") or b"") == 6]
    assert odd == [frame_with(Defect.RGBA_LABEL)]


def _colour_type(png: bytes) -> int:
    """2 RGB, 6 RGBA: the tenth byte of a PNG's header chunk."""
    return png[25]


def test_npz_without_pixels(files: Files) -> None:
    short = [frame for frame in ALL_FRAMES if frame.scene.has_lidar and "row" not in npz(files, frame)]
    assert short == [frame_with(Defect.NPZ_WITHOUT_PIXELS)]
    assert short[0].index == 0
    assert set(NPZ_DTYPES) - set(npz(files, short[0])) == {"row", "col", "depth", "distance"}


def test_defects_of_boxes(files: Files) -> None:
    assert [frame for frame in ALL_FRAMES if content(files, frame, "label3D", "json") is None] == [
        frame_with(Defect.NO_LABEL3D)
    ]
    assert [frame for frame in ALL_FRAMES if content(files, frame, "label3D", "json") == b"{}"] == [
        frame_with(Defect.NO_BOXES)
    ]
    twice = [(box["class"], tuple(box["2d_bbox"])) for box in boxes(files, frame_with(Defect.BOX_TWICE))]
    assert len(twice) == len(set(twice)) + 1
    partly = [box["2d_bbox"] for box in boxes(files, frame_with(Defect.PARTLY_OUTSIDE))]
    assert any(x1 < 1900 and x2 > 1919 for x1, _, x2, _ in partly)
    wholly = [box["2d_bbox"] for box in boxes(files, frame_with(Defect.WHOLLY_OUTSIDE))]
    assert sum(x2 < 0 for _, _, x2, _ in wholly) == 1
    assert len(wholly) > 1  # the frame has others too


def test_defects_of_the_bus(bus: dict[str, dict[str, Any]]) -> None:
    names = [frame.file_name("camera", "json") for frame in ALL_FRAMES]
    assert set(names) - set(bus) == {frame_with(Defect.NO_BUS_RECORD).file_name("camera", "json")}
    missing = [name for name in bus if set(SIGNALS) - set(bus[name]["flexray"])]
    assert missing == [frame_with(Defect.MISSING_SIGNAL).file_name("camera", "json")]
    steering = {name: record["flexray"].get("steering_angle_calculated", {}) for name, record in bus.items()}
    broken = [name for name, signal in steering.items() if 614.25 in signal.get("values", [])[-10:]]
    assert broken == [frame_with(Defect.ERROR_CODE).file_name("camera", "json")]


def test_the_last_scene_has_no_lidar(files: Files) -> None:
    with_lidar = {name.split("/")[1] for name in files if name.endswith(".npz")}
    assert with_lidar == {scene[0].scene.name for scene in PLANNED[:-1]}
