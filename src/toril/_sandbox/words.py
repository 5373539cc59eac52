"""What a worker and its children say to each other, and how a function is named between them.

A frame is its length in four bytes, the high one first, then a JSON object. To the child go `run`, a job, and `reply`,
the answer to a call; to the worker `begun`, `call`, a verb of the job, and at the end `done` or `raised`.

A child begins with `HELLO`: what stands before it, such as a banner of the site's own, Python wrote as it started.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec

from .. import errors
from ..errors import (
    ConfigurationError,
    DelayedError,
    RateLimitError,
    SandboxError,
    TorilError,
    TransitionError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)

__all__ = [
    "HEAD",
    "HELLO",
    "LONGEST_FRAME",
    "VERBS",
    "Frame",
    "check_target",
    "described",
    "frame_of",
    "raised",
    "rebuilt",
    "resolved",
    "steered",
    "target_of",
]

Frame = dict[str, Any]

HELLO: Final = b"\0toril\0"
HEAD: Final = 4
LONGEST_FRAME: Final = 512 * 1024 * 1024

VERBS: Final = frozenset(
    {
        "change_priority",
        "clear_logs",
        "extend_lock",
        "get_children_values",
        "get_dependencies",
        "get_dependencies_count",
        "get_dependencies_page",
        "get_failed_children",
        "get_ignored_children_failures",
        "get_state",
        "log",
        "refresh",
        "remove_child_dependency",
        "remove_deduplication_key",
        "remove_unprocessed_children",
        "update_data",
        "update_progress",
    }
)
"""What a job can do from within a sandbox: the worker, which holds its lock, does it."""


def frame_of(frame: Mapping[str, Any]) -> bytes:
    """Return what stands in the pipe."""
    body = msgspec.json.encode(frame)
    return len(body).to_bytes(HEAD, "big") + body


# Functions by name


def target_of(function: Callable[..., Any], where: str) -> str:
    """Return `module:qualified.name`, under which another process finds this function.

    Raises:
        ConfigurationError: It has no such name; says why.
    """
    module = str(getattr(function, "__module__", "") or "")
    name = str(getattr(function, "__qualname__", "") or "")
    if not inspect.isfunction(function):
        what = f"a {type(cast('object', function)).__name__} has no name that a child could import"
    elif "<" in name:
        what = f"`{name}` is made while the program runs, so that no child could import it"
    elif module == "__main__":
        what = f"`{name}` is in the program's main module, which a child cannot import by name"
    else:
        return f"{module}:{name}"
    raise ConfigurationError(
        f"{where}: {what}; sandboxed=True needs a function at the top of a module that can be imported"
    )


def resolved(target: str) -> Any:
    """Return what stands under `module:qualified.name`.

    Raises:
        ConfigurationError: The text is not of this form, the module cannot be imported, or does not have the name.
    """
    module, _, names = target.partition(":")
    if not module or not names:
        raise ConfigurationError(f"{target!r} names no function; it has to read 'package.module:function'")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(f"{target!r}: module {module!r} cannot be imported: {error}") from error
    try:
        for name in names.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise ConfigurationError(f"{target!r}: {error}") from None
    if not callable(found):
        raise ConfigurationError(f"{target!r} is a {type(found).__name__}, not a function")
    return found


def check_target(target: str, function: Callable[..., Any], where: str) -> None:
    """Make sure that a child will find this very function.

    Raises:
        ConfigurationError: It would find nothing, or something else.
    """
    try:
        found = resolved(target)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: sandboxed, but a child could not import it: {error}") from None
    if getattr(found, "function", found) is not function:
        raise ConfigurationError(
            f"{where}: sandboxed, but {target!r} is something else than the function that was decorated; "
            "let the name stand for it alone, and @queue.processor be the outermost decorator"
        )


# Errors by name


def raised(error: BaseException, reason: str, trace: str) -> Frame:
    """Return what a processor has raised, as a frame; those that steer with their fields."""
    frame: Frame = {"raised": type(error).__name__, "reason": _utf8(reason), "trace": _utf8(trace)}
    for kind in (UnrecoverableError, DelayedError, WaitingError, WaitingChildrenError, RateLimitError):
        if isinstance(error, kind):
            frame["steers"] = kind.__name__
    if isinstance(error, DelayedError):
        until: Any = error.until
        if isinstance(until, datetime):
            frame["at"] = until.timestamp()
        else:
            frame["seconds"] = _seconds(until)
    elif isinstance(error, RateLimitError):
        frame["seconds"] = _seconds(error.for_)
    elif not isinstance(error, Exception):
        name = type(error).__name__
        # Without a text the reason is the name.
        text = "" if reason == name else f": {_utf8(reason)}"
        frame["reason"] = f"the processor raised {name}{text}"
    return frame


def steered(frame: Frame) -> Exception:
    """Return what the worker raises for it."""
    cause = SandboxError(str(frame["reason"]), str(frame["raised"]), str(frame["trace"]))
    error: Exception
    match frame.get("steers"):
        case "UnrecoverableError":
            error = UnrecoverableError(frame["reason"])
        case "DelayedError":
            at = frame.get("at")
            error = DelayedError(frame.get("seconds", 0) if at is None else datetime.fromtimestamp(at, UTC))
        case "WaitingError":
            error = WaitingError(frame["reason"])
        case "WaitingChildrenError":
            error = WaitingChildrenError(frame["reason"])
        case "RateLimitError":
            error = RateLimitError(frame.get("seconds"))
        case _:
            return cause
    error.__cause__ = cause
    return error


def described(error: Exception) -> Frame:
    """Return why a verb was refused, as part of a frame."""
    known: Frame = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, TransitionError):
        known |= {"job_id": error.job_id, "detail": error.detail, "queue": error.queue}
    return known


def rebuilt(known: Frame) -> Exception:
    """Return the error of a verb that was refused, as the verb itself would have raised it."""
    kind = getattr(errors, known["kind"], None)
    if isinstance(kind, type) and issubclass(kind, TransitionError):
        return kind(known["job_id"], known["detail"], known["queue"])
    if isinstance(kind, type) and issubclass(kind, TorilError) and kind.__init__ is Exception.__init__:
        return kind(known["message"])
    return RuntimeError(f"{known['kind']}: {known['message']}")


def _seconds(duration: Any) -> Any:
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    # The worker says what is wrong with anything else.
    return duration if duration is None or isinstance(duration, (int, float)) else repr(duration)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
