"""What a queue does, without Redis: every state of a job and every move between them, as plain Python.

It is written to be read beside `docs/explanation/life-of-a-job.md`. `test_model.py` makes the same moves here and on a
real server, and compares. Times are milliseconds. Lists of ids are in the order of Redis: jobs that wait are added at
the left and taken from the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from .parts import MODES, Metrics, Owner, Plan, Schedulers

__all__ = ["ENDED", "Model", "ModelJob", "Policy"]

Policy = Literal["", "fail", "continue", "ignore", "remove"]
"""What becomes of a parent when this child fails for good; without one it waits on."""

MAX_STALLED: Final = 1
ENDED: Final = ("completed", "failed")


@dataclass
class ModelJob:
    """A job, wherever it is."""

    id: str
    priority: int = 0
    lifo: bool = False
    attempts: int = 1
    backoff_ms: int = 0
    keep: int | None = None
    """How many jobs that ended like this one are kept; None for all."""
    keep_ms: int | None = None
    """For how long."""
    parent: str = ""
    policy: Policy = ""
    dedup: str = ""
    scheduler: str = ""
    plan: Plan | None = None

    state: str = ""
    token: str = ""
    started: int = 0
    made: int = 0
    stalled: int = 0
    is_doomed: bool = False
    """The next start fails it, without a run: it stalled too often, or a child has failed it."""
    progress: int | None = None
    open: set[str] = field(default_factory=set[str])
    """Children that have not ended, or failed and may be tried again."""
    processed: set[str] = field(default_factory=set[str])
    ignored: set[str] = field(default_factory=set[str])
    unsuccessful: set[str] = field(default_factory=set[str])

    @property
    def can_complete(self) -> bool:
        return not self.open and not self.unsuccessful


@dataclass
class Model:
    """A queue."""

    now_ms: int
    queues: list[Model] = field(default_factory=list["Model"])
    """All queues that flows go through, this one too. No id is in two of them, but for runs of schedulers."""
    jobs: dict[str, ModelJob] = field(default_factory=dict[str, ModelJob])
    wait: list[str] = field(default_factory=list[str])
    active: list[str] = field(default_factory=list[str])
    prioritized: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    """(priority, turn, id); turn 0 is before all others of that priority."""
    delayed: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    """(due, turn, id)."""
    ended: dict[str, dict[str, int]] = field(default_factory=lambda: {"completed": {}, "failed": {}})
    """How -> id -> when."""
    suspects: set[str] = field(default_factory=set[str])
    """Jobs that the last stalled check saw active, and that have not been heard of since."""
    owners: dict[str, Owner] = field(default_factory=dict[str, Owner])
    """Deduplication id -> the job that stands for it."""
    kept: dict[str, tuple[ModelJob, int]] = field(default_factory=dict[str, "tuple[ModelJob, int]"])
    """Deduplication id -> the job that is added when the owner has ended, and its delay."""
    metrics: dict[str, Metrics] = field(default_factory=lambda: {"completed": Metrics(), "failed": Metrics()})
    is_paused: bool = False
    concurrency: int | None = None
    rate: int | None = None
    """How many jobs may start in a window, over all workers."""
    starts: int = 0
    """How many have in this one; only what was started under a limit counts."""
    _turns: int = 0

    def __post_init__(self) -> None:
        self.schedulers = Schedulers(self)
        self.queues.append(self)

    # --- adding ---

    def add(self, job: ModelJob, delay_ms: int = 0) -> str:
        """Return the id of the job that stands for it: its own, or the one that was there before."""
        if job.id in self.jobs:
            return job.id
        stands = self._deduplicate(job, delay_ms) if job.dedup else None
        if stands is not None:
            return stands
        self._enter(job, delay_ms)
        if job.parent:
            self.find(job.parent)[1].open.add(job.id)
        return job.id

    def _enter(self, job: ModelJob, delay_ms: int) -> None:
        self.jobs[job.id] = job
        if delay_ms:
            self._delay(job, self.now_ms + delay_ms)
        else:
            self._queue(job, at_right=job.lifo)

    def _deduplicate(self, job: ModelJob, delay_ms: int) -> str | None:
        """Return the job that stands for a new one; None where that is added, and owns the id now."""
        mode, owner = MODES[job.dedup], self.owners.get(job.dedup)
        claimed = Owner(job.id, "whole" if mode.lasts else "")
        if owner is None:
            self.owners[job.dedup] = claimed
            return None
        known = self.jobs.get(owner.job_id)
        if mode.replaces:
            if known is None or known.state != "delayed":
                return owner.job_id
            self.drop(known)
            self.owners[job.dedup] = claimed
            if not mode.extends:
                claimed.ttl = owner.ttl
            return None
        if mode.keeps_last and known is not None and known.state == "active":
            self.kept[job.dedup] = job, delay_ms
        elif mode.extends:
            owner.ttl = "whole"
        return owner.job_id

    def add_flow(self, parent: ModelJob, children: list[tuple[Model, ModelJob]]) -> None:
        self.jobs[parent.id] = parent
        parent.state = "waiting-children"
        for queue, child in children:
            child.parent = parent.id
            queue.add(child)

    # --- running ---

    def fetch(self, token: str, most: int, workers_rate: int | None = None) -> list[ModelJob]:
        """Start the next jobs; those that were put off and are due come in first."""
        self._promote_due()
        taken: list[ModelJob] = []
        rate = workers_rate if self.rate is None else self.rate
        while len(taken) < most and not self.is_closed and (self.wait or self.prioritized):
            if rate is not None and self.starts >= rate:
                break
            # All jobs without a priority run before all jobs with one.
            job = self.jobs[self.wait[-1] if self.wait else min(self.prioritized)[2]]
            self._take_out(job)
            self.active.insert(0, job.id)
            job.state, job.token, job.started = "active", token, job.started + 1
            taken.append(job)
            # What is only failed does no work.
            self.starts += rate is not None and not job.is_doomed
        return taken

    @property
    def is_closed(self) -> bool:
        return self.is_paused or (self.concurrency is not None and len(self.active) >= self.concurrency)

    def complete(self, job: ModelJob) -> None:
        self._release_lock(job)
        self._end_deduplication(job)
        queue, parent = self._open_parent(job)
        if parent is not None:
            parent.open.discard(job.id)
            parent.processed.add(job.id)
            if not parent.open:
                queue._release(parent)
        self._end(job, "completed")

    def fail(self, job: ModelJob, *, for_good: bool = False) -> None:
        """An attempt fails; the job is tried again at once or later, if it has attempts left."""
        if job.made + 1 < job.attempts and not for_good:
            if not job.backoff_ms:
                self._promote_due()
            self._release_lock(job)
            job.made += 1
            if job.backoff_ms:
                self._delay(job, self.now_ms + job.backoff_ms)
            else:
                self._queue(job, at_right=job.lifo)
            return
        self._release_lock(job)
        self._end_deduplication(job)
        queue, parent = self._open_parent(job)
        if parent is not None and job.policy:
            parent.open.discard(job.id)
            queue._tell_of_failure(parent, job)
        self._end(job, "failed")

    def _tell_of_failure(self, parent: ModelJob, child: ModelJob) -> None:
        if child.policy == "fail":
            parent.unsuccessful.add(child.id)
            if parent.state != "failed":
                parent.is_doomed = True
            if parent.state == "delayed":
                self._take_out(parent)
                self._queue(parent, at_right=True)
            self._release(parent)
        elif child.policy == "continue":
            parent.ignored.add(child.id)
            self._release(parent)
        else:
            if child.policy == "ignore":
                parent.ignored.add(child.id)
            if not parent.open:
                self._release(parent)

    def _end(self, job: ModelJob, how: str) -> None:
        job.made += 1
        job.is_doomed = job.is_doomed and how != "failed"
        self.metrics[how].count_one(self.now_ms)
        if job.keep == 0:
            self._detach(job)
            del self.jobs[job.id]
            return
        job.state = how
        self.ended[how][job.id] = self.now_ms
        if job.keep_ms is not None:
            oldest = self.now_ms - job.keep_ms
            self._evict(how, [old for old, at in self.ended[how].items() if at <= oldest])
        if job.keep is not None:
            self._evict(how, self.in_order(how)[: -job.keep])

    def _evict(self, how: str, ids: list[str]) -> None:
        for old in [old for old in reversed(self.in_order(how)) if old in ids]:
            self._detach(self.jobs[old])
            del self.ended[how][old], self.jobs[old]

    def give_back(self, job: ModelJob) -> None:
        """Next to run, uncounted."""
        self._release_lock(job)
        if job.priority:
            job.state = "prioritized"
            self.prioritized.append((job.priority, 0, job.id))
        else:
            self._wait(job, at_right=True)

    def delay(self, job: ModelJob, ms: int) -> None:
        """Later, uncounted."""
        self._release_lock(job)
        self._delay(job, self.now_ms + ms)

    def wait_for_children(self, job: ModelJob) -> bool:
        if not job.open:
            return False
        self._release_lock(job)
        job.state = "waiting-children"
        return True

    @property
    def stalled(self) -> set[str]:
        """Jobs that the next check takes back: they have no lock, and the last one saw them active already."""
        held = (self.jobs.get(job_id) for job_id in self.suspects)
        return {job.id for job in held if job is not None and job.state == "active" and not job.token}

    def check_stalled(self, taken: list[str]) -> None:
        """Take back jobs, in this order, which is free."""
        for job in (self.jobs[job_id] for job_id in taken):
            self.active.remove(job.id)
            job.stalled += 1
            if job.stalled > MAX_STALLED and job.scheduler not in self.schedulers.planned:
                job.is_doomed = True
            self._wait(job, at_right=True)
        self.suspects = set(self.active)

    # --- changing ---

    def promote(self, job: ModelJob) -> None:
        self._take_out(job)
        self._queue(job)

    def retry(self, job: ModelJob) -> None:
        """Run an ended job again; a parent that still knows of it waits for it again."""
        how = job.state
        self._take_out(job)
        self._queue(job, at_right=job.lifo)
        parent = self.find(job.parent)[1] if self.knows(job.parent) else None
        if parent is not None:
            for known in (parent.processed,) if how == "completed" else (parent.unsuccessful, parent.ignored):
                if job.id in known:
                    known.discard(job.id)
                    parent.open.add(job.id)
                    break

    def change_delay(self, job: ModelJob, ms: int) -> None:
        turn = self._turn_at(self.now_ms + ms)
        self._take_out(job)
        job.state = "delayed"
        self.delayed.append((self.now_ms + ms, turn, job.id))

    def change_priority(self, job: ModelJob, priority: int) -> None:
        job.priority = priority
        if job.state in ("waiting", "prioritized"):
            self._take_out(job)
            self._queue(job)

    # --- removing ---

    def remove(self, job: ModelJob) -> bool:
        """Remove a job with its children; nothing if a worker holds one of them."""
        if self._is_held(job):
            return False
        self._remove_tree(job)
        return True

    def _is_held(self, job: ModelJob) -> bool:
        return bool(job.token) or any(
            self._is_held(self.find(child)[1]) for child in job.open if self.knows(child)
        )

    def _remove_tree(self, job: ModelJob) -> None:
        self._detach(job)
        for child in sorted(job.processed | job.ignored | job.unsuccessful | job.open):
            if self.knows(child):
                job.open.discard(child)
                queue, found = self.find(child)
                queue._remove_tree(found)
        self._forget(job)

    def clear(self, *states: str) -> None:
        """Drain or clean: remove all jobs of these states, and parents that waited for nothing else."""
        for state in states:
            for job in [job for job in self.jobs.values() if job.state == state]:
                if job.id in self.jobs and (state in ENDED or not self.schedulers.is_pending(job)):
                    self._detach(job, removes_parent=True)
                    self._forget(job)

    def _forget(self, job: ModelJob) -> None:
        if self._owns(job):
            del self.owners[job.dedup]
            self.kept.pop(job.dedup, None)
        self.drop(job)

    def drop(self, job: ModelJob) -> None:
        self._take_out(job)
        del self.jobs[job.id]

    def _detach(self, job: ModelJob, *, removes_parent: bool = False) -> None:
        """A child goes; a parent that waited for it alone goes on, whatever its priority, or goes too."""
        queue, parent = self._open_parent(job)
        if parent is None:
            return
        parent.open.discard(job.id)
        if parent.open or parent.state != "waiting-children":
            return
        if removes_parent and queue is self:
            self._detach(parent, removes_parent=True)
            del self.jobs[parent.id]
        else:
            queue._wait(parent, at_right=True)

    # --- places ---

    def in_order(self, how: str) -> list[str]:
        """Ended jobs, the oldest first; of the same millisecond by id."""
        return sorted(self.ended[how], key=lambda job_id: (self.ended[how][job_id], job_id))

    def _queue(self, job: ModelJob, *, at_right: bool = False) -> None:
        if job.priority:
            self._turns += 1
            job.state = "prioritized"
            self.prioritized.append((job.priority, self._turns, job.id))
        else:
            self._wait(job, at_right=at_right)

    def _wait(self, job: ModelJob, *, at_right: bool) -> None:
        job.state = "waiting"
        self.wait.insert(len(self.wait) if at_right else 0, job.id)

    def _delay(self, job: ModelJob, due: int) -> None:
        job.state = "delayed"
        self.delayed.append((due, self._turn_at(due), job.id))

    def _turn_at(self, due: int) -> int:
        return max((turn + 1 for at, turn, _ in self.delayed if at == due), default=0)

    def _promote_due(self) -> None:
        for due, _, job_id in sorted(self.delayed):
            if due <= self.now_ms:
                self._take_out(self.jobs[job_id])
                self._queue(self.jobs[job_id])

    def _release(self, parent: ModelJob) -> None:
        """A parent that waits for its children runs next."""
        if parent.state == "waiting-children":
            self._queue(parent, at_right=True)

    def _release_lock(self, job: ModelJob) -> None:
        self.active.remove(job.id)
        self.suspects.discard(job.id)
        job.token = ""

    def _owns(self, job: ModelJob) -> bool:
        return job.dedup in self.owners and self.owners[job.dedup].job_id == job.id

    def _end_deduplication(self, job: ModelJob) -> None:
        """A job has ended: its id is free, unless it lasts longer; what was kept for then is added."""
        if self._owns(job) and not self.owners[job.dedup].ttl:
            del self.owners[job.dedup]
        if job.dedup in self.kept:
            kept, delay_ms = self.kept.pop(job.dedup)
            self.owners[job.dedup] = Owner(kept.id)
            self._enter(kept, delay_ms)

    def knows(self, job_id: str) -> bool:
        return any(job_id in queue.jobs for queue in self.queues)

    def find(self, job_id: str) -> tuple[Model, ModelJob]:
        """Return a job, and the queue that it is in."""
        queue = next(queue for queue in self.queues if job_id in queue.jobs)
        return queue, queue.jobs[job_id]

    def _open_parent(self, job: ModelJob) -> tuple[Model, ModelJob | None]:
        """Return the parent that waits for a job, if there is one, and its queue."""
        if job.parent and self.knows(job.parent):
            queue, parent = self.find(job.parent)
            if job.id in parent.open:
                return queue, parent
        return self, None

    def _take_out(self, job: ModelJob) -> None:
        if job.state == "waiting":
            self.wait.remove(job.id)
        elif job.state == "active":
            self.active.remove(job.id)
        elif job.state in ENDED:
            del self.ended[job.state][job.id]
        self.prioritized = [entry for entry in self.prioritized if entry[2] != job.id]
        self.delayed = [entry for entry in self.delayed if entry[2] != job.id]
