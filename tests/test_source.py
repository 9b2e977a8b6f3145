"""Tars and folders are joined to frames by the tails of their names."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from preprocess.absent import Mismatch
from preprocess.source import FileRef, Frame, Source, find_source

ROOT = "20180807_145028/{kind}/cam_{folder}/20180807145028_{kind}_{camera}_{id}.{suffix}"
FRONT = {"folder": "front_center", "camera": "frontcenter"}


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")


IMAGE = ROOT.format(kind="camera", id="000000091", suffix="png", **FRONT)


def pack(path: Path, *files: tuple[str, bytes], links: Sequence[tuple[str, str]] = ()) -> None:
    """A tar of files and of symbolic links (name, target)."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)


def found(root: Path) -> Source:
    return find_source(root, cameras={"frontcenter"}, skip=root / "out")


def only(root: Path) -> Frame:
    (frame,) = found(root).frames
    return frame


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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(IMAGE, id="no top folder"),
        pytest.param(f"./{IMAGE}", id="as sensor fusion has it"),
        pytest.param(f"camera_lidar_semantic/{IMAGE}", id="top folder"),
        pytest.param(f"any/other/top/{IMAGE}", id="several"),
        pytest.param(f"/data/{IMAGE}", id="absolute"),
        pytest.param(f"../../{IMAGE}", id="upwards: nothing is written under a name"),
        pytest.param(IMAGE.replace("/camera/", "/label/../camera/"), id="upwards inside"),
        pytest.param(IMAGE.replace("/", "//").replace("//cam", "/./cam"), id="empty parts"),
    ],
)
@pytest.mark.parametrize("tar_name", ["camera_lidar_semantic.tar", "my files.TAR"])
def test_what_lies_above_a_frame_does_not_matter(tmp_path: Path, name: str, tar_name: str) -> None:
    pack(tmp_path / tar_name, (name, b"image"))
    frame = only(tmp_path)
    assert frame.key == "20180807145028_frontcenter_000000091"
    assert {kind: ref.read() for kind, ref in frame.files.items()} == {"image": b"image"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x" + IMAGE, id="scene"),
        pytest.param(IMAGE.replace("/camera/", "/label/"), id="folder of another kind"),
        pytest.param(IMAGE.replace("cam_front_center", "cam_side_left"), id="folder of another camera"),
        pytest.param(IMAGE.replace(".png", ".png.part"), id="suffix"),
        pytest.param(IMAGE.replace("/2018", "/._2018"), id="what a Mac leaves beside it"),
    ],
)
def test_what_is_no_frame_is_none(tmp_path: Path, name: str) -> None:
    pack(tmp_path / "x.tar", (name, b"image"), (IMAGE.replace("091", "092"), b"another"))
    assert [frame.frame_id for frame in found(tmp_path).frames] == ["000000092"]


def test_of_a_member_twice_in_a_tar_the_last_counts(tmp_path: Path) -> None:
    """As extraction would leave it, `tar --append` and `--update` write new versions behind the old ones."""
    pack(tmp_path / "x.tar", (IMAGE, b"old"), ("other", b""), (f"./{IMAGE}", b"new"))
    assert only(tmp_path).files["image"].read() == b"new"


def test_of_a_file_in_several_places_the_first_by_path_counts(tmp_path: Path) -> None:
    pack(tmp_path / "b.tar", (IMAGE, b"b"))
    pack(tmp_path / "a.tar", (f"top/{IMAGE}", b"a"))
    touch(tmp_path / "folder", IMAGE)
    assert Path(only(tmp_path).files["image"].path).name == "a.tar"
    assert found(tmp_path).notes == [], "all of one size: copies, as far as can be told without reading them"
    with pytest.raises(Mismatch, match="found twice, with one size and other content"):
        only(tmp_path).files["image"].read()
    pack(tmp_path / "b.tar", (IMAGE, b"bbb"))
    assert found(tmp_path).notes == [
        f"files found twice with other sizes: 1; {tmp_path}/a.tar: top/{IMAGE} counts, not {tmp_path}/b.tar: {IMAGE}"
    ]
    pack(tmp_path / "b.tar", (IMAGE, b"b"))
    (tmp_path / "a.tar").unlink()
    assert Path(only(tmp_path).files["image"].path).name == "b.tar"


def test_the_files_of_a_frame_come_from_anywhere(tmp_path: Path) -> None:
    label = ROOT.format(kind="label", id="000000091", suffix="png", **FRONT)
    lidar = ROOT.format(kind="lidar", id="000000091", suffix="npz", **FRONT)
    bus = "20180807_145028/bus/20180807145028_bus_signals.json"
    pack(tmp_path / "camera.tar", (f"./camera_lidar/{IMAGE}", b"image"))
    pack(tmp_path / "lidar.tar", (f"./camera_lidar/{lidar}", b"points"))
    pack(tmp_path / "bus.tar", (f"camera_lidar/{bus}", b"bus"))
    touch(tmp_path / "folder", label)
    source = found(tmp_path)
    assert {kind: ref.read() for kind, ref in only(tmp_path).files.items()} == {
        "image": b"image",
        "depth": b"points",
        "segmentation": b"?",
    }
    assert source.bus["20180807_145028"].read() == b"bus"
    assert (source.tars, source.loose_files) == (3, 1)


@pytest.mark.parametrize("name", ["cams_lidars.json", "top/cams_lidars.json"])
def test_the_calibration_lies_beside_the_tars_or_in_them(tmp_path: Path, name: str) -> None:
    pack(tmp_path / "x.tar", (IMAGE, b""), ("old_cams_lidars.json", b"no"), ("top/class_list.json", b"[]"))
    touch(tmp_path, name)
    loose = found(tmp_path)
    assert loose.calibration is not None
    assert loose.calibration.read() == b"?"
    assert loose.class_list is not None
    (tmp_path / name).unlink()
    assert found(tmp_path).calibration is None
    pack(tmp_path / "y.tar", (name, b"packed"))
    packed = found(tmp_path).calibration
    assert packed is not None
    assert packed.read() == b"packed"


def test_a_link_in_a_tar_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    pack(tmp_path / "x.tar", ("store/1", b"image"), links=[(IMAGE, "../../../store/1")])
    assert only(tmp_path).files["image"].read() == b"image"


def test_a_link_out_of_a_tar_is_a_bad_file_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    pack(tmp_path / "x.tar", links=[(IMAGE, str(tmp_path / "secret"))])
    with pytest.raises(ValueError, match=r"^a link to .*/secret, which is no file of the tar$"):
        only(tmp_path).files["image"].read()


def test_a_loose_link_that_leads_nowhere_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / IMAGE
    path.parent.mkdir(parents=True)
    path.symlink_to("missing")
    with pytest.raises(ValueError, match=r"^cannot be opened: No such file or directory$"):
        only(tmp_path).files["image"].read()


def test_a_tar_that_leads_nowhere_ends_the_run(tmp_path: Path) -> None:
    touch(tmp_path, IMAGE)
    (tmp_path / "x.tar").symlink_to("missing")
    with pytest.raises(ValueError, match=r"x\.tar: cannot be opened: No such file or directory$"):
        found(tmp_path)


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, IMAGE)
    os.mkfifo(tmp_path / IMAGE.replace("091", "092"))
    (tmp_path / "folder.tar").mkdir()
    assert only(tmp_path).frame_id == "000000091"


def test_a_folder_that_cannot_be_read_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames would be missing from the set without a word."""

    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    touch(tmp_path, IMAGE)
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ValueError, match=r"^folder .* cannot be read: Permission denied$"):
        found(tmp_path)


def test_a_file_that_has_become_shorter_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert FileRef(str(tmp_path / "x"), 1, 4, ()).read() == b"2345"
    with pytest.raises(ValueError, match=r"^cut short: 4 of 5 bytes$"):
        FileRef(str(tmp_path / "x"), 1, 5, ()).read()
