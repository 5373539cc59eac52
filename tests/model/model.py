"""What a queue does, without Redis: every state of a job and every move between them, as plain Python.

It is written to be read beside `docs/explanation/life-of-a-job.md`. `test_model.py` makes the same moves here and on a
real server, and compares. Times are milliseconds. Lists of ids are in the order of Redis: jobs that wait are added at
the left and taken from the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["EVERY_MS", "Model", "ModelJob", "Policy"]

Policy = Literal["", "fail", "continue", "ignore", "remove"]
"""What becomes of a parent when this child fails for good; without one it waits on."""

EVERY_MS: Final = 60_000
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
    parent: str = ""
    policy: Policy = ""
    dedup: str = ""
    scheduler: str = ""

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
    owners: dict[str, str] = field(default_factory=dict[str, str])
    """Deduplication id -> the job that stands for it."""
    schedulers: dict[str, int] = field(default_factory=dict[str, int])
    """Job scheduler -> when its pending run is due."""
    offsets: dict[str, int] = field(default_factory=dict[str, int])
    is_paused: bool = False
    concurrency: int | None = None
    _turns: int = 0

    # --- adding ---

    def add(self, job: ModelJob, delay_ms: int = 0, *, replaces: bool = False) -> str:
        """Return the id of the job that stands for it: its own, or the one that was there before."""
        if job.id in self.jobs:
            return job.id
        if job.dedup:
            owner = self.owners.get(job.dedup)
            if owner is not None and owner in self.jobs:
                if not replaces or self.jobs[owner].state != "delayed":
                    return owner
                self._take_out(self.jobs[owner])
                del self.jobs[owner]
            self.owners[job.dedup] = job.id
        self.jobs[job.id] = job
        if delay_ms:
            self._delay(job, self.now_ms + delay_ms)
        else:
            self._queue(job, at_right=job.lifo)
        if job.parent:
            self.jobs[job.parent].open.add(job.id)
        return job.id

    def add_flow(self, parent: ModelJob, children: list[ModelJob]) -> None:
        self.jobs[parent.id] = parent
        parent.state = "waiting-children"
        for child in children:
            child.parent = parent.id
            self.add(child)

    # --- running ---

    def fetch(self, token: str, most: int) -> list[ModelJob]:
        """Start the next jobs; those that were put off and are due come in first."""
        self._promote_due()
        taken: list[ModelJob] = []
        while len(taken) < most and not self.is_closed and (self.wait or self.prioritized):
            # All jobs without a priority run before all jobs with one.
            job = self.jobs[self.wait[-1] if self.wait else min(self.prioritized)[2]]
            self._take_out(job)
            self.active.insert(0, job.id)
            job.state, job.token, job.started = "active", token, job.started + 1
            taken.append(job)
        return taken

    @property
    def is_closed(self) -> bool:
        return self.is_paused or (self.concurrency is not None and len(self.active) >= self.concurrency)

    def complete(self, job: ModelJob) -> None:
        self._release_lock(job)
        self._end_deduplication(job)
        parent = self._open_parent(job)
        if parent is not None:
            parent.open.discard(job.id)
            parent.processed.add(job.id)
            if not parent.open:
                self._release(parent)
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
        parent = self._open_parent(job) if job.policy else None
        if parent is not None:
            parent.open.discard(job.id)
            self._tell_of_failure(parent, job)
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
        if job.keep == 0:
            self._detach(job)
            del self.jobs[job.id]
            return
        job.state = how
        self.ended[how][job.id] = self.now_ms
        if job.keep is not None:
            for old in self.in_order(how)[: -job.keep]:
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
            if job.stalled > MAX_STALLED and job.scheduler not in self.schedulers:
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
        parent = self.jobs.get(job.parent)
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
            self._is_held(self.jobs[child]) for child in job.open if child in self.jobs
        )

    def _remove_tree(self, job: ModelJob) -> None:
        self._detach(job)
        for child in sorted(job.processed | job.ignored | job.unsuccessful | job.open):
            if child in self.jobs:
                job.open.discard(child)
                self._remove_tree(self.jobs[child])
        self._forget(job)

    def clear(self, *states: str) -> None:
        """Drain or clean: remove all jobs of these states, and parents that waited for nothing else."""
        for state in states:
            for job in [job for job in self.jobs.values() if job.state == state]:
                if job.id in self.jobs and not self.is_pending(job):
                    self._detach(job, removes_parent=True)
                    self._forget(job)

    def _forget(self, job: ModelJob) -> None:
        self._take_out(job)
        if self.owners.get(job.dedup) == job.id:
            del self.owners[job.dedup]
        del self.jobs[job.id]

    def _detach(self, job: ModelJob, *, removes_parent: bool = False) -> None:
        """A child goes; a parent that waited for it alone goes on, whatever its priority, or goes too."""
        parent = self.jobs.get(job.parent)
        if parent is None or job.id not in parent.open:
            return
        parent.open.discard(job.id)
        if parent.open or parent.state != "waiting-children":
            return
        if removes_parent:
            self._detach(parent, removes_parent=True)
            del self.jobs[parent.id]
        else:
            self._wait(parent, at_right=True)

    # --- job schedulers: one pending run each ---

    def upsert_scheduler(self, scheduler: str) -> None:
        """Make one, whose first run is due at once; or make its pending run anew, for the same time."""
        planned = self.schedulers.get(scheduler)
        if planned is None:
            planned = self.now_ms
            while f"repeat:{scheduler}:{planned}" in self.jobs:
                planned += EVERY_MS
            self.schedulers[scheduler], self.offsets[scheduler] = planned, planned % EVERY_MS
        else:
            pending = self.jobs.pop(f"repeat:{scheduler}:{planned}")
            self._take_out(pending)
        self._add_run(scheduler)

    def plan_next_run(self, job: ModelJob) -> None:
        """As the pending run starts, the next is added."""
        scheduler = job.scheduler
        if not self.is_pending(job):
            return
        after = self.schedulers[scheduler] + EVERY_MS
        if after < self.now_ms:
            after = self.now_ms // EVERY_MS * EVERY_MS + self.offsets[scheduler]
            after += EVERY_MS if after <= self.now_ms else 0
        if f"repeat:{scheduler}:{after}" not in self.jobs:
            self.schedulers[scheduler] = after
            self._add_run(scheduler)

    def _add_run(self, scheduler: str) -> None:
        due = self.schedulers[scheduler]
        run = ModelJob(f"repeat:{scheduler}:{due}", scheduler=scheduler)
        self.add(run, max(0, due - self.now_ms))

    def remove_scheduler(self, scheduler: str) -> None:
        planned = self.schedulers.pop(scheduler, None)
        pending = self.jobs.get(f"repeat:{scheduler}:{planned}")
        if pending is not None and pending.state == "delayed":
            self._take_out(pending)
            del self.jobs[pending.id]

    def is_pending(self, job: ModelJob) -> bool:
        return (
            job.scheduler in self.schedulers
            and job.id == f"repeat:{job.scheduler}:{self.schedulers[job.scheduler]}"
        )

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

    def _end_deduplication(self, job: ModelJob) -> None:
        if self.owners.get(job.dedup) == job.id:
            del self.owners[job.dedup]

    def _open_parent(self, job: ModelJob) -> ModelJob | None:
        parent = self.jobs.get(job.parent)
        return parent if parent is not None and job.id in parent.open else None

    def _take_out(self, job: ModelJob) -> None:
        if job.state == "waiting":
            self.wait.remove(job.id)
        elif job.state == "active":
            self.active.remove(job.id)
        elif job.state in ENDED:
            del self.ended[job.state][job.id]
        self.prioritized = [entry for entry in self.prioritized if entry[2] != job.id]
        self.delayed = [entry for entry in self.delayed if entry[2] != job.id]
