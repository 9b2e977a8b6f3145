"""Libraries of others read the shards as docs/format.md says: Hugging Face datasets, and Energon's preparation."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shards.reader import ShardSet
from shards.writer import ShardWriter

ROOT = Path(__file__).parents[1]
FEATURES = re.search(r"```python\n(from datasets import .*?)```", (ROOT / "docs" / "format.md").read_text(), re.DOTALL)
needs_datasets = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")


def run(program: str, folder: Path) -> str:
    """The output of a Python program in a folder, without a network and with a cache of its own."""
    environment = os.environ | {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_datasets
def test_hugging_face_reads_a_set_with_the_features_of_the_format_page(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").symlink_to(shards)
    assert FEATURES is not None
    check = """
rows = list(data["train"]) + list(data["val"])
print(len(rows), [sum(row[name] is not None for row in rows) for name in features if not name.startswith("__")])
print(next(row["meta.json"]["boxes"]["boxes"][0]["class"] for row in rows if row["meta.json"]["boxes"].get("boxes")))
"""
    samples = [ref for split in ("train", "val") for ref in ShardSet(shards).samples(split)]
    labels = ("image", "segmentation", "depth", "boxes", "steering")
    counts = [sum(label in ref.labels for ref in samples) for label in labels]
    lines = run(FEATURES[1] + check, tmp_path).splitlines()
    assert lines[0] == f"{len(samples)} {[*counts, len(samples)]}"
    assert lines[1]


@needs_datasets
def test_hugging_face_infers_the_features_where_samples_have_the_same_members(
    shard_set: ShardSet, tmp_path: Path
) -> None:
    """Lists of mixed types, as boxes were, cannot be inferred."""
    with ShardWriter(tmp_path / "boxes.tar") as writer:
        refs = [ref for ref in shard_set.samples("train") if "boxes" in ref.labels]
        for ref in refs:
            for member in (ref.labels["image"], "meta.json"):
                writer.add(f"{ref.key}.{member}", shard_set.read(ref, member))
    writer.publish()
    program = """
from datasets import load_dataset
data = load_dataset("webdataset", data_files="boxes.tar", split="train")
print(len(data), sorted(max((row["meta.json"]["boxes"]["boxes"] for row in data), key=len)[0]))
"""
    assert run(program, tmp_path).strip() == f"{len(refs)} ['class', 'x1', 'x2', 'y1', 'y2']"


def test_energon_prepares_a_set(shards: Path, tmp_path: Path) -> None:
    energon = shutil.which("energon")
    if energon is None:
        pytest.skip("megatron-energon is not installed")
    folder = Path(shutil.copytree(shards, tmp_path / "shards"))
    parts = ["--split-parts", r"train:train-.*\.tar", "--split-parts", r"val:val-.*\.tar"]
    call = [energon, "prepare", str(folder), "--non-interactive", "--skip-dataset-yaml", "--num-workers", "1", *parts]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "boxes.npy" in done.stdout
    ShardSet(folder).check_sizes()
