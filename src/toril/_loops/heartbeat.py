"""The thread that keeps a worker's locks.

It has a connection of its own and needs no event loop, so a processor that blocks the loop, or a long
plain `def`, does not lose its jobs. It also notices that the loop is blocked and says where, and keeps
the clock right.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, cast

from redis.exceptions import NoScriptError, RedisError

from ..connection import CALL_TIMEOUT, Connection, explain
from ..keys import QueueKeys
from ..scripts.loader import load
from .claims import Claim, Settings
from .patience import Patience

__all__ = ["Heartbeat"]

_TICK: Final = 0.5
_SHORTEST_TIMEOUT: Final = 0.5
# A loop that does not answer for so long is reported.
_BLOCKED_AFTER: Final = 2.0
_LEARN_TIME_EVERY: Final = 60.0

logger = logging.getLogger("toril.worker")


class Heartbeat(threading.Thread):
    """Renews locks until it is told to stop.

    Args:
        keys: The queue.
        connection: Where it is.
        settings: The worker's.
        claims: What the worker holds; read here, changed only on the event loop.
        lost: Called on the event loop with the claims whose lock is gone.
        renewed: Called on the event loop with the ids of jobs whose lock has been extended.
    """

    def __init__(
        self,
        keys: QueueKeys,
        connection: Connection,
        settings: Settings,
        claims: dict[str, Claim],
        lost: Callable[[list[Claim]], None],
        renewed: Callable[[list[str]], None],
    ) -> None:
        super().__init__(name=f"toril-heartbeat-{keys.queue}", daemon=True)
        self._keys = keys
        self._connection = connection
        self._settings = settings
        self._claims = claims
        self._lost = lost
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # A silent server must not cost more than one renewal: two more fit into the time that the lock has left.
        self._timeout = min(CALL_TIMEOUT, max(settings.renew_every / 2, _SHORTEST_TIMEOUT))
        self._client = connection.sync_client(keys.base, timeout=self._timeout)
        self._over = threading.Event()
        self._patience = Patience(f"queue {keys.queue!r}: renewing locks")
        self._time_learnt = time.monotonic()
        self._pinged: float | None = None
        self._is_blocked = False

    def stop(self) -> None:
        """End soon; does not wait."""
        self._over.set()

    def run(self) -> None:
        """Renew, watch, measure, until stopped."""
        # Short locks need a short tick, or they run out between two.
        tick = min(_TICK, self._settings.renew_every)
        wait = tick
        while not self._over.wait(wait):
            wait = tick
            try:
                self._watch_loop()
                self._renew()
                self._learn_time()
            except RedisError as error:
                wait = self._patience.failed(explain(error, self._connection.safe_url))
                self._renew_client()
            except Exception as error:
                if self._loop.is_closed():
                    # The worker has ended without us.
                    break
                logger.exception("queue %r: renewing locks failed unexpectedly; it goes on", self._keys.queue)
                wait = self._patience.failed(error)
            else:
                self._patience.worked()
        self._client.close()

    def _renew(self) -> None:
        if self._settings.skip_lock_renewal:
            return
        now = time.monotonic()
        due = [
            claim
            for claim in list(self._claims.values())
            if now - claim.renewed >= self._settings.renew_every
        ]
        if not due:
            return
        pairs = [part for claim in due for part in (claim.job.id, claim.token)]
        answer = cast("list[str]", self._run("extend_locks", ("stalled",), self._settings.lock_ms, *pairs))
        gone = set(answer)
        for claim in due:
            if claim.job.id not in gone:
                claim.renewed = now
        kept = [claim.job.id for claim in due if claim.job.id not in gone]
        if kept:
            self._loop.call_soon_threadsafe(self._renewed, kept)
        # The end of a job takes its lock away, which is no loss.
        lost = [claim for claim in due if claim.job.id in gone and not claim.is_ending]
        if lost:
            self._loop.call_soon_threadsafe(self._lost, lost)

    def _renew_client(self) -> None:
        """Begin anew: the server may be another now."""
        self._client.close()
        self._connection.suspect()
        self._client = self._connection.sync_client(self._keys.base, timeout=self._timeout)

    def _run(self, name: str, suffixes: tuple[str, ...], *args: Any) -> Any:
        script = load(name)
        client: Any = self._client
        keys = [self._keys.key(suffix) for suffix in suffixes]
        parts = (len(keys), *keys, self._keys.base, *args)
        try:
            return client.execute_command("EVALSHA", script.sha, *parts)
        except NoScriptError:
            return client.execute_command("EVAL", script.text, *parts)

    def _learn_time(self) -> None:
        if time.monotonic() - self._time_learnt > _LEARN_TIME_EVERY:
            asked = time.time()
            seconds, microseconds = self._client.time()  # pyright: ignore
            self._connection.clock.learn(asked, time.time(), int(seconds), int(microseconds))
            self._time_learnt = time.monotonic()

    def _watch_loop(self) -> None:
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._loop.call_soon_threadsafe(self._pong)
        elif time.monotonic() - self._pinged > _BLOCKED_AFTER and not self._is_blocked:
            self._is_blocked = True
            logger.warning(
                "queue %r: the event loop has been blocked for %.1f s, so nothing else runs; "
                "use `await`, or make the processor a plain `def`. It is here:\n%s",
                self._keys.queue,
                time.monotonic() - self._pinged,
                self._where(),
            )

    def _pong(self) -> None:
        if self._is_blocked and self._pinged is not None:
            logger.warning(
                "queue %r: the event loop goes on after %.1f s",
                self._keys.queue,
                time.monotonic() - self._pinged,
            )
        self._is_blocked = False
        self._pinged = None

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame, limit=6)).rstrip() if frame is not None else "(unknown)"
