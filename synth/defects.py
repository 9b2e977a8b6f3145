"""Known defects of A2D2, put into the synthetic set on purpose: a converter has to handle each of them.

One defect a frame, each on a frame of its own, spread over scenes and over the length of a scene; those for which
a small set has no frame left are left out. No defect takes more away than its own label.
"""

from __future__ import annotations

from enum import StrEnum


class Defect(StrEnum):
    """A defect of one frame, in the order in which a set that grows gets them."""

    NPZ_WITHOUT_PIXELS = "npz without row, col, depth and distance"
    PARTLY_OUTSIDE = "a box partly outside the image"
    ERROR_CODE = "an error code among the last 10 steering values"
    NO_LABEL3D = "no label3D file"
    BOX_TWICE = "the same box twice in one file"
    MISSING_SIGNAL = "no steering_angle_calculated in the record"
    RGBA_LABEL = "an RGBA label image"
    WHOLLY_OUTSIDE = "a box wholly outside the image"
    NO_BUS_RECORD = "no bus record"
    NO_BOXES = "a label3D file that is {}"


REASONS = {
    Defect.NPZ_WITHOUT_PIXELS: "about 15 first frames of a scene are written so: test for the keys, never by name",
    Defect.PARTLY_OUTSIDE: "boxes are not clipped to the image: a real x2 is 2520",
    Defect.ERROR_CODE: "614.25 means that the sensor failed, not that the wheel stood at 614.25 degrees",
    Defect.NO_LABEL3D: "no file is an absent label, which is not the same as a frame without objects",
    Defect.BOX_TWICE: "annotators saved some boxes twice: counted once",
    Defect.MISSING_SIGNAL: "any of the signals may be missing from a record",
    Defect.RGBA_LABEL: "one label is known to have a fourth channel: the colour is in the first three",
    Defect.WHOLLY_OUTSIDE: "a box of which no side lies in the image: dropped, and counted",
    Defect.NO_BUS_RECORD: "not every camera frame has a record: absent is not straight ahead",
    Defect.NO_BOXES: "a frame without objects: labelled, and empty",
}
ERROR_CODE_DEG = 614.25


def scene_has_lidar(scene: int, scenes: int) -> bool:
    """False for the last of several scenes: two real scenes, 2,796 frames, were published without LiDAR."""
    return scenes == 1 or scene < scenes - 1


def place_defects(scenes: int, frames: int) -> dict[tuple[int, int], Defect]:
    """(scene, frame index) -> its defect: the first on scene 0's first frame, the others over all scenes by turns."""
    first, *others = Defect
    placed = {(0, 0): first}
    rounds = -(-len(others) // scenes)
    stride = max(1, (frames - 1) // rounds)
    for number, defect in enumerate(others):
        frame = 1 + number // scenes * stride
        if frame < frames:
            placed[number % scenes, frame] = defect
    return placed
