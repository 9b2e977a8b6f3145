from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.heads import HEADS
from models.multitask import SIZES, MultiTaskNet, build_multitask
from models.norms import NORMS


def on_meta(**options: Any) -> MultiTaskNet:
    """Shapes and counts without memory or arithmetic."""
    with torch.device("meta"):
        return build_multitask(**options)


def small(**options: Any) -> MultiTaskNet:
    torch.manual_seed(0)
    return build_multitask(**{"size": 256, "classes": 5, "backbone": "resnet18", "width": 0.1} | options)


def trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class Broken(nn.Module):
    def forward(self, maps: object) -> Tensor:
        raise AssertionError("this head must not run")


@pytest.mark.parametrize("norm", NORMS)
def test_parameters_are_the_thesiss(norm: str) -> None:
    net = on_meta(classes=43, norm=norm)
    counts = {name: trainable(part) for name, part in net.parts().items()}
    assert counts == {
        "shared": 25_284_446,
        "steering": 26_220_170,
        "segmentation": 1_729_195,
        "boxes": 6_775_486,
        "depth": 1_647_617,
    }
    assert trainable(net.shared.backbone) == 23_508_032
    assert trainable(net.shared.neck.laterals) == 986_880
    assert [trainable(block) for block in net.shared.neck.blocks] == [394_767, 394_767]
    assert trainable(net) == sum(counts.values()) == 61_656_914


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("backbone", "width"), [("resnet50", 1.0), ("resnet18", 0.25)])
def test_output_shapes(backbone: str, width: float, size: int) -> None:
    net = on_meta(size=size, backbone=backbone, width=width)
    outputs = net(torch.empty(2, 3, size, size, device="meta"))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "steering": (2, 10),
        "segmentation": (2, 38, size, size),
        "boxes": (2, 8, 8, 10, 19),
        "depth": (2, size, size),
    }


@pytest.mark.parametrize(("size", "flat"), [(256, 64), (512, 256), (1024, 1024)])
def test_the_image_size_changes_the_first_linear_layer_alone(size: int, flat: int) -> None:
    counts = {name: trainable(part) for name, part in on_meta(size=size, classes=43).parts().items()}
    assert counts["steering"] == 256 * flat * 100 + 100 + 5050 + 510 + 110
    assert sum(counts.values()) - counts["steering"] == 61_656_914 - 26_220_170


def test_width_scales_neck_and_hidden_channels() -> None:
    net = on_meta(width=0.25)
    assert trainable(net.shared.backbone) == 23_508_032
    assert net.shared.neck.laterals[0][1].out_channels == 64
    channels = {
        task: [layer.out_channels for layer in head.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        for task, head in net.heads.items()
    }
    assert channels == {
        "steering": [],
        "segmentation": [64, 32, 16, 38],
        "boxes": [128, 128, 128, 190],
        "depth": [64, 32, 16, 1],
    }
    linear = [layer.out_features for layer in net.heads["steering"].modules() if isinstance(layer, nn.Linear)]
    assert linear == [100, 50, 10, 10]


@pytest.mark.parametrize("task", HEADS)
def test_only_the_labelled_head_runs(task: str) -> None:
    net = small()
    for other in set(HEADS) - {task}:
        net.heads[other] = Broken()
    outputs = net(torch.rand(1, 3, 256, 256), [task])
    assert list(outputs) == [task]
    outputs[task].sum().backward()
    assert all(parameter.grad is not None for parameter in net.heads[task].parameters())
    reached = [name for name, parameter in net.shared.named_parameters() if parameter.grad is not None]
    assert "backbone.conv1.weight" in reached
    assert "neck.laterals.3.1.weight" in reached


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_a_batch_gives_what_its_images_give_alone(norm: str) -> None:
    net = small(norm=norm).train()
    images = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        together = net(images)
        alone = [net(image[None]) for image in images]
    for task in HEADS:
        torch.testing.assert_close(together[task], torch.cat([output[task] for output in alone]))


def test_parts_are_the_shared_part_and_a_head_per_task() -> None:
    net = on_meta(tasks=("depth", "steering"))
    assert list(net.parts()) == ["shared", "steering", "depth"]
    assert net.parts()["shared"] is net.shared
    of_parts = [parameter for part in net.parts().values() for parameter in part.parameters()]
    assert [id(parameter) for parameter in of_parts] == [id(parameter) for parameter in net.parameters()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 640}, "size must be one of 256, 512, 1024, got 640: the box grid is 8 x 8"),
        ({"classes": 0}, "classes must be at least 1, got 0: each is an output of the segmentation head"),
        ({"width": 0.0}, "width must be a positive number, got 0.0: it scales channels"),
        ({"width": float("nan")}, "width must be a positive number, got nan: it scales channels"),
        ({"tasks": ()}, "tasks must be among steering, segmentation, boxes, depth, got []: each names a head"),
        ({"tasks": ("box",)}, "tasks must be among steering, segmentation, boxes, depth, got ['box']: each names a"),
        ({"backbone": "vgg"}, "backbone must be one of resnet50, resnet18, got 'vgg'"),
        ({"norm": "none"}, "norm must be one of frozen, group, sample, batch, got 'none'"),
        ({"depth_activation": "exp"}, "depth_activation must be one of softplus, relu, got 'exp'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        on_meta(**options)


@pytest.mark.parametrize(
    ("shape", "tasks", "message"),
    [
        ((1, 3, 250, 250), ("depth",), "images must be (B, 3, S, S) with S a multiple of 32, got (1, 3, 250, 250)"),
        ((1, 1, 256, 256), ("depth",), "images must be (B, 3, S, S) with S a multiple of 32, got (1, 1, 256, 256)"),
        ((3, 256, 256), ("depth",), "images must be (B, 3, S, S) with S a multiple of 32, got (3, 256, 256)"),
        ((1, 3, 256, 256), ("boxes",), "tasks must be among depth, got 'boxes': there is no such head"),
    ],
    ids=["side", "channels", "no batch", "task"],
)
def test_wrong_input(shape: tuple[int, ...], tasks: tuple[str, ...], message: str) -> None:
    net = on_meta(size=256, tasks=("depth",))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        net(torch.empty(shape, device="meta"), tasks)
