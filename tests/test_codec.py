"""Only what Python and JavaScript read alike is written, and errors do not quote it."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.codec import MAX_DEPTH, MAX_SAFE_INTEGER, dumps, loads
from toril.errors import SerializationError


class Word(StrEnum):
    YES = "yes"


class Twin(str):
    """A kind of text in which no two are equal."""

    __slots__ = ()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Level(IntEnum):
    HIGH = 2


class Colour(Enum):
    RED = "red"


@dataclass
class Shift:
    pharmacy: str
    share: Any = 0.5


class Point(msgspec.Struct):
    x: Any


class Person(pydantic.BaseModel):
    name: str
    born_at: datetime | None = pydantic.Field(default=None, alias="bornAt")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_makes_the_round_trip(value: Any) -> None:
    """Whatever JSON can hold comes back equal, and another parser reads the same."""
    text = dumps(value)
    assert loads(text) == value
    assert loads(text.encode()) == value
    assert json.loads(text) == value


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    """What stands in Redis may be anything; reading it never raises another error."""
    with contextlib.suppress(SerializationError):
        loads(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        (None, "null"),
        ((1, [2]), "[1,[2]]"),
        (Word.YES, '"yes"'),
        ({Word.YES: 1}, '{"yes":1}'),
        (Level.HIGH, "2"),
        (Colour.RED, '"red"'),
        (datetime(2026, 11, 24, tzinfo=UTC), '"2026-11-24T00:00:00Z"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("19.90"), '"19.90"'),
        (Shift("north"), '{"pharmacy":"north","share":0.5}'),
        ([Point({"a": Shift("x")})], '[{"x":{"a":{"pharmacy":"x","share":0.5}}}]'),
        (Person(name="Ada"), '{"name":"Ada","bornAt":null}'),
        (
            {"p": [Person(name="Ada", bornAt=datetime(1815, 12, 10))]},
            '{"p":[{"name":"Ada","bornAt":"1815-12-10T00:00:00"}]}',
        ),
        (MAX_SAFE_INTEGER, "9007199254740991"),
        (-0.0, "-0.0"),
    ],
)
def test_what_is_written(value: Any, text: str) -> None:
    """Models, dates, UUIDs, decimals and enums become what msgspec and pydantic make of them."""
    assert dumps(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "data: NaN and Infinity are not JSON; use None"),
        ([0, {"a": -math.inf}], "data[1].a: NaN and Infinity are not JSON; use None"),
        (2**53, "data: integer beyond 2^53, which loses digits in JavaScript; pass it as text"),
        ({"a b": [-(2**53)]}, "data[…][0]: integer beyond 2^53"),
        ({1: "x"}, "data: key of type int; JSON keys are text"),
        ({"a": {None: 1}}, "data.a: key of type NoneType; JSON keys are text"),
        (b"x", "data: bytes are not JSON"),
        ({"a": bytearray(b"x")}, "data.a: bytes are not JSON"),
        ({1, 2}, "data: a set is not JSON; pass a list"),
        (object(), "data: object is nothing that JSON can hold"),
        ({"a": lambda: 1}, "data.a: function is nothing that JSON can hold"),
        (Shift("north", math.nan), "data.share: NaN and Infinity are not JSON"),
        (Point({1: 2}), "data.x: key of type int"),
        (Point(2**53), "data.x: integer beyond 2^53"),
        ("\ud800", "data: text with half of a surrogate pair, which UTF-8 cannot hold"),
        ({"\ud800": 1}, "data: text with half of a surrogate pair, which UTF-8 cannot hold"),
        ([{Twin("a"): 1, Twin("a"): 2}], "data[0]: two keys are the same text"),
        ({"a": {Word.YES: 1, 5: 2}}, "data.a: key of type int"),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    """The error says where, and what JSON or JavaScript lacks."""
    with pytest.raises(SerializationError) as caught:
        dumps(value)
    assert str(caught.value).startswith(message)
    assert "north" not in str(caught.value)


def test_depth_is_bounded_and_cycles_end() -> None:
    """As many levels as promised pass; one more, and a cycle, do not."""
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert loads(dumps(value)) == value
    with pytest.raises(SerializationError, match="deeper than 64 levels"):
        dumps([value])

    cycle: dict[str, Any] = {}
    cycle["a"] = [cycle]
    by_object = Shift("x")
    by_object.share = [by_object]
    for endless in (cycle, by_object):
        with pytest.raises(SerializationError, match=r"contains itself|recursion|nested"):
            dumps(endless)
    with pytest.raises(SerializationError, match="not JSON"):
        loads("[" * 100_000)


def test_an_error_calls_the_value_what_the_caller_calls_it() -> None:
    """A progress report is not called data."""
    with pytest.raises(SerializationError, match=r"^job '42': progress: bytes"):
        dumps(b"", "job '42': progress")
    with pytest.raises(SerializationError, match=r"^job '42': progress: stored text is not JSON"):
        loads("{", "job '42': progress")


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        '{"a":-Infinity}',
        "1e400",
        '"\\ud800"',
        '["\\udc00x"]',
        "\ufeff1",
        "'a'",
        "{a:1}",
        "[1,]",
    ],
)
def test_what_only_some_parsers_read_is_refused(text: str) -> None:
    """Numbers that are not finite, half surrogate pairs, and what is JSON only to the generous."""
    with pytest.raises(SerializationError, match="stored text is not JSON"):
        loads(text)


def test_of_equal_keys_the_last_counts() -> None:
    """As in JavaScript: a job whose data both languages read is not one job here and another there."""
    assert loads('{"a":1,"__proto__":1,"a":{"b":1,"b":2},"__proto__":3}') == {"a": {"b": 2}, "__proto__": 3}


def test_mappings_of_other_kinds() -> None:
    """A mapping that is not a dict is written or refused, and never half of it."""
    with contextlib.suppress(SerializationError):
        assert dumps(MappingProxyType({"a": 1})) == '{"a":1}'
