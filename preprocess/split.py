"""The split of a set: which frames train, which are val, which are test, and which a gap around a cut leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from preprocess.rules import SplitRule
from preprocess.source import Frame

Time = Callable[[Frame], int | None]  # the exposure's time in microseconds; None where it is not known
IN_GAP = "within split.gap_s of the cut between two splits"
NO_TIME = "no camera time, which split.gap_s needs"


@dataclass(frozen=True)
class Split:
    """The split of each frame by key, and the reason of each frame that is left out."""

    of: dict[str, str]
    left_out: dict[str, str]


def split_frames(frames: Sequence[Frame], rule: SplitRule, time_us: Time) -> Split:
    """Split frames in order of (scene, camera, id).

    `tail`: of the n frames of a scene the first max(1, int((1 - val_fraction) n)) are train (the thesis), in order of
    time where the scene has several cameras, so that all of them are cut at one moment. `scene`: the same of the
    scenes, so that whole scenes, the last ones, are held out. With a test_fraction the very last ones are test.
    """
    if rule.by == "scene":
        scenes = sorted({frame.scene for frame in frames})
        names = dict(zip(scenes, _names(len(scenes), rule), strict=True))
        return Split({frame.key: names[frame.scene] for frame in frames}, {})
    of: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for _, members in groupby(frames, key=lambda frame: frame.scene):
        scene = _split_scene(list(members), rule, time_us)
        of |= scene.of
        left_out |= scene.left_out
    return Split(of, left_out)


def _split_scene(frames: list[Frame], rule: SplitRule, time_us: Time) -> Split:
    several = len({frame.camera for frame in frames}) > 1
    times = {frame.key: time_us(frame) for frame in frames} if several or rule.gap_s else {}
    if several:
        frames = sorted(frames, key=_moment(times))
    names = _names(len(frames), rule)
    if several:  # frames of one moment stay together, on the side of the first of them
        for place in range(1, len(frames)):
            if _moment(times)(frames[place]) == _moment(times)(frames[place - 1]):
                names[place] = names[place - 1]
    of = {frame.key: name for frame, name in zip(frames, names, strict=True)}
    left_out = _in_gaps(frames, of, times, rule.gap_s) if rule.gap_s else {}
    return Split({key: name for key, name in of.items() if key not in left_out}, left_out)


def _moment(times: dict[str, int | None]) -> Callable[[Frame], int]:
    """Return the order of a scene's frames: by time where all have one, else by the number in the name."""
    known = all(time is not None for time in times.values())
    return (lambda frame: times[frame.key] or 0) if known else (lambda frame: int(frame.frame_id))


def _in_gaps(frames: Sequence[Frame], of: dict[str, str], times: dict[str, int | None], gap_s: float) -> dict[str, str]:
    """Return the reasons of frames closer than half a gap to a cut, the middle between two frames of two splits."""
    known = {key: time for key, time in times.items() if time is not None}
    ordered = [frame.key for frame in frames if frame.key in known]
    cuts = [(known[last] + known[first]) / 2 for last, first in pairwise(ordered) if of[last] != of[first]]
    near = {key for key, time in known.items() if any(abs(time - cut) < 0.5e6 * gap_s for cut in cuts)}
    return {
        frame.key: IN_GAP if frame.key in near else NO_TIME
        for frame in frames
        if frame.key in near or (cuts and frame.key not in known)
    }


def _names(n: int, rule: SplitRule) -> list[str]:
    """Return the split of each of n places."""
    train = max(1, int((1 - rule.val_fraction - rule.test_fraction) * n))
    test = max(train, n - int(rule.test_fraction * n))
    return ["train" if place < train else "val" if place < test else "test" for place in range(n)]
