"""Jobs that another stall would end are tried alone.

Whoever dies beside a job that kills its worker is taken back together with it, and nothing in Redis says which of them
did it. So a job that may not be taken back once more begins only when nothing runs beside it that could kill the worker
at its start, and for a moment nothing begins beside it. What kills at once then takes nobody with it, and what is
innocent shows that at once.

Fetching asks one question of each record: `stc`, which only jobs have that were taken back. All else is done for those.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..queue import Queue
from .claims import Claim, Settings

__all__ = ["LastChances", "is_last_chance"]

# What kills a worker does so at its start, or at any time. After this a job is as good as any other.
_PROBATION: Final = 1.0
# How often a job that waits for its try is looked at: it may have been lost, cancelled or handed back meanwhile.
_LOOK_EVERY: Final = 0.1


def is_last_chance(record: dict[str, str], max_stalled: int) -> bool:
    """Whether the next stall of a fetched job would end it. One that has had that stall fails without a run."""
    stalls = record.get("stc", "")
    return stalls.isdecimal() and int(stalls) >= max(max_stalled, 1) and not record.get("defa")


class LastChances:
    """Tries a worker's suspicious jobs one by one.

    Args:
        queue: Whose jobs.
        settings: The worker's.
        claims: What the worker holds, by job id.
        start: Begins to run a claimed job, or hands it back where it is marked so.
        is_fetching: Whether jobs are on their way here.
        go_on: Called when the worker may fetch again.

    Attributes:
        is_careful: Fetch singly, and only when `may_fetch`: there was a suspicious job, and more may follow it.
    """

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        claims: dict[str, Claim],
        start: Callable[[Claim], None],
        is_fetching: Callable[[], bool],
        go_on: Callable[[], None],
    ) -> None:
        self.is_careful = False
        self._queue = queue
        self._settings = settings
        self._claims = claims
        self._start = start
        self._is_fetching = is_fetching
        self._go_on = go_on
        # At most a part of the lock, for workers whose jobs are taken back soon.
        self._probation = min(_PROBATION, settings.lock_ms / 4000)
        self._held: Claim | None = None
        self._tried: Claim | None = None
        # Whatever runs began by then.
        self._since = 0.0
        self._news = asyncio.Event()
        self._is_over = False

    @property
    def may_fetch(self) -> bool:
        """Whether nothing is being tried, or waits for it."""
        return self._held is None and self._tried is None

    def suspects(self, record: dict[str, str]) -> bool:
        """Whether a job has to be tried alone. Where all processors are sandboxed, no job can harm another."""
        return is_last_chance(record, self._settings.max_stalled) and not self._is_harmless()

    def sort(self, claims: list[Claim], suspicious: list[bool]) -> None:
        """Begin with jobs that were fetched while we are careful, or among which one is suspicious.

        One is tried. The others would die with it, so they go back to where they came from, uncounted.
        """
        if self.may_fetch and True not in suspicious:
            # What was taken back stands at the front, so there is no more of it.
            self.is_careful = False
            for claim in claims:
                self._start(claim)
            return
        if self.may_fetch:
            self._held = claims.pop(suspicious.index(True))
            if not self.is_careful:
                self._since = time.monotonic()
        self.is_careful = True
        # The last first, since each is put before all others.
        for claim in reversed(claims):
            claim.is_given_back = True
            self._start(claim)
        self.look()

    def look(self) -> None:
        """Look again: something has ended, or arrived."""
        self._news.set()

    def finish(self) -> None:
        """Let the loop end."""
        self._is_over = True
        self._news.set()

    async def run(self) -> None:
        """Try what is held as soon as it can be tried, until `finish`."""
        while not self._is_over:
            wait = self._step()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
            self._news.clear()

    def _step(self) -> float | None:
        """Do what can be done now; return when to look again, None for when there is news."""
        now = time.monotonic()
        if self._held is not None and self._is_ready(self._held, now):
            held, self._held = self._held, None
            self._tried, self._since = held, now
            self._start(held)
        left = self._since + self._probation - now
        if self._held is not None:
            return min(left, _LOOK_EVERY) if left > 0 else _LOOK_EVERY
        if self._tried is None:
            return None
        if left > 0 and self._claims.get(self._tried.job.id) is self._tried:
            return left
        self._tried = None
        self._go_on()
        return None

    def _is_ready(self, held: Claim, now: float) -> bool:
        if held.is_taken_away:
            # It will not run, but its task has to say so.
            return True
        if self._is_fetching():
            return False
        others = [claim for claim in self._claims.values() if claim is not held]
        # An end that is not written yet would be forgotten with the worker, and the job run once more.
        if any(claim.is_ending or claim.is_given_back for claim in others):
            return False
        return not others or now >= self._since + self._probation

    def _is_harmless(self) -> bool:
        processors = self._queue.processors.values()
        return self._settings.is_sandboxed or (
            bool(processors) and all(processor.target is not None for processor in processors)
        )
