"""A processor's Python signature as data, and back.

The data of a typed job is a JSON object of the processor's arguments, which a Node worker reads as it
is. What is decided here:

- **One model alone is the data.** Where the only argument (besides the job) is a model, that is a pydantic
  model, a msgspec struct, a dataclass or a TypedDict, its fields are the data. Two models, or a model
  beside another argument, each stand under the argument's name; so does `Model | None`.
- **Defaults are written.** `encode` writes the default of an argument that was not passed, so that Node
  workers and dashboards see whole data. `decode` leaves an absent key to the function's own default.
- **Unknown keys are ignored**, so that a producer may be newer than its worker, unless the model forbids
  them. `null`, which is what a job without data may hold, reads as an object without keys.
- **What is written is what will be read.** Types are checked strictly: text is no number, and no datetime.
  Where a type leaves room (`Any`, models), the written text is read back and compared before it counts.
- Parameters without an annotation take any JSON. One annotated `Job` receives the job and is no data; a
  plain `def`, which runs in a thread, asks for a `SyncJob`, whose verbs block.

pydantic is used where a signature names one of its models, and is never imported.
Finding queues, adding and running are left to `processor.py` and `worker.py`.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import msgspec

from ._round_trip import Fault, check_number, read_back
from ._shapes import (
    AS_PARSED,
    NATIVE,
    adopt_model,
    explain,
    is_model,
    is_number,
    needs_reading_back,
    parts_of,
    read_model,
    shape_of,
    write_model,
)
from .codec import MAX_DEPTH, check_depth, dumps
from .errors import ConfigurationError, SerializationError

if TYPE_CHECKING:
    from .job import Job
    from .sync import SyncJob

__all__ = ["Signature", "dump_result", "result_reader"]


class Signature:
    """What a processor takes, compiled once, when it is decorated.

    Attributes:
        name: What errors call the processor.
        is_async: Calling the function gives a coroutine.
        parameters: Names of the arguments that are data, in order.
        job_parameter: Name of the parameter that receives the job, or None.
    """

    __slots__ = (
        "_arguments",
        "_decoder",
        "_defaults",
        "_encoder",
        "_is_verified",
        "_model",
        "_names",
        "_numbers",
        "_positional",
        "_type",
        "_wants_blocking_job",
        "is_async",
        "job_parameter",
        "name",
        "parameters",
    )

    def __init__(
        self,
        name: str,
        parameters: Iterable[inspect.Parameter],
        hints: Mapping[str, Any],
        *,
        is_async: bool,
        job_parameter: str | None,
        wants_blocking_job: bool = False,
    ) -> None:
        given = list(parameters)
        self.name = name
        self.is_async = is_async
        self.job_parameter = job_parameter
        self._wants_blocking_job = wants_blocking_job
        self.parameters = tuple(parameter.name for parameter in given)
        # inspect's own binding names what is wrong with a call; it is too slow for calls that are right.
        self._arguments = inspect.Signature(given)
        self._names = frozenset(self.parameters)
        self._positional = tuple(p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD)
        self._encoder = msgspec.json.Encoder(enc_hook=write_model)

        shapes = {
            parameter.name: shape_of(name, parameter.name, hints[parameter.name]) for parameter in given
        }
        self._is_verified = any(needs_reading_back(shape) for shape in shapes.values())
        self._numbers = tuple(key for key, shape in shapes.items() if is_number(shape))
        # The parameter whose value is the whole of the data.
        self._model = given[0].name if len(given) == 1 and is_model(shapes[given[0].name]) else None
        if self._model is not None:
            self._type: Any = hints[self._model]
        else:
            # A field that is absent stays UNSET: the function applies its own default.
            self._type = msgspec.defstruct(
                "Arguments",
                [
                    (p.name, hints[p.name], msgspec.NODEFAULT if p.default is p.empty else msgspec.UNSET)
                    for p in given
                ],
                kw_only=True,
            )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._type, dec_hook=read_model)
        self._defaults = {p.name: p.default for p in given if p.default is not p.empty}
        for parameter in given:
            if parameter.default is not parameter.empty:
                self._check_default(parameter, hints[parameter.name])

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None = None) -> Signature:
        """Read the signature of a function, bound method, partial or callable object.

        Arguments that a partial holds already are neither data nor passed again.

        Args:
            function: The processor.
            name: What errors call it; its own name without.

        Raises:
            ConfigurationError: It cannot be a processor; says which parameter is in the way, and why.
        """
        plain, bound = _unwrap_partial(function)
        name = name or str(getattr(plain, "__name__", type(plain).__name__))
        body = _body(plain, name)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{name}: its signature cannot be read: {error}") from None

        data: list[inspect.Parameter] = []
        hints: dict[str, Any] = {}
        job_parameter: str | None = None
        wants_blocking_job = False
        for parameter in signature.parameters.values():
            if parameter.name in bound:
                continue
            hint = _hint(name, parameter, inspect.unwrap(body))
            if (kind := _job_kind(hint)) is not None:
                _refuse_kind(name, parameter)
                if job_parameter is not None:
                    raise ConfigurationError(
                        f"{name}: `{job_parameter}` and `{parameter.name}` both ask for the job"
                    )
                job_parameter = parameter.name
                wants_blocking_job = kind == "SyncJob"
                continue
            _refuse_kind(name, parameter)
            _refuse_trap(name, parameter, is_first=not data and not job_parameter)
            data.append(parameter)
            hints[parameter.name] = hint
        return cls(
            name,
            data,
            hints,
            is_async=inspect.iscoroutinefunction(body),
            job_parameter=job_parameter,
            wants_blocking_job=wants_blocking_job,
        )

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the JSON text of a call's arguments, the job left out.

        Raises:
            TypeError: An argument is missing, unknown or given twice, as when calling the function.
            SerializationError: An argument does not fit its annotation, or is nothing that JSON can hold.
        """
        given = self._bind(args, kwargs)
        try:
            value = msgspec.convert(
                given[self._model] if self._model is not None else given,
                self._type,
                builtin_types=NATIVE,
                dec_hook=adopt_model,
            )
            # JSON has no number like these, and msgspec would write null.
            for name in self._numbers:
                check_number(given[name], f".{name}")
            text = self._encoder.encode(value).decode()
            self._check_depth(text)
            if self._is_verified:
                read_back(value, text, self._decoder)
        except Fault as fault:
            raise self._error(fault.path, fault.message) from None
        except msgspec.ValidationError as error:
            raise self._error(*explain(error)) from None
        except RecursionError:
            raise self._error("", "nested too deep, or contains itself") from None
        except UnicodeEncodeError:
            raise self._error("", "text with half of a surrogate pair, which UTF-8 cannot hold") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error("", str(error)) from None
        return text

    def decode(self, data: Any) -> dict[str, Any]:
        """Return the keyword arguments for the call, the job left out.

        Args:
            data: JSON text (str or bytes), or what it was parsed to.

        Raises:
            SerializationError: The data does not fit the signature; says where. Never quotes the data.
        """
        if not isinstance(data, (str, bytes)):
            return self._from_parsed(data)
        self._check_depth(data)
        try:
            value = self._decoder.decode("{}" if data in ("null", b"null") else data)
        except msgspec.ValidationError as error:
            raise self._error(*explain(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._error("", "not JSON") from None
        except RecursionError:
            raise self._error("", "nested too deep") from None
        return self._named(value)

    def arguments(self, job: Job[Any]) -> dict[str, Any]:
        """Return all keyword arguments of the call that a job stands for, the job itself among them.

        Raises:
            SerializationError: As `decode`.
        """
        arguments = self.decode(job.data_json)
        if self.job_parameter is not None:
            arguments[self.job_parameter] = _blocking(job) if self._wants_blocking_job else job
        return arguments

    def _check_depth(self, text: str | bytes) -> None:
        if len(text) > 2 * MAX_DEPTH:
            try:
                check_depth(text)
            except SerializationError:
                raise self._error("", f"nested deeper than {MAX_DEPTH} levels, or contains itself") from None

    def _from_parsed(self, data: Any) -> dict[str, Any]:
        try:
            given: Any = {} if data is None else data
            value = msgspec.convert(given, self._type, str_keys=True, dec_hook=read_model)
        except msgspec.ValidationError as error:
            raise self._error(*explain(error)) from None
        except RecursionError:
            raise self._error("", "nested too deep") from None
        return self._named(value)

    def _named(self, value: Any) -> dict[str, Any]:
        if self._model is not None:
            return {self._model: value}
        arguments = msgspec.structs.asdict(value)
        if self._defaults:
            return {key: item for key, item in arguments.items() if item is not msgspec.UNSET}
        return arguments

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if args:
            positional = dict(zip(self._positional, args, strict=False))
            given = {**self._defaults, **positional, **kwargs}
            fits = len(args) <= len(self._positional) and positional.keys().isdisjoint(kwargs)
        else:
            given = {**self._defaults, **kwargs}
            fits = True
        if not fits or given.keys() != self._names:
            try:
                self._arguments.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}: {error}") from None
        return given

    def _check_default(self, parameter: inspect.Parameter, hint: Any) -> None:
        """A default is written as if it had been passed, so it has to fit."""
        try:
            value = msgspec.convert(parameter.default, hint, builtin_types=NATIVE, dec_hook=adopt_model)
            decoder = msgspec.json.Decoder(hint, dec_hook=read_model)
            read_back(value, self._encoder.encode(value), decoder)
        except Fault as fault:
            reason = fault.message
        except msgspec.ValidationError as error:
            reason = explain(error)[1]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = str(error)
        else:
            return
        raise ConfigurationError(
            f"{self.name}: the default of `{parameter.name}` does not fit its annotation: {reason}"
        )

    def _error(self, path: str, message: str) -> SerializationError:
        where = f"`{path.removeprefix('.')}`" if path else "data"
        return SerializationError(f"{self.name}: {where}: {message}")


def result_reader(function: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """Return what turns a parsed return value into what a processor's return annotation says.

    None where the annotation asks for no more than JSON gives, is absent, cannot be resolved, or is no type
    that can be read from JSON.
    """
    kind = _return_kind(function)
    if kind is None:
        return None

    def read(value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, str_keys=True, dec_hook=read_model)
        except msgspec.ValidationError as error:
            path, message = explain(error)
            where = f"`{path.removeprefix('.')}`: " if path else ""
            raise SerializationError(f"return value: {where}{message}") from None

    return read


def dump_result(value: Any, what: str, function: Callable[..., Any]) -> str:
    """Return what a processor has returned as JSON; also a set and its like, where its annotation names them.

    Raises:
        SerializationError: It is no JSON, and would not be read as what it is.
    """
    try:
        return dumps(value, what)
    except SerializationError:
        kind = _return_kind(function)
        if kind is None:
            raise
        try:
            text = msgspec.json.encode(value, enc_hook=write_model).decode()
            read_back(value, text, msgspec.json.Decoder(kind, dec_hook=read_model))
        except (Fault, msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError):
            pass
        else:
            return text
        raise


def _return_kind(function: Callable[..., Any]) -> Any:
    plain, _ = _unwrap_partial(function)
    body = inspect.unwrap(_body(plain, "processor"))
    try:
        returned = inspect.signature(function).return_annotation
        if returned is inspect.Signature.empty:
            return None
        carrier = types.SimpleNamespace(__annotations__={"return": returned})
        kind = typing.get_type_hints(carrier, _globals(body), include_extras=True)["return"]
        shape = shape_of("processor", "return", kind)
    except Exception:
        return None
    return None if all(isinstance(part, AS_PARSED) for part in parts_of(shape, [])) else kind


def _unwrap_partial(function: Any) -> tuple[Any, frozenset[str]]:
    """Return the function inside of partials, and the names that they bind by keyword."""
    bound: set[str] = set()
    while _is_partial(function):
        bound.update(function.keywords)
        function = function.func
    return function, frozenset(bound)


def _is_partial(function: Any) -> TypeGuard[functools.partial[Any]]:
    return isinstance(function, functools.partial)


def _body(function: Any, name: str) -> Any:
    """Return the plain function that will run."""
    if isinstance(function, type):
        raise ConfigurationError(f"{name}: a class is no processor; decorate a function")
    if not callable(function):
        raise ConfigurationError(f"{name}: {type(cast('object', function)).__name__} cannot be called")
    if isinstance(function, staticmethod):
        function = cast("Any", function).__func__
    if isinstance(function, types.MethodType):
        function = function.__func__
    body = function if inspect.isroutine(function) else type(function).__call__
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise ConfigurationError(f"{name}: a generator is no processor; return the result instead")
    return body


def _hint(name: str, parameter: inspect.Parameter, function: Any) -> Any:
    """Return the resolved annotation; Any without one."""
    if parameter.annotation is parameter.empty:
        return Any
    local_names: dict[str, Any] = {p.__name__: p for p in getattr(function, "__type_params__", ())}
    carrier = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        try:
            hints = typing.get_type_hints(carrier, _globals(function), local_names, include_extras=True)
        except NameError as error:
            # `if TYPE_CHECKING: from toril import Job` is how linters want it.
            if error.name not in ("Job", "SyncJob"):
                raise
            from . import job, sync

            local_names |= {"Job": job.Job, "SyncJob": sync.SyncJob}
            hints = typing.get_type_hints(carrier, _globals(function), local_names, include_extras=True)
    except Exception as error:
        raise ConfigurationError(
            f"{name}: the annotation of `{parameter.name}` cannot be resolved: {error}. "
            "It has to name something that exists, at module level, when the program runs"
        ) from None
    return hints[parameter.name]


def _globals(function: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", getattr(function, "__globals__", {}))


def _job_kind(hint: Any) -> str | None:
    """Return "Job" or "SyncJob" where an annotation is one of them, also `Job[R]`, `Job | None`, Annotated."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _job_kind(typing.get_args(hint)[0])
    if origin is typing.Union or origin is types.UnionType:
        return next(filter(None, map(_job_kind, typing.get_args(hint))), None)
    kind = origin or hint
    # By name: `job.py` leads here by way of `queue.py`.
    for base in kind.__mro__ if isinstance(kind, type) else ():
        if (base.__module__, base.__name__) in {("toril.job", "Job"), ("toril.sync_job", "SyncJob")}:
            return base.__name__
    return None


def _blocking(job: Job[Any]) -> SyncJob[Any]:
    from .sync import SyncJob

    return SyncJob(job)


def _refuse_kind(name: str, parameter: inspect.Parameter) -> None:
    refusals = {
        parameter.VAR_POSITIONAL: f"`*{parameter.name}` has no name to stand under in the data",
        parameter.VAR_KEYWORD: f"`**{parameter.name}` cannot be checked; name the arguments",
        parameter.POSITIONAL_ONLY: f"`{parameter.name}` is positional-only; jobs pass arguments by name",
    }
    if parameter.kind in refusals:
        raise ConfigurationError(f"{name}: {refusals[parameter.kind]}")


def _refuse_trap(name: str, parameter: inspect.Parameter, *, is_first: bool) -> None:
    """Refuse parameters that would quietly become data, against what everybody means by them."""
    if parameter.annotation is not parameter.empty:
        return
    if parameter.name == "job":
        raise ConfigurationError(f"{name}: `job` has no annotation; write `job: Job` to receive the job")
    if is_first and parameter.name in ("self", "cls"):
        raise ConfigurationError(
            f"{name}: `{parameter.name}` would be part of the data; decorate a function or a bound method"
        )
