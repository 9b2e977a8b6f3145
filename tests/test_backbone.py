from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from models.backbone import BACKBONES, STRIDES, Backbone, find_weights, load_weights
from models.norms import NORMS

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """torchvision's own ResNet-18 with statistics that are not the trivial ones."""
    net = torchvision.models.resnet18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return net.eval()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("name", "count", "channels"),
    [("resnet50", 23_508_032, (256, 512, 1024, 2048)), ("resnet18", 11_176_512, (64, 128, 256, 512))],
)
def test_parameters_and_maps(name: str, count: int, channels: tuple[int, ...], norm: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(name, norm)
        maps = backbone(torch.empty(2, 3, 256, 256))
    assert trainable(backbone) == count
    assert backbone.channels == channels
    assert [tuple(level.shape) for level in maps] == [
        (2, channel, 256 // stride, 256 // stride) for channel, stride in zip(channels, STRIDES, strict=True)
    ]


@pytest.mark.parametrize(("norm", "same"), [("frozen", True), ("group", True), ("batch", False)])
def test_training_mode_changes_the_function_of_a_batch_norm_only(norm: str, same: bool) -> None:
    backbone = Backbone("resnet18", norm)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        trained, evaluated = backbone.train()(images)[-1], backbone.eval()(images)[-1]
    assert torch.equal(trained, evaluated) is same
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items()) is same


def test_a_frozen_norm_trains_scale_and_shift() -> None:
    backbone = Backbone("resnet18", "frozen").train()
    backbone(torch.rand(1, 3, 32, 32))[-1].sum().backward()
    for parameter in (backbone.bn1.weight, backbone.bn1.bias):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "norm", "message"),
    [
        ("vgg", "group", "backbone must be one of resnet50, resnet18, got 'vgg': no other is built in"),
        ("resnet18", "layer", "norm must be one of frozen, group, sample, batch, got 'layer': no other is built in"),
    ],
    ids=["backbone", "norm"],
)
def test_unknown_names(name: str, norm: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Backbone(name, norm)


def test_weights_of_an_unknown_backbone() -> None:
    with pytest.raises(
        ValueError, match=r"^backbone must be one of resnet50, resnet18, got 'vgg': no other is built in$"
    ):
        find_weights("vgg", "auto")


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_torchvision_file_gives_torchvisions_features(published: nn.Module, norm: str, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "resnet.pth")
    state, description = find_weights("resnet18", str(tmp_path / "resnet.pth"))
    assert state is not None
    assert description == f"file {tmp_path / 'resnet.pth'}"
    backbone = Backbone("resnet18", norm).eval()
    load_weights(backbone, state)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        pooled = backbone(images)[-1].mean((2, 3))
        torch.testing.assert_close(published.fc(pooled), published(images))


def test_a_group_norm_takes_scale_and_shift_alone(published: nn.Module) -> None:
    backbone = Backbone("resnet18", "group")
    load_weights(backbone, {key: value for key, value in published.state_dict().items() if "fc." not in key})
    for mine, theirs in ((backbone.bn1, published.bn1), (backbone.layer3[1].bn2, published.layer3[1].bn2)):
        assert torch.equal(mine.weight, theirs.weight)
        assert torch.equal(mine.bias, theirs.bias)
    assert torch.equal(backbone.layer4[0].conv1.weight, published.layer4[0].conv1.weight)


def test_weights_from_before_batches_were_counted(published: nn.Module, tmp_path: Path) -> None:
    old = {key: value for key, value in published.state_dict().items() if "num_batches_tracked" not in key}
    torch.save(old, tmp_path / "old.pth")
    state, _ = find_weights("resnet18", str(tmp_path / "old.pth"))
    assert state is not None
    backbone = Backbone("resnet18", "batch")
    load_weights(backbone, state)
    assert torch.equal(backbone.bn1.running_mean, published.bn1.running_mean)


def without(state: State) -> State:
    return {key: value for key, value in state.items() if "bn2" not in key}


def misshapen(state: State) -> State:
    return state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, "must fit resnet18, got {}: it lacks layer1.0.bn2.weight, layer1.0.bn2.bias, layer1.0.bn2.runn"),
        (misshapen, "must fit resnet18, got {}: it has other shapes in conv1.weight (64, 3, 3, 3) for (64, 3, 7, 7)"),
        (prefixed, "bn1.bias and 97 more; it has unexpected module.conv1.weight, module.bn1.weight, module.bn1.bias"),
        (lambda state: {"model": state}, "must be a state dict of tensors, got {}: it holds a dict"),
        (lambda state: [1, 2], "must be a state dict of tensors, got {}: it holds a list"),
    ],
    ids=["keys missing", "other shape", "another's names", "nested", "a list"],
)
def test_a_file_that_does_not_fit(
    published: nn.Module, change: Callable[[State], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(change(published.state_dict()), path)
    with pytest.raises(ValueError, match=re.escape(message.format(path))) as caught:
        find_weights("resnet18", str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no tensors here", b"PK\x03\x04cut short", b"\x80\x02}q\x00."],
    ids=["no file", "empty", "text", "cut zip", "bare pickle"],
)
def test_a_file_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    rule = re.escape(f"backbone weights must be auto, none or a state dict that torch.save wrote, got {path}: ")
    with pytest.raises(ValueError, match=f"^{rule}(No such file|damaged)") as caught:
        find_weights("resnet18", str(path))
    assert "\n" not in str(caught.value)


def test_none_is_scratch() -> None:
    assert find_weights("resnet18", "none") == (None, "scratch: no weights were asked for")


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out")], ids=["no network", "dropped"])
def test_auto_without_network_is_scratch_with_its_reason(
    name: str, error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []

    def no_network(request: object) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise error

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    state, description = find_weights(name, "auto")
    assert state is None
    assert re.match(
        rf"scratch: ResNet\d+_Weights\.IMAGENET1K_V\d is not to be had \({type(error).__name__}: ", description
    )
    assert timeouts == [15.0]
    assert socket.getdefaulttimeout() is None
    assert not list(cache.iterdir())


def test_auto_from_the_cache_needs_no_network(
    published: nn.Module, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    torch.save(published.state_dict(), cache / "resnet18-f37072fd.pth")
    monkeypatch.setattr("torch.hub.urlopen", lambda request: pytest.fail("the network was asked"))
    state, description = find_weights("resnet18", "auto")
    assert description == "torchvision ResNet18_Weights.IMAGENET1K_V1"
    assert state is not None
    assert torch.equal(state["conv1.weight"], published.conv1.weight)


def test_a_cached_file_cut_short_is_scratch_with_its_reason(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(b"PK\x03\x04cut short")
    state, description = find_weights("resnet18", "auto")
    assert state is None
    assert description.startswith("scratch: ResNet18_Weights.IMAGENET1K_V1 is not to be had (")
