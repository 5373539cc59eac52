"""Running one job: call its processor, and decide what its end is.

The decision follows `protocol.md` 6.6. Completed and failed jobs are reported by the lanes; a retry or
a delay is a script of its own, run here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, cast

from .._insisting import for_ever, insist
from .._sandbox import pool
from .._sandbox.pool import Sandboxes
from .._signature import dump_result
from .._tracing import Tracing
from .._under_lock import under_lock
from ..backoff import STOP, milliseconds, wait_ms
from ..codec import dumps
from ..errors import (
    ConfigurationError,
    DelayedError,
    FailedChildrenError,
    JobNotFoundError,
    JobNotInStateError,
    LockLostError,
    RateLimitError,
    SerializationError,
    TransitionError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from ..job import Job
from ..job_scheduler import LegacyRepeatError, plan_next_run
from ..limits import check_size
from ..options import StoredOptions
from ..processor import Processor
from ..queue import Queue
from ..scripts import FinishedJob
from . import threads
from .claims import Claim, Settings
from .reasons import kept_traces, kind_and_text, reason_of, trace_of
from .threads import Threads
from .unknown import PutOff, UnknownNames

__all__ = ["Process", "Running"]

Process = Callable[[Job[Any]], Any]
"""One function for all jobs of a queue."""

# How long a scheduler's job waits for a worker that can tell when the next one is due.
_UNPLANNED_WAIT: Final = 30
_OWN_FILES: Final = (__file__, threads.__file__, pool.__file__)
_OURS_NO_MORE: Final = (LockLostError, JobNotFoundError, JobNotInStateError)

logger = logging.getLogger("toril.worker")


class Running:
    """Runs a worker's jobs.

    Args:
        queue: Whose jobs.
        settings: The worker's.
        process: One function for all names, or `module:function`, which runs in a process of its own; without it the
            queue's processors.
        ended: Takes the end of a job that has completed or failed for good.
        dropped: Is told that a job is ours no longer.
        limited: Is told for how many ms a processor has met a rate limit.
        tell: Calls the worker's listeners: (event, *arguments).
        tracing: The worker's, if it has any.

    Attributes:
        sandboxes: Where sandboxed processors run; without one, nothing.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        process: Process | str | None,
        ended: Callable[[Claim, FinishedJob], None],
        dropped: Callable[[Claim], None],
        limited: Callable[[int], None],
        tell: Callable[..., None],
        tracing: Tracing | None = None,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self.sandboxes = Sandboxes(queue, settings)
        if isinstance(process, str):
            process = functools.partial(self.sandboxes.run, process)
        self._process = process
        self._is_async = process is not None and _is_async(process)
        self._ended = ended
        self._dropped = dropped
        self._limited = limited
        self._tell = tell
        self._tracing = tracing
        self._unknown = UnknownNames(queue)
        self._threads = Threads(f"toril-{queue.name}")
        # Asking for it costs a system call before Python 3.12, which is too much for each job.
        self._loop = asyncio.get_running_loop()

    def start(self, claim: Claim) -> None:
        """Begin to run a job."""
        claim.job.on_progress(self._progressed)
        work = self._run(claim)
        if self._tracing is not None:
            claim.trace = self._tracing.process(claim.job)
            if claim.trace is not None:
                work = claim.trace.run(work)
        claim.task = self._loop.create_task(work)

    def _progressed(self, job: Job[Any], value: Any) -> None:
        # A plain function reports from its thread; listeners are called on the worker's event loop.
        self._loop.call_soon_threadsafe(self._tell, "progress", job, value)

    def close(self) -> None:
        """Let go of the threads. The sandboxes are closed by themselves, which takes a moment."""
        self._threads.close()

    async def fail(self, claim: Claim, error: BaseException) -> None:
        """Let an attempt fail: the job is tried again, or has failed for good.

        Raises nothing: what cannot be written is tried until it can, or until the job is ours no longer.
        """
        job = claim.job
        # Also while a backoff strategy thinks: who takes the job away then would leave it without an end.
        claim.is_ending = True
        reason = reason_of(error)
        options = _options(job)
        stacktrace = kept_traces(job.stacktrace, trace_of(error, _OWN_FILES), options.stack_trace_limit)
        delay_ms = await self._delay_before_retry(job, options, error)
        if claim.trace is not None:
            claim.trace.failed(error, reason)
        if delay_ms is None:
            made = job.attempts_made + 1
            keep = options.keep_failed or self._settings.keep_failed
            end = FinishedJob(job.id, claim.token, "failed", reason, stacktrace, options.attempts, keep)
            job.note(atm=made, failedReason=reason, stacktrace=stacktrace)
            if claim.trace is not None:
                claim.trace.begin("fail")
            self._ended(claim, end)
            return
        if delay_ms > 0:
            moved = await self._insist(
                claim,
                lambda: self._queue.scripts.move_to_delayed(
                    self._queue.clock.now_ms(),
                    job.id,
                    claim.token,
                    delay_ms,
                    counts=True,
                    failed_reason=reason,
                    stacktrace=stacktrace,
                ),
                ("delay", "delayed"),
            )
        else:
            moved = await self._insist(
                claim,
                lambda: self._queue.scripts.retry_job(
                    self._queue.clock.now_ms(), job.id, claim.token, reason, stacktrace, lifo=options.lifo
                ),
                ("retry", "retried"),
            )
        if moved:
            job.note(atm=job.attempts_made + 1, failedReason=reason, stacktrace=stacktrace)
            logger.info(
                "job %s (%s) in %r: attempt %d failed (%s), next in %.3g s",
                job.id,
                job.name,
                self._queue.name,
                job.attempts_made,
                type(error).__name__,
                delay_ms / 1000,
            )
            self._tell("retried", job, error, delay_ms)
        self._dropped(claim)

    async def _run(self, claim: Claim) -> None:
        job = claim.job
        claim.is_begun = True
        try:
            try:
                # `is_taken_away`, spelt out for what runs for each job.
                if claim.is_lost or claim.is_given_back or claim.is_cancelled:
                    raise asyncio.CancelledError
                claim.is_started = True
                if logger.isEnabledFor(logging.INFO):
                    logger.info("job %s (%s) in %r: active", job.id, job.name, self._queue.name)
                self._tell("active", job)
                if job.scheduler_id is not None:
                    await self._plan_next_run(claim)
                value = await self._call(job)
                result = self._result(job, value)
            except asyncio.CancelledError:
                await self._cancelled(claim)
            except DelayedError as error:
                await self._delay(claim, error)
            except WaitingError:
                await self._give_back(claim)
            except WaitingChildrenError:
                await self._wait_for_children(claim)
            except RateLimitError as error:
                await self._limit(claim, error)
            except GeneratorExit:
                # The event loop is gone; nothing can be awaited any more.
                self._dropped(claim)
                raise
            except BaseException as error:
                if claim.is_taken_away:
                    # Whatever the processor made of its cancellation, it was cancelled.
                    await self._cancelled(claim)
                elif isinstance(error, Exception):
                    await self.fail(claim, error)
                else:
                    # SystemExit and its like would end the worker, and leave the job to the stalled check.
                    await self.fail(claim, RuntimeError(f"the processor raised {kind_and_text(error)}"))
            else:
                self._complete(claim, result)
        except asyncio.CancelledError:
            # Cancelled once more while its end was being written: what is written is written.
            self._dropped(claim)
        except Exception:
            logger.exception(
                "job %s (%s) in %r: its end could not be written; it is taken back when its lock runs out",
                job.id,
                job.name,
                self._queue.name,
            )
            self._dropped(claim)

    def _result(self, job: Job[Any], value: Any) -> str:
        if value is None:
            return "null"
        what = f"job {job.id!r}: return value"
        processor = None if self._process is not None else self._queue.processors.get(job.name)
        result = dumps(value, what) if processor is None else dump_result(value, what, processor.function)
        check_size(result, self._queue.limits.return_value, what, "Limits.return_value")
        return result

    def _complete(self, claim: Claim, result: str) -> None:
        if claim.is_lost:
            self._dropped(claim)
            return
        job = claim.job
        keep = job.options.keep_completed or self._settings.keep_completed
        job.note(atm=job.attempts_made + 1, returnvalue=result)
        if claim.trace is not None:
            claim.trace.completed()
            claim.trace.begin("complete")
        self._ended(claim, FinishedJob(job.id, claim.token, "completed", result, keep=keep))

    async def _plan_next_run(self, claim: Claim) -> None:
        """Add the run that follows a scheduler's job before that runs, through faults of the connection."""
        try:
            await self._insist(
                claim, lambda: plan_next_run(self._queue, claim.job, self._tracing), is_end=False
            )
        except ConfigurationError as error:
            # Another worker may know the pattern or the zone; a run without a next one would end the scheduler.
            logger.error("queue %r: job scheduler %r: %s", self._queue.name, claim.job.scheduler_id, error)
            self._tell("error", error)
            if isinstance(error, LegacyRepeatError):
                return  # as in Node: what is there already still runs
            raise DelayedError(_UNPLANNED_WAIT) from error
        if claim.is_lost:
            raise asyncio.CancelledError

    async def _call(self, job: Job[Any]) -> Any:
        try:
            _ = job.options
            check_size(
                job.data_json, self._queue.limits.stored_data, f"job {job.id!r}: data", "Limits.stored_data"
            )
        except SerializationError as error:
            raise UnrecoverableError(str(error)) from error
        if job.deferred_failure is not None:
            raise UnrecoverableError(job.deferred_failure)
        processor = self._queue.processors.get(job.name)
        if self._process is None and processor is None:
            raise self._unknown.put_off(job)
        most = self._settings.max_started_attempts
        if most is not None and job.attempts_started > most:
            raise UnrecoverableError("job started more than allowable limit")
        if self._process is not None:
            if self._is_async:
                return await self._process(job)
            return await self._in_thread(self._process, job)
        assert processor is not None
        return await self._call_typed(processor, job)

    async def _call_typed(self, processor: Processor[..., Any], job: Job[Any]) -> Any:
        if processor.target is not None:
            return await self.sandboxes.run(processor.target, job, timeout=processor.timeout, is_typed=True)
        try:
            arguments = processor.arguments(job)
        except SerializationError as error:
            # The same data will fit no better next time.
            raise UnrecoverableError(str(error)) from error
        if not processor.is_async:
            return await self._in_thread(processor.function, **arguments)
        if processor.timeout is None:
            return await processor.function(**arguments)
        limit = asyncio.timeout(processor.timeout)
        try:
            async with limit:
                value = await processor.function(**arguments)
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"timed out after {processor.timeout:g} s") from error
            raise
        if limit.expired():
            logger.warning(
                "job %s (%s) in %r: its processor caught its cancellation after %g s and went on, so the timeout was "
                "none; let asyncio.CancelledError pass, or run it with sandboxed=True",
                job.id,
                job.name,
                self._queue.name,
                processor.timeout,
            )
        return value

    async def _in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = await self._threads.run(function, *args, **kwargs)
        # A plain function may still hand out a coroutine, as a lambda or a partial does.
        return await value if inspect.isawaitable(value) else value

    async def _cancelled(self, claim: Claim) -> None:
        task = asyncio.current_task()
        if claim.is_taken_away:
            while task is not None and task.cancelling():
                task.uncancel()
            await _let_it_arrive()
        if claim.is_lost:
            self._dropped(claim)
        elif claim.is_cancelled:
            await self.fail(claim, RuntimeError(_cancellation(claim.cancel_reason)))
        elif claim.is_given_back:
            scripts = self._queue.scripts
            if await self._insist(
                claim,
                lambda: scripts.move_to_wait(claim.job.id, claim.token, was_started=claim.is_started),
            ):
                logger.info("job %s (%s) in %r: handed back", claim.job.id, claim.job.name, self._queue.name)
            self._dropped(claim)
        elif task is not None and task.cancelling():
            # Somebody cancels the loop's tasks, as asyncio.run does at its end: leave the job to the stalled check.
            self._dropped(claim)
            raise asyncio.CancelledError
        else:
            await self.fail(claim, RuntimeError("the processor was cancelled"))

    async def _delay(self, claim: Claim, error: DelayedError) -> None:
        job = claim.job
        now_ms = self._queue.clock.now_ms()
        try:
            delay_ms = _until_ms(error.until, now_ms)
        except Exception as bad:
            await self.fail(claim, bad)
            return
        await self._insist(
            claim,
            lambda: self._queue.scripts.move_to_delayed(
                now_ms,
                job.id,
                claim.token,
                delay_ms,
                counts=False,
                was_started=not isinstance(error, PutOff),
            ),
            ("delay", "delayed"),
        )
        self._dropped(claim)

    async def _give_back(self, claim: Claim) -> None:
        await self._insist(
            claim,
            lambda: self._queue.scripts.move_to_wait(claim.job.id, claim.token),
            ("moveToWait", "waiting"),
        )
        self._dropped(claim)

    async def _wait_for_children(self, claim: Claim) -> None:
        """Let the job wait; where all children have ended, it goes on at once."""
        waits = True

        async def move() -> None:
            nonlocal waits
            waits = await claim.job.move_to_waiting_children()

        try:
            moved = await self._insist(claim, move)
        except FailedChildrenError as error:
            await self.fail(claim, UnrecoverableError(str(error)))
            return
        if waits:
            if claim.trace is not None and moved:
                claim.trace.moved("waiting-children")
            self._dropped(claim)
        else:
            await self._give_back(claim)

    async def _limit(self, claim: Claim, error: RateLimitError) -> None:
        """Give the job back, and fetch nothing while the limit lasts."""
        left_ms = 0

        async def move() -> None:
            nonlocal left_ms
            if error.for_ is not None:
                await self._queue.rate_limit(error.for_)
            left_ms = await self._queue.scripts.move_to_wait(claim.job.id, claim.token)

        try:
            await self._insist(claim, move, ("moveToWait", "waiting"))
        except ConfigurationError as bad:
            await self.fail(claim, bad)
            return
        self._limited(left_ms)
        self._dropped(claim)

    async def _delay_before_retry(
        self, job: Job[Any], options: StoredOptions, error: BaseException
    ) -> int | None:
        """How long until the next attempt; None where there is none."""
        made = job.attempts_made + 1
        most = self._settings.max_started_attempts
        if (
            made >= options.attempts
            or isinstance(error, UnrecoverableError)
            or (most is not None and job.attempts_started >= most)
        ):
            return None
        stored = options.backoff
        known = wait_ms(stored, made)
        if known is not None:
            return known
        fields = cast("dict[str, Any]", stored)
        kind = str(fields.get("type"))
        strategy = self._settings.backoff_strategy
        if strategy is None:
            logger.error(
                "job %s (%s) in %r: backoff %r is known to no strategy, so it is tried again at once; "
                "Worker(backoff_strategy=...) sets one",
                job.id,
                job.name,
                self._queue.name,
                kind,
            )
            return 0
        try:
            wait = strategy(made, kind, error, job)
            if inspect.isawaitable(wait):
                wait = await wait
            return None if wait in (STOP, -1) else milliseconds(cast(Any, wait), "backoff")
        except Exception:
            logger.exception(
                "job %s (%s) in %r: the backoff strategy raised", job.id, job.name, self._queue.name
            )
            return 0

    async def _insist(
        self,
        claim: Claim,
        move: Callable[[], Awaitable[object]],
        traced_as: tuple[str, str] | None = None,
        *,
        is_end: bool = True,
    ) -> bool:
        """Make a move, through faults of the connection; return False where the job is ours no longer.

        While a move is made that takes the job away from us, nobody else takes it away from its task, and a
        lock that is gone is no loss.

        Args:
            claim: The job.
            move: Makes the move.
            traced_as: The name of its span, and the state that it leads to.
            is_end: It takes the job away from us.
        """
        if is_end and claim.is_taken_away:
            await _let_it_arrive()
        claim.is_ending = is_end
        if claim.trace is not None and traced_as:
            claim.trace.begin(traced_as[0])
        try:
            moved = await self._try_until_it_works(claim, move)
            if claim.trace is not None and traced_as and moved:
                claim.trace.moved(traced_as[1])
            return moved
        finally:
            claim.is_ending = False

    async def _try_until_it_works(self, claim: Claim, move: Callable[[], Awaitable[object]]) -> bool:
        async def once(may_have_been_heard: bool) -> bool:
            if claim.is_lost:
                return False
            try:
                await under_lock(claim.job, move)
            except _OURS_NO_MORE as error:
                if may_have_been_heard:
                    # The first try was heard, only its answer was lost.
                    return True
                logger.warning("%s", error)
                self._tell("lock_lost", claim.job)
                return False
            except FailedChildrenError:
                raise
            except TransitionError as error:
                logger.error("%s", error)
                return False
            return True

        return await insist(once, f"job {claim.job.id!r} in queue {self._queue.name!r}: moving it", for_ever)


async def _let_it_arrive() -> None:
    """Take in a cancellation that is on its way to this task, so that it does not break off the writing of its end.

    A processor that has its own job taken away ends before it hears of that.
    """
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def _is_async(process: Process) -> bool:
    call = getattr(process, "__call__", None)  # noqa: B004 - for objects with an async __call__
    return inspect.iscoroutinefunction(process) or inspect.iscoroutinefunction(call)


def _options(job: Job[Any]) -> StoredOptions:
    """The job's options; where they cannot be read, as if it had none, so that it can be failed."""
    try:
        return job.options
    except SerializationError:
        return StoredOptions.parse("{}")


def _until_ms(until: datetime | timedelta | float, now_ms: int) -> int:
    if isinstance(until, datetime):
        return max(0, round(until.timestamp() * 1000) - now_ms)
    return milliseconds(until, "DelayedError")


def _cancellation(reason: str) -> str:
    return f"the job was cancelled: {reason}" if reason else "the job was cancelled"
