"""How jobs get to the server: batches that form by themselves, and calls that are safe to repeat.

What is added while a call is on its way shares the next one. When nothing is on its way, a batch is one
job, and its price is one round trip; under load batches grow. Nothing is held back to make a batch.

Each call leaves a receipt behind, in the same script that adds the jobs: a small key, overwritten by the
next call of the same slot. When an answer is lost, the call is sent again, and the receipt says whether
the first try was heard. So a job whose id the server makes is added once, whatever happens to a connection.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, NamedTuple

from ._answers import nonsense
from ._insisting import add_surely
from ._wire import pack
from .connection import SCRIPT_TIMEOUT, Connection, Lane
from .errors import ConnectionLostError, ScriptForgottenError
from .scripts import NewRecord, Receipt, Scripts

__all__ = ["Adder", "how_many"]


class _Size(NamedTuple):
    """The most that one call adds."""

    jobs: int
    characters: int


# A longer list is cut, so that no call holds up the server.
_LARGE: Final = _Size(500, 1_000_000)
# What leaves at once, so that the server works while others still add. A larger call is hardly cheaper by the job.
_ENOUGH: Final = _Size(64, 125_000)

# Two calls in flight keep the server busy while Python prepares the next one; more only make batches smaller.
_CALLS_IN_FLIGHT: Final = 2
# Unless they are large enough: then what Python does for one call, and the server for another, overlaps.
_FULL_CALLS_IN_FLIGHT: Final = 16

_Answer = str | int


class _Call(NamedTuple):
    """A call of a list. Its outcome is the answer, why there is none, or None where nothing was sent."""

    records: Sequence[NewRecord]
    receipt: Receipt
    outcome: asyncio.Future[list[Any] | Exception | None]


_Batch = list[tuple[NewRecord, "asyncio.Future[_Answer]"]]


class Adder:
    """Adds jobs to one queue, from one event loop.

    Args:
        name: The queue's, for messages.
        scripts: The queue's.
        connection: Where it lives.
    """

    def __init__(self, name: str, scripts: Scripts, connection: Connection) -> None:
        self._name = name
        self._scripts = scripts
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._id = uuid.uuid4().hex
        self._free_slots: list[str] = []
        self._slots = 0
        self._calls = 0
        self._waiting: _Batch = []
        self._in_flight = 0
        self._is_starting = False
        self._is_sequential = True
        # Whether the server has the script, as far as we know. Until then nothing goes behind a call: what the server
        # has forgotten is sent again, and would come after it.
        self._is_known = False
        self._lane: Lane | None = None
        self._give_back: Callable[[], None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, record: NewRecord) -> asyncio.Future[_Answer]:
        """Hand in a job; the future has its id, or a refusal. Cancelling it does not call the job back."""
        future: asyncio.Future[_Answer] = self._loop.create_future()
        self._waiting.append((record, future))
        if len(self._waiting) >= _ENOUGH.jobs or (self._is_sequential and not self._in_flight):
            # Whoever adds one job after another gains nothing from a turn of the loop, nor do so many at once.
            self._start()
        elif not self._is_starting and self._may_start():
            # One turn later, so that everybody who is adding right now comes along.
            self._is_starting = True
            self._loop.call_soon(self._start_scheduled)
        return future

    async def add_all(
        self, records: Sequence[NewRecord]
    ) -> AsyncGenerator[tuple[Sequence[NewRecord], list[_Answer]]]:
        """Add a list, in as many calls as it needs; yield the records of each with their ids or refusals.

        Raises:
            TorilError: As `Queue.add`.
        """
        taken = self._connection.take_idle(self._loop)
        calls: deque[_Call] = deque()
        # What fits into one call is added by one: either all of it is there or nothing.
        is_long = len(records) > _LARGE.jobs or how_many(records, 0) < len(records)
        is_full = is_long and how_many(records, 0, _ENOUGH) == _ENOUGH.jobs
        start, size = 0, _ENOUGH if is_full else _LARGE
        try:
            while start < len(records) or calls:
                while start < len(records) and len(calls) < self._most(is_full):
                    some = records[start : start + how_many(records, start, size)]
                    start += len(some)
                    is_full = size is _ENOUGH and len(some) == size.jobs
                    calls.append(self._call(some, taken[0] if taken else None))
                call = calls.popleft()
                yield call.records, await self._answers_of(call)
        finally:
            if taken:
                taken[1]()

    def _call(self, records: Sequence[NewRecord], lane: Lane | None) -> _Call:
        call = _Call(records, self._receipt(), self._loop.create_future())
        if lane is None or not lane.is_open:
            call.outcome.set_result(None)
        else:

            def answered(outcome: list[Any] | Exception) -> None:
                if not call.outcome.done():
                    call.outcome.set_result(outcome)

            command = self._scripts.add_job_command(records, call.receipt)
            lane.send(pack(command), 1, answered, SCRIPT_TIMEOUT)
        return call

    async def _answers_of(self, call: _Call) -> list[_Answer]:
        try:
            outcome = await call.outcome
            if isinstance(outcome, list):
                self._is_known = True
                return self._checked(outcome[0], len(call.records))
            self._is_known = False
            return await self._insist(call.records, call.receipt, outcome)
        finally:
            self._free_slots.append(call.receipt.slot)

    async def drain(self) -> None:
        """Wait until everything that was handed in has been answered."""
        while self._in_flight or self._waiting:
            self._drained = self._loop.create_future()
            await self._drained

    def _may_start(self) -> bool:
        # Only calls behind each other on one connection reach the server in their order.
        most = 1 if self._lane is None else self._most(is_full=len(self._waiting) >= _ENOUGH.jobs)
        return self._in_flight < most

    def _most(self, is_full: bool) -> int:
        """Return how many calls may be in flight on one connection."""
        if not self._is_known:
            return 1
        return _FULL_CALLS_IN_FLIGHT if is_full else _CALLS_IN_FLIGHT

    def _start_scheduled(self) -> None:
        self._is_starting = False
        self._start()

    def _start(self) -> bool:
        """Send off a call if it may start; return whether it did."""
        if not self._waiting or not self._may_start():
            return False
        batch, self._waiting = self._waiting, []
        if len(batch) > 1:
            size = _LARGE if self._in_flight < _CALLS_IN_FLIGHT else _ENOUGH
            most = how_many([record for record, _ in batch[: size.jobs]], 0, size)
            if size is _ENOUGH and most < _ENOUGH.jobs:
                # Large jobs keep the server busy as it is.
                self._waiting = batch
                return False
            batch, self._waiting = batch[:most], batch[most:]
        self._is_sequential = len(batch) == 1
        receipt = self._receipt()
        records = [record for record, _ in batch]
        if self._lane is None and (taken := self._connection.take_idle(self._loop)):
            self._lane, self._give_back = taken
        self._in_flight += 1
        if self._lane is None:
            self._go_on(batch, records, receipt, None)
            return True

        def answered(outcome: list[Any] | Exception) -> None:
            if isinstance(outcome, Exception):
                self._is_known = False
                self._release_lane()
                self._go_on(batch, records, receipt, outcome)
            else:
                self._is_known = True
                try:
                    answers = self._checked(outcome[0], len(batch))
                except ConnectionLostError as error:
                    self._end(batch, receipt, error)
                else:
                    self._end(batch, receipt, answers)

        command = self._scripts.add_job_command(records, receipt)
        self._lane.send(pack(command), 1, answered, SCRIPT_TIMEOUT)
        return True

    def _release_lane(self) -> None:
        give_back, self._give_back, self._lane = self._give_back, None, None
        if give_back is not None:
            give_back()

    def _go_on(
        self, batch: _Batch, records: list[NewRecord], receipt: Receipt, error: Exception | None
    ) -> None:
        """Do by a task what cannot be done at once: open a connection, or try again."""
        task = self._loop.create_task(self._try(batch, records, receipt, error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(
        self, batch: _Batch, records: list[NewRecord], receipt: Receipt, error: Exception | None
    ) -> None:
        try:
            answers = await self._insist(records, receipt, error)
        except Exception as failed:
            self._end(batch, receipt, failed)
        except BaseException:
            self._end(batch, receipt, asyncio.CancelledError())
            raise
        else:
            self._end(batch, receipt, answers)

    async def _insist(
        self, records: Sequence[NewRecord], receipt: Receipt, error: Exception | None = None
    ) -> list[_Answer]:
        """Send a call until it is known what became of it.

        Args:
            error: What became of a first try.
        """
        answers = await add_surely(
            lambda is_repeat: self._scripts.add_job(records, receipt._replace(is_repeat=is_repeat)),
            f"queue {self._name!r}",
            first=None if isinstance(error, ScriptForgottenError) else error,
        )
        return self._checked(answers, len(records))

    def _checked(self, answers: list[_Answer] | None, count: int) -> list[_Answer]:
        # By what is declared it is a list; by what comes over a wire it may be anything.
        if isinstance(answers, list) and len(answers) == count:
            return answers
        raise nonsense(f"queue {self._name!r}: adding", f"to {count} jobs a {type(answers).__name__}")

    def _end(self, batch: _Batch, receipt: Receipt, outcome: list[_Answer] | BaseException) -> None:
        self._free_slots.append(receipt.slot)
        self._in_flight -= 1
        if isinstance(outcome, BaseException):
            for _, future in batch:
                if not future.done():
                    future.set_exception(outcome)
                    # The caller may be gone; its error is not news then.
                    future.exception()
        else:
            for (_, future), answer in zip(batch, outcome, strict=True):
                if not future.done():
                    future.set_result(answer)
        while self._start():
            pass
        if not self._in_flight:
            self._release_lane()
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)

    def _receipt(self) -> Receipt:
        self._calls += 1
        if not self._free_slots:
            self._slots += 1
            self._free_slots.append(f"{self._id}:{self._slots}")
        return Receipt(self._free_slots.pop(), self._calls)


def how_many(records: Sequence[NewRecord], start: int, size: _Size = _LARGE) -> int:
    """Return how many records from `start` on go into one call: at least one, and no more than it can carry."""
    characters = 0
    for count, record in enumerate(records[start : start + size.jobs]):
        characters += len(record.data)
        if characters > size.characters and count:
            return count
    return min(len(records) - start, size.jobs)
