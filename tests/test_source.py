"""Tars and folders are joined to frames by the tails of their names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from preprocess.source import find_source

ROOT = "20180807_145028/{kind}/cam_{folder}/20180807145028_{kind}_{camera}_{id}.{suffix}"
FRONT = {"folder": "front_center", "camera": "frontcenter"}


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")


def test_a_frame_is_scene_camera_and_id(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "any/top/" + ROOT.format(kind="camera", id="000000091", suffix="png", **FRONT),
        "other/" + ROOT.format(kind="label", id="000000091", suffix="png", **FRONT),
        ROOT.format(kind="label3D", id="000000091", suffix="json", **FRONT),
        ROOT.format(kind="lidar", id="000000135", suffix="npz", **FRONT),
        ROOT.format(kind="camera", id="000000091", suffix="png", folder="side_left", camera="sideleft"),
        ROOT.format(kind="camera", id="000000091", suffix="png", folder="side_left", camera="frontcenter"),
        "20180807_145028/bus/20180807145028_bus_signals.json",
        "notes/readme.png",
    )
    source = find_source(tmp_path, cameras={"frontcenter"}, skip=tmp_path / "out")
    assert [(frame.key, sorted(frame.files)) for frame in source.frames] == [
        ("20180807145028_frontcenter_000000091", ["boxes", "image", "segmentation"]),
        ("20180807145028_frontcenter_000000135", ["depth"]),
    ]
    assert list(source.bus) == ["20180807_145028"]
    both = find_source(tmp_path, cameras={"frontcenter", "sideleft"}, skip=tmp_path / "out")
    assert [frame.camera for frame in both.frames] == ["frontcenter", "frontcenter", "sideleft"]


def test_tars_and_folders_give_the_same_frames_and_bytes(synthetic: Path, extracted: Path) -> None:
    tars, mixed = (find_source(root, cameras={"frontcenter"}, skip=root / "out") for root in (synthetic, extracted))
    assert len(tars.frames) == 18
    for one, other in zip(tars.frames, mixed.frames, strict=True):
        assert one.key == other.key
        assert {kind: file.read() for kind, file in one.files.items()} == {
            kind: file.read() for kind, file in other.files.items()
        }


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, ROOT.format(kind="camera", id="1", suffix="png", **FRONT))
    (tmp_path / "20180807_145028" / "again").symlink_to(tmp_path)
    assert len(find_source(tmp_path, cameras={"frontcenter"}, skip=tmp_path / "out").frames) == 1


def test_the_output_folder_is_no_source(synthetic: Path, tmp_path: Path) -> None:
    shutil.copy(synthetic / "camera_lidar_semantic_bus.tar", tmp_path)
    touch(tmp_path, "out/" + ROOT.format(kind="camera", id="1", suffix="png", **FRONT))
    with pytest.raises(ValueError, match=r"no A2D2 frames of frontcenter under .* \(1 tars and 0 other files seen\)"):
        find_source(tmp_path, cameras={"frontcenter"}, skip=tmp_path / "out")
    with pytest.raises(ValueError, match="output folder must not be the source's"):
        find_source(tmp_path, cameras={"frontcenter"}, skip=tmp_path)
