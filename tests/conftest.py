"""One small synthetic A2D2 for all tests, its shards, and the real frames where they are there."""

from __future__ import annotations

import os

# Before torch is loaded, and for the processes that tests start: small arrays gain nothing from a second thread, and
# threads that wait for each other on a busy machine make tests ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from preprocess.cli.commands import main
from shards.reader import ShardSet
from synth.dataset import write_dataset

REAL = Path(__file__).parents[2] / "shared" / "a2d2_real"
SCENES, FRAMES = 3, 6


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 scenes of 6 frames at full size, as tars."""
    out = tmp_path_factory.mktemp("synthetic")
    write_dataset(out, scenes=SCENES, frames=FRAMES, seed=0, workers=min(2, len(os.sched_getaffinity(0))))
    return out


@pytest.fixture(scope="session")
def extracted(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set as folders, but for the bus, which stays a tar: mixed."""
    out = tmp_path_factory.mktemp("extracted")
    with tarfile.open(synthetic / "camera_lidar_semantic_bboxes.tar") as tar:
        tar.extractall(out, filter="data")
    (out / "bus.tar").symlink_to(synthetic / "camera_lidar_semantic_bus.tar")
    (out / "cams_lidars.json").symlink_to(synthetic / "cams_lidars.json")
    return out


SMALL_RULES = "shard_samples = 5\n[image]\nsize = 256\n"


@pytest.fixture(scope="session")
def small_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of 256 px, 5 a shard."""
    path = tmp_path_factory.mktemp("rules") / "small.toml"
    path.write_text(SMALL_RULES)
    return path


@pytest.fixture(scope="session")
def shards(synthetic: Path, small_rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic set's shards at 256 px. Read only: copy before changing."""
    out = tmp_path_factory.mktemp("set") / "shards"
    result = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules, "--workers", 1)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def full_size_shards(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic set's shards by the default rules, 1024 px."""
    out = tmp_path_factory.mktemp("full") / "shards"
    result = prep("shard", "--root", synthetic, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def shard_set(shards: Path) -> Iterator[ShardSet]:
    """The shards, opened."""
    opened = ShardSet(shards)
    yield opened
    opened.close()


@pytest.fixture
def real() -> Path:
    """Real A2D2 frames; they may not be published, so most machines do not have them."""
    if not REAL.is_dir():
        pytest.skip(f"real A2D2 frames are not at {REAL}")
    return REAL


def prep(*arguments: object) -> Result:
    """`a2d2-prep` with these arguments, in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def png(array: NDArray[np.uint8]) -> bytes:
    """An RGB, RGBA or grey array as a PNG."""
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return bytes(cv2.imencode(".png", array)[1])


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
