"""The shared part's feature maps, cut from the graph, with the gradients that the heads send back to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.norms import on_device


class DetachedFeatures:
    """Lets each head go backward by itself, so that the shared part goes backward once for all of them."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        """`maps`: (B, C, H, W) per level, still in the shared part's graph; none where this rank has no image."""
        self.maps = maps
        self.gradients: dict[str, dict[int, Tensor]] = {}  # task -> level -> gradient of the whole map
        self._last: tuple[int, Tensor | None] = (0, None)  # level and rows of the last `take`

    def take(self, level: int, rows: Sequence[int]) -> Tensor:
        """Return rows of a map as a leaf that collects a gradient where the map needs one."""
        source = self.maps[level].detach()
        index = None
        if tuple(rows) != tuple(range(len(source))):
            index = row_index(rows, source.device)
            source = source[index]  # index_select would leave the channels-last format
        self._last = (level, index)
        return source.requires_grad_(self.maps[level].requires_grad)

    def add_gradient(self, task: str, taken: Tensor) -> None:
        """Keep the gradient of what `take` returned last."""
        level, index = self._last
        gradient = taken.grad
        if gradient is None:
            return
        levels = self.gradients.setdefault(task, {})
        if index is not None:
            whole = levels.get(level)
            whole = torch.zeros_like(self.maps[level]) if whole is None else whole
            levels[level] = whole.index_add_(0, index, gradient)
        else:
            levels[level] = levels[level] + gradient if level in levels else gradient

    @property
    def tasks(self) -> list[str]:
        """Tasks whose heads sent a gradient back."""
        return list(self.gradients)

    def backward(self, tasks: Sequence[str], *, keep_graph: bool = False) -> None:
        """Send the sum of the tasks' gradients through the shared part."""
        summed: dict[int, Tensor] = {}
        for task in tasks:
            for level, gradient in self.gradients[task].items():
                summed[level] = summed[level] + gradient if level in summed else gradient
        if summed:
            maps = [self.maps[level] for level in summed]
            torch.autograd.backward(maps, list(summed.values()), retain_graph=keep_graph)


def row_index(rows: Sequence[int], device: torch.device) -> Tensor:
    """Return int64 row numbers on the device; the copy to a GPU comes from pinned memory and does not block."""
    return on_device(rows, torch.int64, device)
