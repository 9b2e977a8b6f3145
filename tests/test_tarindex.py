"""The header scan finds what tarfile finds, and says where a tar is cut."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from preprocess.tarindex import CutTar, scan_tar

LONG = "top/" + "a" * 90 + "/" + "b" * 90 + ".png"
FILES = {"a.txt": b"x", "empty": b"", "dir/b.bin": bytes(range(256)) * 5, LONG: b"long", "ü/ß.json": b"{}"}


def write_tar(path: Path, tar_format: int) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        folder = tarfile.TarInfo("dir")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_500_000_000
            tar.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"link{kind!r}")
            link.type, link.linkname = kind, "a.txt"
            tar.addfile(link)


@pytest.mark.parametrize(
    "tar_format",
    [
        pytest.param(tarfile.USTAR_FORMAT, id="ustar"),
        pytest.param(tarfile.GNU_FORMAT, id="gnu"),
        pytest.param(tarfile.PAX_FORMAT, id="pax"),
    ],
)
def test_members_are_tarfiles(tmp_path: Path, tar_format: int) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, tar_format)
    data = path.read_bytes()
    found = {member.name: data[member.offset : member.offset + member.size] for member in scan_tar(path)}
    assert found == FILES
    assert {member.mtime for member in scan_tar(path)} == {1_500_000_000}


def test_sizes_beyond_8_gib_are_base_256(tmp_path: Path) -> None:
    info = tarfile.TarInfo("big")
    info.size = 9 << 30
    path = tmp_path / "big.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(CutTar, match=f"big ends at byte {512 + (9 << 30)}, the file at byte 512"):
        scan_tar(path)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        pytest.param(lambda data: data[:700], "ends at byte", id="inside a member"),
        pytest.param(lambda data: data[: 512 + 512 + 100], "no valid member header", id="inside a header"),
        pytest.param(lambda data: data[:100], "is no tar", id="shorter than a header"),
        pytest.param(lambda _: b"", "is no tar", id="empty"),
        pytest.param(lambda _: b"\x1f\x8b" + bytes(2000), "is no tar", id="compressed"),
        pytest.param(lambda data: data[:1024] + b"garbage!" * 64 + data[1024:], "at byte 1024", id="damaged header"),
    ],
)
def test_cut_tars_are_refused(tmp_path: Path, cut: object, message: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("one", "two"):
            info = tarfile.TarInfo(name)
            info.size = 300
            tar.addfile(info, io.BytesIO(bytes(300)))
    path.write_bytes(cut(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CutTar, match=message):
        scan_tar(path)


def test_what_lies_before_a_cut_can_be_had(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, tarfile.USTAR_FORMAT)
    members = scan_tar(path)
    path.write_bytes(path.read_bytes()[: members[2].offset + 10])
    assert [member.name for member in scan_tar(path, allow_cut=True)] == ["a.txt", "empty"]


def test_a_sparse_member_is_passed_over_and_its_neighbours_are_found(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("sparse")
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[482] = b"S", 1  # one block of the map follows the header
    header[124:136] = b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    after = tarfile.TarInfo("after")
    after.size = 3
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(header) + bytes(512) + bytes(512) + after.tobuf() + b"abc".ljust(512, b"\0") + bytes(1024))
    assert [(member.name, member.size) for member in scan_tar(path)] == [("after", 3)]
