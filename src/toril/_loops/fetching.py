"""Fetching jobs and reporting their ends, in as few calls as possible.

A few lanes, each with a connection of its own, do the same thing: take every end that has piled up
and ask for as many jobs as there are free slots, in one call. When a fetch comes back short, the queue
is drained, and the waiter blocks on the queue's marker until there may be something again.

When nothing piles up, a call carries one job and costs one round trip. Under load calls fill up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from ..connection import SCRIPT_TIMEOUT, Lane
from ..errors import AuthenticationError, ConnectionLostError, ServerUnreachableError, TorilError, refusal
from ..job import Job
from ..keys import client_name
from ..queue import Queue
from ..scripts import Fetch, Fetched, FinishedJob, Scripts
from .claims import Claim, Settings
from .last_chances import LastChances
from .patience import Patience

__all__ = ["LONGEST_BLOCK", "Fetching", "started"]

# More calls in flight would only make each of them smaller.
_LANES: Final = 2
# A further lane is opened only where one has been wanted so often within a second. Thousands of queues that have a few
# jobs now and then would have twice the connections, for nothing.
_OFTEN: Final = 10
# So that a call of a worker with a huge concurrency does not hold up the server.
_MOST_PER_CALL: Final = 250
# With a known due time the block is short, so that a lost marker costs little.
LONGEST_BLOCK: Final = 10.0
_SHORTEST_BLOCK: Final = 0.002
# The answer about an end; see `scripts/includes/error_codes.lua`.
_LOCK_RAN_OUT: Final = -2
# The most that a worker's end waits for a server that is away. The wake-up is lost then, which costs its job a block.
_LAST_WORD: Final = 1.0

# A job, its end, and whether that may have been heard already.
_End = tuple[Claim, FinishedJob, bool]

logger = logging.getLogger("toril.worker")


def started(record: dict[str, str], worker: str, now_ms: int) -> dict[str, str]:
    """Return a record as it is after the start; the script answers with what it was before, to spare a reading."""
    starts = record.get("ats") or "0"
    record["ats"] = str(int(starts) + 1 if starts.isdecimal() else 1)
    record["processedOn"] = str(now_ms)
    if worker:
        record["pb"] = worker
    return record


def _most_per_call(settings: Settings) -> int:
    return min(math.ceil(settings.concurrency / _LANES), _MOST_PER_CALL)


class Fetching:
    """A worker's dealings with its queue.

    Args:
        queue: Whose jobs.
        settings: The worker's.
        start: Begins to run a claimed job.
        settled: Is told the fate of each end: None where the server took it, else why it did not.
        drained: Is told when the queue had nothing more.
        lost: Is told of claims that turn out to be lost.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        start: Callable[[Claim], None],
        settled: Callable[[Claim, FinishedJob, TorilError | None], None],
        drained: Callable[[], None],
        lost: Callable[[list[Claim]], None],
    ) -> None:
        self.claims: dict[str, Claim] = {}
        """What this worker holds, by job id. The heartbeat reads it from its thread."""
        self.is_stopping: bool = False
        self.is_paused: bool = False
        self._queue = queue
        self._settings = settings
        self._start = start
        self._settled = settled
        self._on_drained = drained
        self._on_lost = lost
        self._worker_id = str(uuid.uuid4())
        self._calls = 0
        self._most = _most_per_call(settings)
        self._ends: deque[_End] = deque()
        self._running = 0
        self._reserved = 0
        self._fetches = 0
        self._is_drained = False
        # Whether the last fetch came back full. If not, one fetch at a time is enough.
        self._is_abundant = False
        # Somebody has woken us. Others may be waiting too, and of a short queue each gets a part: we take half of
        # what there is, and stand in line again for the rest.
        self._shares = False
        self._block_until_ms = 0.0
        self._limited_until = 0.0
        self._idle_lanes: list[asyncio.Future[None]] = []
        self._awake = 0
        # How often one more lane was wanted in this second of the monotonic clock.
        self._wanted = (0, 0)
        self._waiter_wake = asyncio.Event()
        self._marker_lane: Lane | None = None
        self._is_over = asyncio.Event()
        self._chances = LastChances(
            queue, settings, self.claims, start, lambda: self._fetches > 0, self._look_again
        )
        self._patience = Patience(f"queue {queue.name!r}: fetching and finishing")
        self._waiting = Patience(f"queue {queue.name!r}: waiting for jobs")
        self.patiences: tuple[Patience, ...] = (self._patience, self._waiting)
        """What becomes of its calls."""

    @property
    def has_work(self) -> bool:
        """Whether the server is to be heard of: there is an end to write, or room for a job."""
        if self._ends or self._fetches:
            return True
        if self.is_stopping or self.is_paused or time.monotonic() < self._limited_until:
            return False
        return not self.claims if self._chances.is_careful else self._running < self._settings.concurrency

    # What the worker tells

    def ended(self, claim: Claim, end: FinishedJob) -> None:
        """Report the end of a job; it leaves with the next call."""
        claim.is_ending = True
        self._free_slot(claim)
        self._ends.append((claim, end, False))
        if len(self._ends) == 1 or len(self._ends) > self._most:
            self._kick()

    def dropped(self, claim: Claim) -> None:
        """A job is ours no longer: moved elsewhere by another script, or lost."""
        if claim.trace is not None:
            claim.trace.end()
        self._free_slot(claim)
        self._forget(claim)
        self._kick()
        self._waiter_wake.set()
        if self._chances.is_careful:
            self._chances.look()

    def limit_for(self, ms: int) -> None:
        """Fetch nothing for so long."""
        self._limited_until = max(self._limited_until, time.monotonic() + ms / 1000)

    def pause(self) -> None:
        """Fetch nothing until `resume`."""
        self.is_paused = True

    def resume(self) -> None:
        """Fetch again."""
        self.is_paused = False
        self._look_again()

    def concurrency_changed(self) -> None:
        """Fetch for the slots that there are now; what runs beyond them goes on."""
        self._most = _most_per_call(self._settings)
        self._look_again()

    async def stop(self) -> None:
        """Fetch no more. Ends are still reported, by lanes that run on until `finish`."""
        self.is_stopping = True
        self._waiter_wake.set()
        if self._marker_lane is not None:
            await self._marker_lane.close()
        self._kick_all()

    async def until_idle(self, seconds: float | None, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until no job is in hand or on its way here, for so many seconds at most, and while it is not over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (self.claims or self._fetches) and not is_over():
                    claims = self.claims.values()
                    tasks = [claim.task for claim in claims if claim.task and not claim.task.done()]
                    # Without tasks, ends are on their way to the server.
                    await (asyncio.wait(tasks, timeout=0.1) if tasks else asyncio.sleep(0.005))

    def finish(self) -> None:
        """Let the lanes end. Ends that have not reached the server by now are given up."""
        self._is_over.set()
        self._chances.finish()
        self._kick_all()

    # The lanes

    def loops(self) -> Sequence[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """Return what has to run all the time: (name, coroutine function) each."""
        return [(f"lane {number}", self._lane) for number in range(_LANES)] + [
            ("waiter", self._wait_for_markers),
            ("last chances", self._chances.run),
        ]

    async def _lane(self) -> None:
        queue = self._queue
        lane = queue.connection.lane()
        scripts = Scripts(queue.keys, _Hurried(lane))
        self._awake += 1
        try:
            while not self._is_over.is_set():
                if (self._ends or self._may_fetch()) and (lane.is_open or self._is_needed()):
                    await self._call(lane, scripts)
                    continue
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                # Who is connected already is called first.
                self._idle_lanes.insert(len(self._idle_lanes) if lane.is_open else 0, idle)
                self._awake -= 1
                try:
                    await idle
                finally:
                    self._awake += 1
        finally:
            self._awake -= 1
            # What others have left to this one.
            self._kick()
            await lane.close()

    def _is_needed(self) -> bool:
        """Whether one more lane is worth its connection; else a lane that is awake does the work after its own."""
        if self._awake == 1:
            return True
        now = int(time.monotonic())
        second, times = self._wanted
        self._wanted = (now, times + 1 if now == second else 1)
        return self._wanted[1] > _OFTEN

    async def _call(self, lane: Lane, scripts: Scripts) -> None:
        patience = self._patience
        ends = [self._ends.popleft() for _ in range(min(len(self._ends), self._most))]
        want = self._want(with_ends=bool(ends))
        shares, self._shares = self._shares and not ends, False
        fetch = Fetch(
            want, self._token(), self._settings.lock_ms, self._settings.name, self._settings.limiter, shares
        )
        self._reserved += want
        self._fetches += want > 0
        codes: list[int] = []
        late: list[_End] = []
        try:
            if not lane.is_open:
                # It takes a while, and the call says what time it is.
                await lane.open()
            now_ms = self._queue.clock.now_ms()
            if ends:
                codes, fetched = await scripts.move_to_finished(
                    now_ms, [end for _, end, _ in ends], fetch, self._settings.metrics_points
                )
            else:
                fetched = await scripts.move_to_active(now_ms, fetch)
        except AuthenticationError as error:
            self._requeue(ends, is_uncertain=False)
            await asyncio.sleep(patience.failed(error))
        except TorilError as error:
            is_uncertain = isinstance(error, ConnectionLostError) and not isinstance(
                error, ServerUnreachableError
            )
            self._requeue(ends, is_uncertain=is_uncertain)
            await asyncio.sleep(patience.failed(error))
            if is_uncertain and want:
                await self._adopt(scripts, fetch)
        except BaseException:
            # Nothing that can be expected; but an end that is forgotten would hold its slot for ever.
            self._requeue(ends, is_uncertain=True)
            raise
        else:
            for end, code in zip(ends, codes, strict=True):
                if code == _LOCK_RAN_OUT:
                    late.append(end)
                else:
                    self._settle(end, code)
            self._received(fetched, fetch, now_ms)
            # Not before: a lane that dies of each answer gets nothing done.
            patience.worked()
        finally:
            self._reserved -= want
            self._fetches -= want > 0
        if late:
            await self._regain(scripts, late)
        if self._chances.is_careful:
            self._chances.look()
        if self._ends or self._may_fetch():
            self._kick()

    def _free_slot(self, claim: Claim) -> None:
        # Once: a job that was lost while its end was being written is dropped by both.
        if claim.has_slot:
            claim.has_slot = False
            self._running -= 1

    def _forget(self, claim: Claim) -> None:
        # Under its id there may be a later claim on the same job: lost, taken back, and fetched by us again.
        if self.claims.get(claim.job.id) is claim:
            del self.claims[claim.job.id]

    def _settle(self, ended: _End, code: int) -> None:
        claim, end, is_uncertain = ended
        # Refused for unfinished or failed children: the lock is still ours, and the worker says what next.
        is_still_ours = code in (-4, -9)
        if is_still_ours:
            claim.has_slot = True
            self._running += 1
        else:
            self._forget(claim)
        # After a lost answer a refusal means, most likely, that the first try was heard.
        refused = (
            refusal(code, claim.job.id, self._queue.name)
            if code < 0 and (is_still_ours or not is_uncertain)
            else None
        )
        self._settled(claim, end, refused)

    def _received(self, fetched: Fetched, fetch: Fetch, now_ms: int) -> None:
        if not fetch.want:
            return
        is_careful = self._chances.is_careful
        for _, record in fetched.jobs:
            # Only what was taken back has this field, so all others cost one look.
            if "stc" in record and self._chances.suspects(record):
                is_careful = True
                break
        if is_careful:
            self._claim_with_care(fetched.jobs, fetch.token, now_ms)
        else:
            for job_id, record in fetched.jobs:
                self._claim(job_id, record, fetch.token, now_ms)
        self._is_abundant = len(fetched.jobs) == fetch.want
        if fetched.limit_ttl_ms > 0:
            self.limit_for(fetched.limit_ttl_ms)
        self._block_until_ms = fetched.due_ms
        if self._chances.is_careful:
            # What has gone back is still to be done.
            self._is_drained = False
            return
        was_drained, self._is_drained = self._is_drained, not self._is_abundant
        if self._is_drained:
            self._waiter_wake.set()
            has_left_some = fetch.shares and bool(fetched.jobs)
            if not (was_drained or has_left_some or fetched.limit_ttl_ms or fetched.is_closed):
                self._on_drained()

    def _claim(self, job_id: str, record: dict[str, str], token: str, now_ms: int) -> None:
        self._start(self._hold(job_id, started(record, self._settings.name, now_ms), token))

    def _claim_with_care(self, jobs: list[tuple[str, dict[str, str]]], token: str, now_ms: int) -> None:
        suspicious = [self._chances.suspects(record) for _, record in jobs]
        name = self._settings.name
        claims = [self._hold(job_id, started(record, name, now_ms), token) for job_id, record in jobs]
        self._chances.sort(claims, suspicious)

    def _hold(self, job_id: str, record: dict[str, str], token: str) -> Claim:
        earlier = self.claims.get(job_id)
        if earlier is not None and not earlier.is_ending:
            # We had lost it without noticing, and its processor still runs.
            self._on_lost([earlier])
        job: Job[Any] = Job(self._queue, job_id, record, token)
        job.lock_ms = self._settings.lock_ms
        claim = Claim(job, token)
        self.claims[job_id] = claim
        self._running += 1
        return claim

    async def _adopt(self, scripts: Scripts, fetch: Fetch) -> None:
        """Run what a fetch has locked for us although its answer was lost."""
        while not self._is_over.is_set():
            try:
                found = await scripts.adopt_jobs(fetch.token)
            except TorilError as error:
                await asyncio.sleep(self._patience.failed(error))
                continue
            for job_id, _ in found:
                logger.warning("queue %r: job %r adopted after a lost answer", self._queue.name, job_id)
            suspicious = [self._chances.suspects(record) for _, record in found]
            claims = [self._hold(job_id, record, fetch.token) for job_id, record in found]
            self._chances.sort(claims, suspicious)
            return

    async def _regain(self, scripts: Scripts, late: list[_End]) -> None:
        """Take locks again that ran out before an end came; what is still ours is sent once more."""
        starts = [claim.job.start for claim, _, _ in late]
        try:
            lost = set(await scripts.reclaim_locks(self._settings.lock_ms, starts))
        except Exception as error:
            # Sent once more they get the same answer.
            self._requeue(late, is_uncertain=False)
            if not isinstance(error, TorilError):
                raise
            await asyncio.sleep(self._patience.failed(error))
            return
        for claim, end, is_uncertain in late:
            if claim.job.id in lost:
                self._settle((claim, end, is_uncertain), _LOCK_RAN_OUT)
            else:
                self._ends.append((claim, end, False))

    def _requeue(self, ends: list[_End], *, is_uncertain: bool) -> None:
        for claim, end, was_uncertain in reversed(ends):
            self._ends.appendleft((claim, end, was_uncertain or is_uncertain))

    def _token(self) -> str:
        self._calls += 1
        return f"{self._worker_id}:{self._calls}"

    def _want(self, *, with_ends: bool) -> int:
        if self.is_stopping or self.is_paused or time.monotonic() < self._limited_until:
            return 0
        # A call that reports ends asks along, even of a drained queue: it costs nothing.
        if not with_ends and not self._may_fetch():
            return 0
        room = max(0, min(self._settings.concurrency - self._running - self._reserved, self._most))
        if self._chances.is_careful:
            return min(room, 1) if self._fetches == 0 and self._chances.may_fetch else 0
        return room

    def _may_fetch(self) -> bool:
        return (
            not self._is_drained
            and not self.is_stopping
            and not self.is_paused
            and (self._is_abundant or self._fetches == 0)
            and self._running + self._reserved < self._settings.concurrency
            and time.monotonic() >= self._limited_until
            and (not self._chances.is_careful or (self._fetches == 0 and self._chances.may_fetch))
        )

    def _look_again(self) -> None:
        """There may be something to fetch now, whatever we know."""
        self._is_drained = False
        self._kick()
        self._waiter_wake.set()

    def _kick(self) -> None:
        while self._idle_lanes:
            idle = self._idle_lanes.pop()
            if not idle.done():
                idle.set_result(None)
                return

    def _kick_all(self) -> None:
        while self._idle_lanes:
            self._kick()

    # The waiter

    async def _wait_for_markers(self) -> None:
        queue = self._queue
        lane = queue.connection.lane(name=client_name(queue.keys, self._settings.name or None))
        self._marker_lane = lane
        try:
            if self.is_stopping:
                # Stopped before it began: it has taken no marker, and the server may be away.
                return
            # Dashboards count workers by this connection's name, also one that is busy from its start.
            with suppress(TorilError):
                await lane.execute("PING")
            while not self.is_stopping:
                if not await self._is_time_to_wait():
                    continue
                try:
                    if await self._block(lane) and self.is_paused:
                        await queue.scripts.hand_on_marker()
                except TorilError as error:
                    if self.is_stopping:
                        break
                    await asyncio.sleep(self._waiting.failed(error))
                else:
                    self._waiting.worked()
                # Also after a fault: the marker may be gone with the lost answer.
                self._is_drained = False
                self._shares = True
                self._kick()
            # Also where we know of no marker: it may be in an answer that is not read any more.
            with suppress(TorilError, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await queue.scripts.hand_on_marker()
        finally:
            await lane.close()

    async def _is_time_to_wait(self) -> bool:
        """Whether there is nothing to do but to block; else this has slept, and the caller asks again."""
        remaining = self._limited_until - time.monotonic()
        if remaining > 0:
            # Fetching now and then all the same promotes delayed jobs that are due.
            await self._sleep(min(remaining, self._settings.max_limit_wait))
            self._limited_until = 0.0
            self._is_drained = False
            self._kick()
            return False
        has_room = self._running + self._reserved < self._settings.concurrency
        if self._is_drained and has_room and not self.is_paused:
            return True
        self._waiter_wake.clear()
        await self._waiter_wake.wait()
        return False

    async def _block(self, lane: Lane) -> bool:
        """Wait until there may be a job; False where nobody has said so and it is only time to look."""
        while not self.is_stopping:
            timeout = self._settings.drain_delay
            if self._block_until_ms:
                timeout = (self._block_until_ms - self._queue.clock.now_ms()) / 1000
                if timeout <= 0:
                    self._block_until_ms = 0.0
                    return True
                timeout = min(timeout, LONGEST_BLOCK)
            timeout = max(timeout, _SHORTEST_BLOCK)
            marker = await lane.execute(
                "BZPOPMIN", self._queue.keys.key("marker"), timeout, timeout=timeout + 2
            )
            if marker is None or marker[1] == "0":
                self._block_until_ms = 0.0
                return marker is not None
            due_ms = math.floor(float(marker[2]))
            # The alarm is gone with its reading; whoever reads it has to be there in time.
            self._block_until_ms = min(self._block_until_ms or due_ms, due_ms)
            # Where delayed jobs keep coming, this goes on for as long as none is due.
            self._waiting.worked()
        return False

    async def _sleep(self, seconds: float) -> None:
        self._waiter_wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.is_stopping:
                    await self._waiter_wake.wait()
                    self._waiter_wake.clear()


class _Hurried:
    """A lane whose calls are given up soon: a connection that has died in silence costs no more than that.

    What was fetched is adopted then, and what was ended is settled by asking.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def execute(self, *args: Any) -> Any:
        return await self._lane.execute(*args, timeout=SCRIPT_TIMEOUT)
