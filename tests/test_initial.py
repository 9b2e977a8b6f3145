"""`--init-from`: what is taken over from a checkpoint, what starts anew, and that it is said in a few lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from models.multitask import MultiTaskNet, build_multitask
from models.singletask import build_singletask
from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from tests.tiny_shards import ALL, write_tiny_shards
from train.cli import train
from train.config import ConfigError, to_document
from train.engine.checkpoint import Checkpoint, load_checkpoint, network_facts, save_checkpoint
from train.engine.initial_weights import find_start, take_over
from train.presets import build_config

SMALL = {"size": 256, "backbone": "resnet18", "width": 0.1, "norm": "group"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Quiet:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def network_of(seed: int, **options: Any) -> MultiTaskNet:
    torch.manual_seed(seed)
    return build_multitask(**{**SMALL, **options})


def facts_of(**changes: Any) -> dict[str, Any]:
    return {**network_facts(256, 123.0, normalise=False, weights="scratch: a test"), **changes}


def checkpoint_of(network: MultiTaskNet, **facts: Any) -> Checkpoint:
    """As a run of mode asymmetric would leave it, as far as a start reads it."""
    config = build_config({"mode": "asymmetric", "network": {"norm": "sample", "width": 0.1, "backbone": "resnet18"}})
    return {"config": to_document(config), "facts": facts_of(**facts), "weights": network.state_dict(),
            "progress": {"epoch": 7}}  # fmt: skip


def is_taken(network: MultiTaskNet, other: MultiTaskNet, part: str) -> bool:
    own, theirs = network.get_submodule(part).state_dict(), other.get_submodule(part).state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in own.items())


def test_other_heads() -> None:
    network, other = network_of(1), network_of(2, tasks=["depth"])
    lines = take_over(network, facts_of(), checkpoint_of(other))
    assert all(is_taken(network, other, part) for part in ("shared.backbone", "shared.neck", "heads.depth"))
    assert lines[1:] == [
        "shared.neck: 36 of 36 tensors",
        "heads.steering: starts anew, the checkpoint has none",
        "heads.segmentation: starts anew, the checkpoint has none",
        "heads.boxes: starts anew, the checkpoint has none",
        "heads.depth: 8 of 8 tensors",
    ]


def test_heads_that_are_not_wanted() -> None:
    network, other = network_of(1, tasks=["depth"]), network_of(2)
    lines = take_over(network, facts_of(), checkpoint_of(other))
    assert is_taken(network, other, "heads.depth")
    assert lines[-1] == "left in the checkpoint: heads.steering, heads.segmentation, heads.boxes"


def test_another_image_size_and_scale() -> None:
    network, other = network_of(1), network_of(2, size=512)
    lines = take_over(network, facts_of(), checkpoint_of(other, size_px=512, max_m=100.0))
    assert lines[2] == "heads.steering: 7 of 8 tensors; anew layers.1.weight (here (100, 1536), there (100, 6144))"
    assert lines[-1] == "depth of 1 was 100 m there and is 123 m here: its head must learn the new scale"
    assert is_taken(network, other, "heads.boxes")


def classes_of(task: str) -> tuple[str, list[str]]:
    return {
        "segmentation": ("segmentation_classes", list(SEGMENTATION_CLASSES)),
        "boxes": ("box_classes", list(BOX_CLASSES)),
    }[task]


def rows_of(network: MultiTaskNet, task: str) -> Sequence[torch.Tensor]:
    return [values for _, values in network.heads[task].named_parameters()][-2:]


@pytest.mark.parametrize("whole", ["mtl", "stl"])
def test_other_segmentation_classes_are_found_by_name(whole: str) -> None:
    """One fewer, one that is unknown here, and another order."""
    name, here = classes_of("segmentation")
    there = ["Zebra", *reversed(here[2:])]
    if whole == "mtl":
        network, other = network_of(1), network_of(2, classes=len(there))
    else:
        network = build_singletask("segmentation", size=256, width=0.1)
        other = build_singletask("segmentation", size=256, width=0.1, classes=len(there))
    before = [values.detach().clone() for values in rows_of(network, "segmentation")]
    lines = take_over(network, facts_of(), checkpoint_of(other, **{name: there}))
    for own, first, theirs in zip(
        rows_of(network, "segmentation"), before, rows_of(other, "segmentation"), strict=True
    ):
        for row, title in enumerate(here):
            assert torch.equal(own[row], theirs[there.index(title)] if title in there else first[row]), title
    assert any(line.endswith("tensors (of 38 classes 36 by name)") for line in lines)


def test_box_classes_in_another_order_are_found_by_name() -> None:
    """Shapes alone would not tell."""
    name, here = classes_of("boxes")
    there = [*here[1:], "Boat"]
    network, other = network_of(1), network_of(2)
    before = [values.detach().clone().unflatten(0, (10, 19)) for values in rows_of(network, "boxes")]
    lines = take_over(network, facts_of(), checkpoint_of(other, **{name: there}))
    for own, first, theirs in zip(rows_of(network, "boxes"), before, rows_of(other, "boxes"), strict=True):
        slots, their_slots = own.unflatten(0, (10, 19)), theirs.unflatten(0, (10, 19))
        assert torch.equal(slots[:, :5], their_slots[:, :5])
        assert torch.equal(slots[:, 5], first[:, 5]), "the first class is not there"
        assert torch.equal(slots[:, 6:], their_slots[:, 5:-1])
    assert "heads.boxes: 8 of 8 tensors (of 14 classes 13 by name)" in lines


def test_a_frozen_norm_from_a_group_norm_lacks_statistics() -> None:
    line = take_over(network_of(1, norm="frozen"), facts_of(), checkpoint_of(network_of(2)))[0]
    assert line.startswith("shared.backbone: 60 of 120 tensors; anew bn1.running_mean (here (64,), there none), ")
    assert line.endswith(" and 57 more")
    assert len(line) < 250


@pytest.mark.parametrize(
    "other",
    [
        lambda: build_singletask("steering", size=256, width=0.1),
        lambda: network_of(2, backbone="resnet50", width=0.5, tasks=["depth"]),
    ],
    ids=["another network", "another size of it"],
)
def test_nothing_fits(other: Any) -> None:
    network = build_singletask("boxes", size=256, width=0.1)
    with pytest.raises(ValueError, match=r"^no tensor of --init-from fits this network: it has other parts, or"):
        take_over(network, facts_of(), checkpoint_of(other()))


@pytest.mark.parametrize(("asked", "norm"), [({}, "sample"), ({"norm": "group"}, "group")], ids=["its own", "another"])
def test_norm_and_images_are_the_checkpoints(asked: dict[str, str], norm: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint_of(network_of(2), normalise=True))
    config = build_config({"mode": "symmetric", "init_from": str(tmp_path / "a.pt"), "network": asked})
    start = find_start(config, Quiet())
    assert (start.config.network.norm, start.config.network.weights, start.normalise) == (norm, "none", True)
    assert start.found == f"checkpoint {tmp_path / 'a.pt'}, epoch 7; before: scratch: a test"


def test_two_sources_of_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--init-from takes the place of --weights, got both: resnet\.pth"):
        build_config({"mode": "symmetric", "init_from": "a.pt", "network": {"weights": "resnet.pth"}})


def test_a_run_from_a_checkpoint_and_its_resumption(tmp_path: Path) -> None:
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=((ALL,),))
    other = network_of(2, tasks=["depth"], norm="sample")
    save_checkpoint(tmp_path / "a.pt", checkpoint_of(other))
    command = ["--mode", "asymmetric", "--shards", str(shards), "--out", str(tmp_path / "run"), "--device", "cpu",
               "--backbone", "resnet18", "--width", "0.1", "--init-from", str(tmp_path / "a.pt")]  # fmt: skip
    result = CliRunner().invoke(train.main, [*command, "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert f"starting from {tmp_path / 'a.pt'}\n  shared.backbone: 120 of 120 tensors\n" in result.stdout
    assert "NO PRETRAINED" not in result.stdout
    weights = load_checkpoint(tmp_path / "run" / "last.pt")["weights"]
    assert all(torch.equal(weights[key], value) for key, value in other.named_parameters()), "no part has stepped yet"
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["init_from"], config["network"]["norm"]) == (str(tmp_path / "a.pt"), "sample")
    (tmp_path / "a.pt").unlink()
    resumed = CliRunner().invoke(train.main, [*command, "--epochs", "2", "--resume"])
    assert resumed.exit_code == 0, resumed.output
    assert "starting from" not in resumed.stdout


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=())
    result = CliRunner().invoke(train.main, ["--mode", "asymmetric", "--shards", str(shards), "--out",
                                             str(tmp_path / "run"), "--init-from", "none.pt"])  # fmt: skip
    assert result.exit_code == 2
    assert result.stderr.startswith("amtl-train: --init-from must be a checkpoint, got none.pt")
    assert not (tmp_path / "run").exists()
