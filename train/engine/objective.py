"""From a batch to each task's output and loss: images made floats on the device, labels in the network's units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.backbone import IMAGE_MEAN, IMAGE_STD
from models.multitask import MultiTaskNet
from train.data.batch import Batch
from train.tasks import DEFINITIONS
from train.tasks.definition import TaskContext


class Objective:
    """A network with what its inputs, outputs and losses mean."""

    def __init__(
        self,
        network: MultiTaskNet,
        *,
        device: torch.device,
        normalise: bool,
        context: TaskContext,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        # The format in which images come; faster, on CPUs too. PyTorch's annotations lack this pair of arguments.
        self.network: MultiTaskNet = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.normalise = normalise  # by ImageNet's mean and deviation, as pretrained weights expect
        self.context = context
        self.half = precision == "bf16"  # in the network; losses are computed in float32
        # Compiled functions share the network's parameters; its state dict keeps its names.
        self._features = torch.compile(network.features) if compiled else network.features
        self._heads = {task: torch.compile(head) if compiled else head for task, head in network.heads.items()}
        dtype = next(network.parameters()).dtype
        self._mean = torch.tensor(IMAGE_MEAN, device=device, dtype=dtype).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGE_STD, device=device, dtype=dtype).view(1, 3, 1, 1)

    def images(self, images: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB on the device -> (B, 3, S, S) in the weights' precision, 0..1, or normalised."""
        scaled = images.permute(0, 3, 1, 2).to(self._mean.dtype) / 255
        return (scaled - self._mean) / self._std if self.normalise else scaled

    def features(self, batch: Batch) -> tuple[Tensor, ...]:
        """The batch (on the device) through the shared part: what the heads take."""
        assert batch.images is not None, "a batch of labels alone does not go through the network"
        with self._precision():
            return self._features(self.images(batch.images))

    def head(self, task: str, taken: Tensor) -> Tensor:
        """A head on rows of the map of its level."""
        with self._precision():
            output: Tensor = self._heads[task](taken)
        return output

    def outputs(self, batch: Batch, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The batch (on the device) through the network: each task's output for the samples that have its label."""
        maps = self.features(batch)
        whole = len(batch.keys)
        taken = {task: maps[self.network.levels[task]] for task in tasks}
        return {
            task: self.head(task, rows if len(batch.rows[task]) == whole else rows[batch.rows[task]])
            for task, rows in taken.items()
        }

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def losses(self, task: str, output: Tensor, label: Tensor) -> Tensor:
        """Return (n,) undivided losses of n samples from the network's output and the label in natural units."""
        return DEFINITIONS[task].loss(output, label, self.context)

    def natural(self, task: str, output: Tensor) -> Tensor:
        """Return the network's output in the units of the labels: degrees, class ids, metres, box grid."""
        return DEFINITIONS[task].natural(output, self.context)
