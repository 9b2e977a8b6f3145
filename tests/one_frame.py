"""One frame of the synthetic set as loose files that a test may spoil, and its conversion in this process."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from preprocess.build_plan import make_plan
from preprocess.convert import Converted, Converter, needed_signals
from preprocess.rules import GeometryRule, ImageRule, Rules
from preprocess.source import find_source
from preprocess.windows import BusWindows

RULES = Rules(image=ImageRule(size=256), geometry=GeometryRule(undistort=False))  # no map to make
STEERING, SIGN = "steering_angle_calculated", "steering_angle_calculated_sign"
KINDS = {"camera": "png", "label": "png", "lidar": "npz", "label3D": "json"}
FRAME = 3  # of the first scene: none of the defects that the synthetic set has on purpose


class OneFrame:
    """The files of one frame, and its scene's bus file, under a folder."""

    def __init__(self, extracted: Path, bus: list[dict[str, Any]], root: Path) -> None:
        self.root = root
        images = sorted((extracted / "camera_lidar_semantic_bboxes").glob("*/camera/*/*.png"))
        self.image = images[FRAME]
        self.scene = self.image.parents[2]
        for kind, suffix in {**KINDS, "camera_json": "json"}.items():
            self.file(kind).parent.mkdir(parents=True, exist_ok=True)
            self.file(kind).write_bytes(self._original(kind, suffix).read_bytes())
        self.bus_file = root / self.scene.name / "bus" / f"{self.stamp}_bus_signals.json"
        self.bus_file.parent.mkdir()
        self.records = [record for record in bus if self.image.stem in record["frame_name"]]
        self.write_bus(lambda records: records)

    @property
    def stamp(self) -> str:
        """20180807145028"""
        return self.scene.name.replace("_", "")

    def _original(self, kind: str, suffix: str) -> Path:
        if kind == "camera_json":
            return self.image.with_suffix(".json")
        folder = self.scene / kind / self.image.parent.name
        return folder / self.image.name.replace("_camera_", f"_{kind}_").replace(".png", f".{suffix}")

    def file(self, kind: str) -> Path:
        """Where a file of the frame lies: camera, camera_json, label, lidar or label3D."""
        original = self._original(kind, KINDS.get(kind, "json"))
        return self.root / self.scene.name / original.relative_to(self.scene)

    def write_bus(self, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Write the bus file, its records changed."""
        self.bus_file.write_bytes(orjson.dumps(change(orjson.loads(orjson.dumps(self.records)))))

    def change_signal(self, name: str, **changes: Callable[[Any], Any]) -> None:
        """Change the timestamps, values or unit of a signal."""

        def change(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for key, function in changes.items():
                series = records[0]["flexray"][name]
                series[key] = function(series[key])
            return records

        self.write_bus(change)

    def change_lidar(self, **changes: Callable[[Any], Any]) -> None:
        """Change arrays of the LiDAR file."""
        with np.load(self.file("lidar")) as stored:
            arrays = dict(stored)
        arrays |= {name: function(arrays[name]) for name, function in changes.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self.file("lidar").write_bytes(buffer.getvalue())

    def rename(self, kind: str, old: str, new: str) -> None:
        """Move a file to another name."""
        path = self.file(kind)
        path.rename(path.with_name(re.sub(old, new, path.name)))

    def convert(self, rules: Rules = RULES) -> Converted:
        """The frame's sample."""
        source = find_source(self.root, cameras=["frontcenter"], skip=self.root / "out")
        plan = make_plan(source, rules)
        (frame,) = [planned.frame for shard in plan.shards for planned in shard.frames]
        window = BusWindows(source.bus, needed_signals(rules), [frame]).of(frame)
        return Converter(rules, plan.calibrations).convert(frame, window, "train")
