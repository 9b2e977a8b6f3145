"""A fifth task is a converter, a head, a definition and a line in each table: from the bus file to a prediction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.conftest import SMALL_RULES

ROOT = Path(__file__).parents[1]
TRAIN = ["--mode", "asymmetric", "--epochs", 1, "--backbone", "resnet18", "--width", 0.125, "--weights", "none",
         "--device", "cpu", "--precision", "fp32", "--threshold",
         "shared=8,steering=4,segmentation=4,boxes=4,depth=4,speed=4"]  # fmt: skip


def test_the_speed_of_the_car_from_the_bus_file_to_a_prediction(synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(SMALL_RULES)
    shards, run, out = tmp_path / "shards", tmp_path / "run", tmp_path / "out"
    commands = [
        ("preprocess.cli.commands", ["shard", "--root", synthetic, "--out", shards, "--rules", tmp_path / "rules.toml",
                                     "--workers", 1]),
        ("train.cli.train", [*TRAIN, "--shards", shards, "--out", run]),
        ("train.cli.evaluate", [run / "best.pt", "--shards", shards]),
        ("train.cli.report", [run, "--out", tmp_path / "report.html"]),
        ("train.cli.predict", [run / "best.pt", shards, "--out", out]),
    ]  # fmt: skip
    program = "import tests.fifth_task\nfrom importlib import import_module\n"
    for module, words in commands:
        program += f"import_module({module!r}).main({[str(word) for word in words]!r}, standalone_mode=False)\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    record = json.loads((run / "eval.json").read_bytes())
    (row,) = [row for row in record["metrics"] if row["task"] == "speed"]
    assert row["unit"] == "km/h"
    assert list(row["baselines"]) == ["mean speed"]
    assert record["counts"]["updates"]["speed"] > 0
    assert "the speed of the car in km/h" in (run / "model-card.md").read_text()
    assert "speed" in (run / "table.txt").read_text()
    assert "km/h" in (tmp_path / "report.html").read_text()

    found = json.loads((out / "predictions.json").read_bytes())
    assert found["meaning"]["speed_km_h"] == "the speed of the car in km/h"
    name = found["names"][0]
    values = json.loads((out / "values" / f"{name}.json").read_bytes())
    with np.load(out / "arrays" / f"{name}.npz") as arrays:
        assert values["speed_km_h"] == np.float32(arrays["speed_km_h"][0])
        assert arrays["depth_m"].ndim == 2, "depth is depth, and not the speed"


def test_mypy_names_a_task_without_a_definition(tmp_path: Path) -> None:
    """The table is a match that ends in assert_never: a task that is forgotten there is no success."""
    for name in ("shards/schema.py", "train/tasks/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    for package in ("shards", "train"):
        (tmp_path / package / "__init__.py").touch()
    command = [sys.executable, "-m", "mypy", "--follow-imports", "skip", "--ignore-missing-imports", "--cache-dir",
               os.devnull, "shards/schema.py", "train/tasks/__init__.py"]  # fmt: skip
    kept = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert kept.returncode == 0, kept.stdout
    schema = tmp_path / "shards/schema.py"
    schema.write_text(schema.read_text().replace('"boxes", "depth"]', '"boxes", "depth", "speed"]'))
    forgotten = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert forgotten.returncode == 1
    assert "train/tasks/__init__.py" in forgotten.stdout
    assert "speed" in forgotten.stdout
