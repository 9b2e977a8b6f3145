"""The use of a trained network: prediction on images of any size, and export to one file.

In come a checkpoint and images, films or shards; out go values in each image's own pixels and natural units, or an ONNX
or PyTorch file. Nothing here trains.

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
