"""Comparisons over a whole set: what is odd about it, though each of its files can be read.

Each sample's measures are taken from its meta.json and stand in the shard's index; the manifest has what they say of
the set, under `checks`. The rules' table `[checks]` has the bounds beyond which a set is odd.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from shards.schema import MISMATCH, TASKS

Measures = dict[str, Any]

_DAY_US = 86_400_000_000
_NAMED = 10  # unknown class names in a line


def measure_sample(meta: Mapping[str, Any], pixels: int) -> Measures:
    """The measures of one sample; `pixels` are those of its class map. Measures without a value are left out."""
    measures: Measures = {}
    mismatches = [task for task in TASKS if meta.get(task, {}).get(MISMATCH)]
    if mismatches:
        measures["mismatches"] = mismatches
    for task, name in (("steering", "bus_offset_ms"), ("depth", "lidar_offset_ms")):
        if "offset_ms" in meta.get(task, {}):
            measures[name] = meta[task]["offset_ms"]
    if "pixels" in (classes := meta.get("segmentation", {})):
        measures["unknown_colour"] = round(classes["unknown_colour"] / max(1, pixels - classes.get("outside", 0)), 6)
    boxes = meta.get("boxes", {})
    if "boxes" in boxes or "unknown_classes" in boxes:
        measures["boxes"] = len(boxes.get("boxes", ())) + sum(boxes.get("dropped", {}).values())
        if "unknown_classes" in boxes:
            measures["unknown_classes"] = boxes["unknown_classes"]
            measures["boxes"] = max(measures["boxes"], sum(boxes["unknown_classes"].values()))
    if "pixels" in (depth := meta.get("depth", {})):
        measures["returns"] = [depth["points"], depth["beyond_max_m"], sum(depth.get("dropped", {}).values())]
    if not _near_date(meta):
        measures["far_from_date"] = True
    return measures


def _near_date(meta: Mapping[str, Any]) -> bool:
    """Whether the image's time lies within a day of the local time in the scene's name, whatever the time zone."""
    try:
        start = datetime.strptime(meta["scene"], "%Y%m%d_%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return True  # the scene's name is no date
    time_us = meta["timestamp_us"]
    return time_us is None or abs(time_us - start * 1e6) <= _DAY_US


def measure_set(samples: Iterable[tuple[str, Measures, Mapping[str, int]]]) -> dict[str, Any]:
    """The checks of a set, from (key, measures, checksums by label) of its samples."""
    samples = list(samples)
    checks: dict[str, Any] = {"samples": len(samples)}
    for name in ("bus_offset_ms", "lidar_offset_ms"):
        offsets = {key: measures[name] for key, measures, _ in samples if name in measures}
        if offsets:
            worst = max(offsets, key=lambda key: (abs(offsets[key]), key))
            checks[name] = {"median": round(median(offsets.values()), 3), "worst": offsets[worst], "worst_of": worst}
    shares = [measures["unknown_colour"] for _, measures, _ in samples if "unknown_colour" in measures]
    if shares:
        checks["unknown_colour"] = round(sum(shares) / len(shares), 6)
    unknown: Counter[str] = Counter()
    for _, measures, _ in samples:
        unknown.update(measures.get("unknown_classes", {}))
    if boxes := sum(measures.get("boxes", 0) for _, measures, _ in samples):
        checks["unknown_class"] = round(sum(unknown.values()) / boxes, 6)
        checks["unknown_classes"] = dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0])))
    returns = [sum(column) for column in zip(*(m["returns"] for _, m, _ in samples if "returns" in m), strict=True)]
    if returns and returns[0]:
        checks["clipped"], checks["dropped_returns"] = (round(count / returns[0], 6) for count in returns[1:])
    windows = Counter((key.rpartition("_")[0], sums["steering"]) for key, _, sums in samples if "steering" in sums)
    if windows:
        checks["repeated_windows"] = round(1 - len(windows) / windows.total(), 6)
    checks["far_from_date"] = round(sum("far_from_date" in m for _, m, _ in samples) / max(1, len(samples)), 6)
    checks["mismatches"] = _mismatch_shares(samples)
    return checks


def _mismatch_shares(samples: list[tuple[str, Measures, Mapping[str, int]]]) -> dict[str, float]:
    """Label -> share of the samples with a file for it whose label failed a comparison; labels without are left out."""
    failed = Counter(task for _, measures, _ in samples for task in measures.get("mismatches", ()))
    made = Counter(label for _, _, sums in samples for label in sums)
    return {task: round(count / (count + made[task]), 6) for task, count in sorted(failed.items())}


def check_lines(checks: Mapping[str, Any]) -> Iterator[str]:
    """The checks of a set for people, whether odd or not; nothing of a set without them."""
    for name, what in (("bus_offset_ms", "bus"), ("lidar_offset_ms", "LiDAR")):
        if found := checks.get(name):
            worst = f"worst {found['worst'] / 1e3:+.3f} s ({found['worst_of']})"
            yield f"{what} to image in time: median {found['median'] / 1e3:+.3f} s, {worst}"
    for name, what in _SHARES.items():
        if checks.get(name):
            yield f"{what}: {checks[name]:.1%}{_names(checks) if name == 'unknown_class' else ''}"
    for task, share in checks.get("mismatches", {}).items():
        yield f"{task} of another time, place or unit than the image: {share:.1%}"


_SHARES = {
    "unknown_colour": "label pixels of colours that A2D2 does not list",
    "unknown_class": "boxes of unknown classes",
    "clipped": "LiDAR returns beyond depth.max_m",
    "dropped_returns": "LiDAR returns that do not agree with the image or with themselves",
    "repeated_windows": "steering windows that repeat an earlier one of the scene",
    "far_from_date": "images whose time is more than a day off the date in the scene's name",
}


def _names(checks: Mapping[str, Any]) -> str:
    names = [f"{name!r} {count}" for name, count in checks["unknown_classes"].items()]
    return f" ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})" if names else ""


def set_oddities(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each check of a set that lies beyond its bound; none for a set of the first release."""
    return odd_lines(manifest["checks"], manifest["rules"]["checks"]) if "checks" in manifest else []


def odd_lines(checks: Mapping[str, Any], bounds: Mapping[str, float]) -> list[str]:
    """A line for each check that lies beyond its bound; `bounds` is the rules' table `[checks]`."""
    lines = []
    for name, what in (("bus_offset_ms", "bus"), ("lidar_offset_ms", "LiDAR")):
        median_s = checks.get(name, {"median": 0.0})["median"] / 1e3
        if abs(median_s) > bounds["max_offset_s"]:
            bound = f"more than checks.max_offset_s = {bounds['max_offset_s']:g}"
            lines.append(f"{what} to image in time: median {median_s:+.3f} s, {bound}")
    for name, what in _SHARES.items():
        bound_name = f"max_{name}"
        if checks.get(name, 0.0) > bounds[bound_name]:
            extra = _names(checks) if name == "unknown_class" else ""
            lines.append(f"{what}: {checks[name]:.1%}{extra}, more than checks.{bound_name} = {bounds[bound_name]:g}")
    for task, share in checks.get("mismatches", {}).items():
        if share > bounds["max_mismatches"]:
            bound = f"more than checks.max_mismatches = {bounds['max_mismatches']:g}"
            lines.append(f"{task} of another time, place or unit than the image: {share:.1%}, {bound}")
    return lines
