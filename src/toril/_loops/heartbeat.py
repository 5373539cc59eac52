"""The thread that keeps the locks of an event loop's workers.

It has a connection of its own and needs no event loop, so a processor that blocks the loop, or a long
plain `def`, does not lose its jobs. It also notices that the loop is blocked and says where, and keeps
the clock right. All workers of a loop that use the same server share one.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from redis.exceptions import NoScriptError, RedisError, ResponseError

from .._faults import explain
from .._tracing import Tracing, traced
from ..connection import CALL_TIMEOUT, Connection
from ..keys import QueueKeys
from ..scripts.loader import load
from ..telemetry import Attribute
from .claims import Claim, Settings
from .patience import Patience

__all__ = ["Beat", "Heartbeat"]

_TICK: Final = 0.5
_SHORTEST_TIMEOUT: Final = 0.5
# A loop that does not answer for so long is reported.
_BLOCKED_AFTER: Final = 2.0
_LEARN_TIME_EVERY: Final = 60.0
# Clocks that differ by so much are told of.
_CLOCK_IS_OFF_MS: Final = 1000.0

_Loop = asyncio.AbstractEventLoop

logger = logging.getLogger("toril.worker")


@dataclass(frozen=True, slots=True, eq=False)
class Beat:
    """What a worker wants from the thread.

    Attributes:
        keys: The queue.
        settings: The worker's.
        claims: What the worker holds; read here, changed only on the event loop.
        lost: Called on the event loop with the claims whose lock is gone.
        renewed: Called on the event loop with the ids of jobs whose lock has been extended.
        watch: Called at each tick, from the thread.
        tracing: The worker's, if it has any; used from the thread.
    """

    keys: QueueKeys
    settings: Settings
    claims: dict[str, Claim]
    lost: Callable[[list[Claim]], None]
    renewed: Callable[[list[str]], None]
    watch: Callable[[], None]
    tracing: Tracing | None = None

    @property
    def tick(self) -> float:
        """How often its claims are looked at, in seconds: short locks run out between two long ticks."""
        return min(_TICK, self.settings.renew_every)

    @property
    def timeout(self) -> float:
        """How long the server may take. A silent one must not cost more than one renewal: two more fit in."""
        return min(CALL_TIMEOUT, max(self.settings.renew_every / 2, _SHORTEST_TIMEOUT))


class Heartbeat(threading.Thread):
    """Renews locks as long as there are workers that want it.

    Args:
        connection: Where their queues are.
        keys: Of one of the queues; on a cluster, it says which node.
    """

    _of_loops: ClassVar[WeakKeyDictionary[_Loop, dict[object, Heartbeat]]] = WeakKeyDictionary()

    @classmethod
    def enrol(cls, connection: Connection, beat: Beat) -> Callable[[], None]:
        """Renew the locks of one more worker of the running loop; return what ends that."""
        beats = cls._of_loops.setdefault(asyncio.get_running_loop(), {})
        place = connection.identity(beat.keys.base)
        heartbeat = beats.get(place)
        if heartbeat is None:
            heartbeat = beats[place] = cls(connection, beat)
            heartbeat.start()
        else:
            heartbeat._beats = (*heartbeat._beats, beat)

        def leave() -> None:
            heartbeat._beats = tuple(other for other in heartbeat._beats if other is not beat)
            if not heartbeat._beats and beats.get(place) is heartbeat:
                del beats[place]
                heartbeat._over.set()

        return leave

    def __init__(self, connection: Connection, first: Beat) -> None:
        super().__init__(name=f"toril-heartbeat-{first.keys.queue}", daemon=True)
        self._connection = connection
        # Replaced as a whole by the loop's thread, so that ours may go through it meanwhile.
        self._beats: tuple[Beat, ...] = (first,)
        self._any_key = first.keys.base
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._timeout = first.timeout
        self._client = connection.sync_client(self._any_key, timeout=self._timeout)
        self._over = threading.Event()
        self._patience = Patience(f"{connection.safe_url}: renewing locks")
        self._time_learnt = time.monotonic()
        self._pinged: float | None = None
        self._is_blocked = False
        self._is_off = False

    def run(self) -> None:
        """Renew, watch, measure, until nobody wants it any more."""
        wait = self._tick()
        while not self._over.wait(wait):
            try:
                wait = self._beat()
            except Exception as error:
                if self._loop.is_closed():
                    # The workers have ended without us.
                    break
                logger.exception(
                    "%s: renewing locks failed unexpectedly; it goes on", self._connection.safe_url
                )
                wait = self._patience.failed(error)
        self._client.close()

    def _beat(self) -> float:
        """Do what is due; return how many seconds to wait until the next time."""
        tick = self._tick()
        try:
            self._watch_loop()
            self._watch_clock()
            for beat in self._beats:
                beat.watch()
            self._renew_all()
            self._learn_time()
        except RedisError as error:
            pause = self._patience.failed(explain(error, self._connection.safe_url))
            self._renew_client()
            # One that cannot be reached is asked again while short locks may still be saved.
            return min(pause, tick if isinstance(error, ResponseError) else self._renew_every())
        if self._patience.failures:
            # Where it was found again, the others may not have looked yet: their calls are given more time.
            self._connection.suspect()
        self._patience.worked()
        return tick

    def _tick(self) -> float:
        return min((beat.tick for beat in self._beats), default=_TICK)

    def _renew_every(self) -> float:
        return min((beat.settings.renew_every for beat in self._beats), default=_TICK)

    def _renew_all(self) -> None:
        refused: ResponseError | None = None
        for beat in self._beats:
            try:
                self._renew(beat)
            except ResponseError as error:
                # What one queue is refused, by an ACL or for a spoilt key, is no reason to lose the others' locks.
                refused = error
        if refused is not None:
            raise refused

    def _renew(self, beat: Beat) -> None:
        if beat.settings.skip_lock_renewal or not beat.claims:
            return
        now = time.monotonic()
        every = beat.settings.renew_every
        due = [claim for claim in list(beat.claims.values()) if now - claim.renewed >= every]
        if not due:
            return
        if beat.timeout < self._timeout:
            self._timeout = beat.timeout
            self._renew_client()
        pairs = [part for claim in due for part in (claim.job.id, claim.token)]
        about = {Attribute.WORKER_JOBS_TO_EXTEND_LOCKS: [claim.job.id for claim in due]}
        with traced(beat.tracing, "extendLocks", about, is_root=True):
            gone = set(self._ask("extend_locks", beat, (), pairs))
            if gone:
                gone -= self._reclaim(beat, [claim for claim in due if claim.job.id in gone])
        for claim in due:
            if claim.job.id not in gone:
                claim.renewed = now
        kept = [claim.job.id for claim in due if claim.job.id not in gone]
        if kept:
            self._loop.call_soon_threadsafe(beat.renewed, kept)
        # The end of a job takes its lock away, which is no loss.
        lost = [claim for claim in due if claim.job.id in gone and not claim.is_ending]
        if lost:
            self._loop.call_soon_threadsafe(beat.lost, lost)

    def _reclaim(self, beat: Beat, late: list[Claim]) -> set[str]:
        """Take locks again that ran out while we could not renew them; return the ids of the jobs that are still ours.

        A job that is ending is left to whoever writes its end.
        """
        starts = [claim.job.start for claim in late if not claim.is_ending]
        if not starts:
            return set()
        lost = self._ask("reclaim_locks", beat, ("active",), [part for start in starts for part in start])
        kept = {start.job_id for start in starts}.difference(lost)
        if kept:
            logger.warning(
                "queue %r: the locks of %d jobs had run out; nobody else has taken them, so they are kept",
                beat.keys.queue,
                len(kept),
            )
        return kept

    def _ask(self, name: str, beat: Beat, more_keys: tuple[str, ...], jobs: list[str]) -> list[str]:
        script = load(name)
        client: Any = self._client
        keys = [beat.keys.key(key) for key in ("stalled", *more_keys)]
        parts = (len(keys), *keys, beat.keys.base, beat.settings.lock_ms, *jobs)
        try:
            return cast("list[str]", client.execute_command("EVALSHA", script.sha, *parts))
        except NoScriptError:
            return cast("list[str]", client.execute_command("EVAL", script.text, *parts))

    def _renew_client(self) -> None:
        """Begin anew: the server may be another now."""
        self._client.close()
        self._connection.suspect()
        self._client = self._connection.sync_client(self._any_key, timeout=self._timeout)

    def _learn_time(self) -> None:
        if time.monotonic() - self._time_learnt > _LEARN_TIME_EVERY:
            asked = time.time()
            seconds, microseconds = self._client.time()  # pyright: ignore
            self._connection.clock.learn(asked, time.time(), int(seconds), int(microseconds))
            self._time_learnt = time.monotonic()
            for beat in self._beats:
                if beat.tracing is not None:
                    beat.tracing.record_clock_offset(self._connection.clock.offset_ms)

    def _watch_clock(self) -> None:
        offset_ms = self._connection.clock.offset_ms
        was_off, self._is_off = self._is_off, abs(offset_ms) >= _CLOCK_IS_OFF_MS
        if self._is_off and not was_off:
            logger.warning(
                "%s: the server's clock is %.1f s %s this host's. toril goes by the server's, but BullMQ for Node.js "
                "by each host's: let something such as NTP keep both",
                self._connection.safe_url,
                abs(offset_ms) / 1000,
                "ahead of" if offset_ms > 0 else "behind",
            )

    def _watch_loop(self) -> None:
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._loop.call_soon_threadsafe(self._pong)
        elif time.monotonic() - self._pinged > _BLOCKED_AFTER and not self._is_blocked:
            self._is_blocked = True
            logger.warning(
                "%s: the event loop has been blocked for %.1f s, so nothing else runs; "
                "use `await`, or make the processor a plain `def`. It is here:\n%s",
                self._queues(),
                time.monotonic() - self._pinged,
                self._where(),
            )

    def _pong(self) -> None:
        if self._is_blocked and self._pinged is not None:
            logger.warning(
                "%s: the event loop goes on after %.1f s",
                self._queues(),
                time.monotonic() - self._pinged,
            )
        self._is_blocked = False
        self._pinged = None

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame, limit=6)).rstrip() if frame is not None else "(unknown)"

    def _queues(self) -> str:
        names = sorted({beat.keys.queue for beat in self._beats})
        shown = ", ".join(map(repr, names[:3]))
        return f"queue {shown}" if len(names) < 4 else f"queues {shown} and {len(names) - 3} more"
