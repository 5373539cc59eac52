"""A processor's signature is its data's schema: what it takes, writes and refuses."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toril.job
from toril._signature import Signature
from toril.errors import ConfigurationError, SerializationError

if TYPE_CHECKING:
    from toril import Job

    class OnlyForTheChecker: ...


T = TypeVar("T")

SENTINEL = object()


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Address(pydantic.BaseModel):
    street: str
    zip_code: int = pydantic.Field(default=0, alias="zipCode")


class Application(pydantic.BaseModel):
    id: int
    address: Address
    sent_at: datetime | None = None
    extra: dict[str, Any] = {}


class StrictApplication(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    id: UUID
    sent_at: datetime


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Point(msgspec.Struct):
    x: int
    y: int = 0


class ForbiddingPoint(msgspec.Struct, forbid_unknown_fields=True):
    x: int


class ArrayPoint(msgspec.Struct, array_like=True):
    x: int
    y: int


class Cat(msgspec.Struct, tag="cat"):
    name: str


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Tree(msgspec.Struct):
    value: Any
    children: list[Tree] = []


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


@dataclass
class Shift:
    pharmacy: str
    day: date
    notes: list[str] = field(default_factory=list[str])


@dataclass
class LateShift(Shift):
    surcharge: int = 0


class Booking(TypedDict):
    shift: str
    seats: NotRequired[int]


def kwargs_of(function: Callable[..., Any], data: Any) -> dict[str, Any]:
    return Signature.of(function).decode(data)


def text_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the parsed text that a call writes."""
    return json.loads(Signature.of(function).encode(args, kwargs))


def there_and_back(function: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    signature = Signature.of(function)
    text = signature.encode(args, kwargs)
    once = signature.decode(text)
    assert once == signature.decode(text.encode()) == signature.decode(json.loads(text))
    return once


# Plain arguments


async def notify(application_id: str, attempt: int = 1, *, urgent: bool = False) -> str:
    return f"{application_id} {attempt} {urgent}"


def test_arguments_are_the_keys_of_an_object() -> None:
    """However they are passed, arguments stand under their names, in the function's order."""
    for args, kwargs in (
        (("42", 2), {"urgent": True}),
        ((), {"urgent": True, "attempt": 2, "application_id": "42"}),
        (("42",), {"urgent": True, "attempt": 2}),
    ):
        text = Signature.of(notify).encode(args, kwargs)
        assert text == '{"application_id":"42","attempt":2,"urgent":true}'


def test_defaults_are_written() -> None:
    """A worker in another language sees the whole data, not only what was passed."""
    assert text_of(notify, "42") == {"application_id": "42", "attempt": 1, "urgent": False}


def test_absent_keys_leave_the_default_to_the_function() -> None:
    """Where a producer left a key out, the call does too, and Python fills it in."""
    assert kwargs_of(notify, '{"application_id":"42"}') == {"application_id": "42"}


def test_unknown_keys_are_ignored() -> None:
    """A producer may be newer than the worker."""
    assert kwargs_of(notify, '{"application_id":"42","colour":"red"}') == {"application_id": "42"}


def test_no_arguments_read_from_no_data() -> None:
    """A job without data holds `{}` from Node and may hold `null` from others."""

    def nightly() -> None: ...

    assert Signature.of(nightly).encode((), {}) == "{}"
    nothing: list[Any] = ["{}", "null", b"null", None, {}]
    for data in nothing:
        assert kwargs_of(nightly, data) == {}


def test_parameters_without_annotation_take_any_json() -> None:
    """An unannotated parameter takes what JSON can hold, and gives it back."""

    def loose(value, other=None): ...  # type: ignore[no-untyped-def]  # pyright: ignore

    value = {"a": [1, 2.5, "x", None, True, {"b": []}]}
    assert there_and_back(loose, value) == {"value": value, "other": None}


def test_object_and_bare_containers_take_any_json() -> None:
    """`object`, `dict` and `list` say no more than that it is JSON."""

    def loose(a: object, b: dict, c: list) -> None: ...  # type: ignore[type-arg]  # pyright: ignore

    assert there_and_back(loose, 1, {"k": 1}, ["x"]) == {"a": 1, "b": {"k": 1}, "c": ["x"]}


def rich(
    when: datetime,
    day: date,
    wait: timedelta,
    key: UUID,
    price: Decimal,
    raw: bytes,
    colour: Colour,
    level: Level,
    size: Literal["s", "m"],
    by_number: dict[int, str],
    pair: tuple[int, str],
    tags: set[str],
    share: float,
    maybe: int | None = None,
) -> None: ...


def test_rich_types_come_back_as_they_went() -> None:
    """Dates, UUIDs, decimals, bytes, enums and keyed mappings survive JSON where an annotation names them."""
    given = {
        "when": datetime(2026, 11, 24, 8, 30, 1, 2, tzinfo=UTC),
        "day": date(2026, 11, 24),
        "wait": timedelta(seconds=90),
        "key": UUID(int=7),
        "price": Decimal("19.90"),
        "raw": b"\x00\xff",
        "colour": Colour.RED,
        "level": Level.HIGH,
        "size": "m",
        "by_number": {1: "a"},
        "pair": (1, "a"),
        "tags": {"x", "y"},
        "share": 1,
        "maybe": None,
    }
    assert there_and_back(rich, **given) == given
    assert text_of(rich, **given)["raw"] == "AP8="


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("application_id", 42, "`application_id`: expected str, got int"),
        ("application_id", b"42", "`application_id`: expected str, got bytes"),
        ("application_id", None, "`application_id`: expected str, got null"),
        ("attempt", "1", "`attempt`: expected int, got str"),
        ("attempt", True, "`attempt`: expected int, got bool"),
        ("attempt", 1.0, "`attempt`: expected int, got float"),
        (
            "attempt",
            2**53,
            "`attempt`: integer beyond 2^53, which loses digits in JavaScript; pass it as a string",
        ),
        (
            "attempt",
            -(2**53),
            "`attempt`: integer beyond 2^53, which loses digits in JavaScript; pass it as a string",
        ),
        ("urgent", 1, "`urgent`: expected bool, got int"),
        ("application_id", "\ud800", "data: text with half of a surrogate pair, which UTF-8 cannot hold"),
    ],
)
def test_a_wrong_argument_is_refused_when_added(argument: str, value: Any, message: str) -> None:
    """The error names the processor and the argument, and what was expected."""
    with pytest.raises(SerializationError) as caught:
        Signature.of(notify).encode((), {"application_id": "42", argument: value})
    assert str(caught.value) == f"notify: {message}"


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("when", "2026-11-24T08:30:00", "expected datetime, got str"),
        ("raw", "AP8=", "expected bytes, got str"),
        ("price", "1", "expected decimal, got str"),
        ("colour", "green", "none of the allowed values"),
        ("size", "xl", "none of the allowed values"),
        ("share", math.nan, "NaN and Infinity are not JSON"),
        ("share", -math.inf, "NaN and Infinity are not JSON"),
        ("maybe", 2**60, "integer beyond 2^53"),
        ("pair", (1, "a", "b"), "expected array of length 2, got 3"),
        ("by_number", {1: 2}, "expected str, got int"),
    ],
)
def test_strictness_of_rich_types(argument: str, value: Any, message: str) -> None:
    """Text is no datetime and no bytes, and numbers that JSON or JavaScript lack are refused."""
    given: dict[str, Any] = {
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "day": date(2026, 1, 1),
        "wait": timedelta(1),
        "key": UUID(int=1),
        "price": Decimal(1),
        "raw": b"",
        "colour": Colour.RED,
        "level": Level.LOW,
        "size": "s",
        "by_number": {},
        "pair": (1, ""),
        "tags": set(),
        "share": 0.5,
    }
    with pytest.raises(SerializationError, match=rf"^rich: `{argument}[^`]*`: .*{message.replace('^', '.')}"):
        Signature.of(rich).encode((), {**given, argument: value})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "`value`: NaN and Infinity are not JSON"),
        ({"a": [0, math.inf]}, "`value.a[1]`: NaN and Infinity are not JSON"),
        ({"a": {"b": 2**53}}, "`value.a.b`: integer beyond 2^53"),
        ({"a b": 2**53}, "`value[…]`: integer beyond 2^53"),
        ({1: "x"}, "`value[…]`: a key of type int would be read as text"),
        ({(1, 2): "x"}, "data: keys of mappings have to be text"),
        (b"x", "`value`: bytes would be read back as str; annotate it, or pass str"),
        (datetime(2026, 1, 1), "`value`: datetime would be read back as str; annotate it, or pass str"),
        ({1, 2}, "`value`: set would be read back as list; annotate it, or pass list"),
        (Decimal("1.5"), "`value`: Decimal would be read back as str"),
        (Point(1), "`value`: Point would be read back as dict; annotate it, or pass dict"),
        ([Shift("a", date(2026, 1, 1))], "`value[0]`: Shift would be read back as dict"),
        (object(), "`value`: object is nothing that JSON can hold"),
        ([{"a": object()}], "`value[0].a`: object is nothing that JSON can hold"),
    ],
)
def test_where_anything_goes_only_json_does(value: Any, message: str) -> None:
    """With `Any` a worker would read something else than was passed, so it is refused, with its path."""

    def loose(value: Any) -> None: ...

    with pytest.raises(SerializationError) as caught:
        Signature.of(loose).encode((value,), {})
    assert str(caught.value).startswith(f"loose: {message}")


def test_cycles_and_depth_are_refused() -> None:
    """What contains itself, or is nested beyond reason, is refused and not recursed into for ever."""

    def loose(value: Any) -> None: ...

    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(SerializationError, match="contains itself"):
            Signature.of(loose).encode((value,), {})
    with pytest.raises(SerializationError, match="loose: data: "):
        Signature.of(loose).decode('{"value":' + "[" * 100_000 + "]" * 100_000 + "}")


@pytest.mark.parametrize("numbers", [[2**53], [1, -(2**53)]])
def test_integers_inside_containers_are_checked(numbers: list[int]) -> None:
    """JavaScript's limit holds in lists, mappings and sets too."""

    def process(a: list[int], b: dict[str, int], c: set[int]) -> None: ...

    with pytest.raises(SerializationError, match=r"`a\[\d\]`: integer beyond"):
        Signature.of(process).encode((numbers, {}, set()), {})
    with pytest.raises(SerializationError, match=r"`b.k`: integer beyond"):
        Signature.of(process).encode(([], {"k": numbers[-1]}, set()), {})
    with pytest.raises(SerializationError, match=r"`c\[…\]`: integer beyond"):
        Signature.of(process).encode(([], {}, set(numbers)), {})
    assert there_and_back(process, [2**53 - 1], {}, {1}) == {"a": [2**53 - 1], "b": {}, "c": {1}}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"notify: missing a required argument: 'application_id'"),
        (("1",), {"colour": 1}, r"notify: got an unexpected keyword argument 'colour'"),
        (("1", 1, True), {}, r"notify: too many positional arguments"),
        (("1",), {"application_id": "2"}, r"notify: multiple values for argument 'application_id'"),
    ],
)
def test_a_wrong_call_is_a_type_error(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    """Missing, unknown and doubled arguments fail as they do when the function is called."""
    with pytest.raises(TypeError, match=message):
        Signature.of(notify).encode(args, kwargs)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}", "`application_id`: missing"),
        ("[]", "data: expected object, got array"),
        ('"x"', "data: expected object, got str"),
        ('{"application_id":42}', "`application_id`: expected str, got int"),
        ('{"application_id":"1","attempt":"2"}', "`attempt`: expected int, got str"),
        ('{"application_id":"1"', "data: not JSON"),
        ("", "data: not JSON"),
        (b'{"application_id":"\xff"}', "data: not JSON"),
        ({"application_id": 42}, "`application_id`: expected str, got int"),
        ([1], "data: expected object, got array"),
    ],
)
def test_data_that_does_not_fit_names_the_fault(data: Any, message: str) -> None:
    """A worker that reads data of another shape says where the fault is."""
    with pytest.raises(SerializationError) as caught:
        kwargs_of(notify, data)
    assert str(caught.value) == f"notify: {message}"


def test_faults_do_not_quote_the_data() -> None:
    """Job data may be private; an error about it shows paths and types only."""

    def process(colour: Colour, size: Literal["s"], app: Application) -> None: ...

    fits = {"colour": "red", "size": "s", "app": {"id": 1, "address": {"street": "x"}}}
    signature = Signature.of(process)
    signature.decode(fits)
    for broken in (
        {"colour": "hunter2"},
        {"size": "hunter2"},
        {"app": {"id": "hunter2", "address": {"street": "x"}}},
        {"app": "hunter2"},
    ):
        for data in (fits | broken, json.dumps(fits | broken)):
            with pytest.raises(SerializationError) as caught:
                signature.decode(data)
            assert "hunter2" not in str(caught.value)
            assert caught.value.__suppress_context__


# Models


def test_one_model_alone_is_the_data() -> None:
    """The fields of a single model are the keys of the data, whichever kind of model it is."""

    def with_pydantic(application: Application) -> None: ...
    def with_struct(point: Point) -> None: ...
    def with_dataclass(shift: Shift) -> None: ...
    def with_typed_dict(booking: Booking) -> None: ...
    def with_annotated(point: Annotated[Point, "of interest"]) -> None: ...
    def with_generic(page: Page[int]) -> None: ...

    application = Application(id=1, address=Address(street="Elm", zipCode=7))
    shift = Shift("north", date(2026, 11, 24), ["late"])
    for function, name, value, data in (
        (
            with_pydantic,
            "application",
            application,
            {"id": 1, "address": {"street": "Elm", "zipCode": 7}, "sent_at": None, "extra": {}},
        ),
        (with_struct, "point", Point(1), {"x": 1, "y": 0}),
        (with_dataclass, "shift", shift, {"pharmacy": "north", "day": "2026-11-24", "notes": ["late"]}),
        (with_typed_dict, "booking", {"shift": "a"}, {"shift": "a"}),
        (with_annotated, "point", Point(1, 2), {"x": 1, "y": 2}),
        (with_generic, "page", Page([1, 2]), {"items": [1, 2]}),
    ):
        assert text_of(function, value) == data
        assert text_of(function, **{name: value}) == data
        assert there_and_back(function, value) == {name: value}


def test_models_beside_others_stand_under_their_names() -> None:
    """Two models, a model with another argument and an optional model are keys like any argument."""

    def two(a: Point, b: Shift) -> None: ...
    def beside(a: Application, note: str = "") -> None: ...
    def optional(a: Point | None = None) -> None: ...
    def either(pet: Cat | Dog) -> None: ...

    shift = Shift("north", date(2026, 1, 1))
    application = Application(id=1, address=Address(street="Elm"))
    assert set(text_of(two, Point(1), shift)) == {"a", "b"}
    assert there_and_back(two, Point(1), shift) == {"a": Point(1), "b": shift}
    assert there_and_back(beside, application) == {"a": application, "note": ""}
    assert text_of(optional) == {"a": None}
    assert there_and_back(optional, Point(3)) == {"a": Point(3)}
    assert text_of(either, Dog("Rex")) == {"pet": {"type": "dog", "name": "Rex"}}
    assert there_and_back(either, Dog("Rex")) == {"pet": Dog("Rex")}


def test_models_that_are_no_objects_stand_under_their_names() -> None:
    """Data is an object, so a model that is an array in JSON needs a key."""

    def array(point: ArrayPoint) -> None: ...
    def root(numbers: Numbers) -> None: ...

    assert text_of(array, ArrayPoint(1, 2)) == {"point": [1, 2]}
    assert there_and_back(array, ArrayPoint(1, 2)) == {"point": ArrayPoint(1, 2)}
    assert text_of(root, Numbers([1])) == {"numbers": [1]}
    assert there_and_back(root, Numbers([1])) == {"numbers": Numbers([1])}


def test_containers_of_models() -> None:
    """Models are found inside of lists and mappings."""

    def process(apps: list[Application], points: dict[str, Point]) -> None: ...

    apps = [Application(id=1, address=Address(street="Elm"), sent_at=datetime(2026, 1, 1, tzinfo=UTC))]
    assert there_and_back(process, apps, {"a": Point(1)}) == {"apps": apps, "points": {"a": Point(1)}}
    with pytest.raises(
        SerializationError, match=r"process: `apps\[1\].address.street`: missing|field required"
    ):
        kwargs_of(
            process, {"apps": [{"id": 1, "address": {"street": "x"}}, {"id": 1, "address": {}}], "points": {}}
        )
    with pytest.raises(SerializationError, match=r"process: `points\[…\].x`: expected int, got str"):
        kwargs_of(process, {"apps": [], "points": {"k": {"x": "1"}}})


def test_a_default_model_is_written() -> None:
    """The fields of a single model are the data even if it was not passed."""

    def process(point: Point = Point(4)) -> None: ...  # noqa: B008

    assert text_of(process) == {"x": 4, "y": 0}


def test_a_model_can_be_passed_as_a_mapping() -> None:
    """A mapping with the fields of a model does as well."""

    def with_pydantic(application: Application) -> None: ...
    def with_struct(point: Point) -> None: ...

    assert text_of(with_pydantic, {"id": 1, "address": {"street": "Elm"}})["id"] == 1
    assert text_of(with_struct, {"x": 1}) == {"x": 1, "y": 0}
    with pytest.raises(SerializationError, match=r"^with_pydantic: `address.street`: "):
        Signature.of(with_pydantic).encode(({"id": 1, "address": {"street": 5}},), {})
    with pytest.raises(SerializationError, match=r"^with_pydantic: data: expected Application, got int"):
        Signature.of(with_pydantic).encode((5,), {})


def test_models_that_lie_are_refused() -> None:
    """Models that skip their own validation are read back before they count."""

    def with_pydantic(application: Application) -> None: ...
    def with_struct(point: Point) -> None: ...
    def with_dataclass(shift: Shift) -> None: ...

    lie: Any = "not a number"
    for function, value, path in (
        (with_pydantic, Application.model_construct(id=lie, address=Address(street="x")), "id"),
        (with_struct, Point(lie), "x"),
        (with_struct, Point(1, lie), "y"),
        (with_dataclass, Shift("x", lie), "day"),
        (with_dataclass, Shift(lie, datetime(2026, 1, 1)), "day"),
    ):
        with pytest.raises(SerializationError, match=rf"^{function.__name__}: `{path}`: "):
            Signature.of(function).encode((value,), {})


def test_what_a_model_would_lose_is_refused() -> None:
    """Secrets that are written as stars, and subclasses whose fields would be dropped, are not added."""

    def with_secret(secret: Secret) -> None: ...
    def with_shift(shift: Shift) -> None: ...
    def with_application(application: Application) -> None: ...

    class LongApplication(Application):
        pages: int

    with pytest.raises(SerializationError, match=r"^with_secret: `password`: ") as caught:
        Signature.of(with_secret).encode((Secret(password=pydantic.SecretStr("hunter2")),), {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SerializationError, match="LateShift"):
        Signature.of(with_shift).encode((LateShift("a", date(2026, 1, 1)),), {})
    long = LongApplication(id=1, address=Address(street="x"), pages=3)
    with pytest.raises(SerializationError, match="LongApplication would be read back as Application"):
        Signature.of(with_application).encode((long,), {})
    odd = Application(id=1, address=Address(street="x"), extra={"when": datetime(2026, 1, 1)})
    with pytest.raises(SerializationError, match=r"`extra.when`: datetime would be read back as str"):
        Signature.of(with_application).encode((odd,), {})


def test_strict_pydantic_models_read_json() -> None:
    """pydantic's strict mode takes text for a UUID in JSON, whether the data is text or parsed."""

    def process(application: StrictApplication) -> None: ...

    application = StrictApplication(id=UUID(int=1), sent_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert there_and_back(process, application) == {"application": application}


def test_unknown_keys_are_refused_where_the_model_forbids_them() -> None:
    """A model's own strictness wins."""

    def with_struct(point: ForbiddingPoint) -> None: ...
    def with_pydantic(application: StrictApplication) -> None: ...

    with pytest.raises(SerializationError, match="with_struct: `z`: unknown field"):
        kwargs_of(with_struct, {"x": 1, "z": 1})
    with pytest.raises(SerializationError, match="with_pydantic: `z`: "):
        kwargs_of(with_pydantic, {"id": str(UUID(int=1)), "sent_at": "2026-01-01T00:00:00Z", "z": 1})


def test_models_that_contain_themselves() -> None:
    """A tree of structs is read and written, and its loose values are checked at any depth."""

    def process(tree: Tree) -> None: ...

    tree = Tree(1, [Tree("two"), Tree([3])])
    assert there_and_back(process, tree) == {"tree": tree}
    with pytest.raises(SerializationError, match=r"^process: `children\[0\].value`: NaN"):
        Signature.of(process).encode((Tree(1, [Tree(math.nan)]),), {})


# The job


def first(job: Job[Any], application_id: str) -> None: ...
def last(application_id: str, *, the_job: Job[str] | None = None) -> None: ...
def plain(application_id: str, job: Job) -> None: ...  # pyright: ignore
def resolved(application_id: str, me: toril.job.Job[Any]) -> None: ...
def annotated(application_id: str, me: Annotated[Job[Any], "injected"]) -> None: ...
def without(application_id: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "parameter"),
    [
        (first, "job"),
        (last, "the_job"),
        (plain, "job"),
        (resolved, "me"),
        (annotated, "me"),
        (without, None),
    ],
)
def test_a_parameter_annotated_job_is_no_data(function: Callable[..., Any], parameter: str | None) -> None:
    """Whatever its name and place, and even if `Job` is imported for the type checker only."""
    signature = Signature.of(function)
    assert signature.job_parameter == parameter
    assert signature.parameters == ("application_id",)
    assert signature.encode(("42",), {}) == '{"application_id":"42"}'
    assert signature.decode('{"application_id":"42","job":1,"me":2}') == {"application_id": "42"}


def test_a_model_beside_the_job_is_still_alone() -> None:
    """The job does not count as an argument."""

    def process(job: Job[Any], point: Point) -> None: ...

    assert text_of(process, Point(1)) == {"x": 1, "y": 0}


# Kinds of functions


class Mailer:
    async def send(self, to: str) -> None: ...

    def __call__(self, to: str) -> None: ...

    @staticmethod
    async def ping(to: str) -> None: ...

    @classmethod
    def make(cls, to: str) -> None: ...


class AsyncMailer:
    async def __call__(self, to: str) -> None: ...


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def send(client: object, to: str, subject: str = "") -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async", "name"),
    [
        (Mailer().send, True, "send"),
        (Mailer(), False, "Mailer"),
        (AsyncMailer(), True, "AsyncMailer"),
        (Mailer.ping, True, "ping"),
        (Mailer.make, False, "make"),
        (functools.partial(Mailer().send), True, "send"),
        (logged(without), False, "without"),
        (lambda to: to, False, "<lambda>"),  # pyright: ignore
    ],
)
def test_methods_partials_and_callable_objects(function: Any, is_async: bool, name: str) -> None:
    """Anything that can be called with the arguments by name can be a processor."""
    signature = Signature.of(function)
    assert signature.is_async is is_async
    assert signature.name == name
    assert signature.parameters in (("to",), ("application_id",))
    assert signature.encode(("x",), {}) in ('{"to":"x"}', '{"application_id":"x"}')


@pytest.mark.parametrize("client", [object(), 42])
def test_what_a_partial_holds_is_no_data(client: object) -> None:
    """Arguments bound by a partial, by place or by name, are left out of data and call."""
    for function in (functools.partial(send, client), functools.partial(send, client=client)):
        signature = Signature.of(function)
        assert signature.parameters == ("to", "subject")
        assert signature.encode((), {"to": "x"}) == '{"to":"x","subject":""}'
        function(**signature.decode('{"to":"x"}'))


def test_the_name_can_be_given() -> None:
    """A processor's errors carry the job's name, not the function's."""
    with pytest.raises(SerializationError, match=r"^application-received: `application_id`: missing"):
        Signature.of(notify, "application-received").decode("{}")


# What cannot be a processor


def test_what_cannot_work_is_refused_when_decorated() -> None:
    """Each refusal names the function and the parameter, and says why."""

    def args(*values: int) -> None: ...
    def kwargs(**values: int) -> None: ...
    def positional(x: int, /) -> None: ...
    def two_jobs(a: Job[Any], b: Job[Any]) -> None: ...
    def unknown(x: OnlyForTheChecker) -> None: ...
    def function(x: Callable[[], int]) -> None: ...
    def client(x: Mailer) -> None: ...
    def inner_client(x: list[Mailer | None]) -> None: ...
    def two_pydantic(x: Application | Address) -> None: ...
    def bad_default(x: int = None) -> None: ...  # type: ignore[assignment]  # pyright: ignore # noqa: RUF013
    def odd_default(x: Any = SENTINEL) -> None: ...
    def nan_default(x: float = math.nan) -> None: ...
    def no_model(x: Point = None) -> None: ...  # type: ignore[assignment]  # pyright: ignore
    def untyped_job(job): ...  # type: ignore[no-untyped-def]  # pyright: ignore
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    refusals: list[tuple[Any, str]] = [
        (args, r"args: `\*values` has no name"),
        (kwargs, r"kwargs: `\*\*values` cannot be checked"),
        (positional, "positional: `x` is positional-only"),
        (two_jobs, "two_jobs: `a` and `b` both ask for the job"),
        (unknown, "unknown: the annotation of `x` cannot be resolved: name 'OnlyForTheChecker'"),
        (function, "function: `x`: Callable cannot be read from JSON"),
        (client, "client: `x`: Mailer cannot be read from JSON"),
        (inner_client, "inner_client: `x`: Mailer cannot be read from JSON"),
        (two_pydantic, "two_pydantic: the annotation of `x` is no type for data"),
        (bad_default, "bad_default: the default of `x` does not fit its annotation: expected int, got null"),
        (odd_default, "odd_default: the default of `x` does not fit its annotation: object is nothing"),
        (nan_default, "nan_default: the default of `x` does not fit its annotation: NaN and"),
        (no_model, "no_model: the default of `x` does not fit its annotation"),
        (untyped_job, "untyped_job: `job` has no annotation; write `job: Job`"),
        (generator, "generator: a generator is no processor"),
        (async_generator, "async_generator: a generator is no processor"),
        (Mailer.send, "send: `self` would be part of the data"),
        (Mailer, "Mailer: a class is no processor"),
        (42, "int: int cannot be called"),
    ]
    for refused, message in refusals:
        with pytest.raises(ConfigurationError, match=f"^{message}"):
            Signature.of(refused)


def test_an_unresolvable_return_annotation_does_not_matter() -> None:
    """Only what is read has to exist when the program runs."""

    def process(x: int) -> OnlyForTheChecker:
        pytest.fail("its signature is read, and it is never called")

    assert kwargs_of(process, {"x": 1}) == {"x": 1}


def test_pydantic_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pydantic was never imported, nothing imports it."""
    monkeypatch.delitem(sys.modules, "pydantic")
    assert there_and_back(notify, "42")["application_id"] == "42"
    assert "pydantic" not in sys.modules


# Properties

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Everything(msgspec.Struct):
    when: datetime
    day: date
    wait: timedelta
    price: Decimal
    raw: bytes
    share: float
    numbers: dict[int, list[float | None]]
    shift: Shift
    anything: Any = None


everything = st.builds(
    Everything,
    when=st.datetimes(timezones=st.just(UTC) | st.none()),
    day=st.dates(),
    wait=st.timedeltas(timedelta(days=-900_000), timedelta(days=900_000)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    raw=st.binary(),
    share=st.floats(allow_nan=False, allow_infinity=False),
    numbers=st.dictionaries(
        st.integers(-(2**63), 2**63 - 1),
        st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none()),
    ),
    shift=st.builds(Shift, pharmacy=st.text(), day=st.dates(), notes=st.lists(st.text())),
    anything=json_values,
)


@given(value=json_values)
def test_any_json_makes_the_round_trip(value: Any) -> None:
    """Whatever JSON can hold comes back as it was passed."""

    def loose(value: Any) -> None: ...

    assert there_and_back(loose, value) == {"value": value}


@given(model=everything)
def test_typed_values_make_the_round_trip(model: Everything) -> None:
    """Whatever fits the annotations comes back as it was passed, alone and beside another argument."""

    def alone(model: Everything) -> None: ...
    def beside(model: Everything, other: int) -> None: ...

    assert there_and_back(alone, model) == {"model": model}
    assert there_and_back(beside, model, 1) == {"model": model, "other": 1}


@given(data=json_values | st.fixed_dictionaries({"model": json_values, "other": json_values}))
def test_data_is_decoded_or_refused(data: Any) -> None:
    """Whatever stands in Redis, reading it gives arguments or a SerializationError, never another error."""

    def typed(model: Everything, other: int) -> None: ...
    def loose(model: Any = None) -> None: ...
    def application(application: Application) -> None: ...

    for function in (typed, loose, application):
        for form in (data, json.dumps(data)) if not isinstance(data, str) else (json.dumps(data),):
            try:
                arguments = kwargs_of(function, form)
            except SerializationError:
                continue
            assert arguments.keys() <= {"model", "other", "application"}
