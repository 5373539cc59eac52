"""What a modelled queue has besides its jobs and their states: deduplication ids, metrics, job schedulers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from .model import Model, ModelJob

__all__ = [
    "CRON_MS", "EVERY_MS", "METRICS_POINTS", "MODES", "Metrics", "Mode", "Owner", "Plan", "Schedulers", "run_id",
]  # fmt: skip

EVERY_MS: Final = 60_000
"""Between two runs of the scheduler `tick`."""
CRON_MS: Final = 120_000
"""Between two runs of the scheduler `cron`, which are at whole multiples of it."""
METRICS_POINTS: Final = 3


@dataclass(frozen=True)
class Mode:
    """What becomes of jobs that are added while another owns their deduplication id.

    Attributes:
        lasts: The id has a ttl: it is owned for that time, whatever becomes of the job. Else until the job ends.
        extends: Each dropped job lets the ttl begin anew.
        replaces: An owner that is still delayed makes way.
        keeps_last: While the owner is active, the last of the dropped jobs is kept for after it.
    """

    lasts: bool = False
    extends: bool = False
    replaces: bool = False
    keeps_last: bool = False


MODES: Final = {
    "simple": Mode(),
    "throttled": Mode(lasts=True),
    "extended": Mode(lasts=True, extends=True),
    "replaced": Mode(replaces=True),
    "throttled, replaced": Mode(lasts=True, replaces=True),
    "extended, replaced": Mode(lasts=True, extends=True, replaces=True),
    "last": Mode(keeps_last=True),
}
"""Deduplication ids are called by what they do; jobs without one have ''."""


@dataclass
class Owner:
    """Which job stands for a deduplication id, and how much of its ttl is left, if it has one."""

    job_id: str
    ttl: Literal["", "whole", "part"] = ""


@dataclass
class Metrics:
    """How many jobs have ended in one way, in all and per minute."""

    count: int = 0
    since_ms: int | None = None
    counted: int = 0
    """How many of `count` stand in `minutes`."""
    minutes: list[int] = field(default_factory=list[int])
    """The newest first."""

    def count_one(self, now_ms: int) -> None:
        """The first job of another minute closes the last one."""
        before, self.count = self.count, self.count + 1
        if self.since_ms is None:
            self.since_ms = now_ms
            return
        passed = min(now_ms // 60_000 - self.since_ms // 60_000, METRICS_POINTS)
        if passed > 0:
            self.minutes = [*[0] * (passed - 1), before - self.counted, *self.minutes][:METRICS_POINTS]
            self.counted, self.since_ms = before, now_ms


@dataclass(frozen=True)
class Plan:
    """What a scheduler's job knows of the runs after it: its number, the last number, the last time."""

    number: int = 1
    most: int | None = None
    until_ms: int | None = None


def run_id(scheduler: str, due_ms: int) -> str:
    return f"repeat:{scheduler}:{due_ms}"


class Schedulers:
    """The job schedulers of a queue: one pending run each, and none after the last.

    Attributes:
        planned: Job scheduler -> when its pending run is due; of one that has come to its end, its last run.
    """

    def __init__(self, queue: Model) -> None:
        self.queue = queue
        self.planned: dict[str, int] = {}
        self._offsets: dict[str, int] = {}

    def upsert(self, scheduler: str, most: int | None = None, until_ms: int | None = None) -> bool:
        """Make one, or make its pending run anew; another follows a run that has begun.

        False, and nothing has changed, where the next run of a pattern has been done before its time.
        """
        now_ms, planned = self.queue.now_ms, self.planned.get(scheduler)
        pending = None if planned is None else self.queue.jobs.get(run_id(scheduler, planned))
        is_replaced = pending is not None and pending.state in ("waiting", "prioritized", "delayed")
        if scheduler == "cron":
            due = _next_fire(now_ms)
            if run_id(scheduler, due) in self.queue.jobs and not (is_replaced and due == planned):
                return False
        elif planned is None:
            due = now_ms
        else:
            due = planned if is_replaced else self._next_interval(planned, 0)
        if pending is not None and is_replaced:
            self.queue.drop(pending)
        elif scheduler != "cron":
            self._offsets[scheduler] = due % EVERY_MS
        while scheduler != "cron" and run_id(scheduler, due) in self.queue.jobs:
            due += EVERY_MS
        self._add_run(scheduler, due, Plan(1, most, until_ms))
        return True

    def plan_next_run(self, job: ModelJob) -> None:
        """As the pending run starts, the next is added, unless it was the last."""
        now_ms, plan = self.queue.now_ms, job.plan
        if plan is None or not self.is_pending(job) or plan.number == plan.most:
            return
        if plan.until_ms is not None and now_ms > plan.until_ms:
            return
        planned = self.planned[job.scheduler]
        if job.scheduler == "cron":
            due = _next_fire(max(planned, now_ms))
            if plan.until_ms is not None and due > plan.until_ms:
                return
        else:
            due = self._next_interval(planned, self._offsets[job.scheduler])
        if run_id(job.scheduler, due) not in self.queue.jobs:
            self._add_run(job.scheduler, due, Plan(plan.number + 1, plan.most, plan.until_ms))

    def remove(self, scheduler: str) -> None:
        """End it; what waits for a worker already is still run."""
        planned = self.planned.pop(scheduler, None)
        pending = self.queue.jobs.get(f"repeat:{scheduler}:{planned}")
        if pending is not None and pending.state == "delayed":
            self.queue.drop(pending)

    def is_pending(self, job: ModelJob) -> bool:
        planned = self.planned.get(job.scheduler)
        return planned is not None and job.id == run_id(job.scheduler, planned)

    def _next_interval(self, planned: int, offset: int) -> int:
        """Runs that were missed are not made up for."""
        due, now_ms = planned + EVERY_MS, self.queue.now_ms
        if due >= now_ms:
            return due
        due = now_ms // EVERY_MS * EVERY_MS + offset
        return due if due > now_ms else due + EVERY_MS

    def _add_run(self, scheduler: str, due: int, plan: Plan) -> None:
        from .model import ModelJob

        self.planned[scheduler] = due
        run = ModelJob(run_id(scheduler, due), scheduler=scheduler, plan=plan)
        self.queue.add(run, max(0, due - self.queue.now_ms))


def _next_fire(ms: int) -> int:
    return (ms // CRON_MS + 1) * CRON_MS
