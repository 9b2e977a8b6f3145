"""Groups of a split's samples, by camera or by scene, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

WHOLE = ""  # the group that every sample is in

Grouping = Callable[[str], str]  # a sample's key -> its group
Rows = slice | list[int]


def camera_of_key(key: str) -> str:
    """`20180807145028_frontcenter_000006882` -> `frontcenter`."""
    _, camera, *_ = key.split("_")
    return camera


def scene_of_key(key: str) -> str:
    """`20180807145028_frontcenter_000006882` -> `20180807_145028`, as A2D2's folders are called."""
    stamp = key.split("_", maxsplit=1)[0]
    return f"{stamp[:8]}_{stamp[8:]}"


GROUPINGS: dict[str, Grouping] = {"camera": camera_of_key, "scene": scene_of_key}


def rows_of_groups(keys: Sequence[str], grouping: Grouping | None) -> dict[str, Rows]:
    """Return the rows of the keys in each group; WHOLE has all of them and comes first."""
    rows: dict[str, Rows] = {WHOLE: slice(None)}
    if grouping is None:
        return rows
    of_group: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        of_group.setdefault(grouping(key), []).append(row)
    return {**rows, **of_group}
