"""How long a failed job waits before its next attempt.

Strategies are stored with the job under BullMQ's names, so that a Node worker waits as long as a
Python one. `wait_ms` is what a worker computes from the stored form.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from ._shown import shown
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .job import Job

__all__ = [
    "STOP",
    "Backoff",
    "BackoffStrategy",
    "Custom",
    "Duration",
    "Exponential",
    "Fixed",
    "milliseconds",
    "wait_ms",
]

Duration = timedelta | float | int
"""A `timedelta`, or a number of seconds."""

STOP: Final = "stop"
"""What a backoff strategy returns when the job shall not be tried again; as in BullMQ, -1 says the same."""

BackoffStrategy = Callable[
    [int, str, BaseException, "Job[Any]"],
    "Duration | Literal['stop'] | Awaitable[Duration | Literal['stop']]",
]
"""A worker's own strategy: (attempts made including this one, type, error, job) -> how long to wait."""

# Beyond a hundred years a wait is a mistake, and its score would no longer be exact.
_LONGEST_MS: Final = 100 * 366 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Fixed:
    """Wait equally long after each failure.

    Args:
        delay: The wait.
        jitter: The part of it that is left to chance, 0 to 1: with 0.5 the wait is 50 % to 100 % of `delay`.
    """

    delay: Duration
    jitter: float = 0

    def stored(self) -> dict[str, Any]:
        """Return the form that stands in the job's options."""
        return _stored("fixed", milliseconds(self.delay, "backoff delay"), self.jitter)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Double the wait after each failure.

    Args:
        base: Wait before the second attempt.
        jitter: The part of each wait that is left to chance, 0 to 1.
    """

    base: Duration
    jitter: float = 0

    def stored(self) -> dict[str, Any]:
        """Return the form that stands in the job's options."""
        return _stored("exponential", milliseconds(self.base, "backoff base"), self.jitter)


@dataclass(frozen=True, slots=True)
class Custom:
    """Let the worker's `backoff_strategy` decide.

    Args:
        type: A name that is handed to the strategy; not `fixed` or `exponential`.
        delay: A number for the strategy's use.
        jitter: Likewise.
    """

    type: str
    delay: Duration = 0
    jitter: float = 0

    def stored(self) -> dict[str, Any]:
        """Return the form that stands in the job's options."""
        if not isinstance(self.type, str) or self.type in ("", "fixed", "exponential"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"Custom backoff needs a name of its own, got {shown(self.type)}")
        return _stored(self.type, milliseconds(self.delay, "backoff delay"), self.jitter)


Backoff = Fixed | Exponential | Custom


def milliseconds(duration: Duration, what: str) -> int:
    """Return a duration in whole milliseconds.

    Raises:
        ConfigurationError: It is not a duration, is negative or not finite, or is beyond a hundred years.
    """
    if isinstance(duration, timedelta):
        value = duration.total_seconds() * 1000
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        # An integer beyond the range of floats is beyond ours.
        value = duration * 1000 if abs(duration) <= _LONGEST_MS else math.inf
    else:
        hint = "; of a moment, what is left until then" if isinstance(duration, datetime) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"{what} must be a timedelta or a number of seconds, got {type(duration).__name__}{hint}"
        )
    if not math.isfinite(value) or not 0 <= value <= _LONGEST_MS:
        raise ConfigurationError(f"{what} must be between 0 and a hundred years, in seconds")
    return round(value)


def wait_ms(backoff: object, attempts_made: int, chance: Callable[[], float] = random.random) -> int | None:
    """Return the wait after `attempts_made` failures (1 after the first), as stored options define it.

    Args:
        backoff: What stands in the options: an object, a bare number of milliseconds, or None.
        attempts_made: Including the failed one.
        chance: Uniform in [0, 1).

    Returns:
        Milliseconds, or None where only the worker's own strategy can say.
    """
    if backoff is None:
        return 0
    if isinstance(backoff, (int, float)):
        return _bounded(_number(backoff))
    if not isinstance(backoff, Mapping):
        return 0
    fields: Mapping[str, Any] = backoff  # pyright: ignore[reportUnknownVariableType]
    delay, jitter = _number(fields.get("delay")), min(_number(fields.get("jitter")), 1.0)
    match fields.get("type"):
        case "fixed":
            wait = delay
        case "exponential":
            # JavaScript rounds half up; past 2^62 the bound rules.
            wait = math.floor(2 ** min(attempts_made - 1, 62) * delay + 0.5)
        case _:
            return None
    if jitter > 0:
        wait = math.floor(wait * (1 - jitter) + chance() * wait * jitter)
    return _bounded(wait)


def _bounded(wait: float) -> int:
    return int(min(max(wait, 0), _LONGEST_MS))


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or value != value:
        return 0.0
    # A hundred years of microseconds; what is beyond only has to stay beyond.
    return float(min(max(value, -(10**16)), 10**16))


def _stored(kind: str, delay_ms: int, jitter: float) -> dict[str, Any]:
    if isinstance(jitter, bool) or not isinstance(jitter, (int, float)) or not 0 <= jitter <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"backoff jitter must be between 0 and 1, got {shown(jitter)}")
    stored: dict[str, Any] = {"type": kind, "delay": delay_ms}
    if jitter:
        stored["jitter"] = jitter
    return stored
