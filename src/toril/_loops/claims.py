"""The jobs that a worker holds, and what a worker is told to do with them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from .._tracing import JobTrace
from ..backoff import BackoffStrategy
from ..job import Job
from ..options import KeepRule

__all__ = ["Claim", "Settings"]


@dataclass(slots=True)
class Settings:
    """A worker's options, checked, in the units that the loops use. Only the concurrency changes while it runs."""

    concurrency: int
    name: str
    lock_ms: int
    renew_every: float
    stalled_ms: int
    max_stalled: int
    is_sandboxed: bool
    drain_delay: float
    grace: float
    max_limit_wait: float
    limiter: tuple[int, int] | None
    max_started_attempts: int | None
    keep_completed: KeepRule
    keep_failed: KeepRule
    max_jobs_per_child: int | None
    metrics_points: int
    backoff_strategy: BackoffStrategy | None
    skip_stalled_check: bool
    skip_lock_renewal: bool


@dataclass(slots=True, eq=False)
class Claim:
    """A job that this worker has fetched and not settled yet.

    Attributes:
        token: The value of its lock, which proves that it is ours.
        task: What runs it.
        renewed: When its lock was taken or last extended, by the monotonic clock.
        is_ending: Its end is on the way to the server, which takes the lock away.
        is_lost: The lock is gone; nothing more is written about the job.
        is_given_back: The job goes back to the queue: the worker is closing, or a suspicious job is tried alone.
        is_cancelled: Somebody has asked that this attempt fail.
        cancel_reason: Why, in their words; may be empty.
        is_begun: Its task has taken its first step.
        is_started: Its processor may have seen it.
        has_slot: It counts towards the worker's concurrency.
        trace: What is told of it to the worker's instrumentation; None where there is none.
    """

    job: Job[Any]
    token: str
    task: asyncio.Task[None] | None = None
    renewed: float = field(default_factory=time.monotonic)
    is_ending: bool = False
    is_lost: bool = False
    is_given_back: bool = False
    is_cancelled: bool = False
    cancel_reason: str = ""
    is_begun: bool = False
    is_started: bool = False
    has_slot: bool = True
    trace: JobTrace | None = None

    @property
    def is_taken_away(self) -> bool:
        """Whether its processor is not to go on, for whichever reason."""
        return self.is_lost or self.is_given_back or self.is_cancelled

    def cancel(self) -> None:
        """Take the job away from its processor."""
        # A task that is cancelled before its first step never runs, and could not hand the job back.
        if self.task is not None and self.is_begun:
            self.task.cancel(self.cancel_reason or None)
