"""Making a call again that the server may not have heard, or whose answer was lost.

Which calls may be made twice is said in `docs/decisions/lost-answers.md`. How that is done is the same for all: the
waits, the log lines, and what counts as a call that may have been heard. Who insists differs in when it is done:

    who                       tries again                                          gives up
    an add, or an upsert      after a try that may have been heard: of any other   after 8 s: `ConnectionLostError`
                              the error says that nothing was added                says that nothing is known
    a write of a processor    after a lost connection                              after 8 s, with the last error
    a move of a worker        after all that may pass, a password that is being    when the job is its no longer
                              changed among it: nobody else would make the move

A worker's fetching makes a new call of what a lost one leaves open, so it is apart; see `_loops/fetching.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ._loops.patience import Patience
from .errors import (
    AuthenticationError,
    ConnectionLostError,
    DurabilityError,
    ServerRefusedError,
    ServerUnreachableError,
    TorilError,
)

__all__ = [
    "PERSISTENCE",
    "Again",
    "add_surely",
    "for_ever",
    "insist",
    "may_have_been_heard",
    "while_it_is_lost",
]

PERSISTENCE: Final = 8.0
"""Seconds, for who is waited for; a worker consumes again within 5 s of the server's return."""

_adding = logging.getLogger("toril.connection")

T = TypeVar("T")

Again = Callable[[TorilError, bool], bool]
"""Whether an error is a reason to try again: (it, whether an earlier try has failed)."""


def may_have_been_heard(error: TorilError) -> bool:
    """Whether the server may have done what was asked for although there is no answer."""
    return isinstance(error, ConnectionLostError) and not isinstance(error, ServerUnreachableError)


def while_it_is_lost(error: TorilError, has_failed: bool) -> bool:
    """After a lost connection; a server that has just come back may also refuse for a while, as when it loads."""
    return isinstance(error, ConnectionLostError) or (has_failed and isinstance(error, ServerRefusedError))


def for_ever(error: TorilError, has_failed: bool) -> bool:
    """After all that can pass by itself."""
    return isinstance(error, ConnectionLostError | ServerRefusedError | AuthenticationError)


async def insist(
    call: Callable[[bool], Awaitable[T]],
    what: str,
    again: Again,
    *,
    seconds: float = float("inf"),
    first: Exception | None = None,
    log: logging.Logger | None = None,
) -> T:
    """Make a call until it is known what came of it.

    Args:
        call: Makes it; is told whether an earlier try may have been heard.
        what: What it does, with the name of its queue or job, for the log.
        again: See `Again`.
        seconds: For how long, from the first failure on.
        first: What came of a first try that was made elsewhere.
        log: Where faults are logged, if not in the worker's log.

    Raises:
        TorilError: The first that is no reason to try again, or the last.
    """
    patience = Patience(what, log)
    until, is_heard = 0.0, False
    while True:
        try:
            if first is not None:
                error, first = first, None
                raise error
            answer = await call(is_heard)
        except TorilError as error:
            until = until or time.monotonic() + seconds
            is_heard = is_heard or may_have_been_heard(error)
            if not again(error, patience.failures > 0) or time.monotonic() > until:
                raise
            await asyncio.sleep(patience.failed(error))
        else:
            patience.worked()
            return answer


async def add_surely(
    add: Callable[[bool], Awaitable[T]],
    what: str,
    *,
    first: Exception | None = None,
    remedy: str = "with a job_id it is safe to add them again",
) -> T:
    """Add something that a second try adds no second time, until it is known whether it is there.

    Args:
        add: Adds it; is told whether an earlier try may have been heard.
        what: The queue, for messages.
        first: What came of a first try.
        remedy: What the caller may do where nothing is known.

    Raises:
        ConnectionLostError: Nothing is known.
        TorilError: Nothing was added; or a `DurabilityError`, and it was.
    """
    is_repeat = False

    async def call(may_be_there: bool) -> T:
        nonlocal is_repeat
        is_repeat = may_be_there
        return await add(may_be_there)

    try:
        return await insist(call, f"{what}: adding", _if_heard, seconds=PERSISTENCE, first=first, log=_adding)
    except DurabilityError:
        raise
    except TorilError as error:
        if not (is_repeat or may_have_been_heard(error)):
            raise
        # Of the last try alone it may be true that nothing was added.
        raise ConnectionLostError(
            f"{what}: {error}; jobs may or may not have been added; {remedy}"
        ) from error


def _if_heard(error: TorilError, has_failed: bool) -> bool:
    return may_have_been_heard(error) or (has_failed and while_it_is_lost(error, has_failed))
