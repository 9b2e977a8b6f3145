"""The header scan finds what tarfile finds, and says where a tar is cut."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import test

from preprocess.tarindex import CutTar, scan_tar

LONG = "top/" + "a" * 90 + "/" + "b" * 90 + ".png"
FILES = {"a.txt": b"x", "empty": b"", "dir/b.bin": bytes(range(256)) * 5, LONG: b"long", "ü/ß.json": b"{}"}

LINKS = [
    ("hard", tarfile.LNKTYPE, "a.txt"),
    ("soft", tarfile.SYMTYPE, "a.txt"),
    ("dir/up", tarfile.SYMTYPE, "../dir/b.bin"),
    ("to a link", tarfile.SYMTYPE, "./dir/up"),
    ("to a long name", tarfile.LNKTYPE, LONG),
    ("elsewhere", tarfile.SYMTYPE, "/etc/passwd"),
    ("upwards", tarfile.SYMTYPE, "../../a.txt"),
    ("to a folder", tarfile.SYMTYPE, "dir"),
    ("to itself", tarfile.SYMTYPE, "to itself"),
]


def write_tar(path: Path, tar_format: int) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        folder = tarfile.TarInfo("dir")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_500_000_000
            tar.addfile(info, io.BytesIO(data))
        for name, kind, target in LINKS:
            if tar_format == tarfile.USTAR_FORMAT and len(target) > 100:
                continue  # it has no place for that
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
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
    members = [member for member in scan_tar(path) if not member.link]
    assert {member.name: data[member.offset : member.offset + member.size] for member in members} == FILES
    assert {member.mtime for member in members} == {1_500_000_000}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_links_are_what_they_lead_to_inside_the_tar(tmp_path: Path, tar_format: int) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, tar_format)
    data = path.read_bytes()
    links = {member.name: member for member in scan_tar(path) if member.link}
    assert list(links) == [name for name, _, _ in LINKS]
    assert {name: data[link.offset : link.offset + link.size] for name, link in links.items() if not link.problem} == {
        "hard": b"x",
        "soft": b"x",
        "dir/up": FILES["dir/b.bin"],
        "to a link": FILES["dir/b.bin"],
        "to a long name": b"long",
    }
    assert {name: link.problem for name, link in links.items() if link.problem} == {
        "elsewhere": "a link to /etc/passwd, which is no file of the tar",
        "upwards": "a link to ../../a.txt, which is no file of the tar",
        "to a folder": "a link to dir, which is no file of the tar",
        "to itself": "a link to to itself, which is no file of the tar",
    }


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_what_has_no_data_has_none_whatever_its_header_says(tmp_path: Path, kind: bytes) -> None:
    odd, after = tarfile.TarInfo("odd"), tarfile.TarInfo("after")
    odd.type, odd.size, odd.linkname = kind, 4096, "after"
    path = tmp_path / "x.tar"
    path.write_bytes(odd.tobuf() + after.tobuf() + bytes(1024))
    assert scan_tar(path)[-1].name == "after"


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
        pytest.param(lambda data: data[:2048], "without the closing block", id="between members"),
        pytest.param(
            lambda data: data[:1024] + bytes(512) + data[1536:], "closes at byte 1024, but goes on", id="a hole"
        ),
        pytest.param(lambda data: data + bytes(17 << 20), "closes at byte 2048, but goes on", id="a hole to the end"),
        pytest.param(lambda data: data[:1024] + b"garbage!" * 64 + data[1024:], "at byte 1024", id="damaged header"),
    ],
)
def test_cut_tars_are_refused(tmp_path: Path, cut: object, message: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("one", "two"):
            info = tarfile.TarInfo(name)
            info.size = 300
            tar.addfile(info, io.BytesIO(b"x" * 300))
    path.write_bytes(cut(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CutTar, match=message):
        scan_tar(path)


def test_what_lies_before_a_cut_can_be_had(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, tarfile.USTAR_FORMAT)
    members = scan_tar(path)
    path.write_bytes(path.read_bytes()[: members[2].offset + 10])
    assert [member.name for member in scan_tar(path, allow_cut=True)] == ["a.txt", "empty"]


def old_gnu_sparse(name: str) -> bytes:
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[482] = b"S", 1  # one block of the map follows the header
    header[124:136] = b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(512) + bytes(512)


def pax_sparse(name: str) -> bytes:
    member = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    member.size, member.pax_headers = 512, {"GNU.sparse.major": "1", "GNU.sparse.name": name}
    return member.tobuf(tarfile.PAX_FORMAT) + bytes(512)


@pytest.mark.parametrize("sparse", [old_gnu_sparse, pax_sparse])
def test_a_sparse_member_is_a_problem_and_its_neighbours_are_found(
    tmp_path: Path, sparse: Callable[[str], bytes]
) -> None:
    after = tarfile.TarInfo("after")
    after.size = 3
    path = tmp_path / "x.tar"
    path.write_bytes(sparse("holes.png") + after.tobuf() + b"abc".ljust(512, b"\0") + bytes(1024))
    assert [(member.name, member.problem) for member in scan_tar(path)] == [
        ("holes.png", "a sparse member of a tar, which is not read"),
        ("after", ""),
    ]


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"nonsense", id="no record"),
        pytest.param(b"99 path=other\n", id="longer than the header"),
        pytest.param(b"5 path=other\n", id="shorter than itself"),
        pytest.param(b"9" * 500, id="a length without an end"),
        pytest.param(b"13 size=many\n", id="size is text"),
        pytest.param(b"499 size=" + b"9" * 489 + b"\n", id="size is huge"),
    ],
)
def test_a_damaged_pax_record_hides_no_member_in_silence(tmp_path: Path, record: bytes) -> None:
    """Either the member is found, whatever its name, or the tar is refused."""
    header, member = tarfile.TarInfo("pax"), tarfile.TarInfo("member")
    header.type, header.size, member.size = tarfile.XHDTYPE, 512, 3
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf() + record.ljust(512, b"\0") + member.tobuf() + b"abc".ljust(512) + bytes(1024))
    try:
        found = scan_tar(path)
    except CutTar:
        return
    assert [member.size for member in found] == [3]


TESTTAR = Path(test.__path__[0]) / "testtar.tar"


@pytest.mark.skipif(not TESTTAR.exists(), reason="this Python was installed without its own tests")
def test_pythons_own_test_archive_is_read() -> None:
    """Its old members have checksums of signed bytes."""
    with tarfile.open(TESTTAR, "r:") as tar:
        regular = {member.name for member in tar if member.isreg()}
    assert {member.name for member in scan_tar(TESTTAR)} >= regular
    assert {member.name for member in scan_tar(TESTTAR) if "sparse member" in member.problem}
