"""Tars and extracted folders, mixed, to frames: what lies where. Nothing is extracted, and nothing is decoded.

Names are matched by their tail (`<scene>/camera/cam_front_center/<stamp>_camera_frontcenter_<id>.png`), so that
it does not matter what lies above, whether a tar has a top folder, how it is called, nor whether its names are
absolute or lead upwards: nothing is ever written under them. A frame is (scene, camera, id): the same id in two
cameras is another moment. Its files may come from any number of tars and folders.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG

from preprocess.absent import Mismatch
from preprocess.tarindex import CutTar, TarMember, scan_tar
from shards.geometry import CAMERAS
from shards.schema import TIMESTAMP, sample_key

_FRAME_FILE = re.compile(
    r"(?:^|/)(?P<scene>\d{8}_\d{6})/(?P<kind>camera|lidar|label3D|label)/cam_(?P<folder>[a-z_]+)/"
    r"(?P<stamp>\d{14})_(?P=kind)_(?P<camera>[a-z]+)_(?P<id>\d+)\.(?P<suffix>png|npz|json)$"
)
_BUS_FILE = re.compile(r"(?:^|/)(?P<scene>\d{8}_\d{6})/bus/(?P<stamp>\d{14})_bus_signals\.json$")
_KINDS = {  # (folder, suffix) -> what it is to a frame
    ("camera", "png"): "image",
    ("camera", "json"): "camera_json",
    ("label", "png"): "segmentation",
    ("lidar", "npz"): "depth",
    ("label3D", "json"): "boxes",
}
_UNFINISHED = re.compile(
    r"\.tar[.~_ -](?!(?:md5|sha\d+|asc|sig|txt|torrent|json)$)[^/]*$|\.(?:part|partial|crdownload|download)$",
    re.IGNORECASE,
)
_COMPRESSED = re.compile(r"\.(?:tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst|lz4|z)|zip)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileRef:
    """Bytes in a tar, or a loose file; `stamp` changes when they do."""

    path: str
    offset: int
    size: int
    stamp: tuple[int, ...]  # mtimes: of the member (s), of the file that holds it (ns)
    problem: str = ""  # why the bytes cannot be had
    twin: FileRef | None = None  # the same file of another tar or folder, of the same size

    def read(self) -> bytes:
        """The bytes. Raises ValueError where they are not there, OSError where the file cannot be opened.

        Raises Mismatch where the twin has other bytes: nobody can tell which of the two is right.
        """
        data = self._read()
        if self.twin is not None and self.twin._read() != data:
            raise Mismatch("found twice, with one size and other content")
        return data

    def _read(self) -> bytes:
        if self.problem:
            raise ValueError(self.problem)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            data = os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        if len(data) != self.size:
            raise ValueError(f"cut short: {len(data)} of {self.size} bytes")
        return data


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure of one camera and the files that belong to it."""

    scene: str  # 20180807_145028
    camera: str  # token of file names: frontcenter
    frame_id: str  # 000006882
    stamp: str  # 20180807145028
    files: dict[str, FileRef] = field(default_factory=dict)  # image, camera_json, segmentation, depth, boxes
    passed_over: dict[str, str] = field(default_factory=dict)  # kind of a file that is not used -> why

    @property
    def key(self) -> str:
        """The sample's `__key__`."""
        return sample_key(self.stamp, self.camera, self.frame_id)


@dataclass
class Source:
    """Everything under a root that the conversion uses."""

    frames: list[Frame]  # by (scene, camera, id)
    bus: dict[str, FileRef]  # by scene
    calibration: FileRef | None
    class_list: FileRef | None
    tars: int
    loose_files: int
    notes: list[str] = field(default_factory=list)  # what was passed over, for people


@dataclass
class _OddFiles:
    """Files that do not count, for the notes."""

    differing: list[tuple[FileRef, FileRef]] = field(default_factory=list)  # the file that counts, and the other
    foreign: list[FileRef] = field(default_factory=list)  # with the stamp of another scene

    def notes(self) -> Iterator[str]:
        """A line about each kind, with an example."""
        if self.differing:
            places = locate(self.differing[0])
            first, second = (places[file] for file in self.differing[0])
            yield f"files found twice with other sizes: {len(self.differing)}; {first} counts, not {second}"
        if self.foreign:
            place = locate(self.foreign[:1])[self.foreign[0]]
            yield f"files whose name has the stamp of another scene, not used: {len(self.foreign)}; first {place}"


def find_source(root: Path, *, cameras: Collection[str], skip: Path, allow_cut_tars: bool = False) -> Source:
    """Index tars and folders under `root`, but for the folder `skip` (the output may lie inside).

    A file found twice counts once: in one tar the last, as extraction would leave it; of several tars and folders
    the first by path, a folder's own files before those of its subfolders. Raises ValueError for a cut tar, a folder
    that cannot be read, or where nothing is found.
    """
    if root.resolve() == skip.resolve():
        raise ValueError(f"the output folder must not be the source's, got {skip} for both: shards would mix with it")
    frames: dict[tuple[str, str, str], Frame] = {}
    found = Source([], {}, None, None, 0, 0)
    odd = _OddFiles()
    for name, ref in _files(root, skip, allow_cut_tars, found):
        if match := _FRAME_FILE.search(name):
            _add_frame_file(frames, match, ref, cameras, odd)
        elif match := _BUS_FILE.search(name):
            if _has_own_stamp(match):
                found.bus[match["scene"]] = _with_twin(found.bus.get(match["scene"]), ref)
            else:
                odd.foreign.append(ref)
        elif posixpath.basename(name) == "cams_lidars.json":
            found.calibration = found.calibration or ref
        elif posixpath.basename(name) == "class_list.json":
            found.class_list = found.class_list or ref
    found.notes += odd.notes()
    found.frames = [frames[place] for place in sorted(frames)]
    if not found.frames:
        raise ValueError(
            f"no A2D2 frames of {', '.join(sorted(cameras))} under {root} ({found.tars} tars and {found.loose_files} "
            "other files seen): expected tars or <scene>/camera/cam_front_center/<stamp>_camera_frontcenter_<id>.png"
            + "".join(f"; {note}" for note in found.notes)
        )
    return found


def _files(root: Path, skip: Path, allow_cut_tars: bool, found: Source) -> Iterator[tuple[str, FileRef]]:
    for path in _walk(root, skip):
        ref = _loose_file(path)
        if ref is None:
            continue
        if not _is_tar(path):
            found.loose_files += 1
            if _COMPRESSED.search(path):
                found.notes.append(f"{path} is compressed and was passed over: unpack it to a tar or a folder")
            elif _UNFINISHED.search(path):
                found.notes.append(f"{path} was passed over: a tar's name must end in .tar; is its download whole?")
            yield path, ref
            continue
        if ref.problem:
            raise ValueError(f"{path}: {ref.problem}")
        found.tars += 1
        for name, offset, size, mtime, _, problem in reversed(_members(path, allow_cut_tars, found)):
            yield _plain(name), FileRef(path, offset, size, (mtime, *ref.stamp), problem)


def _is_tar(path: str) -> bool:
    name = posixpath.basename(path).lower()
    return name.endswith(".tar") and not name.startswith("._")  # a Mac keeps a file's attributes in `._NAME`


def _members(path: str, allow_cut: bool, found: Source) -> list[TarMember]:
    """The members of a tar; where a cut tar is allowed, the members before its cut, with a note."""
    try:
        return scan_tar(Path(path))
    except CutTar as error:
        if not allow_cut:
            raise
        try:
            members = scan_tar(Path(path), allow_cut=True)
        except CutTar:
            members = []  # cut in its first member, or no tar at all
        found.notes.append(f"{error}: going on with the {len(members)} files before")
        return members


def _plain(name: str) -> str:
    """A member's name without `//`, `/./` and `/../`; most have none."""
    return posixpath.normpath(name) if "/." in name or "//" in name else name


def _loose_file(path: str) -> FileRef | None:
    """A file, or a link to one; None for what is neither."""
    try:
        status = Path(path).stat()
    except OSError as error:
        return FileRef(path, 0, 0, (), f"cannot be opened: {error.strerror}")
    return FileRef(path, 0, status.st_size, (status.st_mtime_ns,)) if S_ISREG(status.st_mode) else None


def _walk(root: Path, skip: Path) -> Iterator[str]:
    """Paths under root in a fixed order; links to folders are followed, each folder once."""
    seen: set[Path] = {skip.resolve()}
    for folder, subfolders, names in os.walk(root.absolute(), onerror=_refuse, followlinks=True):
        here = Path(folder).resolve()
        if here in seen:
            subfolders.clear()
            continue
        seen.add(here)
        subfolders[:] = sorted(set(subfolders) - {"lost+found"})  # the file system's own, which only root may read
        yield from (f"{folder}/{name}" for name in sorted(names))


def _refuse(error: OSError) -> None:
    raise ValueError(f"folder {error.filename} cannot be read: {error.strerror}")


def _add_frame_file(
    frames: dict[tuple[str, str, str], Frame],
    match: re.Match[str],
    ref: FileRef,
    cameras: Collection[str],
    odd: _OddFiles,
) -> None:
    scene, kind, folder, _, camera, frame_id, suffix = match.groups()
    what = _KINDS.get((kind, suffix))
    if what is None or camera not in cameras or CAMERAS.get(camera) != folder:
        return
    place = (scene, camera, frame_id)
    frame = frames.get(place)
    if frame is None:
        frame = frames[place] = Frame(*place, stamp=scene.replace("_", ""))
    if not _has_own_stamp(match):
        odd.foreign.append(ref)
        if what not in frame.files:
            frame.passed_over[what] = "its name has the stamp of another scene"
        return
    frame.passed_over.pop(what, None)
    first = frame.files.get(what)
    frame.files[what] = _with_twin(first, ref)
    if first is not None and first.size != ref.size:
        odd.differing.append((first, ref))


def _has_own_stamp(match: re.Match[str]) -> bool:
    """Whether the stamp in a file's name is that of its scene's folder."""
    return match["stamp"] == match["scene"].replace("_", "")


def _with_twin(first: FileRef | None, ref: FileRef) -> FileRef:
    """The file that counts of two; a later one of the same size in another place is compared when it is read."""
    if first is None:
        return ref
    if first.twin is not None or first.size != ref.size or first.path == ref.path:
        return first
    return replace(first, twin=ref)


def file_of(what: str, frame: Frame, bus: Mapping[str, FileRef]) -> FileRef:
    """The file that was found bad, by what it made the frame lose: `frame`, `timestamp` or a label."""
    kind = {"frame": "image", TIMESTAMP: "camera_json"}.get(what, what)
    return frame.files[kind] if kind in frame.files else bus[frame.scene]  # a label without a file is the bus's


def locate(files: Iterable[FileRef]) -> dict[FileRef, str]:
    """For people: file -> its path, and in a tar the member's name. Goes through each of the tars once more."""
    files = list(files)
    members = {path: _names(path) for path in {file.path for file in files if _is_tar(file.path)}}
    names = {file: members.get(file.path, {}).get(file.offset, "") for file in files}
    return {file: f"{file.path}: {name}" if name else file.path for file, name in names.items()}


def _names(path: str) -> dict[int, str]:
    try:
        return {member.offset: member.name for member in scan_tar(Path(path), allow_cut=True)}
    except (ValueError, OSError):
        return {}  # it has gone or changed since
