"""Checks of a worker's options: from what users write to what the loops count in."""

from __future__ import annotations

from ._shown import shown
from .backoff import Duration, milliseconds
from .errors import ConfigurationError
from .options import KeepJobs, KeepRule, keep_rule, stored_keep

__all__ = [
    "count_of",
    "keep_of",
    "limiter_of",
    "lock_times",
    "positive",
    "whole",
    "worker_name",
]


def positive(duration: Duration, where: str, option: str) -> int:
    """Return a duration that is longer than nothing, in milliseconds.

    Raises:
        ConfigurationError: It cannot be; says whose and which option.
    """
    value = milliseconds(duration, f"{where}: {option}")
    if value <= 0:
        raise ConfigurationError(f"{where}: {option} must be positive")
    return value


def whole(value: int, where: str, option: str, least: int) -> int:
    """Return a whole number that is not less than the least.

    Raises:
        ConfigurationError: It cannot be; says whose and which option.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"{where}: {option} must be a whole number, at least {least}; got {shown(value)}"
        )
    return value


def count_of(value: int | None, where: str, option: str) -> int | None:
    """Return how often at most, at least once, or None for no limit; raises as `whole`."""
    return None if value is None else whole(value, where, option, 1)


def lock_times(lock_duration: Duration, lock_renew_time: Duration | None, where: str) -> tuple[int, float]:
    """Return how long a claim lasts, in milliseconds, and how often it is renewed, in seconds.

    Raises:
        ConfigurationError: They cannot be; says whose and which option.
    """
    lock_ms = positive(lock_duration, where, "lock_duration")
    renew_ms = lock_ms / 4 if lock_renew_time is None else positive(lock_renew_time, where, "lock_renew_time")
    if renew_ms >= lock_ms:
        raise ConfigurationError(f"{where}: lock_renew_time must be shorter than lock_duration")
    return lock_ms, renew_ms / 1000


def worker_name(name: str | None, where: str) -> str:
    """Return a name that a connection can have; empty for none.

    Raises:
        ConfigurationError: It cannot be; says whose and which option.
    """
    if name is None:
        return ""
    if not name or not name.isprintable() or any(character.isspace() for character in name):
        raise ConfigurationError(
            f"{where}: name {name!r} must be text without spaces, since it names a connection"
        )
    return name


def limiter_of(limiter: tuple[int, Duration] | None, where: str) -> tuple[int, int] | None:
    """Return a rate limit as (starts, window in ms).

    Raises:
        ConfigurationError: It cannot be; says whose and which option.
    """
    if limiter is None:
        return None
    if not isinstance(limiter, (tuple, list)) or len(limiter) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{where}: limiter must be (how many starts, in which duration), as (10, 1)")
    most, duration = limiter
    return whole(most, where, "limiter", 1), positive(duration, where, "limiter duration")


def keep_of(rule: bool | int | KeepJobs | None, option: str) -> KeepRule:
    """Return what to keep for jobs whose options say nothing.

    Raises:
        ConfigurationError: It cannot be; says whose and which option.
    """
    return (None if rule is None else keep_rule(stored_keep(option, rule))) or KeepRule()
