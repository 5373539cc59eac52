"""JSON that both Python and JavaScript read alike. Nothing but JSON is ever stored or loaded.

`msgspec` does the work. What it would let through and a Node worker could not read is refused here:
numbers that are not finite, integers beyond 2^53, keys that are not text.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard, cast

import msgspec

from .errors import SerializationError

__all__ = [
    "MAX_DEPTH",
    "MAX_SAFE_INTEGER",
    "check_depth",
    "dumps",
    "ensure_json",
    "is_pydantic",
    "loads",
    "model_fields",
    "pairs",
    "read_int",
]

MAX_DEPTH: Final = 64
MAX_SAFE_INTEGER: Final = 2**53 - 1

_MIN_SAFE_INTEGER: Final = -MAX_SAFE_INTEGER
_SCALARS = (str, bool, type(None))


def dumps(value: Any, what: str = "data") -> str:
    """Return `value` as JSON text.

    Args:
        value: Anything made of dicts with text keys, lists, tuples, text, numbers, booleans and None;
            also what msgspec writes: dataclasses, structs, datetimes, UUIDs, enums, decimals; and
            pydantic models.
        what: How an error calls the value.

    Raises:
        SerializationError: With the path of the first part that does not fit, never its content.
    """
    if type(value) is dict and not value:
        return "{}"
    if not _is_usual(value, MAX_DEPTH):
        ensure_json(value, what)
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError:
        raise SerializationError(
            f"{what}: text with half of a surrogate pair, which UTF-8 cannot hold"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"{what}: {error}") from None


def loads(text: str | bytes, what: str = "data") -> Any:
    """Return what a JSON text says. Of equal keys the last counts, as in JavaScript.

    Raises:
        SerializationError: The text is not JSON, or nested deeper than 64 levels.
    """
    check_depth(text, what)
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise SerializationError(f"{what}: stored text is not JSON ({error})") from None


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """Return what the server answers as name, value, name, value, …; a name without a value is left out."""
    parts = iter(flat)
    return dict(zip(parts, parts, strict=False))


def read_int(text: object) -> int | None:
    """Return the whole number that others stored as text; None where it is none, whatever else it is."""
    if not isinstance(text, (str, int, float)) or text == "":
        return None
    try:
        # Most are short. Node writes long ones as `3e+8`, and what has too many digits is no number of a queue's.
        return (
            int(text) if isinstance(text, str) and len(text) < 20 and text.isdecimal() else int(float(text))
        )
    except (ValueError, OverflowError):
        return None


def check_depth(text: str | bytes, what: str = "data") -> None:
    """Refuse a JSON text that is nested deeper than 64 levels. Costs next to nothing where it cannot be.

    Raises:
        SerializationError: It is.
    """
    # That many levels have as many brackets at either end; most texts are too short, or have too few.
    if len(text) <= 2 * MAX_DEPTH:
        return
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    # All brackets outside of strings, as round ones. Each round takes away the innermost pairs: one level.
    brackets = _NO_BRACKETS.sub("", text).translate(_ROUND)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace("()", "")
        if not brackets:
            return
    # What does not pair off is no JSON; that is for the parser to say.
    if "()" in brackets:
        raise SerializationError(f"{what}: nested deeper than {MAX_DEPTH} levels")


def ensure_json(value: Any, what: str = "data", depth: int = 0) -> None:
    """Check what msgspec does not: finite numbers, safe integers, text keys, no bytes, bounded depth.

    A cycle ends at the depth limit.

    Raises:
        SerializationError: With the path of the first part that does not fit.
    """
    kind = type(cast("object", value))
    if kind in _SCALARS:
        return
    if kind is int:
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise SerializationError(
                f"{what}: integer beyond 2^53, which loses digits in JavaScript; pass it as text"
            )
    elif kind is float:
        if not math.isfinite(value):
            raise SerializationError(f"{what}: NaN and Infinity are not JSON; use None")
    elif depth >= MAX_DEPTH:
        raise SerializationError(f"{what}: nested deeper than {MAX_DEPTH} levels, or contains itself")
    elif kind is dict or _is_mapping(value):
        for key, item in value.items():
            if type(key) is not str:
                _ensure_keys(value, what)
            if not _is_usual(item, 0):
                ensure_json(item, f"{what}.{key}" if key.isidentifier() else f"{what}[…]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("list[Any]", value)):
            if not _is_usual(item, 0):
                ensure_json(item, f"{what}[{index}]", depth + 1)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        raise SerializationError(f"{what}: bytes are not JSON; pass text, e.g. base64")
    elif isinstance(value, (set, frozenset)):
        raise SerializationError(f"{what}: a set is not JSON; pass a list")
    elif not _is_plain(value):
        # Structs, dataclasses and the like: look at what msgspec makes of them.
        try:
            ensure_json(msgspec.to_builtins(value, enc_hook=model_fields), what, depth + 1)
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError(f"{what}: {error}") from None


def _ensure_keys(value: Mapping[Any, Any], what: str) -> None:
    """Refuse keys that are no text, and those of a kind of text of its own that are one as JSON has them."""
    for key in value:
        if not isinstance(key, str):
            raise SerializationError(f"{what}: key of type {type(key).__name__}; JSON keys are text")
    if len({str.__str__(key) for key in value}) < len(value):
        raise SerializationError(f"{what}: two keys are the same text; JSON readers keep the last of them")


def _is_usual(value: Any, levels: int) -> bool:
    """Whether it is sound and made of what most data is made of, which takes a fraction of the time to see.

    What is not may be sound all the same; `ensure_json` knows, and where it is that something is wrong.
    """
    kind: type[object] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if levels and kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        items = value.values()
    elif levels and (kind is list or kind is tuple):
        items = value
    else:
        items = (value,)
        levels = 0
    for item in items:
        kind = type(item)  # pyright: ignore[reportUnknownVariableType]
        if kind is str or kind is bool or item is None:
            continue
        if kind is int and _MIN_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
            continue
        if kind is float and math.isfinite(item):
            continue
        if levels and _is_usual(item, levels - 1):
            continue
        return False
    return True


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_plain(value: Any) -> bool:
    """A subclass of a scalar, such as a StrEnum or an IntEnum."""
    return isinstance(value, (str, bool))


def model_fields(value: Any) -> Any:
    """Return the fields of a pydantic model, as JSON has them; msgspec's hook for what it does not know.

    Raises:
        TypeError: It is something else.
    """
    kind = type(cast("object", value))
    if is_pydantic(cast("Any", kind)):
        # By alias, because that is how it is read; without computed fields, which a strict model refuses.
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    raise TypeError(f"{kind.__name__} is nothing that JSON can hold")


@functools.lru_cache(maxsize=1024)
def is_pydantic(kind: Any) -> bool:
    """Whether a class is a model of pydantic 2. Where pydantic is not imported, there is none."""
    pydantic: Any = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)
    return (
        isinstance(kind, type)
        and isinstance(base, type)
        and issubclass(kind, base)
        and hasattr(kind, "model_validate_json")
    )


# A string, or a run of what is neither a bracket nor the beginning of a string.
_NO_BRACKETS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^][{}"]+', re.DOTALL)
_ROUND: Final = str.maketrans("[]{}", "()()")

_encoder = msgspec.json.Encoder(enc_hook=model_fields)
_decoder = msgspec.json.Decoder()
