"""The templates of the report and the model card, filled in by Jinja."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from train.report.tables import Best

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, **values: Any) -> str:
    """The template `name` with these values. In HTML, texts are escaped; what is markup must be marked in the template.

    A value that the template needs and does not get raises an error.
    """
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only where a document is written

    environment = Environment(
        loader=PackageLoader("train.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["best"] = lambda cell: isinstance(cell, Best)
    return environment
