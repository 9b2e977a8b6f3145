"""Settings files: TOML to frozen dataclasses and back, for the conversion rules and for the runs of the trainer.

A dataclass of settings has one field per key; a field that is itself a dataclass is a table. The type of a field says
what its value may be: `bool`, `int`, `float`, `str`, `T | None`, `tuple[T, ...]`, `dict[str, T]`, `Literal[...]` for
choices, and `Annotated[int, msgspec.Meta(ge=1, description="why")]` for a range with its reason. Checks that a type
cannot express belong in `__post_init__`, which raises ValueError.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

Kind = TypeVar("Kind")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ValueError where it is not TOML in UTF-8, OSError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def build(kind: type[Kind], tables: Any, where: str = "") -> Kind:
    """A dataclass of `kind` from the tables of a TOML file or a JSON record; keys left out keep their default.

    `where` is the name of the table, followed by a dot, for messages; empty for the whole file. A whole number serves
    as a float; no other value is converted. Raises ValueError "<key> must be <rule>, got <value>: <why>" for a wrong
    value, and names the known keys where one is unknown.
    """
    if not isinstance(tables, Mapping):
        raise ValueError(f"{where.rstrip('.')} must be a table, got {tables!r}")
    hints = get_type_hints(kind, include_extras=True)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in tables.items():
        if key not in known:
            raise ValueError(f"unknown key {where}{key}: known are {', '.join(known)}")
        values[key] = _value(hints[key], value, f"{where}{key}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where}{name} must be given: it has no default")
    try:
        return kind(**values)
    except ValueError as error:
        if not where or str(error).startswith(where):
            raise
        raise ValueError(f"{where.rstrip('.')}: {error}") from error


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value of the hinted type; `name` is its key with those of the tables around it."""
    if is_dataclass(hint):
        assert isinstance(hint, type), "type hints are classes"
        return build(hint, value, f"{name}.")
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a table, got {value!r}")
        return {key: _value(get_args(hint)[1], entry, f"{name}.{key}") for key, entry in value.items()}
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise msgspec.ValidationError
        return msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError as error:
        info = inspect.type_info(hint)
        reason = ""
        if isinstance(info, inspect.Metadata):
            reason = (info.extra_json_schema or {}).get("description", "")
            info = info.type
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        choices = get_args(plain) if get_origin(plain) is Literal else ()  # in their own order, which info has not
        rule = _one_of(choices) if choices else _rule(info, value)
        raise ValueError(f"{name} must be {rule}, got {value!r}{reason and f': {reason}'}") from error


def _rule(info: inspect.Type, value: Any) -> str:
    """The values that a type allows, in words; the range of a number only where the value is a number."""
    match info:
        case inspect.LiteralType(values):
            return _one_of(values)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            whole = isinstance(info, inspect.IntType)
            is_number = type(value) is int or (type(value) is float and not whole and math.isfinite(value))
            return (is_number and _range(info)) or ("a whole number" if whole else "a number")
        case inspect.UnionType(types):
            return " or ".join(_rule(entry, value) for entry in types if not isinstance(entry, inspect.NoneType))
        case inspect.VarTupleType(item):
            return f"a list, each entry {_rule(item, None)}"
        case _:
            return "a text"


def _one_of(choices: tuple[Any, ...]) -> str:
    return f"one of {', '.join(map(str, choices))}"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.le is not None:
        return f"in {info.ge:g}..{info.le:.16g}"
    bounds = {"at least": info.ge, "above": info.gt, "at most": info.le, "below": info.lt}
    return " and ".join(f"{word} {bound:.16g}" for word, bound in bounds.items() if bound is not None)


def to_tables(settings: Any) -> dict[str, Any]:
    """A dataclass as plain values, tuples as lists, that `build` takes back; values that are None are left out."""
    plain: dict[str, Any] = _plain(asdict(settings))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def to_toml(settings: Any, comments: Mapping[str, str] | None = None) -> str:
    """A dataclass as TOML that `read_toml` and `build` take back to the same value.

    Tables come last, and empty ones are left out; a table inside a table is written inline, `{key = value}`.
    `comments` maps the name of a table to a comment behind its heading.
    """
    tables = to_tables(settings)
    lines = [f"{_key(name)} = {toml_value(value)}" for name, value in tables.items() if not isinstance(value, dict)]
    for name, table in tables.items():
        if isinstance(table, dict) and table:
            comment = f"  # {comments[name]}" if comments and name in comments else ""
            entries = (f"{_key(key)} = {toml_value(value)}" for key, value in table.items())
            lines += ["", f"[{_key(name)}]{comment}", *entries]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML on one line: `0.5`, `"text"`, `["a", "b"]`, `{a = 1}`."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {toml_value(entry)}" for key, entry in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case bool() | str() | None:
            return json.dumps(value)
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)
