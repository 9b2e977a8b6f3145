"""Adds a fifth label, the speed of the car, to the tables of the preparation; to be imported before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shards import schema

schema.Task = Literal["steering", "segmentation", "boxes", "depth", "speed"]  # type: ignore[misc]
schema.TASKS = (*schema.TASKS, "speed")
schema.LABELS = ("image", *schema.TASKS)
schema.MEMBERS["speed"] = ("speed.json",)
schema.LABEL_OF_MEMBER["speed.json"] = "speed"

from preprocess import rules  # noqa: E402 - the schema comes first


@dataclass(frozen=True)
class SpeedRule:
    """`speed.json` from the vehicle bus."""

    signal: str = "vehicle_speed"  # km/h


@dataclass(frozen=True)
class Rules(rules.Rules):
    """The rules with one for the new label."""

    speed: SpeedRule = field(default_factory=SpeedRule)


rules.Rules = Rules  # type: ignore[misc]

from preprocess import convert  # noqa: E402
from preprocess.absent import Absent  # noqa: E402
from preprocess.label import LabelConverter, LabelInput, LabelMember  # noqa: E402
from shards.codec import encode_json  # noqa: E402


def _convert(given: LabelInput) -> LabelMember:
    record = given.bus.signals()
    if record is None or "vehicle_speed" not in record:
        raise Absent("no signal vehicle_speed")
    values = record["vehicle_speed"]["values"]
    return LabelMember("speed.json", encode_json({"speeds_km_h": values, "unit": "km/h"}), {"values": len(values)})


convert.CONVERTERS["speed"] = LabelConverter(_convert, ("camera_json", "bus"), lambda rule: (rule.signal,))
convert.CONVERTER_VERSIONS["speed"] = 1
