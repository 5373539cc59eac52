"""Whether what was written of a value is read as that value, and where it is not.

`convert` and the encoder let through what JSON cannot hold (NaN), what JavaScript cannot (integers beyond 2^53), and
what another type would come out of (a datetime under `Any` is read as text). So the text is read, and compared.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, TypeGuard, cast

import msgspec

from .codec import MAX_DEPTH, MAX_SAFE_INTEGER, is_pydantic

__all__ = ["Fault", "check_number", "read_back"]


class Fault(Exception):
    """What is wrong with a value, and where in the data it stands."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


def check_number(value: Any, path: str) -> None:
    """Raise `Fault` where a number is none that JSON and JavaScript can hold; other values pass."""
    kind = type(cast("object", value))
    if kind is int:
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise Fault(path, "integer beyond 2^53, which loses digits in JavaScript; pass it as a string")
    elif kind is float and not math.isfinite(value):
        raise Fault(path, "NaN and Infinity are not JSON")


def read_back(value: Any, text: str | bytes, decoder: msgspec.json.Decoder[Any]) -> None:
    """Check that the text of a value reads as the value."""
    try:
        read = decoder.decode(text)
    except msgspec.ValidationError:
        # Where the fault is a NaN, which is written as null, say so.
        _compare(value, value, "", 0)
        raise
    _compare(value, read, "", 0)


def _compare(sent: Any, read: Any, path: str, depth: int) -> None:
    """Check that what a worker would read is what was passed. Tuples and sets may become lists.

    Raises:
        Fault: With the path of the first difference.
    """
    kind = type(cast("object", sent))
    if kind is str or kind is bool or sent is None:
        if sent != read:
            raise _changed(sent, read, path)
    elif kind is int or kind is float:
        check_number(sent, path)
        if sent != read:
            raise _changed(sent, read, path)
    elif depth > MAX_DEPTH:
        raise Fault(path, f"nested deeper than {MAX_DEPTH} levels, or contains itself")
    elif _is_mapping(sent):
        _compare_mappings(sent, read, path, depth)
    elif isinstance(sent, (list, tuple)):
        if not isinstance(read, (list, tuple)):
            raise _changed(sent, read, path)
        pairs = zip(cast("list[Any]", sent), cast("list[Any]", read), strict=True)
        for index, (one, other) in enumerate(pairs):
            _compare(one, other, f"{path}[{index}]", depth + 1)
    elif isinstance(sent, (set, frozenset)):
        for item in cast("set[Any]", sent):
            check_number(item, f"{path}[…]")
        if sent != read:
            raise _changed(sent, read, path)
    elif (fields := _fields(cast("Any", kind))) is not None:
        if type(read) is not kind:
            raise _changed(sent, read, path)
        for field in fields:
            _compare(getattr(sent, field), getattr(read, field), f"{path}.{field}", depth + 1)
    elif sent != read and (type(read) is not kind or _has_equality(kind)):
        # A class without equality of its own cannot be compared; its model has validated it.
        raise _changed(sent, read, path)


def _compare_mappings(sent: Mapping[Any, Any], read: Any, path: str, depth: int) -> None:
    if not _is_mapping(read):
        raise _changed(sent, read, path)
    for key, item in sent.items():
        inner = f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[…]"
        if key not in read:
            raise Fault(inner, f"a key of type {type(key).__name__} would be read as text")
        check_number(item, inner)
        _compare(item, read[key], inner, depth + 1)


def _has_equality(kind: type) -> bool:
    return any("__eq__" in vars(base) for base in kind.__mro__[:-1])


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


@functools.lru_cache(maxsize=1024)
def _fields(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a model's fields, None for what is no model."""
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if is_pydantic(kind):
        return tuple(name for name, field in kind.model_fields.items() if not field.exclude)
    return None


def _changed(sent: Any, read: Any, path: str) -> Fault:
    sent_kind, read_kind = type(sent).__name__, type(read).__name__
    if sent_kind == read_kind:
        return Fault(path, f"this {sent_kind} would not be read back as it is")
    if read is None:
        return Fault(path, f"{sent_kind} is nothing that JSON can hold")
    return Fault(path, f"{sent_kind} would be read back as {read_kind}; annotate it, or pass {read_kind}")
