"""A trained network in use: images in, results in their own pixels out, and export.

`from train.deploy import Predictor` is the Python interface; see docs/python-api.md.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    """Load the network's libraries only for the code that asks for the predictor."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from train.deploy import predictor  # noqa: PLC0415

    return getattr(predictor, name)
