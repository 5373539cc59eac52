"""Errors keep their facts, survive processes, and are drawn as they are."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import timedelta

import pytest

from toril import errors
from toril.errors import (
    ConnectionLostError,
    DelayedError,
    JobFailedError,
    JobNotFoundError,
    JobNotInStateError,
    LockLostError,
    RateLimitError,
    TorilError,
    TransitionError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
    refusal,
)

STEERING = {UnrecoverableError, DelayedError, WaitingError, WaitingChildrenError, RateLimitError}
CLASSES = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


def test_the_drawing_shows_the_tree() -> None:
    """The module's docstring draws every class under its parent, and none that does not exist."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^    ([│ ]*(?:[├└]── )?)([A-Z]\w+Error)\b", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "TorilError"
    assert set(drawn) == {kind.__name__ for kind in CLASSES}
    for kind in CLASSES:
        if kind not in STEERING and kind is not TorilError:
            assert drawn[kind.__name__] == kind.__base__.__name__


def test_every_error_of_toril_can_be_caught_at_the_root() -> None:
    """Apart from what processors raise to steer, everything is a TorilError."""
    for kind in CLASSES:
        assert issubclass(kind, TorilError) or kind in STEERING


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (-1, JobNotFoundError),
        (-2, LockLostError),
        (-3, JobNotInStateError),
        (-6, LockLostError),
        (-999, TransitionError),
    ],
)
def test_a_refusal_names_the_job(code: int, kind: type[TransitionError]) -> None:
    """A script's negative answer becomes an error with the job's id in it; unknown ones too."""
    error = refusal(code, "42")
    assert type(error) is kind
    assert error.job_id == "42"
    assert str(error).startswith("job '42': ")


@pytest.mark.parametrize(
    "error",
    [
        LockLostError("42"),
        JobNotFoundError("42", "not found in queue 'bull:emails'"),
        refusal(-999, "42"),
        JobFailedError("42", "no such pharmacy"),
        DelayedError(timedelta(minutes=1)),
        UnrecoverableError("gone"),
        WaitingError(),
        WaitingChildrenError(),
        RateLimitError(30),
        ConnectionLostError("redis://localhost: no answer"),
    ],
)
def test_errors_survive_pickling_and_copying(error: Exception) -> None:
    """An error that crosses a process boundary says the same and has the same facts."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
