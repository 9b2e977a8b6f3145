"""The config of a run from layers: the defaults of its mode, presets, TOML files and options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.settings import build, read_toml
from train.config import ALL, MODES, SHARED, ConfigError, Document, RunConfig, check, relevant
from train.tasks import DEFINITIONS

_TASK_DEFAULTS = {task: definition.defaults for task, definition in DEFINITIONS.items()}
_COEFFICIENTS = {task: of.coefficient for task, of in _TASK_DEFAULTS.items()}
_OF_MODE = "of_mode"  # the table of a preset with settings for one mode each, which all others override
MODE_DEFAULTS: dict[str, Document] = {
    "asymmetric": {
        "epochs": 10,
        "learning_rate": {SHARED: 0.002 / 48, **{task: of.learning_rate for task, of in _TASK_DEFAULTS.items()}},
        "threshold": {SHARED: 48, **{task: of.threshold for task, of in _TASK_DEFAULTS.items()}},
        "coefficient": _COEFFICIENTS,
    },
    "symmetric": {"epochs": 40, "learning_rate": {ALL: 1e-5}, "coefficient": _COEFFICIENTS},
    "single": {"epochs": 40, "learning_rate": {ALL: 1e-5}, "network": {"name": "stl"}},
}

PRESETS: dict[str, Document] = {
    # The author's own settings, beyond the defaults; the errors of the code are not reproduced.
    "thesis": {
        "network": {"depth_activation": "relu"},
        "loss": {"variance_focus": -1.0},
        "box_loss": {"lambda_coord": 7.0, "lambda_object": 5.0, "lambda_noobj": 5.0, "lambda_class": 1.0,
                     "reduction": "object mean"},
        "stream": {"require_all": True},  # every regime trains on the same samples
        _OF_MODE: {
            # Batch norm of a batch of one, which statistics over a group of images would not be.
            "asymmetric": {"epochs": 10, "network": {"norm": "sample"}},
            "symmetric": {"epochs": 40, "network": {"norm": "batch"}, "stream": {"batch_size": 4, "micro_batch": 4}},
            "single": {"epochs": 40, "network": {"norm": "batch"}, "stream": {"batch_size": 4, "micro_batch": 4}},
        },
    },
}  # fmt: skip


def load_document(name: str) -> Document:
    """Return a preset by name, or the tables of a TOML file. Raises ConfigError where it is neither."""
    if name in PRESETS:
        return PRESETS[name]
    try:
        return read_toml(Path(name))
    except OSError as error:
        raise ConfigError(
            f"config must be a TOML file or one of {', '.join(PRESETS)}, got {name}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """Return `base` with the values of `over`; tables are merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def build_config(*documents: Document) -> RunConfig:
    """Return the run that the documents describe over the defaults of its mode; later documents win.

    Raises ConfigError with the key where one is unknown, of the wrong type, or outside its range.
    """
    given: Document = {}
    for document in documents:
        given = merge(given, document)
    mode = given.get("mode")
    of_modes = given.pop(_OF_MODE, {})
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}: give --mode")
    defaults = {"out": f"runs/{mode}", **MODE_DEFAULTS[mode]}
    try:
        config = build(RunConfig, merge(merge(defaults, of_modes.get(mode, {})), given))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check(config)
    return relevant(config)
