"""What a run is: one frozen dataclass per concern, read from TOML and options, written back as TOML.

Numbers come from the thesis (sections 3.4-3.6), in its author's own values where the text has none.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from models.backbone import BACKBONES, NORMS
from shards.schema import TASKS

MODES = ("asymmetric", "symmetric", "single")
NETWORKS = ("mtl", "stl")
ORDERS = ("items", "samples")
DEVICES = ("auto", "cpu", "cuda")
DEPTH_ACTIVATIONS = ("softplus", "relu")
PRECISIONS = ("fp32", "bf16")
BALANCES = ("fixed", "epoch", "uncertainty", "pcgrad")
SHARED = "shared"  # backbone and neck; the other parts are the task heads
PARTS = (SHARED, *TASKS)
ALL = "all"  # the one part of the regimes with one optimizer

COEFFICIENTS = {"steering": 1.0, "segmentation": 80.0, "boxes": 400.0, "depth": 200.0}  # each divides its loss

Document = dict[str, Any]


class ConfigError(ValueError):
    """Wrong usage: a key or value that no run can have."""


Reduction = Literal["sum", "object mean"]


@dataclass(frozen=True)
class BoxLossWeights:
    """`[box_loss]`: the weights of equation 3.6, by default those of the YOLO paper."""

    lambda_coord: float = 5.0  # x, y, sqrt(w) and sqrt(h) of the responsible slots
    lambda_object: float = 1.0  # objectness of the responsible slots
    lambda_noobj: float = 0.5  # objectness of all other slots
    lambda_class: float = 1.0  # the class scores of the responsible slots
    reduction: Reduction = "sum"  # over an image, or each term's mean over the slots that it sums over

    def __post_init__(self) -> None:
        for name in ("lambda_coord", "lambda_object", "lambda_noobj", "lambda_class"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of at least 0, got {value}: it weighs a squared error")
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'sum' or 'object mean', got {self.reduction!r}: no other is defined")


@dataclass(frozen=True)
class AugmentConfig:
    """`[augment]`"""

    on: bool = False  # --augment
    mirror: float = 0.5  # probability that a sample is mirrored, left to right
    brightness: float = 0.2  # colours are multiplied by a factor in 1 - x .. 1 + x
    contrast: float = 0.2  # their distance from the image's mean grey is, likewise
    saturation: float = 0.2  # their distance from grey of their own brightness is, likewise

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{item.name} must be in 0..1, got {value}")


@dataclass(frozen=True)
class NetworkConfig:
    """`[network]`"""

    name: str = "mtl"  # mtl: the multi-task network; stl: each task's own
    backbone: str = "resnet50"  # of mtl
    width: float = 1.0  # scales the channels of neck and heads, or of an stl network; 1 is the thesis's
    norm: str = "auto"  # of mtl: frozen, group, sample, batch; auto: frozen with pretrained weights, else group
    weights: str = "auto"  # of the backbone, or DenseDepth's encoder: auto (ImageNet where it can be had), none, a file
    depth_activation: str = "softplus"  # or relu, the thesis's, which has no gradient at 0


@dataclass(frozen=True)
class StreamConfig:
    """`[stream]`"""

    order: str = "items"  # items: shuffled (sample, label) items; samples: a sample's labels follow each other
    shuffle_shards: int = 0  # shards that a block of the shuffle spans; 0: all
    batch_size: int = 4  # samples of a training step, in validation everywhere; asymmetric trains on one item
    micro_batch: int = 8  # images that go through the network together at the most; decides no result
    allow_missing: bool = False  # symmetric: use samples that lack labels for those that they have
    keep_labels: dict[str, float] = field(default_factory=dict)  # task -> share of its train labels that is kept
    one_label: bool = False  # keep one of the labels of each train sample
    repeat_rare: int = 1  # asymmetric: how often an epoch may repeat a label of a rarer task to feed it evenly


@dataclass(frozen=True)
class BalanceConfig:
    """`[balance]`: how the losses of the tasks are weighed against each other; see train/balance.py."""

    method: str = "fixed"  # fixed, epoch, uncertainty or pcgrad
    learning_rate: float = 0.01  # uncertainty: Adam's, for the logarithm of a coefficient


@dataclass(frozen=True)
class LossConfig:
    """`[loss]`"""

    variance_focus: float = 0.85  # depth: lambda of eq. 3.4; 1 ignores a global scale, -1 is the author's sign
    steering_scale_deg: float = 180.0  # degrees of the wheel in a steering target of 1


@dataclass(frozen=True)
class RunConfig:
    """A whole run; `config.toml` of a run folder."""

    mode: str  # asymmetric, symmetric or single
    out: str  # the run's folder
    epochs: int  # how often each labelled sample comes up per label
    task: str | None = None  # the task of mode single
    shards: str = "shards"  # the folder that a2d2-prep wrote, or a pattern, see train/remote.py
    init_from: str | None = None  # a checkpoint to take first weights from, as far as they fit
    seed: int = 0  # decides the first weights and, with the epoch, the order
    device: str = "auto"  # cpu, cuda, or auto: cuda where there is one
    workers: int = -1  # reading threads; -1: none on a CPU, up to 8 beside a GPU
    precision: str = "fp32"  # of the network's arithmetic: fp32, or bf16; losses are always computed in fp32
    compile: bool = False  # the shared part and the heads by torch.compile: minutes at the start, then faster on a GPU
    log_every: int = 20  # groups of images between two lines of metrics.jsonl; where losses are read back
    best: str = "loss"  # what best.pt is chosen by, on val: the sum of loss / coefficient, or a metric: "boxes mAP50"
    older_checkpoints: int = 0  # how many of those before last.pt are kept, as last-1.pt and so on
    wandb: str | None = None  # a project of Weights & Biases that follows the run
    checkpoint_minutes: float = 10.0  # between two writings of last.pt in an epoch; every epoch ends with one too
    measure_every: int = 100  # steps of the shared part between two looks at the tasks' gradients on it; 0: none
    network: NetworkConfig = field(default_factory=NetworkConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    box_loss: BoxLossWeights = field(default_factory=BoxLossWeights)  # eq. 3.6
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    learning_rate: dict[str, float] = field(default_factory=dict)  # Adam's, per part
    threshold: dict[str, int] = field(default_factory=dict)  # asymmetric: items between two steps of a part
    coefficient: dict[str, float] = field(default_factory=dict)  # divides a task's loss; none in mode single

    @property
    def tasks(self) -> tuple[str, ...]:
        """The heads that the network has."""
        return TASKS if self.task is None else (self.task,)


_DEFAULTS: dict[str, Document] = {
    "asymmetric": {
        "epochs": 10,
        "learning_rate": {
            SHARED: 0.002 / 48, "steering": 4e-5, "segmentation": 2e-4, "boxes": 1e-5, "depth": 3e-5,
        },
        "threshold": {SHARED: 48, "steering": 24, "segmentation": 32, "boxes": 16, "depth": 16},
        "coefficient": COEFFICIENTS,
    },
    "symmetric": {"epochs": 40, "learning_rate": {ALL: 1e-5}, "coefficient": COEFFICIENTS},
    "single": {"epochs": 40, "learning_rate": {ALL: 1e-5}, "network": {"name": "stl"}},
}  # fmt: skip

PRESETS: dict[str, Document] = {
    # What the author trained with, beyond the defaults; the errors of the code are not reproduced.
    "thesis": {
        "network": {"norm": "batch", "depth_activation": "relu"},
        "loss": {"variance_focus": -1.0},
        "box_loss": {"lambda_coord": 7.0, "lambda_object": 5.0, "lambda_noobj": 5.0, "lambda_class": 1.0,
                     "reduction": "object mean"},
    },
}  # fmt: skip


def load_document(name: str) -> Document:
    """A preset by name, or a TOML file. Raises ConfigError where it is neither."""
    if name in PRESETS:
        return PRESETS[name]
    try:
        return tomllib.loads(Path(name).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"config must be a TOML file or one of {', '.join(PRESETS)}, got {name}: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not TOML: {error}") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """`base` with what `over` says; tables are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def build_config(*documents: Document) -> RunConfig:
    """The run that the documents describe, later ones first, over the defaults of its mode.

    Raises ConfigError with the key where one is unknown, of the wrong type, or outside its range.
    """
    given: Document = {}
    for document in documents:
        given = merge(given, document)
    mode = given.get("mode")
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}: give --mode")
    config: RunConfig = _parse(RunConfig, merge({"out": f"runs/{mode}", **_DEFAULTS[mode]}, given), "")
    _check(config)
    return _relevant(config)


def _parse(kind: type[Any], document: Any, where: str) -> Any:
    """A dataclass from a table; `where` is the table's name with a dot, for messages."""
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where.rstrip('.')} must be a table, got {document!r}")
    hints = get_type_hints(kind)
    unknown = sorted(set(document) - set(hints))
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}: known are {', '.join(hints)}")
    values = {}
    for name, value in document.items():
        hint = hints[name]
        nested = is_dataclass(hint) and isinstance(hint, type)
        values[name] = _parse(hint, value, f"{where}{name}.") if nested else _convert(hint, value, where + name)
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{where.rstrip('.')}: {error}") from error


def _convert(hint: Any, value: Any, name: str) -> Any:
    """A plain value of the type that the field has; an int serves as a float, nothing else is bent."""
    if hint in (dict[str, float], dict[str, int]):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a table, got {value!r}")
        number = float if hint == dict[str, float] else int
        return {key: _convert(number, entry, f"{name}.{key}") for key, entry in value.items()}
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (int, bool) and type(value) is hint:
        return value
    if hint not in (int, float, bool) and isinstance(value, str):
        return value
    expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a text")
    raise ConfigError(f"{name} must be {expected}, got {value!r}")


def _check(config: RunConfig) -> None:
    for name, value, allowed in (
        ("network.name", config.network.name, NETWORKS),
        ("network.backbone", config.network.backbone, BACKBONES),
        ("network.norm", config.network.norm, ("auto", *NORMS)),
        ("network.depth_activation", config.network.depth_activation, DEPTH_ACTIVATIONS),
        ("stream.order", config.stream.order, ORDERS),
        ("balance.method", config.balance.method, BALANCES),
        ("precision", config.precision, PRECISIONS),
        ("device", config.device, DEVICES),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    _check_task(config)
    for name, number, least in (
        ("epochs", config.epochs, 1),
        ("seed", config.seed, 0),
        ("workers", config.workers, -1),
        ("log_every", config.log_every, 1),
        ("measure_every", config.measure_every, 0),
        ("older_checkpoints", config.older_checkpoints, 0),
        ("stream.micro_batch", config.stream.micro_batch, 1),
        ("stream.repeat_rare", config.stream.repeat_rare, 1),
        ("stream.batch_size", config.stream.batch_size, 1),
        ("stream.shuffle_shards", config.stream.shuffle_shards, 0),
    ):
        if number < least:
            raise ConfigError(f"{name} must be at least {least}, got {number}")
    _check_numbers(config)


def _check_task(config: RunConfig) -> None:
    if (config.mode == "single") != (config.task is not None):
        rule = "needs --task" if config.mode == "single" else f"trains all tasks, got --task {config.task}"
        raise ConfigError(f"mode {config.mode} {rule}")
    if config.task is not None and config.task not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}, got {config.task!r}")
    if config.init_from is not None and config.network.weights not in ("auto", "none"):
        raise ConfigError(f"--init-from takes the place of --weights, got both: {config.network.weights}")
    if config.network.name == "stl" and config.mode != "single":
        raise ConfigError("--network stl trains one task in mode single: give --network mtl")
    for option, given, mode in (
        ("--allow-missing", config.stream.allow_missing, "symmetric"),
        ("--repeat-rare", config.stream.repeat_rare > 1, "asymmetric"),
    ):
        if given and config.mode != mode:
            raise ConfigError(f"{option} belongs to mode {mode}, got mode {config.mode}")


def _relevant(config: RunConfig) -> RunConfig:
    """Without the entries that belong to other modes and networks: one file can serve all."""
    asymmetric = config.mode == "asymmetric"
    rates = PARTS if asymmetric else (ALL,)
    network = config.network
    if network.name == "stl":
        network = replace(network, backbone=NetworkConfig.backbone, norm=NetworkConfig.norm)
    return replace(
        config,
        network=network,
        learning_rate={part: rate for part, rate in config.learning_rate.items() if part in rates},
        threshold=config.threshold if asymmetric else {},
        coefficient={} if config.mode == "single" else config.coefficient,
    )


def _check_numbers(config: RunConfig) -> None:
    """Tables per part or task: known keys and positive numbers."""
    for name, table, keys in (
        ("learning_rate", config.learning_rate, (*PARTS, ALL)),
        ("threshold", config.threshold, PARTS),
        ("coefficient", config.coefficient, TASKS),
        ("stream.keep_labels", config.stream.keep_labels, TASKS),
    ):
        unknown = [key for key in table if key not in keys]
        if unknown:
            raise ConfigError(f"unknown key {name}.{unknown[0]}: known are {', '.join(keys)}")
        for key, number in table.items():
            if not number > 0:
                raise ConfigError(f"{name}.{key} must be above 0, got {number}")
    over = [task for task, kept in config.stream.keep_labels.items() if kept > 1]
    if over:
        raise ConfigError(f"stream.keep_labels.{over[0]} must be at most 1, the share of the labels that is kept")
    for name, number in (
        ("network.width", config.network.width),
        ("loss.steering_scale_deg", config.loss.steering_scale_deg),
        ("balance.learning_rate", config.balance.learning_rate),
        ("checkpoint_minutes", config.checkpoint_minutes),
    ):
        if not number > 0:
            raise ConfigError(f"{name} must be above 0, got {number}")


def to_document(config: RunConfig) -> Document:
    """Plain values that `build_config` takes back to the same run; what is None is left out."""
    return {key: value for key, value in asdict(config).items() if value is not None}


def dump_toml(config: RunConfig) -> str:
    """The run as TOML that `--config` accepts unchanged."""
    document = to_document(config)
    order = [item.name for item in fields(config)]
    plain = [name for name in order if name in document and not isinstance(document[name], dict)]
    lines = [f"{name} = {_toml(document[name])}" for name in plain]
    for name in order:
        if isinstance(table := document.get(name), dict) and table:
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | float | bool | Document) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return repr(value) if type(value) in (int, float) else json.dumps(value)
