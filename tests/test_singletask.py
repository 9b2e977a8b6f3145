"""The thesis's single-task networks: its counts, the outputs of the multi-task heads, and a start that can train."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.backbone import DENSENET, find_weights, load_weights
from models.cost import ParameterCounts, parameter_counts
from models.densedepth import Encoder
from models.heads import DEPTH_ACTIVATIONS, HEADS
from models.multitask import SIZES, MultiTaskNet
from models.singletask import NAMES, build_singletask

TABLE_4_2 = {  # counted, used; at 1024 px and 43 classes
    "steering": (140_696_494, 140_696_494),
    "segmentation": (31_040_363, 31_040_363),
    "boxes": (226_607_102, 35_862_782),
    "depth": (44_322_689, 42_657_689),
}
SHAPES = {"steering": (10,), "segmentation": (5, 256, 256), "boxes": (8, 8, 10, 19), "depth": (256, 256)}


def on_meta(task: str, **options: Any) -> MultiTaskNet:
    with torch.device("meta"):
        return build_singletask(task, **options)


def small(task: str, **options: Any) -> MultiTaskNet:
    torch.manual_seed(0)
    return build_singletask(task, **{"size": 256, "classes": 5, "width": 0.1} | options)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", HEADS)
def test_table_4_2(task: str) -> None:
    counted, used = TABLE_4_2[task]
    assert parameter_counts(on_meta(task, classes=43, unused=True), 1024) == ParameterCounts(counted, used)
    assert parameter_counts(on_meta(task, classes=43), 1024) == ParameterCounts(used, used), "trained without"


def test_the_sums_of_table_4_2() -> None:
    assert [sum(column) for column in zip(*TABLE_4_2.values(), strict=True)] == [442_666_648, 250_257_328]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", ["segmentation", "boxes", "depth"])
def test_the_image_size_changes_no_count(task: str, size: int) -> None:
    counts = parameter_counts(on_meta(task, size=size, classes=43, unused=True), size)
    assert counts == ParameterCounts(*TABLE_4_2[task])


@pytest.mark.parametrize(("size", "side"), [(256, 25), (512, 57), (1024, 121)])
def test_the_image_size_changes_the_first_linear_layer_of_pilotnet(size: int, side: int) -> None:
    rest = 140_696_494 - 150 * 64 * 121**2
    assert parameter_counts(on_meta("steering", size=size), size).counted == rest + 150 * 64 * side**2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", HEADS)
def test_output_shapes(task: str, size: int) -> None:
    outputs = on_meta(task, size=size, width=0.25)(torch.empty(2, 3, size, size, device="meta"), [task])
    shapes = {"steering": (10,), "segmentation": (38, size, size), "boxes": (8, 8, 10, 19), "depth": (size, size)}
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {task: (2, *shapes[task])}


@pytest.mark.parametrize("size", SIZES)
def test_yolo_keeps_its_kernels_and_loses_strides(size: int) -> None:
    head = on_meta("boxes", size=size).heads["boxes"].head
    kernels = [(layer.kernel_size[0], layer.stride[0]) for layer in head if isinstance(layer, nn.Conv2d)]
    assert (
        kernels
        == {
            256: [(4, 1), (4, 1), (3, 1)],
            512: [(4, 1), (4, 2), (3, 1)],
            1024: [(4, 2), (4, 2), (3, 1)],
        }[size]
    )


def channels(module: nn.Module) -> list[int]:
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_width_scales_channels_in_eights() -> None:
    nets = {task: on_meta(task, width=0.25).heads[task] for task in HEADS}
    assert channels(nets["steering"]) == [8, 8, 16, 16, 16]
    assert channels(nets["segmentation"])[:4] == [16, 16, 32, 32]
    assert channels(nets["boxes"])[-5:] == [128, 256, 128, 128, 190]
    assert channels(nets["depth"].encoder) == channels(on_meta("depth").heads["depth"].encoder)
    assert channels(nets["depth"].up) == [208, 208, 104, 104, 56, 56, 24, 24]


@pytest.mark.parametrize("task", HEADS)
def test_every_weight_trains_and_the_output_follows_the_image(task: str, images: Tensor) -> None:
    net = small(task).train()
    output = net(images, [task])[task]
    assert tuple(output.shape) == (2, *SHAPES[task])
    (output - output.mean()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    assert (output[0] - output[1]).std() > 1e-6, "two images must not look the same from the start"


@pytest.mark.parametrize("task", HEADS)
def test_it_stands_where_the_multi_task_network_does(task: str, images: Tensor) -> None:
    net = small(task).eval()
    with torch.no_grad():
        maps = net.features(images)
        assert torch.equal(net.heads[task](maps[net.levels[task]]), net(images, [task])[task])
    assert {name: len(list(part.parameters())) > 0 for name, part in net.parts().items()} == {
        "shared": False,
        task: True,
    }
    assert net.parts()[task] is net.heads[task]
    with pytest.raises(ValueError, match=f"^tasks must be among {task}, got 'other': there is no such head"):
        net(images, ["other"])


def test_boxes_start_small_in_the_middle_of_their_cells(images: Tensor) -> None:
    boxes = small("boxes")(images, ["boxes"])["boxes"].detach()
    torch.testing.assert_close(boxes[..., 0].mean(), torch.tensor(0.0), atol=0.1, rtol=0)
    torch.testing.assert_close(boxes[..., 1:3].mean(), torch.tensor(0.5), atol=0.1, rtol=0)
    torch.testing.assert_close(boxes[..., 3:5].mean(), torch.tensor(0.1), atol=0.05, rtol=0)
    assert (boxes[..., 3:5] > 0).all()


@pytest.mark.parametrize("activation", DEPTH_ACTIVATIONS)
def test_depth_starts_near_a_driving_scene(activation: str, images: Tensor) -> None:
    depth = small("depth", depth_activation=activation)(images, ["depth"])["depth"].detach()
    assert depth.mean().item() == pytest.approx(0.15, abs=0.05)
    assert (depth >= 0).all()


def unset_encoder() -> Encoder:
    with torch.device("meta"):
        encoder = Encoder()
    return encoder.to_empty(device="cpu")


def test_densedepth_takes_a_torchvision_densenet(tmp_path: Path) -> None:
    """Under today's names, and under those of torchvision's published file, which has no counters of batches."""
    encoder = unset_encoder()
    expected = {key: torch.full_like(value, number) for number, (key, value) in enumerate(encoder.state_dict().items())}
    old = {re.sub(r"(denselayer\d+\.)(norm|conv)([12])\.", r"\1\2.\3.", key): value for key, value in expected.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    published = {key: value for key, value in old.items() if "num_batches_tracked" not in key}
    for state in (expected, {**published, "classifier.bias": torch.ones(1000)}):
        torch.save(state, tmp_path / "densenet.pth")
        found, description = find_weights(DENSENET, str(tmp_path / "densenet.pth"))
        assert found is not None
        assert description == f"file {tmp_path / 'densenet.pth'}"
        load_weights(encoder, found)
        loaded = encoder.state_dict()
        assert all(torch.equal(loaded[key], expected[key]) for key in loaded if "num_batches_tracked" not in key)
        nn.init.zeros_(encoder.features.conv0.weight)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"backbone weights must fit densenet169, got .*: it lacks features.conv0"):
        find_weights(DENSENET, str(tmp_path / "resnet.pth"))


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("box", {}, "task must be one of steering, segmentation, boxes, depth, got 'box': each has a network"),
        ("boxes", {"size": 640}, "size must be one of 256, 512, 1024, got 640: the box grid is 8 x 8"),
        ("depth", {"depth_activation": "exp"}, "depth_activation must be one of softplus, relu, got 'exp'"),
        ("depth", {"width": -1.0}, "width must be a positive number, got -1.0"),
    ],
    ids=["task", "size", "activation", "width"],
)
def test_wrong_options(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        on_meta(task, **options)


def test_another_image_size() -> None:
    with pytest.raises(ValueError, match=re.escape("images must be (B, 3, 256, 256), got (1, 3, 512, 512): the net")):
        on_meta("boxes", size=256)(torch.empty(1, 3, 512, 512, device="meta"), ["boxes"])


def test_each_task_has_a_network() -> None:
    assert list(NAMES) == list(HEADS)
