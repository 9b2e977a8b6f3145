"""The classes of A2D2 and their colours, the same everywhere: in conversion, in pictures, in metrics.

Source: the data set's `class_list.json`, 55 colours; merging the trailing instance numbers gives 38 classes.
Class id = order of first appearance after merging.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from shards.schema import BOX_VALUES

CLASS_LIST = {
    "#ff0000": "Car 1",
    "#c80000": "Car 2",
    "#960000": "Car 3",
    "#800000": "Car 4",
    "#b65906": "Bicycle 1",
    "#963204": "Bicycle 2",
    "#5a1e01": "Bicycle 3",
    "#5a1e1e": "Bicycle 4",
    "#cc99ff": "Pedestrian 1",
    "#bd499b": "Pedestrian 2",
    "#ef59bf": "Pedestrian 3",
    "#ff8000": "Truck 1",
    "#c88000": "Truck 2",
    "#968000": "Truck 3",
    "#00ff00": "Small vehicles 1",
    "#00c800": "Small vehicles 2",
    "#009600": "Small vehicles 3",
    "#0080ff": "Traffic signal 1",
    "#1e1c9e": "Traffic signal 2",
    "#3c1c64": "Traffic signal 3",
    "#00ffff": "Traffic sign 1",
    "#1edcdc": "Traffic sign 2",
    "#3c9dc7": "Traffic sign 3",
    "#ffff00": "Utility vehicle 1",
    "#ffffc8": "Utility vehicle 2",
    "#e96400": "Sidebars",
    "#6e6e00": "Speed bumper",
    "#808000": "Curbstone",
    "#ffc125": "Solid line",
    "#400040": "Irrelevant signs",
    "#b97a57": "Road blocks",
    "#000064": "Tractor",
    "#8b636c": "Non-drivable street",
    "#d23273": "Zebra crossing",
    "#ff0080": "Obstacles / trash",
    "#fff68f": "Poles",
    "#960096": "RD restricted area",
    "#ccff99": "Animals",
    "#eea2ad": "Grid structure",
    "#212cb1": "Signal corpus",
    "#b432b4": "Drivable cobblestone",
    "#ff46b9": "Electronic traffic",
    "#eee9bf": "Slow drive area",
    "#93fdc2": "Nature object",
    "#9696c8": "Parking area",
    "#b496c8": "Sidewalk",
    "#48d1cc": "Ego car",
    "#c87dd2": "Painted driv. instr.",
    "#9f79ee": "Traffic guide obj.",
    "#8000ff": "Dashed line",
    "#ff00ff": "RD normal street",
    "#87ceff": "Sky",
    "#f1e6ff": "Buildings",
    "#60458f": "Blurred area",
    "#352e52": "Rain dirt",
}

IGNORE_INDEX = 255  # unknown colour or outside the camera's view: no loss, no metric


def class_of_entry(entry: str) -> str:
    """`Car 3` -> `Car`: instances that touch have colours of their own, and are one class."""
    return re.sub(r" \d+$", "", entry)


SEGMENTATION_CLASSES = tuple(dict.fromkeys(class_of_entry(entry) for entry in CLASS_LIST.values()))
SEGMENTATION_ID = {name: class_id for class_id, name in enumerate(SEGMENTATION_CLASSES)}

BOX_CLASSES = (
    "Car", "Pedestrian", "Truck", "VanSUV", "Cyclist", "Bus", "MotorBiker", "Bicycle",
    "UtilityVehicle", "Motorcycle", "CaravanTransporter", "Animal", "Trailer", "EmergencyVehicle",
)  # fmt: skip
BOX_ID = {name: class_id for class_id, name in enumerate(BOX_CLASSES)}


def box_grid_shape(grid: int, slots: int) -> tuple[int, int, int, int]:
    """The shape of `boxes.npy`: cell rows, cell columns, slots of a cell, values of a slot."""
    return grid, grid, slots, BOX_VALUES + len(BOX_CLASSES)


# Okabe and Ito's eight colour-blind-safe colours, then darker shades of six of them.
BOX_COLOURS = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
        (255, 255, 255), (153, 106, 0), (57, 120, 155), (0, 105, 77), (160, 152, 44), (0, 76, 119), (142, 63, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip


def rgb_of_hex(colour: str) -> tuple[int, int, int]:
    """`#ff8000` -> (255, 128, 0)."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def segmentation_colours() -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB: each class in A2D2's own first colour; ids beyond the classes are black."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for colour, entry in reversed(CLASS_LIST.items()):
        colours[SEGMENTATION_ID[class_of_entry(entry)]] = rgb_of_hex(colour)
    return colours
