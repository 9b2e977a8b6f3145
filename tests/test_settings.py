"""Settings come from TOML, go back to it unchanged, and wrong ones are refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from shards.settings import build, read_toml, to_tables, to_toml


@dataclass(frozen=True)
class Inner:
    name: Literal["a", "b"] = "a"
    size: Literal[1, 2] = 1
    count: Annotated[int, Meta(ge=1, le=9, description="ten do not fit")] = 3
    share: Annotated[float, Meta(gt=0, lt=256)] = 0.5
    flag: bool = False
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count == 7:
            raise ValueError("inner.count must be another number, got 7")
        if self.count == 8:
            raise ValueError("count must be another number, got 8")


@dataclass(frozen=True)
class Outer:
    must: int
    maybe: str | None = None
    rates: dict[str, float] = field(default_factory=dict)
    nested: dict[str, dict[str, int]] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def test_toml_goes_round(tmp_path: Path) -> None:
    inner = Inner("b", 2, 9, 1.0, True, ("w",))
    settings = Outer(3, 'a "quote"\n\\', {"x": 1e-5, "a key": 2.0}, {"t": {"u": 1}}, inner)
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(settings, {"inner": "a comment"}))
    assert build(Outer, read_toml(path)) == settings
    assert "[inner]  # a comment" in path.read_text()


def test_tables_are_plain_values_as_json_gives_them_back() -> None:
    settings = Outer(3, inner=Inner(words=("a", "b")))
    assert json.loads(json.dumps(to_tables(settings))) == to_tables(settings)
    assert build(Outer, to_tables(settings)) == settings


def test_what_is_none_or_empty_is_left_out() -> None:
    assert "maybe" not in to_toml(Outer(1))
    assert "rates" not in to_toml(Outer(1))


def test_a_whole_number_serves_as_a_float() -> None:
    share = build(Inner, {"share": 2}).share
    assert (share, type(share)) == (2.0, float)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "^must must be given"),
        ({"must": 1, "mist": 2}, "^unknown key mist: known are must, maybe, rates, nested, inner$"),
        ({"must": 1, "inner": {"x": 2}}, "^unknown key inner.x: known are name"),
        ({"must": 1, "inner": 2}, "^inner must be a table, got 2$"),
        ({"must": 1, "rates": 2}, "^rates must be a table, got 2$"),
        ({"must": "1"}, "^must must be a whole number, got '1'$"),
        ({"must": True}, "^must must be a whole number, got True$"),
        ({"must": 1, "maybe": 3}, "^maybe must be a text, got 3$"),
        ({"must": 1, "rates": {"x": "y"}}, "^rates.x must be a number, got 'y'$"),
        ({"must": 1, "rates": {"x": float("inf")}}, "^rates.x must be a number, got inf$"),
        ({"must": 1, "inner": {"name": "c"}}, "^inner.name must be one of a, b, got 'c'$"),
        ({"must": 1, "inner": {"size": 3}}, r"^inner.size must be one of 1, 2, got 3$"),
        ({"must": 1, "inner": {"count": 10}}, "^inner.count must be in 1..9, got 10: ten do not fit$"),
        ({"must": 1, "inner": {"count": "x"}}, "^inner.count must be a whole number, got 'x': ten do not fit$"),
        ({"must": 1, "inner": {"share": 0}}, "^inner.share must be above 0 and below 256, got 0$"),
        ({"must": 1, "inner": {"flag": 1}}, "^inner.flag must be true or false, got 1$"),
        ({"must": 1, "inner": {"words": [1]}}, r"^inner.words must be a list, each entry a text, got \[1\]$"),
        ({"must": 1, "inner": {"count": 7}}, "^inner.count must be another number, got 7$"),
        ({"must": 1, "inner": {"count": 8}}, "^inner: count must be another number, got 8$"),
    ],
)
def test_wrong_settings_are_refused_by_name(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Outer, tables)


@pytest.mark.parametrize("text", [b"a = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(text)
    with pytest.raises(ValueError, match=r"x.toml is not TOML"):
        read_toml(tmp_path / "x.toml")
