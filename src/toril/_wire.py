"""One open connection to the server, as lean as it can be: bytes out, answers in, in order.

redis-py makes the connection: it finds the address, speaks TLS, signs in. Then the socket is handed to
a `Wire`, which has no task, no stream and no timer of its own per call: an answer is given to whoever
waits for it the moment its last byte is here. That is worth half of the price of a single call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ._vigil import Vigil

__all__ = ["Done", "Wire", "pack"]

Done = Callable[["list[Any] | Exception"], None]
"""Takes the answers of a call, in which errors of single commands stand as exceptions; or why there are none."""

_pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command
_MISSING: Final = object()


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command and its arguments (text, bytes, numbers) as the server reads them."""
    try:
        return _pack(args)
    except UnicodeEncodeError:
        # Half of a surrogate pair, e.g. in the message of an error. One spoilt text must not stop its batch.
        return _pack(tuple(arg.encode("utf-8", "replace") if isinstance(arg, str) else arg for arg in args))


class Wire(asyncio.Protocol):
    """Takes over a transport whose connection has been made. Calls that are sent behind each other keep their order.

    Args:
        transport: Between two calls; nothing that was asked for is on its way.
        loop: Its event loop.
    """

    __slots__ = (
        "_answers",
        "_calls",
        "_is_awake",
        "_loop",
        "_reader",
        "_sent",
        "_timer",
        "_transport",
        "_vigil",
        "is_open",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_open: bool = not transport.is_closing()
        self._transport = transport
        self._loop = loop
        # What is no UTF-8 is replaced, as Node reads it. One spoilt value would make every fetch fail.
        self._reader = hiredis.Reader(
            protocolError=RedisConnectionError,
            replyError=BaseParser.parse_error,  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            encoding="utf-8",
            errors="replace",
            notEnoughData=_MISSING,
        )
        # (how many answers it wants, who takes them, deadline), the first to be answered at the left.
        self._calls: deque[tuple[int, Done, float]] = deque()
        # Those of the first call that are here.
        self._answers: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None
        # About a call that is alone: when it left, by the finest clock, and how its answer is waited for.
        self._vigil = Vigil.of(loop)
        self._sent = 0.0
        self._is_awake = False
        transport.set_protocol(self)

    def send(self, data: bytes, wanted: int, timeout: float, done: Done) -> None:
        """Send packed commands; `done` is called once, from the event loop, and never before this returns.

        Args:
            data: The commands, packed.
            wanted: How many answers they have.
            timeout: After so many seconds the connection is given up.
            done: Takes what comes of it.
        """
        if not self.is_open:
            # Lost since the caller looked, or before it was taken over. Nobody would ever answer.
            self._loop.call_soon(done, RedisConnectionError("the server has closed the connection"))
            return
        deadline = self._loop.time() + timeout
        is_alone = not self._calls
        self._calls.append((wanted, done, deadline))
        timer = self._timer
        # The timer is kept from call to call, and moved on when it rings too early.
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._ring)
        if is_alone:
            # Before the system call: on a busy machine the server may have answered by its end.
            self._sent = time.perf_counter()
            self._is_awake = self._vigil.is_worth_it()
        self._transport.write(data)
        if is_alone and self._is_awake:
            self._vigil.begin()

    def abort(self, why: Exception | None = None) -> None:
        """Close at once. Calls that are in flight are answered with the reason."""
        self.is_open = False
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, deque()
        for _, done, _ in calls:
            done(why or RedisConnectionError("the connection was closed on this side"))

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Read as many answers as there are."""
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _MISSING:
                if not self._calls:
                    raise RedisConnectionError("the server said something that nobody had asked for")
                self._answers.append(answer)
                if len(self._answers) == self._calls[0][0]:
                    _, done, _ = self._calls.popleft()
                    if self._sent:
                        self._note_answer()
                    answers, self._answers = self._answers, []
                    done(answers)
        except Exception as error:
            # What follows a broken frame cannot be told apart any more.
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.abort(RedisConnectionError(str(exc) if exc else "the server has closed the connection"))

    def _note_answer(self) -> None:
        self._vigil.note(time.perf_counter() - self._sent, self._is_awake)
        self._sent = 0.0
        if self._is_awake:
            self._vigil.end()

    def _ring(self) -> None:
        self._timer = None
        if not self._calls:
            return
        first = min(deadline for _, _, deadline in self._calls)
        if self._loop.time() >= first:
            self.abort(RedisTimeoutError("no answer"))
        else:
            self._timer = self._loop.call_at(first, self._ring)
