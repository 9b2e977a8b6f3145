"""Fingerprints: a label must be converted again where its fingerprint differs from the one in the shard's index.

A label's fingerprint is the hash of its rule, of the geometry that all labels share (calibration values and the
sample's size included) and of the version of its converter. Of a rule, the fields of the first release count with
any value, and a field that was added later only where its value differs from its default: a new rule whose default
changes nothing makes no set stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import orjson

from preprocess.convert import CONVERTER_VERSIONS
from preprocess.rules import Rules
from shards.geometry import Calibration
from shards.schema import LABELS

# The fields of the first release, in full in every fingerprint since. This table never changes: a label, table or
# field that is not in it is hashed only where it differs from its default. Such a default must never change either,
# unless the converter's version is raised with it.
_FIRST_FIELDS = {
    "geometry": ("undistort",),
    "image": ("size", "format", "quality"),
    "segmentation": ("encoding",),
    "depth": ("max_m", "point_px", "bits"),
    "boxes": ("grid", "slots", "min_px"),
    "steering": ("signal",),
}


def fingerprints(rules: Rules, calibrations: Mapping[str, Calibration]) -> dict[str, str]:
    """Label of the set -> 16 hex digits. `calibrations` are those of the cameras in the set, by file token."""
    geometry = {
        **_hashed(rules, "geometry"),
        "size": rules.image.size,
        "calibrations": {camera: asdict(calibration) for camera, calibration in calibrations.items()},
    }
    in_set = [label for label in LABELS if label == "image" or label in rules.labels]
    return {label: _digest([label, CONVERTER_VERSIONS[label], _hashed(rules, label), geometry]) for label in in_set}


def _hashed(rules: Rules, table: str) -> dict[str, Any]:
    """The values of one table that decide a fingerprint."""
    rule = getattr(rules, table)
    values, default = asdict(rule), asdict(type(rule)())
    first = _FIRST_FIELDS.get(table, ())
    return {name: values[name] for name in (field.name for field in fields(rule))
            if name in first or values[name] != default[name]}  # fmt: skip


def _digest(document: Any) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
