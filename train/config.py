"""The settings of a run: one frozen dataclass per concern, which is also one TOML table.

Defaults come from the thesis (sections 3.4-3.6), from its author's code where the text gives none. Defaults that
depend on the mode, and the presets, are in presets.py. This module loads no network, so that `--help` is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from shards.schema import TASKS
from shards.settings import to_tables, to_toml

Mode = Literal["asymmetric", "symmetric", "single"]
NetworkName = Literal["mtl", "stl"]
Backbone = Literal["resnet50", "resnet18"]
Norm = Literal["auto", "frozen", "group", "sample", "batch"]
DepthActivation = Literal["softplus", "relu"]
Order = Literal["items", "samples"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
BalanceMethod = Literal["fixed", "epoch", "uncertainty", "pcgrad"]
Reduction = Literal["sum", "object mean"]
ExportFormat = Literal["onnx", "pt2"]
MODES: tuple[Mode, ...] = get_args(Mode)

SHARED = "shared"  # the parameter group of backbone and neck; each task head is one too
PARTS = (SHARED, *TASKS)
ALL = "all"  # the one parameter group of the regimes with a single optimizer

Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0, description="it weighs a squared error")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(gt=0, le=1, description="it is the share of the labels that is kept")]
Document = dict[str, Any]


class ConfigError(ValueError):
    """Wrong usage: a key or value that no run can have."""


@dataclass(frozen=True)
class NetworkConfig:
    """`[network]`"""

    name: NetworkName = "mtl"  # mtl: the multi-task network; stl: each task's own network
    backbone: Backbone = "resnet50"  # of mtl
    width: Positive = 1.0  # scales the channels of neck and heads, or of an stl network; 1 is the thesis's
    norm: Norm = "auto"  # of mtl; auto: frozen with pretrained weights, else group
    weights: str = "auto"  # of the backbone, or DenseDepth's encoder: auto (ImageNet if available), none, or a file
    depth_activation: DepthActivation = "softplus"  # or relu, the thesis's, which has no gradient at 0


@dataclass(frozen=True)
class StreamConfig:
    """`[stream]`"""

    order: Order = "items"  # items: shuffled (sample, label) items; samples: a sample's labels follow each other
    shuffle_shards: NotNegative = 0  # shards per block of the shuffle; 0: all
    batch_size: Count = 4  # samples per training step, and per batch in validation; asymmetric trains on one item
    micro_batch: Count = 8  # images per forward pass at most; affects speed and memory only
    allow_missing: bool = False  # symmetric: use samples that lack labels for those that they have
    require_all: bool = False  # train on those samples alone that have the labels of all four tasks
    keep_labels: dict[str, Share] = field(default_factory=dict)  # task -> share of its train labels that is kept
    one_label: bool = False  # keep one of the labels of each train sample
    repeat_rare: Count = 1  # asymmetric: how often an epoch may repeat a label of a rarer task


@dataclass(frozen=True)
class AugmentConfig:
    """`[augment]`"""

    on: bool = False  # --augment
    mirror: Probability = 0.5  # probability that a sample is mirrored left to right
    brightness: Probability = 0.2  # colours are multiplied by a factor in 1 - x .. 1 + x
    contrast: Probability = 0.2  # the distance of colours from the image's mean grey is multiplied likewise
    saturation: Probability = 0.2  # the distance of colours from grey of their own brightness likewise


@dataclass(frozen=True)
class LossConfig:
    """`[loss]`"""

    variance_focus: float = 0.85  # depth: lambda of eq. 3.4; 1 ignores a global scale, -1 is the author's sign
    steering_scale_deg: Positive = 180.0  # degrees of the wheel in a steering target of 1


@dataclass(frozen=True)
class BoxLossWeights:
    """`[box_loss]`: the weights of eq. 3.6, by default those of the YOLO paper."""

    lambda_coord: Weight = 5.0  # x, y, sqrt(w) and sqrt(h) of the responsible slots
    lambda_object: Weight = 1.0  # objectness of the responsible slots
    lambda_noobj: Weight = 0.5  # objectness of all other slots
    lambda_class: Weight = 1.0  # the class scores of the responsible slots
    reduction: Reduction = "sum"  # over an image, or each term's mean over the slots that it sums over


@dataclass(frozen=True)
class BalanceConfig:
    """`[balance]`: how the losses of the tasks are weighed against each other; see engine/balance.py."""

    method: BalanceMethod = "fixed"
    learning_rate: Positive = 0.01  # uncertainty: Adam's, for the logarithm of a coefficient


@dataclass(frozen=True)
class RunConfig:
    """The settings of a whole run; `config.toml` of a run folder."""

    mode: Mode
    out: str  # the run's folder
    epochs: Count  # passes over the labelled samples
    task: str | None = None  # the task of mode single
    shards: str = "shards"  # the folder that a2d2-prep wrote, or a URL pattern, see data/remote.py
    init_from: str | None = None  # a checkpoint whose weights the network starts from, as far as they fit
    seed: NotNegative = 0  # decides the first weights and, with the epoch, the order
    device: Device = "auto"  # auto: a GPU where there is one
    workers: Annotated[int, Meta(ge=-1)] = -1  # reading threads; -1: none on a CPU, up to 8 beside a GPU
    precision: Precision = "auto"  # of the network's arithmetic, losses are in fp32; auto: bf16 where the device has it
    compile: bool = False  # run the shared part and the heads through torch.compile
    log_every: Count = 20  # micro-batches between two lines of metrics.jsonl, where losses are read back
    best: str = "loss"  # criterion of best.pt on val: the sum of loss / first val loss, or a metric: "boxes mAP50"
    older_checkpoints: NotNegative = 0  # how many checkpoints before last.pt are kept, as last-1.pt and so on
    wandb: str | None = None  # a project of Weights & Biases that the run reports to
    checkpoint_minutes: Positive = 10.0  # between two checkpoints within an epoch; every epoch ends with one too
    measure_every: NotNegative = 100  # steps of the shared part between two measurements of task gradients; 0: none
    network: NetworkConfig = field(default_factory=NetworkConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    box_loss: BoxLossWeights = field(default_factory=BoxLossWeights)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    learning_rate: dict[str, Positive] = field(default_factory=dict)  # Adam's, per parameter group
    threshold: dict[str, Count] = field(default_factory=dict)  # asymmetric: items between two steps of a group
    coefficient: dict[str, Positive] = field(default_factory=dict)  # divides a task's loss; none in mode single

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose heads the network has."""
        return TASKS if self.task is None else (self.task,)


def check(config: RunConfig) -> None:
    """Raise ConfigError where settings contradict each other."""
    for name, table, keys in (
        ("learning_rate", config.learning_rate, (*PARTS, ALL)),
        ("threshold", config.threshold, PARTS),
        ("coefficient", config.coefficient, TASKS),
        ("stream.keep_labels", config.stream.keep_labels, TASKS),
    ):
        unknown = [key for key in table if key not in keys]
        if unknown:
            raise ConfigError(f"unknown key {name}.{unknown[0]}: known are {', '.join(keys)}")
    _check_mode(config)


def _check_mode(config: RunConfig) -> None:
    if (config.mode == "single") != (config.task is not None):
        rule = "needs --task" if config.mode == "single" else f"trains all tasks, got --task {config.task}"
        raise ConfigError(f"mode {config.mode} {rule}")
    if config.task is not None and config.task not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}, got {config.task!r}")
    if config.init_from is not None and config.network.weights not in ("auto", "none"):
        raise ConfigError(f"--init-from takes the place of --weights, got both: {config.network.weights}")
    if config.network.name == "stl" and config.mode != "single":
        raise ConfigError("--network stl trains one task in mode single: give --network mtl")
    if config.stream.require_all and config.stream.allow_missing:
        raise ConfigError("--require-all leaves out the samples that --allow-missing would use, got both")
    for option, given, mode in (
        ("--allow-missing", config.stream.allow_missing, "symmetric"),
        ("--repeat-rare", config.stream.repeat_rare > 1, "asymmetric"),
    ):
        if given and config.mode != mode:
            raise ConfigError(f"{option} belongs to mode {mode}, got mode {config.mode}")


def relevant(config: RunConfig) -> RunConfig:
    """Return the config without entries that belong to other modes and networks, so that one file can serve all."""
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


def to_document(config: RunConfig) -> Document:
    """Return plain values that `presets.build_config` takes back to the same run; None is left out."""
    return to_tables(config)


def dump_toml(config: RunConfig) -> str:
    """Return TOML that `--config` accepts unchanged."""
    return to_toml(config)
