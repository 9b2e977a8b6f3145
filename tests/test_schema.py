"""The schema's tables cover every label, and its numbers are those of the networks."""

from __future__ import annotations

from dataclasses import fields

from models import heads
from preprocess.convert import CONVERTER_VERSIONS, CONVERTERS
from preprocess.rules import Rules
from shards import schema
from shards.classes import box_grid_shape
from shards.schema import LABELS, MEMBERS, TASKS


def test_every_label_has_its_line_in_each_table() -> None:
    assert set(CONVERTERS) == set(TASKS)
    assert set(CONVERTER_VERSIONS) == set(MEMBERS) == set(LABELS)
    assert set(LABELS) <= {field.name for field in fields(Rules)}


def test_networks_and_samples_have_the_same_numbers() -> None:
    """`models` imports nothing of ours, so that it can be used alone: its numbers are compared here."""
    assert (heads.GRID, heads.SLOTS, heads.STEERING_STEPS) == (schema.GRID, schema.SLOTS, schema.STEERING_STEPS)
    assert box_grid_shape(heads.GRID, heads.SLOTS)[-1] == heads.SLOT_VALUES
