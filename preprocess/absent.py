"""Reasons why a label is absent, and their text in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shards.schema import MISMATCH

_REASON_CHARS = 300  # a name in a damaged file may be megabytes long


class Absent(Exception):
    """A label is absent for a reason that A2D2 is known to have. Unlike ValueError, which says that a file is bad.

    `section` is what meta.json says of the label beside the reason.
    """

    def __init__(self, reason: str, section: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.section = {**(section or {})}


class Mismatch(Absent):
    """A label is absent since its file can be read but belongs to another moment, place or unit than the image."""

    def __init__(self, reason: str, section: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason, {**(section or {}), MISMATCH: True})


def reason_of(error: ValueError | OSError) -> str:
    """The reason why a file is bad, in one printable line, for the manifest and for people.

    Without the file's path: a manifest does not depend on where the source lies.
    """
    text = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
    line = "".join(character if character.isprintable() else "?" for character in text[: _REASON_CHARS + 1])
    return line if len(line) <= _REASON_CHARS else f"{line[:_REASON_CHARS]}..."
