"""How long a job waits between attempts, by BullMQ's rules."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.backoff import Custom, Exponential, Fixed, milliseconds, wait_ms
from toril.errors import ConfigurationError

HUNDRED_YEARS_MS = 100 * 366 * 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0),
        (1, 1000),
        (0.5, 500),
        (0.0004, 0),
        (1e-3, 1),
        (timedelta(minutes=1), 60_000),
        (timedelta(microseconds=1500), 2),
    ],
)
def test_a_duration_is_a_timedelta_or_seconds(duration: Any, expected: int) -> None:
    """Inside, it is whole milliseconds."""
    assert milliseconds(duration, "delay") == expected


@pytest.mark.parametrize(
    "duration",
    [-1, timedelta(seconds=-1), math.nan, math.inf, 1e300, 10**400, timedelta.max, "5", None, True, [1]],
)
def test_what_is_no_duration(duration: Any) -> None:
    """Negative, endless, beyond a hundred years, or of another type: the error names the option."""
    with pytest.raises(ConfigurationError, match=r"^keep\.age must be "):
        milliseconds(duration, "keep.age")


@pytest.mark.parametrize(
    ("backoff", "stored"),
    [
        (Fixed(2), {"type": "fixed", "delay": 2000}),
        (Fixed(timedelta(seconds=2), jitter=0.5), {"type": "fixed", "delay": 2000, "jitter": 0.5}),
        (Exponential(0.5), {"type": "exponential", "delay": 500}),
        (Exponential(1, jitter=1), {"type": "exponential", "delay": 1000, "jitter": 1}),
        (Custom("weekly"), {"type": "weekly", "delay": 0}),
        (Custom("weekly", delay=1, jitter=0.25), {"type": "weekly", "delay": 1000, "jitter": 0.25}),
    ],
)
def test_stored_forms_are_bullmqs(backoff: Fixed | Exponential | Custom, stored: dict[str, Any]) -> None:
    """A Node worker reads type, milliseconds and jitter."""
    assert backoff.stored() == stored


@pytest.mark.parametrize("jitter", [-0.1, 1.1, math.nan, True, "0.5", None])
def test_jitter_is_a_part(jitter: Any) -> None:
    """It is a number from 0 to 1."""
    for backoff in (Fixed(1, jitter), Exponential(1, jitter), Custom("x", 1, jitter)):
        with pytest.raises(ConfigurationError, match="jitter must be"):
            backoff.stored()


@pytest.mark.parametrize("kind", ["", "fixed", "exponential", 5, None])
def test_a_custom_strategy_has_a_name_of_its_own(kind: Any) -> None:
    """The names of the built-in ones would hide it."""
    with pytest.raises(ConfigurationError, match="Custom backoff"):
        Custom(kind).stored()


def test_strategies_are_values() -> None:
    """Equal ones are equal, and nobody changes them."""
    assert Exponential(1) == Exponential(1)
    assert hash(Fixed(2)) == hash(Fixed(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fixed(1).delay = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("backoff", "attempts_made", "expected"),
    [
        (None, 1, 0),
        (1500, 3, 1500),
        (0, 1, 0),
        ({"type": "fixed", "delay": 200}, 7, 200),
        ({"type": "exponential", "delay": 200}, 1, 200),
        ({"type": "exponential", "delay": 200}, 2, 400),
        ({"type": "exponential", "delay": 200}, 5, 3200),
        ({"type": "exponential", "delay": 1000}, 500, HUNDRED_YEARS_MS),
        ({"type": "exponential"}, 3, 0),
        ({"type": "fixed", "delay": -5}, 1, 0),
        ({"type": "weekly", "delay": 5}, 1, None),
        ({}, 1, None),
        ({"type": "fixed", "delay": "soon"}, 1, 0),
        (10**400, 1, HUNDRED_YEARS_MS),
        ({"type": "fixed", "delay": 10**400}, 1, HUNDRED_YEARS_MS),
        (math.nan, 1, 0),
    ],
)
def test_waits(backoff: object, attempts_made: int, expected: int | None) -> None:
    """Fixed stays, exponential doubles, a bare number is itself, and other names are the worker's to know."""
    assert wait_ms(backoff, attempts_made) == expected


@given(
    st.sampled_from(["fixed", "exponential"]),
    st.integers(0, 10**9),
    st.floats(0, 1),
    st.integers(1, 60),
    st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_shortens(
    kind: str, delay: int, jitter: float, attempts_made: int, chance: float
) -> None:
    """With jitter a wait is between its unjittered length and that part of it that is not left to chance."""
    full = wait_ms({"type": kind, "delay": delay}, attempts_made)
    assert full is not None
    wait = wait_ms({"type": kind, "delay": delay, "jitter": jitter}, attempts_made, lambda: chance)
    assert wait is not None
    assert full * (1 - jitter) - 1 <= wait
    if full < HUNDRED_YEARS_MS:
        assert wait <= full


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists),
    st.integers(1, 10**6),
)
def test_foreign_options_never_break_a_worker(value: Any, attempts_made: int) -> None:
    """Whatever stands in the options, the answer is a wait that can be stored, or None."""
    for backoff in (value, {"type": value}, {"type": "exponential", "delay": value, "jitter": value}):
        wait = wait_ms(backoff, attempts_made)
        assert wait is None or 0 <= wait <= HUNDRED_YEARS_MS
