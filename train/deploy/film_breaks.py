"""Which frames of a damaged film were drawn from frames that are lost.

Most frames are coded as differences from frames decoded before them, back to a key frame. So a break, a packet that is
missing or cannot be decoded, reaches all frames up to the next key frame in decoding order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import accumulate, pairwise

from train.deploy.film_index import FilmIndex


class Breaks:
    """The breaks of a film, at places in decoding order. Frames are asked for in the order of their numbers."""

    def __init__(self, index: FilmIndex) -> None:
        self._breaks = sorted(2 * place - 1 for place in _places_of_gaps(index))  # between two packets: an odd number
        if index.by_place:
            places = [-1 if place is None else place for place in index.times]
            self._breaks += [2 * row for row, place in enumerate(places) if place < 0]
            if max(places, default=-1) + 1 < index.total:  # cut: frames may lack that are shown before the last ones
                self._breaks.append(2 * len(places))
            self._breaks.sort()
        self._key: int | None = None
        self.decoded = -1  # the place of the packet that was decoded last
        self.failed = 0  # packets and frames so far

    def add(self, place: int) -> None:
        """Note a packet that failed."""
        self.failed += 1
        insort(self._breaks, 2 * place)

    def reached(self) -> int:
        """Breaks up to the packet that was decoded last."""
        return bisect_right(self._breaks, 2 * self.decoded)

    def is_behind(self, place: int) -> bool:
        """Whether the packet at `place` failed, or a break was reached after it."""
        return bisect_left(self._breaks, 2 * place) < self.reached()

    def forget_key(self) -> None:
        """Trust no frame before the next key frame."""
        self._key = None

    def spare(self, place: int, key: bool) -> bool:
        """Whether no break lies between the frame of the packet at `place` and the key frame that it goes back to."""
        at = 2 * place
        row = bisect_left(self._breaks, at)
        failed = row < len(self._breaks) and self._breaks[row] == at
        if key and not failed:
            self._key = at
        if self._key is None or self._key > at or failed:
            return False
        return bisect_right(self._breaks, self._key) == row


def _places_of_gaps(index: FilmIndex) -> Iterator[int]:
    """The place of the first packet that may have been drawn from a missing one, for each gap in the numbers.

    A missing frame may have been decoded before frames that are shown up to `depth` frames earlier.
    """
    if index.by_place:
        numbers = [-1 if place is None else place for place in index.times]
    else:
        numbers = [-1 if time is None else index.numbers.get(time, -1) for time in index.times]
    latest = list(accumulate(numbers, max))
    present = sorted({*index.repeats, *(number for number in numbers if number >= 0)})
    for before, after in pairwise([-1, *present]):
        if after - before > 1:
            yield bisect_left(latest, before + 1 - index.depth)
