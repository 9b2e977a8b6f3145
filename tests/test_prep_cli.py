"""Errors of users and of files: one clear line, and the contract's exit code."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

import shards.writer
from preprocess.cli.commands import main
from preprocess.rules import load_rules
from preprocess.summary_text import bad_lines
from shards.reader import ShardSet
from tests.conftest import png, prep


def one_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line]
    assert "Traceback" not in output
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        pytest.param(["shard", "--root", "nowhere"], 2, "Directory 'nowhere' does not exist", id="no root"),
        pytest.param(["shard"], 2, "Missing option '--root'", id="root missing"),
        pytest.param(["shard", "--root", ".", "--rules", "no.toml"], 2, "got no.toml: no such file", id="no rules"),
        pytest.param(["shard", "--root", ".", "--camera", "top"], 2, "'top' is not one of", id="camera"),
        pytest.param(["shard", "--root", ".", "--workers", "0"], 2, "0 is not in the range", id="workers"),
        pytest.param(["shard", "--root", ".", "--max-bad", "nan"], 2, "must be a number, got nan", id="no number"),
        pytest.param(["shard", "--root", "empty"], 1, "no A2D2 frames of frontcenter under empty", id="empty root"),
        pytest.param(["verify", "empty"], 1, "empty/manifest.json is missing: the set is not finished", id="no set"),
        pytest.param(["inspect", "empty"], 1, "the set is not finished", id="inspect"),
        pytest.param(["show", "empty"], 1, "the set is not finished", id="show"),
        pytest.param(["convert"], 2, "No such command 'convert'", id="unknown command"),
    ],
)
def test_wrong_usage(
    arguments: list[str], exit_code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = prep(*arguments)
    assert result.exit_code == exit_code
    assert message in one_line(result.output)


def test_an_unknown_rule_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[depth]\nmaximum = 3")
    result = prep("rules", "--rules", tmp_path / "r.toml")
    assert result.exit_code == 2
    assert "unknown key depth.maximum" in one_line(result.output)


def test_rules_prints_what_rules_accepts(tmp_path: Path) -> None:
    for name in ("default", "thesis"):
        path = tmp_path / f"{name}.toml"
        path.write_text(prep("rules", "--rules", name).output)
        assert load_rules(str(path)) == load_rules(name)
    assert (tmp_path / "default.toml").read_text().count("# fingerprint") == 5


@pytest.mark.parametrize("allow", [False, True], ids=["refused", "allowed"])
def test_a_cut_tar(synthetic: Path, tmp_path: Path, small_rules: Path, allow: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    data = (synthetic / "camera_lidar_semantic_bboxes.tar").read_bytes()
    (root / "cut.tar").write_bytes(data[: len(data) * 2 // 3])
    options = ["--allow-cut-tars"] if allow else []
    result = prep("shard", "--root", root, "--out", tmp_path / "out", "--rules", small_rules, *options)
    if allow:
        assert result.exit_code == 0, result.output
        assert f"note: {root / 'cut.tar'} is cut: " in result.stderr
        assert ".npz ends at byte" in result.stderr, "a long name, whole"
        assert " files before\n" in result.stderr
        assert ShardSet(tmp_path / "out").samples("train")
    else:
        assert result.exit_code == 1
        assert f"{root / 'cut.tar'} is cut: " in one_line(result.output)
        assert not (tmp_path / "out").exists()


def test_no_tar_is_passed_over_where_cut_tars_are_allowed(extracted: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(extracted, tmp_path / "root"))
    (root / "page.tar").write_bytes(b"<html>" * 999)
    (root / "more.tar.gz").write_bytes(b"")
    arguments = ["shard", "--root", root, "--out", tmp_path / "out", "--dry-run"]
    result = prep(*arguments)
    assert result.exit_code == 1
    assert f"{root / 'page.tar'} is no tar" in one_line(result.output)
    result = prep(*arguments, "--allow-cut-tars")
    assert result.exit_code == 0
    assert "page.tar is no tar (a compressed one must be unpacked first): going on with the 0 files" in result.stderr
    assert f"note: {root / 'more.tar.gz'} is compressed and was passed over: unpack it" in result.stderr
    assert not (tmp_path / "out").exists()


def overwrite(pattern: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def apply(root: Path) -> Path:
        path = sorted(root.glob(pattern))[-1]
        path.write_bytes(change(path.read_bytes()))
        return path

    return apply


@pytest.mark.parametrize(
    ("damage", "what", "reason", "bad_frames"),
    [
        pytest.param(overwrite("*/*/camera/*/*.png", lambda data: data[: len(data) // 2]), "frame",
                     "image: damaged PNG", 1, id="image cut"),
        pytest.param(overwrite("*/*/camera/*/*.png", lambda _: b""), "frame", "image: empty file", 1, id="image empty"),
        pytest.param(overwrite("*/*/camera/*/*.png", lambda _: png(np.zeros((20, 30, 3), np.uint8))), "frame",
                     "image: must be 1920x1208 as its calibration says, got 30x20", 1, id="image small"),
        pytest.param(overwrite("*/*/label/*/*.png", lambda data: data[:99] + b"!" + data[100:]), "segmentation",
                     "damaged PNG", 1, id="label flipped"),
        pytest.param(overwrite("*/*/label/*/*.png", lambda _: png(np.zeros((1208, 1920), np.uint8))), "segmentation",
                     "PNG must be 8-bit RGB or RGBA, got shape (1208, 1920) uint8", 1, id="label grey"),
        pytest.param(overwrite("*/*/lidar/*/*.npz", lambda data: data[:-100]), "depth", "damaged npz", 1, id="npz cut"),
        pytest.param(overwrite("*/*/label3D/*/*.json", lambda data: data[:-3]), "boxes", "unexpected end of data", 1,
                     id="boxes cut"),
        pytest.param(overwrite("*/*/camera/*/*.json", lambda _: b"[]"), "timestamp",
                     "camera JSON: cam_tstamp must be microseconds, got None", 1, id="camera JSON"),
        pytest.param(overwrite("*/bus/*.json", lambda data: data[:-3]), "steering", "bus file: Input data", 6,
                     id="bus cut"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_counted_and_limited(
    extracted: Path, tmp_path: Path, small_rules: Path, damage: Callable[[Path], Path], what: str, reason: str,
    bad_frames: int,
) -> None:  # fmt: skip
    root, out = tmp_path / "root", tmp_path / "out"
    scene = min(path.name for path in (extracted / "camera_lidar_semantic_bboxes").iterdir() if path.is_dir())
    shutil.copytree(extracted / "camera_lidar_semantic_bboxes" / scene, root / "set" / scene)
    with tarfile.open(extracted / "bus.tar") as tar:
        members = [member for member in tar.getmembers() if member.name.startswith(scene)]
        tar.extractall(root, members, filter="data")
    path = damage(root)
    arguments = ["shard", "--root", root, "--out", out, "--rules", small_rules, "--workers", 1]
    result = prep(*arguments)
    assert result.exit_code == 1
    assert f"{bad_frames} of 6 frames have a bad file, more than --max-bad 0.01" in one_line(result.output)
    bad = [entry for entry in ShardSet(out).manifest["left_out"] if entry["bad"]]
    assert len(bad) == bad_frames
    assert bad[0]["what"] == what
    assert bad[0]["reason"].startswith(reason)
    more = f" and {bad_frames - 1} more" if bad_frames > 1 else ""
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("bad ")]
    assert said == f"bad {what} of {bad[0]['key']}{more}: {bad[0]['reason']}: {path}"
    assert str(root) not in (out / "manifest.json").read_text()
    assert prep("verify", out).exit_code == 0
    assert sum(total["samples"] for total in ShardSet(out).manifest["totals"].values()) == 6 - (what == "frame")
    again = prep(*arguments)
    assert again.exit_code == 1, "a finished set with too many bad frames stays so"
    assert "is up to date" in again.output
    assert said in again.stderr
    assert prep(*arguments, "--max-bad", "1").exit_code == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-2000]), "bytes, the manifest says", id="cut"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8\xfe", 1)),
                     "fails its checksum", id="flipped"),
        pytest.param(lambda path: path.unlink(), "train-000000.tar: cannot be read: No such file", id="deleted"),
        pytest.param(lambda path: path.with_suffix(".index.json").unlink(), "index.json is missing", id="no index"),
        pytest.param(lambda path: path.with_name("val-000077.tar").write_bytes(b""),
                     "not of this set, though named like its shards: move it away", id="extra"),
    ],
)  # fmt: skip
def test_verify_names_what_is_wrong(
    shards: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    out = Path(shutil.copytree(shards, tmp_path / "shards"))
    assert prep("verify", out).exit_code == 0
    damage(out / "train-000000.tar")
    result = prep("verify", out)
    assert result.exit_code == 1
    assert message in result.output
    assert "problems; a2d2-prep shard writes damaged shards again" in one_line(result.output)


def test_inspect_counts(shards: Path) -> None:
    result = prep("inspect", shards)
    assert result.exit_code == 0, result.output
    for line in (
        "train          12      12             9            12            11             7",
        "most in one cell: ",
        "last 10 values all later than the image: 100.0% of 15 windows",
        "depth absent: no file (6), npz without row, col, distance (1)",
    ):
        assert " ".join(line.split()) in " ".join(result.output.split())


def test_show_draws_any_sample(shards: Path, tmp_path: Path) -> None:
    for ref in ShardSet(shards).samples("train")[:2]:
        out = tmp_path / "pictures" / f"{ref.key}.png"
        result = prep("show", shards, "--key", ref.key, "--out", out)
        assert result.exit_code == 0, result.output
        with Image.open(out) as picture:
            assert picture.height > 256
            assert picture.width > 3 * 256
    result = prep("show", shards, "--key", "x", "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "has no sample 'x'" in one_line(result.output)


def test_a_contact_sheet_is_a_square_of_thumbnails(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    for count, columns in ((1, 1), (5, 3), (99, 5)):
        result = prep("show", shards, "--contact-sheet", count, "--out", out)
        assert result.exit_code == 0, result.output
        assert f"{min(count, 18)} of 18 samples" in result.output
        listed = orjson.loads(prep("show", shards, "--contact-sheet", count, "--out", out, "--json").stdout)
        assert listed["picture"] == str(out)
        assert len({sample["key"] for sample in listed["samples"]}) == min(count, 18)
        with Image.open(tmp_path / "sheet.png") as picture:
            assert picture.width == columns * 320


def test_tables_for_programs(shards: Path) -> None:
    census = orjson.loads(prep("inspect", shards, "--json").stdout)
    assert census["samples"] == {"train": 12, "val": 6}
    assert census["labels"]["train"]["depth"] + census["labels"]["val"]["depth"] == census["depth_samples"] == 11
    assert sum(census["steering_histogram_deg"].values()) == census["steering_windows_timed"] == 15
    assert census["absent"]["boxes"] == {"no file": 1}
    assert orjson.loads(prep("verify", shards, "--json").stdout) == {"samples": 18, "shards": 5, "problems": []}


def test_rules_can_be_compared_with_a_sets(shards: Path, small_rules: Path) -> None:
    assert prep("rules", "--diff", shards).output.splitlines() == [
        f"from {shards} to these rules:", "image.size 256 -> 1024", "shard_samples 5 -> 128"
    ]  # fmt: skip
    assert orjson.loads(prep("rules", "--diff", shards, "--json").stdout) == {
        "image.size": {"set": 256, "rules": 1024}, "shard_samples": {"set": 5, "rules": 128}
    }  # fmt: skip
    assert orjson.loads(prep("rules", "--json").stdout)["rules"]["depth"]["max_m"] == 123.0
    assert f"the rules of {shards} are the same" in prep("rules", "--rules", small_rules, "--diff", shards).output


def test_strict_stops_at_the_first_bad_file(extracted: Path, tmp_path: Path, small_rules: Path) -> None:
    root, out = Path(shutil.copytree(extracted, tmp_path / "root")), tmp_path / "out"
    path = overwrite("*/*/label3D/*/*.json", lambda _: b"{")(root)
    result = prep("shard", "--root", root, "--out", out, "--rules", small_rules, "--workers", 2, "--strict")
    assert result.exit_code == 1
    assert "bad boxes of 2018" in one_line(result.output)
    assert f"{path} (--strict stops at the first)" in one_line(result.output)
    assert not (out / "manifest.json").exists()
    arguments = ["shard", "--root", root, "--out", out, "--rules", small_rules, "--max-bad", 1]
    assert prep(*arguments).exit_code == 0
    finished = prep(*arguments, "--strict")
    assert finished.exit_code == 1
    assert "1 of 18 frames have a bad file, and --strict allows none" in one_line(finished.output)


def test_a_bad_member_of_a_tar_is_named_and_what_it_says_is_printable(
    extracted: Path, tmp_path: Path, small_rules: Path
) -> None:
    """A link to nowhere whose name is no UTF-8, and boxes whose name holds a line break and is a megabyte long."""
    root, out = Path(shutil.copytree(extracted / "camera_lidar_semantic_bboxes", tmp_path / "root")), tmp_path / "out"
    label, boxes = (sorted(root.glob(f"*/{kind}/*/*"))[0] for kind in ("label", "label3D"))
    label.unlink()
    boxes.write_bytes(b'{"a\\n' + b"x" * 1_000_000 + b'": 3}')
    packed = root / "all.tar"
    with tarfile.open(packed, "w") as tar:
        link = tarfile.TarInfo(f"top/{label.relative_to(root)}")
        link.type, link.linkname = tarfile.SYMTYPE, "no\udcff\nwhere"
        tar.addfile(link)
        tar.add(boxes, f"top/{boxes.relative_to(root)}")
    boxes.unlink()
    result = prep("shard", "--root", root, "--out", out, "--rules", small_rules, "--workers", 1, "--max-bad", 1)
    assert result.exit_code == 0, result.output
    said = {line.split()[1]: line for line in result.stderr.splitlines() if line.startswith("bad ")}
    assert "no?where, which is no file of the tar" not in said["segmentation"], "two bytes are two marks"
    assert "no??where, which is no file of the tar" in said["segmentation"]
    assert said["segmentation"].endswith(f": {packed}: top/{label.relative_to(root)}")
    assert ": a?xxx" in said["boxes"]
    assert said["boxes"].endswith(f"xxx...: {packed}: top/{boxes.relative_to(root)}")
    assert all(len(entry["reason"]) < 400 for entry in ShardSet(out).manifest["left_out"])


def test_bad_files_are_listed_up_to_a_number(shards: Path) -> None:
    bad = [{"key": f"key{i}", "what": "boxes", "reason": f"reason {i // 2}", "bad": True} for i in range(30)]
    lines = list(bad_lines({"left_out": bad}))
    assert lines[0] == "bad boxes of key0 and 1 more: reason 0"
    assert lines[10:] == ["... and 10 more, all in manifest.json"]


@pytest.mark.parametrize(
    ("place", "message"),
    [("file/out", "file/out cannot be written to as a folder: Not a directory"),
     ("link", "link cannot be written to as a folder: File exists")],
)  # fmt: skip
def test_an_output_that_is_no_folder_is_one_line(synthetic: Path, tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    result = prep("shard", "--root", synthetic, "--out", tmp_path / place)
    assert result.exit_code == 1
    assert message in one_line(result.output)


@pytest.mark.parametrize("what", ["write_whole", "publish"])
def test_a_disk_that_fills_up_behind_a_shard_leaves_nothing_unfinished(
    synthetic: Path, tmp_path: Path, small_rules: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "publish":
        monkeypatch.setattr(shards.writer.ShardWriter, "publish", fail)
    else:
        monkeypatch.setattr(shards.writer, "flush_to_disk", lambda file: ".index.json." in file.name and fail())
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", 1)
    assert result.exit_code == 1
    assert one_line(result.output) == (
        "a2d2-prep: No space left on device: finished shards are kept; make room, and the same command goes on"
    )
    assert not list(tmp_path.glob("*.tar*"))
    assert not list(tmp_path.glob("*partial"))


def test_synth_does_not_overwrite(synthetic: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in synthetic.iterdir()}
    result = prep("synth", synthetic, "--scenes", 1, "--frames", 1)
    assert result.exit_code == 1
    assert {path.name: path.stat().st_mtime_ns for path in synthetic.iterdir()} == before


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_fits_a_screen(command: str) -> None:
    lines = prep(command, "--help").output.splitlines()
    assert 5 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_every_command_says_what_it_is_for_in_a_line() -> None:
    assert "..." not in prep("--help").output.partition("Commands:")[2]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_stopped_build_says_so_and_goes_on(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from preprocess.cli import main; main()", "shard", "--root", str(synthetic),
               "--out", str(tmp_path), "--rules", str(small_rules), "--workers", "1"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while not (tmp_path / "train-000000.tar").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(stop)
        assert process.stderr is not None
        assert "stopped; finished shards are kept" in process.stderr.read()
    assert process.returncode == 75
    assert not (tmp_path / "manifest.json").exists()
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules)
    assert result.exit_code == 0, result.output
    assert "to keep: " in result.output
    for path in shards.glob("*.tar"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert orjson.loads((tmp_path / "manifest.json").read_bytes())["totals"]["train"]["samples"] == 12
