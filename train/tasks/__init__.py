"""The tasks: one module each for label, loss, units, metrics, constant predictions, exported output, words and drawing.

In come stored labels and outputs of the network; out go losses, metrics, and values to write and draw.
A further task is a module here that implements `TaskDefinition`, and a case in `definition_of`.
"""

from __future__ import annotations

from typing import assert_never, get_args

from shards.schema import Task
from train.tasks.boxes import Boxes
from train.tasks.definition import Metric, TaskDefinition
from train.tasks.depth import Depth
from train.tasks.segmentation import Segmentation
from train.tasks.steering import Steering


def definition_of(task: Task) -> TaskDefinition:
    """Return the task's definition; mypy reports a task that has no case."""
    match task:
        case "steering":
            return Steering()
        case "segmentation":
            return Segmentation()
        case "boxes":
            return Boxes()
        case "depth":
            return Depth()
        case _:
            assert_never(task)


DEFINITIONS: dict[str, TaskDefinition] = {task: definition_of(task) for task in get_args(Task)}


def all_metrics() -> tuple[Metric, ...]:
    """Return the metrics of all tasks, in the order of TASKS."""
    return tuple(metric for task in DEFINITIONS.values() for metric in task.metrics)
