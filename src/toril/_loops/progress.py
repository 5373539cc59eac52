"""Whether anything comes of what a worker has to do.

A worker that has room for jobs, or ends to write, hears something again and again: jobs, that there are none, or
errors. If for long it hears nothing at all, it hangs, however well its process looks. The thread that renews locks
looks on, so that a blocked event loop is seen too; and whoever asks sees whether that thread still looks.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from ..health import HealthState, WorkerHealth
from ..queue import Queue
from .claims import Settings
from .fetching import LONGEST_BLOCK, Fetching

__all__ = ["Progress"]

# The longest that a call and what follows a failed one take: a deadline, a new connection, a pause. And then some.
_MARGIN: Final = 30.0
# The thread that looks on may wait for longer: finding a host by its name has no deadline.
_WATCHERS_SHARE: Final = 3


class Progress:
    """Watches a worker's fetching; from any thread.

    Args:
        queue: Whose jobs.
        settings: The worker's.
    """

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._queue = queue
        self._settings = settings
        self._fetching: Fetching | None = None
        self._lock = threading.Lock()
        self._turns: list[int] = []
        self._had_work = False
        self._is_reachable = True
        self._quiet_since = self._watched = 0.0

    def begin(self, fetching: Fetching) -> None:
        """Watch this fetching, which has begun."""
        self._turns, self._had_work, self._is_reachable = [], False, True
        self._quiet_since = self._watched = time.monotonic()
        self._fetching = fetching

    def end(self) -> None:
        """Watch no more."""
        self._fetching = None

    def watch(self) -> None:
        """Look, as somebody does several times a second for as long as the worker runs."""
        self._watched = time.monotonic()
        if (fetching := self._fetching) is not None:
            self._look(fetching)

    def health(self, *, is_running: bool) -> WorkerHealth:
        """Say how the worker is getting on."""
        fetching = self._fetching
        silent_for = 0.0
        running = 0
        if fetching is None:
            state: HealthState = "starting" if is_running else "stopped"
            why = "waiting for the server's first answer" if is_running else "it does not run"
        else:
            silent_for = self._look(fetching)
            running = len(fetching.claims)
            state, why = self._verdict(fetching, silent_for, running)
        return WorkerHealth(
            queue=self._queue.name,
            worker=self._settings.name or None,
            state=state,
            why=why,
            silent_for=round(silent_for, 3),
            running=running,
            concurrency=self._settings.concurrency,
            clock_offset_ms=round(self._queue.connection.clock.offset_ms, 3),
        )

    def _look(self, fetching: Fetching) -> float:
        """Return for how long nothing has come of what there is to do."""
        now = time.monotonic()
        with self._lock:
            turns = [patience.turns for patience in fetching.patiences]
            moved = [
                patience
                for patience, before, after in zip(
                    fetching.patiences, self._turns or turns, turns, strict=True
                )
                if after != before
            ]
            if moved:
                self._is_reachable = any(not patience.failures for patience in moved)
            # What has come up since the last look may have come up just now.
            had_work, self._had_work = self._had_work, fetching.has_work
            if moved or not (had_work and self._had_work):
                self._quiet_since = now
            self._turns = turns
            return now - self._quiet_since

    def _verdict(self, fetching: Fetching, silent_for: float, running: int) -> tuple[HealthState, str]:
        limit = max(self._settings.drain_delay, LONGEST_BLOCK) + _MARGIN
        jobs = f"{running} of {self._settings.concurrency} jobs running"
        if (unwatched := time.monotonic() - self._watched) > _WATCHERS_SHARE * limit:
            return "stuck", f"the thread that renews locks has done nothing for {unwatched:.0f} s; {jobs}"
        if silent_for > limit:
            return "stuck", f"nothing fetched or ended, and no error, for {silent_for:.0f} s; {jobs}"
        if fetching.is_stopping:
            return "stopping", jobs
        if not self._is_reachable:
            return "unreachable", f"the last call to the server failed, and it tries again; {jobs}"
        return "ok", f"paused; {jobs}" if fetching.is_paused else jobs
