"""A scene's bus file to one small record per frame: it is parsed once, and only what the rules need is kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from shards.codec import decode_json

_FRAME_NAME = re.compile(r"^\d{14}_camera_(?P<camera>[a-z]+)_(?P<id>\d+)\.(?:json|png)$")

BusRecord = dict[str, Any]  # {"timestamp": us or None, signal: {"timestamps", "values", "unit"}, ...}


def read_bus(data: bytes, signals: Collection[str]) -> dict[tuple[str, str], BusRecord]:
    """A `<stamp>_bus_signals.json` of the semantic set -> (camera token, frame id) -> the signals asked for.

    A missing signal is missing in the record. Raises ValueError where the file is not of the bus's form.
    """
    document = decode_json(data)
    if not isinstance(document, list):
        raise ValueError(f"bus file must be a list of records, got {type(document).__name__}")
    records: dict[tuple[str, str], BusRecord] = {}
    for entry in document:
        name = entry.get("frame_name") if isinstance(entry, Mapping) else None
        flexray = entry.get("flexray") if isinstance(entry, Mapping) else None
        match = _FRAME_NAME.match(name) if isinstance(name, str) else None
        if match is None or not isinstance(flexray, Mapping):
            raise ValueError(f"bus record must have frame_name and flexray, got {str(entry)[:80]}")
        record = {"timestamp": entry.get("timestamp"), **{key: flexray[key] for key in signals if key in flexray}}
        records.setdefault((match["camera"], match["id"]), record)
    return records
