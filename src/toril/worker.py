"""A worker: fetches a queue's jobs, runs them, reports their ends, and always comes back.

The work is in `_loops`; this is their setting: options, start, end, and who is told what.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from ._failures import log_failure
from ._listeners import Listeners, WorkerEvent
from ._loops.by_hand import fetch_by_hand
from ._loops.claims import Claim, Settings
from ._loops.fetching import Fetching
from ._loops.heartbeat import Beat, Heartbeat
from ._loops.patience import supervise
from ._loops.progress import Progress
from ._loops.ready import get_ready
from ._loops.running import Process, Running
from ._loops.signals import heard, is_urgent
from ._loops.stalled import look_for_stalled
from ._repeating import RepeatStrategy
from ._sandbox.pool import check_process, check_sandboxes
from ._tracing import Tracing, traced
from ._worker_options import count_of, keep_of, limiter_of, lock_times, positive, whole, worker_name
from .backoff import BackoffStrategy, Duration, milliseconds
from .connection import Connection
from .errors import (
    ConfigurationError,
    FailedChildrenError,
    PendingChildrenError,
    TorilError,
    UnrecoverableError,
)
from .health import WorkerHealth
from .job import Job
from .job_scheduler import mend_job_schedulers
from .options import KeepJobs
from .queue import Queue
from .scripts import FinishedJob
from .telemetry import Attribute, Instrumentation

__all__ = ["Worker", "WorkerEvent"]

# After the grace, so long for handing jobs back.
_LAST_WORDS: Final = 5.0
# So long `async with` waits to hear whether the server takes the worker; one that is away may say nothing for longer.
_FIRST_TRY: Final = 5.0

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("toril.worker")


class Worker:
    """Runs the jobs of one queue.

    Args:
        queue: A `Queue`, whose processors run its jobs, or a name.
        process: One function for all jobs, called with the `Job`: `async def`, or a plain `def`, which runs in a
            thread. As text, `package.module:function`, it runs sandboxed, and a plain `def` is called with a `SyncJob`.
        connection: As for `Queue`, where `queue` is a name.
        prefix: Likewise.
        concurrency: How many jobs run at once.
        name: Shown in dashboards; without spaces.
        lock_duration: How long a claim on a job lasts if it is not renewed. A crashed worker's jobs are taken back
            after about this time.
        lock_renew_time: How often claims are renewed; without it, after a quarter of `lock_duration`.
        stalled_interval: How often jobs of silent workers are looked for.
        max_stalled_count: How often a job may be taken back before it fails.
        drain_delay: How long a worker of an empty queue waits before it looks for itself.
        grace: How long running jobs may take to end when the worker stops; then they are handed back, uncounted.
        limiter: (jobs, duration): at most so many starts in this time, over all workers of the queue.
        maximum_rate_limit_delay: The longest sleep under a rate limit; delayed jobs are promoted in between.
        max_started_attempts: How often a job may be started, whatever became of the starts.
        backoff_strategy: For jobs with a `Custom` backoff: (attempts made, type, error, job) -> duration, or `STOP`.
        remove_on_complete: For jobs whose options say nothing; as in `JobOptions`.
        remove_on_fail: Likewise.
        max_jobs_per_child: After how many jobs the process of sandboxed processors is exchanged for a new one, for
            code that leaks memory; None keeps it.
        metrics_points: For how many minutes `Queue.get_metrics` can look back; 0 counts nothing.
        skip_stalled_check: Leave the looking for silent workers' jobs to others.
        skip_lock_renewal: Let claims run out after `lock_duration`.
        skip_version_check: Start although the server is older than toril supports.
        repeat_strategy: As for `Queue`, where `queue` is a name.
        telemetry: Spans and measurements of what this worker does; without it the queue's. An attempt belongs to the
            trace that its job was added in.

    Raises:
        ConfigurationError: An option cannot be; says which.
    """

    def __init__(
        self,
        queue: Queue | str,
        process: Process | str | None = None,
        *,
        connection: str | Connection | None = None,
        prefix: str | None = None,
        concurrency: int = 1,
        name: str | None = None,
        lock_duration: Duration = 30,
        lock_renew_time: Duration | None = None,
        stalled_interval: Duration = 30,
        max_stalled_count: int = 1,
        drain_delay: Duration = 5,
        grace: Duration = 30,
        limiter: tuple[int, Duration] | None = None,
        maximum_rate_limit_delay: Duration = 30,
        max_started_attempts: int | None = None,
        backoff_strategy: BackoffStrategy | None = None,
        remove_on_complete: bool | int | KeepJobs | None = None,
        remove_on_fail: bool | int | KeepJobs | None = None,
        max_jobs_per_child: int | None = None,
        metrics_points: int = 0,
        skip_stalled_check: bool = False,
        skip_lock_renewal: bool = False,
        skip_version_check: bool = False,
        repeat_strategy: RepeatStrategy | None = None,
        telemetry: Instrumentation | None = None,
    ) -> None:
        if isinstance(queue, Queue):
            if connection is not None or prefix is not None or repeat_strategy is not None:
                raise ConfigurationError(
                    f"worker of queue {queue.name!r}: the queue has a connection, a prefix and a repeat_strategy "
                    "of its own"
                )
            self.queue: Queue = queue
            self._owns_queue = False
        else:
            self.queue = Queue(
                queue,
                connection=connection,
                prefix=prefix or "bull",
                repeat_strategy=repeat_strategy,
                telemetry=telemetry,
            )
            self._owns_queue = True
        where = f"worker of queue {self.queue.name!r}"
        if process is None and self._owns_queue:
            raise ConfigurationError(f"{where}: by name it needs a function: Worker({queue!r}, process)")
        check_process(process, where)
        lock_ms, renew_every = lock_times(lock_duration, lock_renew_time, where)
        self._settings = Settings(
            concurrency=whole(concurrency, where, "concurrency", 1),
            name=worker_name(name, where),
            lock_ms=lock_ms,
            renew_every=renew_every,
            stalled_ms=positive(stalled_interval, where, "stalled_interval"),
            max_stalled=whole(max_stalled_count, where, "max_stalled_count", 0),
            is_sandboxed=isinstance(process, str),
            drain_delay=positive(drain_delay, where, "drain_delay") / 1000,
            grace=milliseconds(grace, f"{where}: grace") / 1000,
            max_limit_wait=positive(maximum_rate_limit_delay, where, "maximum_rate_limit_delay") / 1000,
            limiter=limiter_of(limiter, where),
            max_started_attempts=count_of(max_started_attempts, where, "max_started_attempts"),
            keep_completed=keep_of(remove_on_complete, "remove_on_complete"),
            keep_failed=keep_of(remove_on_fail, "remove_on_fail"),
            max_jobs_per_child=count_of(max_jobs_per_child, where, "max_jobs_per_child"),
            metrics_points=whole(metrics_points, where, "metrics_points", 0),
            backoff_strategy=backoff_strategy,
            skip_stalled_check=skip_stalled_check,
            skip_lock_renewal=skip_lock_renewal,
        )
        self.telemetry: Instrumentation | None = telemetry or self.queue.telemetry
        self._tracing = Tracing.of_worker(self.telemetry, self.queue.name, self._settings.name)
        self._skips_version_check = skip_version_check
        self._process = process
        self._listeners = Listeners(self.queue.name)
        self._progress = Progress(self.queue, self._settings)
        self._stop: asyncio.Event | None = None
        self._is_hurried = False
        self._is_handing_back = False
        self._main: asyncio.Task[None] | None = None
        self._fetching: Fetching | None = None
        self._running: Running | None = None
        self._is_paused = False
        self._is_over: asyncio.Event | None = None
        self._has_tried = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Worker of {self.queue.qualified_name!r}, concurrency {self._settings.concurrency}>"

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""
        return self._settings.name or None

    @property
    def concurrency(self) -> int:
        """How many jobs run at once. It can be set while the worker runs; running jobs go on."""
        return self._settings.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        where = f"worker of queue {self.queue.name!r}"
        self._settings.concurrency = whole(concurrency, where, "concurrency", 1)
        if self._fetching is not None:
            self._fetching.concurrency_changed()

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self._stop is not None

    @property
    def is_paused(self) -> bool:
        """Whether this worker fetches nothing, by `pause`; the queue may be paused too, see `Queue.is_paused`."""
        return self._is_paused

    def health(self) -> WorkerHealth:
        """Say how it is getting on: not whether its process is there, but whether what it has to do gets done.

        It may be asked from any thread, also while the event loop is blocked; it asks nobody itself.
        """
        return self._progress.health(self._stop)

    @overload
    def on(self, event: WorkerEvent, listener: F) -> F: ...
    @overload
    def on(self, event: WorkerEvent) -> Callable[[F], F]: ...
    def on(self, event: WorkerEvent, listener: Callable[..., Any] | None = None) -> Any:
        """Call a function when something happens in this worker: `worker.on("completed", f)`, or as a decorator.

        It may be `async def`. What it raises is logged and hurts nobody. Arguments by event: active(job),
        progress(job, value), completed(job, return_value), retried(job, error, delay_ms), failed(job, reason),
        stalled(job_id), lock_lost(job), lock_renewal_failed(job_ids), locks_renewed(job_ids), error(exception);
        the others have none.

        Raises:
            ConfigurationError: There is no such event.
        """
        return self._listeners.on(event) if listener is None else self._listeners.on(event, listener)

    async def run(self, *, handle_signals: bool = True) -> None:
        """Work until `stop`, or SIGTERM, SIGINT or SIGHUP; a second signal ends the grace, and SIGQUIT leaves none.

        Args:
            handle_signals: Listen for the signals, where this is the main thread.

        Raises:
            AuthenticationError: The server refuses the password or a right that the worker needs.
            ConfigurationError: It runs already, or a sandboxed processor cannot be imported.
        """
        if self._stop is not None:
            raise ConfigurationError(f"worker of queue {self.queue.name!r} is running already")
        stop = self._stop = asyncio.Event()
        over = self._is_over = asyncio.Event()
        self._is_hurried = self._is_handing_back = False
        with heard(self._received) if handle_signals else contextlib.nullcontext():
            try:
                await self._live(stop)
            finally:
                self._stop = None
                try:
                    if self._owns_queue:
                        await self.queue.close()
                finally:
                    self._is_over = None
                    over.set()

    def stop(self, *, now: bool = False) -> None:
        """Begin to stop: fetch no more, let running jobs end within the grace, hand the others back.

        Args:
            now: Without any grace. Also after a first `stop`.
        """
        self._is_hurried = self._is_hurried or now
        if self._stop is not None:
            self._stop.set()
            if self._is_hurried:
                self._hurry()

    async def close(self, *, force: bool = False) -> None:
        """Stop, and wait until the worker has ended; as `stop`, from outside the task that runs it.

        Args:
            force: Without any grace: running jobs are handed back at once.
        """
        with traced(self._tracing, "close", {Attribute.WORKER_FORCE_CLOSE: force}):
            self.stop(now=force)
            if self._is_over is not None:
                await self._is_over.wait()

    async def get_next_job(
        self, *, token: str | None = None, block: Duration | None = None
    ) -> Job[Any] | None:
        """Fetch one job by hand, without `run`. End it with its own moves: `job.move_to_completed(...)` and so on.

        Nobody renews its lock meanwhile: `job.extend_lock` does.

        Args:
            token: The proof of the claim; without it a new one.
            block: How long to wait for a job if there is none; None does not wait.

        Returns:
            The job, or None where there is none: nothing waits, the queue is paused, maxed or limited, or this worker
            is paused.
        """
        if self._is_paused:
            return None
        return await fetch_by_hand(self.queue, self._settings, token, block, self._tracing)

    def cancel_job(self, job_id: str, reason: str | None = None) -> bool:
        """Take a job away from its processor here. False where this worker does not run it.

        The attempt fails, unless an `async def` catches the `CancelledError` and returns: that is its result.

        An `async def` is cancelled where it awaits; a plain `def` runs on in its thread, unheard; the process of a
        sandboxed one is killed.

        Args:
            job_id: Which.
            reason: Becomes part of the job's failed reason, and the message of the `CancelledError`.
        """
        claim = self._fetching.claims.get(job_id) if self._fetching is not None else None
        if claim is None or claim.is_ending:
            return False
        claim.is_cancelled = True
        claim.cancel_reason = reason or ""
        claim.cancel()
        return True

    def cancel_all_jobs(self, reason: str | None = None) -> int:
        """Take all jobs away from their processors here; return how many. As `cancel_job`."""
        held = list(self._fetching.claims) if self._fetching is not None else []
        return sum(self.cancel_job(job_id, reason) for job_id in held)

    async def pause(self, *, do_not_wait_active: bool = False) -> None:
        """Fetch no more until `resume`, and wait until the running jobs have ended, or somebody resumes it meanwhile.

        Other workers are not concerned.

        Args:
            do_not_wait_active: Do not wait for them. A processor that pauses its own worker would wait for itself.
        """
        with traced(self._tracing, "pause", {Attribute.WORKER_DO_NOT_WAIT_ACTIVE: do_not_wait_active}):
            self._is_paused = True
            if (fetching := self._fetching) is not None:
                fetching.pause()
            self._listeners.tell("paused")
            if fetching is not None and not do_not_wait_active:
                await fetching.until_idle(None, lambda: not self._is_paused or self._fetching is not fetching)

    async def resume(self) -> None:
        """Fetch again."""
        with traced(self._tracing, "resume"):
            self._is_paused = False
            if self._fetching is not None:
                self._fetching.resume()
            self._listeners.tell("resumed")

    async def rate_limit(self, duration: Duration) -> None:
        """Let no job of the queue start for so long; as `Queue.rate_limit`."""
        await self.queue.rate_limit(duration)

    async def check_stalled_jobs(self) -> list[str]:
        """Take back jobs whose workers have fallen silent, and mend job schedulers; return the ids taken back.

        A worker that runs does it by itself; who fetches by hand calls it every `stalled_interval`. Of all calls in
        that time, over all workers, one does the work.
        """
        with traced(self._tracing, "moveStalledJobsToWait", is_root=True) as step:
            taken_back = await self.queue.scripts.move_stalled_jobs_to_wait(
                self.queue.clock.now_ms(), self._settings.max_stalled, self._settings.stalled_ms
            )
            step.set({Attribute.WORKER_STALLED_JOBS: taken_back})
        for job_id in taken_back:
            logger.warning("job %s in %r: stalled, taken back", job_id, self.queue.name)
            self._listeners.tell("stalled", job_id)
        await mend_job_schedulers(self.queue)
        return taken_back

    async def __aenter__(self) -> Self:
        """Start, and wait until the worker is ready; a server that is merely away is waited for inside the block.

        Raises:
            AuthenticationError, ConfigurationError: As `run`.
        """
        self._has_tried = asyncio.Event()
        main = asyncio.get_running_loop().create_task(self.run(handle_signals=False))
        trying = asyncio.ensure_future(self._has_tried.wait())
        try:
            await asyncio.wait({main, trying}, timeout=_FIRST_TRY, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            main.cancel()
            await asyncio.wait({main})
            raise
        finally:
            trying.cancel()
        if main.done():
            await main
        self._main = main
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        main, self._main = self._main, None
        self.stop(now=kind is not None)
        if main is not None:
            await main

    # From start to end

    async def _live(self, stop: asyncio.Event) -> None:
        queue, settings = self.queue, self._settings
        check_sandboxes(queue, self._process)
        fetching = Fetching(
            queue,
            settings,
            self._start,
            self._settled,
            lambda: self._listeners.tell("drained"),
            self._lock_lost,
        )
        running = Running(
            queue,
            settings,
            self._process,
            fetching.ended,
            fetching.dropped,
            fetching.limit_for,
            self._listeners.tell,
            self._tracing,
        )
        self._fetching, self._running = fetching, running
        if self._is_paused:
            fetching.pause()
        tell = self._listeners.tell
        await get_ready(
            queue.connection,
            queue.name,
            stop,
            self._has_tried,
            tell,
            skip_version_check=self._skips_version_check,
        )
        if self._tracing is not None:
            self._tracing.record_clock_offset(queue.connection.clock.offset_ms)
        self._progress.begin(fetching)
        stop_renewing = Heartbeat.enrol(
            queue.connection,
            Beat(
                queue.keys,
                settings,
                fetching.claims,
                self._renewal_failed,
                lambda ids: tell("locks_renewed", ids),
                self._progress.watch,
                self._tracing,
            ),
        )
        try:
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(supervise(queue.name, name, loop, self._listeners.tell))
                    for name, loop in fetching.loops()
                ]
                stalled = group.create_task(
                    supervise(queue.name, "stalled check", self._look_for_stalled, self._listeners.tell)
                )
                if not stop.is_set():
                    ready = "worker of queue %r at %s: ready, concurrency %d"
                    logger.info(ready, queue.name, queue.connection.safe_url, settings.concurrency)
                    self._listeners.tell("ready")
                try:
                    await stop.wait()
                    self._listeners.tell("closing")
                    stalled.cancel()
                    await self._wind_down(fetching)
                except asyncio.CancelledError:
                    # No time for any grace, but no processor may run on without a lock, and what has ended is to be
                    # written. That takes the lanes, which are there yet unless all tasks are cancelled.
                    self._is_hurried = True
                    stalled.cancel()

                    def is_over() -> bool:
                        tasks = [*loops, *(claim.task for claim in fetching.claims.values())]
                        return all(task is None or task.done() for task in tasks)

                    await self._wind_down(fetching, is_over)
                    raise
        finally:
            for claim in list(fetching.claims.values()):
                # What still tries to write an end would do so for ever.
                claim.cancel()
                if claim.trace is not None:
                    claim.trace.end()
            stop_renewing()
            self._progress.end()
            running.close()
            await running.sandboxes.close()
            self._fetching = self._running = None
            logger.info("worker of queue %r: stopped", queue.name)
            self._listeners.tell("closed")
            await self._listeners.heard_out(_LAST_WORDS)

    async def _wind_down(self, fetching: Fetching, is_over: Callable[[], bool] = lambda: False) -> None:
        await fetching.stop()
        if not self._is_hurried:
            await fetching.until_idle(self._settings.grace, lambda: self._is_hurried)
        self._hurry()
        await fetching.until_idle(_LAST_WORDS, is_over)
        if fetching.claims:
            logger.warning(
                "queue %r: could not hand back %s; another worker takes over when the lock has run out",
                self.queue.name,
                ", ".join(f"job {claim.job.id} ({claim.job.name})" for claim in fetching.claims.values()),
            )
        fetching.finish()

    def _hurry(self) -> None:
        if self._fetching is None:
            return
        self._is_handing_back = True
        for claim in list(self._fetching.claims.values()):
            if not claim.is_ending and not claim.is_given_back:
                claim.is_given_back = True
                claim.cancel()

    async def _look_for_stalled(self) -> None:
        if not self._settings.skip_stalled_check:
            connection, last_check = self.queue.connection, self.queue.keys.key("stalled-check")
            await look_for_stalled(
                self.queue.name,
                self._settings,
                lambda: connection.execute("EXISTS", last_check),
                self.check_stalled_jobs,
            )

    # What the loops report

    def _start(self, claim: Claim) -> None:
        assert self._running is not None
        # A fetch that was on its way when the worker stopped.
        claim.is_given_back |= self._is_handing_back
        self._running.start(claim)

    def _settled(self, claim: Claim, end: FinishedJob, refused: TorilError | None) -> None:
        job = claim.job
        if claim.trace is not None:
            claim.trace.settled(end.target, refused)
        if refused is None:
            if end.target == "completed":
                if logger.isEnabledFor(logging.INFO):
                    logger.info("job %s (%s) in %r: completed", job.id, job.name, self.queue.name)
                if "completed" in self._listeners:
                    self._listeners.tell("completed", job, job.return_value)
            else:
                log_failure(job, job.stacktrace)
                self._listeners.tell("failed", job, end.value)
        elif isinstance(refused, (PendingChildrenError, FailedChildrenError)):
            # A refused completion is a failed attempt, and children that have failed will not get better.
            cause = UnrecoverableError(str(refused)) if isinstance(refused, FailedChildrenError) else refused
            assert self._running is not None
            claim.task = asyncio.get_running_loop().create_task(self._running.fail(claim, cause))
        else:
            logger.warning("%s; what its processor did may be done again by another worker", refused)
            self._listeners.tell("lock_lost", job)

    def _renewal_failed(self, claims: list[Claim]) -> None:
        held = {} if self._fetching is None else self._fetching.claims
        # What has been moved while the heartbeat asked has no lock any more, and is no loss.
        claims = [claim for claim in claims if held.get(claim.job.id) is claim]
        if claims:
            self._listeners.tell("lock_renewal_failed", [claim.job.id for claim in claims])
            self._lock_lost(claims)

    def _lock_lost(self, claims: list[Claim]) -> None:
        if self._fetching is None:
            # The heartbeat's last word came after the end.
            return
        for claim in claims:
            if claim.is_ending or self._fetching.claims.get(claim.job.id) is not claim:
                continue
            logger.warning(
                "job %s (%s) in %r: lock lost; its processor is cancelled, and nothing that it still writes counts",
                claim.job.id,
                claim.job.name,
                self.queue.name,
            )
            claim.is_lost = True
            claim.cancel()
            self._listeners.tell("lock_lost", claim.job)

    def _received(self, number: signal.Signals) -> None:
        is_first = self._stop is not None and not self._stop.is_set()
        is_hurried = not is_first or is_urgent(number)
        how = "stopping at once" if is_hurried else "stopping"
        logger.info("worker of queue %r: %s, %s", self.queue.name, number.name, how)
        self.stop(now=is_hurried)
