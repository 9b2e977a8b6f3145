"""What is compared with the plain way of preparing data is the same work: its tars hold the same samples."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import mistakes, plain
from benchmarks.frames import deal, image_and_label, prepare_files
from benchmarks.prepare import slope_ms, table
from shards.png import decode_png
from shards.reader import ShardSet
from tests.conftest import prep

FRAMES = 3


@pytest.fixture(scope="module")
def cache(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark's folder whose frames are drawn already."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "drawn").symlink_to(synthetic)
    prepare_files(folder, None, workers=1)
    return folder


def test_frames_are_dealt_under_ids_of_their_own(cache: Path) -> None:
    pairs = list(image_and_label(deal(cache, 40)))
    assert len({image.name for image, _ in pairs}) == 40
    assert len({image.stat().st_ino for image, _ in pairs}) < 40, "the same files, by hard links"
    assert all(label.exists() for _, label in pairs)


def test_the_plain_way_makes_the_same_samples(cache: Path, tmp_path: Path) -> None:
    root = deal(cache, FRAMES)
    plain.build(root, tmp_path)
    assert prep("shard", "--root", root, "--out", tmp_path / "ours", "--workers", 1).exit_code == 0
    ours = ShardSet(tmp_path / "ours")
    with tarfile.open(tmp_path / "plain-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    refs = [ref for split in ("train", "val") for ref in ours.samples(split)]
    assert {f"{ref.key}.{name}" for ref in refs for name in ref.sample.members} == set(members)
    for ref in refs:
        loaded = ours.load(ref, ["image", "segmentation", "boxes"])
        image = cv2.imdecode(np.frombuffer(members[f"{ref.key}.image.jpg"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(image.astype(int) - loaded["image"]).mean() < 3
        assert (decode_png(members[f"{ref.key}.segmentation.png"]) == loaded["segmentation"]).mean() > 0.98
        depth = f"{ref.key}.depth.png"
        np.testing.assert_array_equal(decode_png(members[depth]), decode_png(ours.read(ref, "depth.png")))
        boxes = np.load(io.BytesIO(members[f"{ref.key}.boxes.npy"]))
        np.testing.assert_allclose(np.sort(boxes, axis=2), np.sort(loaded["boxes"], axis=2), atol=2e-2)
    ours.close()


def test_start_up_does_not_count() -> None:
    assert slope_ms(lambda frames: 5.0 + 0.02 * frames) == pytest.approx(20)


def test_tables_are_markdown() -> None:
    assert table(("a", "b"), [("x", 1)]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


# Mistakes that leave nothing to compare: neither a time, nor a unit, nor a place disagrees with anything.
INVISIBLE = {
    "values of another frame, its own times", "radians, said to be degrees", "left and right exchanged",
    "mirrored", "moved", "of another frame",
    "all lengths in another unit",  # millimetres are seen, all beyond max_m; feet are not
}  # fmt: skip


def test_a_wrong_file_of_each_kind_is_caught_or_its_set_is_odd(synthetic: Path) -> None:
    """Each mistake several times; the whole figure is that of `python -m benchmarks.mistakes`."""
    outcomes = {(label, name): (counted, odd) for label, name, counted, odd in mistakes.run(synthetic, 144)}
    assert len(outcomes) == 36
    taken = {(label, name) for (label, name), (counted, odd) in outcomes.items() if counted["taken"] and not odd}
    assert {name for _, name in taken} <= INVISIBLE
    assert sum(counted["caught"] + counted["counted"] for counted, _ in outcomes.values()) > 80
