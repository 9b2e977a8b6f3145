"""Names of results: in one run each belongs to one picture."""

from __future__ import annotations

import re

_NUMBERED = re.compile(r"(.+)_\d{6,}")


def numbered(name: str, number: int) -> str:
    """The name of a frame or page of a file."""
    return f"{name}_{number:06d}"


def is_numbered(name: str, of: str) -> bool:
    """Whether the name is one that a frame or page of the file `of` may have."""
    found = _NUMBERED.fullmatch(name)
    return bool(found and found[1] == of)


class Names:
    """The names that are taken. A file of many pictures takes its own name and all numbered ones under it."""

    def __init__(self) -> None:
        self._single: set[str] = set()
        self._many: set[str] = set()
        self._numbered: set[str] = set()  # what names like a numbered one have before their number

    def take(self, wanted: str, many: bool = False) -> str:
        """The wanted name, or one with a number behind it where that is taken."""
        name, again = wanted, 1
        while self._is_taken(name, many):
            again += 1
            name = f"{wanted}_{again}"
        if many:
            self._many.add(name)
        else:
            self._single.add(name)
            if found := _NUMBERED.fullmatch(name):
                self._numbered.add(found[1])
        return name

    def _is_taken(self, name: str, many: bool) -> bool:
        if name in self._single or name in self._many:
            return True
        found = _NUMBERED.fullmatch(name)
        return name in self._numbered if many else bool(found and found[1] in self._many)
