"""Configs: defaults per mode, layers, refusals, and the way back to TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from shards.schema import TASKS
from train.config import MODES, ConfigError, dump_toml, to_document
from train.presets import PRESETS, build_config, load_document

BASE = {
    "asymmetric": {"mode": "asymmetric"},
    "symmetric": {"mode": "symmetric"},
    "single": {"mode": "single", "task": "depth"},
}


def test_the_thesis_constants_are_the_defaults():
    config = build_config(BASE["asymmetric"])
    assert config.threshold == {"shared": 48, "steering": 24, "segmentation": 32, "boxes": 16, "depth": 16}
    assert config.learning_rate == pytest.approx(
        {"shared": 0.002 / 48, "segmentation": 2e-4, "steering": 4e-5, "boxes": 1e-5, "depth": 3e-5}
    )
    assert config.coefficient == {"steering": 1, "segmentation": 80, "boxes": 400, "depth": 200}
    assert (config.epochs, config.out, config.loss.variance_focus) == (10, "runs/asymmetric", 0.85)
    for mode in ("symmetric", "single"):
        config = build_config(BASE[mode])
        assert (config.epochs, config.stream.batch_size) == (40, 4)
        assert config.learning_rate == {"all": 1e-5}
        assert config.threshold == {}
    assert build_config(BASE["single"]).coefficient == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", [{}, *PRESETS.values()], ids=["plain", *PRESETS])
def test_toml_gives_the_same_run_back(mode, preset):
    config = build_config(BASE[mode], preset, {"out": 'a "quoted" \\ folder', "network": {"width": 0.125}})
    assert build_config(tomllib.loads(dump_toml(config))) == config
    assert build_config(to_document(config)) == config


def test_the_thesis_preset():
    config = build_config(load_document("thesis"), BASE["asymmetric"])
    box = config.box_loss
    assert (box.lambda_coord, box.lambda_object, box.lambda_noobj, box.lambda_class) == (7, 5, 5, 1)
    assert box.reduction == "object mean"
    assert (config.loss.variance_focus, config.network.depth_activation, config.network.norm) == (-1, "relu", "sample")


def test_the_thesis_preset_depends_on_the_mode():
    """Batch norm over a group of images of mixed tasks is not that of a batch of one."""
    preset = load_document("thesis")
    asymmetric, symmetric, single = (build_config(preset, BASE[mode]) for mode in MODES)
    assert (asymmetric.network.norm, symmetric.network.norm, single.network.norm) == ("sample", "batch", "auto")
    assert (symmetric.stream.batch_size, symmetric.stream.micro_batch) == (4, 4)
    assert (asymmetric.epochs, symmetric.epochs, single.epochs) == (10, 40, 40)
    assert all(config.stream.require_all for config in (asymmetric, symmetric, single))
    given = build_config(preset, BASE["asymmetric"], {"network": {"norm": "group"}, "epochs": 3})
    assert (given.network.norm, given.epochs) == ("group", 3), "an option overrides the preset"


def test_a_single_task_has_its_own_network_unless_told_otherwise():
    given = {"network": {"backbone": "resnet18", "norm": "batch", "width": 0.5}}
    own = build_config(BASE["single"], given).network
    assert (own.name, own.backbone, own.norm, own.width) == ("stl", "resnet50", "auto", 0.5), "it has norms of its own"
    other = build_config(BASE["single"], given, {"network": {"name": "mtl"}}).network
    assert (other.name, other.backbone, other.norm) == ("mtl", "resnet18", "batch")


def test_later_layers_win_key_by_key():
    config = build_config({"mode": "asymmetric", "threshold": {"shared": 8}}, {"threshold": {"depth": 2}})
    assert config.threshold == {"shared": 8, "steering": 24, "segmentation": 32, "boxes": 16, "depth": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "both"}, "mode must be one of asymmetric"),
        ({"epoch": 3}, "unknown key epoch: known are mode"),
        ({"network": {"depth": 3}}, "unknown key network.depth"),
        ({"network": 3}, "network must be a table"),
        ({"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"network": {"width": "wide"}}, "network.width must be a number"),
        ({"network": {"width": 0}}, "network.width must be above 0"),
        ({"network": {"norm": "layer"}}, "network.norm must be one of auto, frozen"),
        ({"network": {"backbone": "vgg"}}, "network.backbone must be one of resnet50"),
        ({"network": {"name": "stl"}}, "--network stl trains one task in mode single: give --network mtl"),
        ({"stream": {"order": "random"}}, "stream.order must be one of items, samples"),
        ({"stream": {"allow_missing": True}}, "--allow-missing belongs to mode symmetric"),
        ({"task": "depth"}, "mode asymmetric trains all tasks"),
        ({"threshold": {"neck": 3}}, "unknown key threshold.neck: known are shared"),
        ({"threshold": {"shared": 2.5}}, "threshold.shared must be a whole number"),
        ({"threshold": {"shared": 0}}, "threshold.shared must be at least 1"),
        ({"coefficient": {"depth": -1}}, "coefficient.depth must be above 0"),
        ({"loss": {"variance_focus": float("nan")}}, "loss.variance_focus must be a number"),
        ({"box_loss": {"lambda_coord": -1}}, "box_loss.lambda_coord must be at least 0"),
        ({"box_loss": {"reduction": "max"}}, "box_loss.reduction must be one of sum"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_no_run_can_have_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        build_config(BASE["asymmetric"], change)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"mode": "single", "network": {"name": "mtl"}}, "mode single needs --task"),
        ({}, "got None: give --mode"),
    ],
    ids=["task", "mode"],
)
def test_what_a_mode_cannot_have(document, message):
    with pytest.raises(ConfigError, match=message):
        build_config(document)


@pytest.mark.parametrize("mode", ["asymmetric", "symmetric", "single"])
def test_one_file_serves_every_mode(mode: str) -> None:
    """The demo's: what belongs to other modes is passed over."""
    example = load_document(str(Path(__file__).parents[1] / "examples" / "demo-train.toml"))
    config = build_config(example, BASE[mode])
    assert set(config.learning_rate) == ({"all"} if mode != "asymmetric" else {"shared", *TASKS})
    assert bool(config.threshold) == (mode == "asymmetric")
    assert bool(config.coefficient) == (mode != "single")


@pytest.mark.parametrize(("text", "message"), [(b"a = ", "is not TOML"), (b"\xff\xfe", "is not TOML")])
def test_a_file_that_is_no_toml(tmp_path: Path, text: bytes, message: str):
    path = tmp_path / "run.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        load_document(str(path))


def test_a_config_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"a TOML file or one of thesis, got .*: No such file"):
        load_document(str(tmp_path / "none.toml"))
