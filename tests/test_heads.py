from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.heads import DEPTH_ACTIVATIONS, BoxHead, DepthHead, SegmentationHead, SteeringHead, scaled


def maps_of(size: int, channels: int = 8, batch: int = 1) -> list[Tensor]:
    return [torch.rand(batch, channels, size // stride, size // stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(256, 1.0, 256), (256, 0.25, 64), (64, 0.3, 16), (64, 0.32, 24), (64, 0.01, 8), (512, 1.5, 768)],
)
def test_scaled(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize(
    ("head", "level", "shape"),
    [
        (SteeringHead(8, 256), 3, (2, 10)),
        (SegmentationHead(8, 5, 0.1), 1, (2, 5, 256, 256)),
        (BoxHead(8, 256, 0.1), 2, (2, 8, 8, 10, 19)),
        (DepthHead(8, 0.1), 0, (2, 256, 256)),
    ],
    ids=["steering", "segmentation", "boxes", "depth"],
)
def test_a_head_reads_its_own_level(head: nn.Module, level: int, shape: tuple[int, ...]) -> None:
    maps = [values.requires_grad_() for values in maps_of(256, batch=2)]
    output = head(maps[head.level])
    assert tuple(output.shape) == shape
    output.sum().backward()
    assert [index for index, values in enumerate(maps) if values.grad is not None] == [level]


def test_box_channels_are_slots_of_values() -> None:
    head = BoxHead(8, 256, 0.1)
    last = head.layers[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.arange(190.0)
    output = head(maps_of(256)[head.level])
    expected = torch.arange(190.0).reshape(10, 19)
    expected[:, 3:5] = nn.functional.softplus(expected[:, 3:5])
    torch.testing.assert_close(output, expected.expand(1, 8, 8, 10, 19))


def test_boxes_start_small_in_the_middle_of_their_cells() -> None:
    boxes = BoxHead(8, 256)(torch.zeros_like(maps_of(256)[BoxHead.level]))
    torch.testing.assert_close(boxes[..., :5], torch.tensor([0.0, 0.5, 0.5, 0.1, 0.1]).expand(1, 8, 8, 10, 5))
    assert not boxes[..., 5:].any()


@pytest.mark.parametrize(("size", "per_cell"), [(256, 2), (512, 4)])
def test_box_cells_are_row_then_column(size: int, per_cell: int) -> None:
    head = BoxHead(8, size, 0.1)
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.1)  # a blur: what it sees spreads evenly, and stays where it is
    maps = [torch.zeros_like(values) for values in maps_of(size)]
    maps[2][0, :, 2 * per_cell, 5 * per_cell] = 1.0
    objectness = head(maps[head.level])[0, :, :, 0, 0]
    assert divmod(int(objectness.argmax()), 8) == (2, 5)


@pytest.mark.parametrize(("size", "strides"), [(256, [1, 1, 2, 1]), (512, [1, 2, 2, 1]), (1024, [2, 2, 2, 1])])
def test_smaller_images_lose_the_first_strides_of_the_box_head(size: int, strides: list[int]) -> None:
    head = BoxHead(8, size, 0.1)
    assert [layer.stride[0] for layer in head.modules() if isinstance(layer, nn.Conv2d)] == strides


def test_box_sizes_are_positive_and_all_else_is_linear() -> None:
    head = BoxHead(8, 256, 0.1)
    nn.init.constant_(head.layers[-1].bias, -5.0)
    output = head(maps_of(256)[head.level])
    assert (output[..., 3:5] > 0).all()
    assert (output[..., :3] < 0).all()
    assert (output[..., 5:] < 0).all()


@pytest.mark.parametrize("activation", DEPTH_ACTIVATIONS)
def test_depth_starts_near_a_driving_scene(activation: str) -> None:
    torch.manual_seed(0)
    depth = DepthHead(64, 0.25, activation)(maps_of(256, channels=64)[DepthHead.level])
    assert depth.mean().item() == pytest.approx(0.15, abs=0.05)
    assert (depth >= 0).all()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (SteeringHead(8, 512), r"the map of the steering head must be 16 x 16, got \(8, 8\): .* another image size"),
        (BoxHead(8, 512), r"the map of the boxes head must be 32 x 32, got \(16, 16\): .* another image size"),
    ],
    ids=["steering", "boxes"],
)
def test_another_image_size(head: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(maps_of(256)[head.level])
