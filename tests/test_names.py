"""Names of results: none is given twice, whatever films, pages, folders and keys of samples are called."""

from __future__ import annotations

import itertools

from train.deploy.names import Names, is_numbered, numbered

WANTED = [("drive", True), ("drive_000000", False), ("drive", False), ("drive_000001", True), ("drive_2", True),
          ("drive_2_000000", False), ("drive_000000_000003", False), ("drive_0000000", False)]  # fmt: skip


def test_no_name_twice():
    for order in itertools.permutations(WANTED, 3):
        names, results = Names(), []
        for wanted, many in order:
            name = names.take(wanted, many)
            assert name.startswith(wanted)
            results += [numbered(name, number) for number in (0, 1, 2, 3, 1_000_000)] if many else [name]
        assert len(set(results)) == len(results), order


def test_names_stay_where_they_can():
    names = Names()
    assert [names.take(*wanted) for wanted in WANTED] == [
        "drive", "drive_000000_2", "drive_2", "drive_000001", "drive_2_2",
        "drive_2_000000", "drive_000000_000003", "drive_0000000_2",
    ]  # fmt: skip
    assert is_numbered("drive_000012", "drive")
    assert not is_numbered("drive_12", "drive")
    assert not is_numbered("drive_2_000012", "drive")
