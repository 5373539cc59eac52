"""The types that a signature's annotations name: what may stand in data, and how msgspec reads and writes it.

msgspec describes an annotation as a tree, its shape. From the shape follows whether the type can be data at all,
whether its fields can be the whole of the data, and whether what was written has to be read back. pydantic's models
are unknown to msgspec, and come in by its hooks. Which annotations there are is left to `_signature.py`.
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from .codec import is_pydantic, model_fields
from .errors import ConfigurationError

__all__ = [
    "AS_PARSED",
    "NATIVE",
    "adopt_model",
    "explain",
    "is_model",
    "is_number",
    "needs_reading_back",
    "parts_of",
    "read_model",
    "shape_of",
    "write_model",
]

# With these named, `convert` takes a datetime for a datetime and no longer text for one.
NATIVE: Final = (
    bytes,
    bytearray,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
)
_PATH: Final = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_QUOTED_VALUE: Final = re.compile(r"^Invalid (?:enum )?value\b.*", re.DOTALL)
_FIELD: Final = re.compile(r"^Object (missing required|contains unknown) field `([^`]*)`$")


def shape_of(name: str, parameter: str, hint: Any) -> msgspec.inspect.Type:
    """Return what msgspec makes of a parameter's annotation.

    Raises:
        ConfigurationError: It is no type for data; names the processor and the parameter.
    """
    try:
        msgspec.json.Decoder(hint)
        shape = msgspec.inspect.type_info(hint)
    except Exception as error:
        message = f"{name}: the annotation of `{parameter}` is no type for data: {error}"
        raise ConfigurationError(message) from None
    for part in parts_of(shape, []):
        if not isinstance(part, msgspec.inspect.CustomType):
            continue
        if part.cls is not object and not is_pydantic(part.cls):
            raise ConfigurationError(
                f"{name}: `{parameter}`: {part.cls.__name__} cannot be read from JSON; use a pydantic model, "
                "msgspec struct, dataclass or TypedDict"
            )
    return shape


def parts_of(shape: msgspec.inspect.Type, seen: list[type]) -> list[msgspec.inspect.Type]:
    """Return a type and all types inside of it. Each model is entered once: models may contain themselves."""
    info = msgspec.inspect
    inner: list[msgspec.inspect.Type]
    match shape:
        case info.StructType() | info.TypedDictType() | info.DataclassType() | info.NamedTupleType():
            inner = []
            if shape.cls not in seen:
                seen.append(shape.cls)
                inner = [field.type for field in shape.fields]
        case info.DictType():
            inner = [shape.key_type, shape.value_type]
        case info.TupleType():
            inner = list(shape.item_types)
        case info.ListType() | info.VarTupleType() | info.SetType() | info.FrozenSetType():
            inner = [shape.item_type]
        case info.UnionType():
            inner = list(shape.types)
        case info.Metadata():
            inner = [shape.type]
        case _:
            inner = []
    return [shape, *(part for one in inner for part in parts_of(one, seen))]


_TEXT_LIKE: Final = (
    msgspec.inspect.StrType,
    msgspec.inspect.BoolType,
    msgspec.inspect.NoneType,
    msgspec.inspect.BytesType,
    msgspec.inspect.ByteArrayType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.TimeType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.UnionType,
    msgspec.inspect.Metadata,
)
# What a parser of JSON gives without being told.
AS_PARSED: Final = (
    msgspec.inspect.AnyType,
    msgspec.inspect.NoneType,
    msgspec.inspect.StrType,
    msgspec.inspect.BoolType,
    msgspec.inspect.IntType,
    msgspec.inspect.ListType,
    msgspec.inspect.UnionType,
)
_NUMBERS: Final = (msgspec.inspect.IntType, msgspec.inspect.FloatType)
_CONTAINERS: Final = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.FrozenSetType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.TupleType,
    msgspec.inspect.DictType,
)


def is_number(shape: msgspec.inspect.Type) -> bool:
    """Whether a value is a number or a bare scalar beside one, so that looking at it once checks it."""
    parts = parts_of(shape, [])
    return all(isinstance(part, (*_TEXT_LIKE, *_NUMBERS)) for part in parts) and any(
        isinstance(part, _NUMBERS) for part in parts
    )


def needs_reading_back(shape: msgspec.inspect.Type) -> bool:
    """Whether `convert` may let something through that would be read as something else.

    It does where numbers stand in containers (NaN, integers beyond 2^53), with Any, and with models, whose
    fields it trusts.
    """
    if is_number(shape):
        return False
    return not all(isinstance(part, (*_TEXT_LIKE, *_CONTAINERS)) for part in parts_of(shape, []))


def is_model(shape: msgspec.inspect.Type) -> bool:
    """Whether a type is a model that is an object in JSON, so that its fields can be the data."""
    info = msgspec.inspect
    if isinstance(shape, info.Metadata):
        return is_model(shape.type)
    if isinstance(shape, info.StructType):
        return not shape.array_like
    if isinstance(shape, info.CustomType):
        return is_pydantic(shape.cls) and not getattr(shape.cls, "__pydantic_root_model__", False)
    return isinstance(shape, (info.DataclassType, info.TypedDictType))


def write_model(value: Any) -> Any:
    """msgspec's hook: what to write for a pydantic model."""
    if is_pydantic(cast("Any", type(value))):
        return model_fields(value)
    if value is None:
        # None needs no hook, unless it took the place of a key.
        raise TypeError("keys of mappings have to be text")
    # Reading it back finds the place, and refuses it.
    return None


def read_model(kind: Any, value: Any) -> Any:
    """msgspec's hook: a pydantic model from parsed JSON."""
    if kind is object:
        return value
    # As JSON, since pydantic's strict mode takes text for a datetime only there.
    return _validated(kind.model_validate_json, msgspec.json.encode(value))


def adopt_model(kind: Any, value: Any) -> Any:
    """msgspec's hook: a pydantic model from what a producer passed instead of one."""
    if kind is object or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    return _validated(kind.model_validate, value)


def _validated(validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValueError as error:
        # pydantic's own text quotes the input.
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        first = errors(include_url=False, include_context=False, include_input=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise ValueError(f"{first['msg']} - at `${path}`") from None


def explain(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the path and the fault that msgspec or a hook reports, without the value."""
    message, path = str(error), ""
    while match := _PATH.search(message):
        message = message[: match.start()]
        # A hook's own path comes before that of the place where the hook was called.
        path += match[1] if "`key` in" not in match[0] else match[1] + "[key]"
    if field := _FIELD.match(message):
        path = f"{path}.{field[2]}"
        message = "missing" if field[1] == "missing required" else "unknown field"
    elif _QUOTED_VALUE.match(message):
        message = "none of the allowed values"
    message = message.replace("`", "")
    return path.replace("[...]", "[…]"), message[:1].lower() + message[1:]
