"""The other moves: each on a real queue and on its model, in either of two queues."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from toril.codec import MAX_SAFE_INTEGER
from toril.errors import SchedulerSlotError

from .jobs import FAULT, INDEX, WINDOW_S, JobMoves
from .parts import CRON_MS, EVERY_MS, MODES

__all__ = ["QueueMachine"]


class QueueMachine(JobMoves):
    """All moves: changes and removes jobs, too, opens and closes queues, plans runs, and ends an example."""

    # --- changing, removing ---

    @rule(index=INDEX, fault=FAULT)
    def promote(self, index: int, fault: str) -> None:
        job = self.pick(index, "delayed")
        if job is not None:
            self.do(self.real(job).promote, fault)
            self.model.promote(job)
            self.ledger.moved(job.id)

    @rule(index=INDEX, fault=FAULT)
    def retry(self, index: int, fault: str) -> None:
        job = self.pick(index, "completed", "failed")
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.retry(job.state), fault)  # type: ignore[arg-type]
            self.model.retry(job)
            self.ledger.moved(job.id)
            self.ledger.retried.add(job.id)

    @rule(index=INDEX, ms=st.sampled_from([1, 5, 2000]), fault=FAULT)
    def change_delay(self, index: int, ms: int, fault: str) -> None:
        job = self.pick(index, "delayed")
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.change_delay(ms / 1000), fault)
            self.model.change_delay(job, ms)
            self.ledger.due[job.id] = self.model.now_ms + ms

    @rule(index=INDEX, priority=st.integers(0, 2), fault=FAULT)
    def change_priority(self, index: int, priority: int, fault: str) -> None:
        job = self.pick(index)
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.change_priority(priority), fault)
            self.model.change_priority(job, priority)
            due = self.ledger.due.get(job.id)
            self.ledger.moved(job.id)
            if due is not None:
                self.ledger.due[job.id] = due

    @rule(index=INDEX, value=st.integers(0, 3), fault=FAULT)
    def report_progress(self, index: int, value: int, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            self.do(lambda: held[1].update_progress(value), fault)
            held[0].progress = value

    @rule(index=INDEX, fault=FAULT)
    def remove(self, index: int, fault: str) -> None:
        job = self.pick(index)
        if job is None or self.model.schedulers.is_pending(job):
            return
        is_removed = self.do(lambda: self.queue.remove(job.id), fault)
        assert is_removed == self.model.remove(job)

    @rule(is_paused=st.booleans(), most=st.sampled_from([None, None, 1, 3]), fault=FAULT)
    def close_or_open(self, is_paused: bool, most: int | None, fault: str) -> None:
        self.do(self.queue.pause if is_paused else self.queue.resume, fault)
        self.model.is_paused = is_paused
        if most is None:
            self.do(self.queue.remove_global_concurrency, fault)
        else:
            self.do(lambda: self.queue.set_global_concurrency(most), fault)
        self.model.concurrency = most

    @rule(fault=FAULT)
    def open(self, fault: str) -> None:
        self.do(self.queue.resume, fault)
        self.model.is_paused = False

    @rule(delayed=st.booleans(), fault=FAULT)
    def drain(self, delayed: bool, fault: str) -> None:
        self.do(lambda: self.queue.drain(delayed=delayed), fault)
        self.model.clear("waiting", *(["delayed"] if delayed else []), "prioritized")

    @rule(state=st.sampled_from(["completed", "failed"]), fault=FAULT)
    def clean(self, state: Any, fault: str) -> None:
        self.do(lambda: self.queue.clean(0, 0, state), fault)
        self.model.clear(state)

    # --- rate limits ---

    @rule(rate=st.sampled_from([None, 1, 2]), fault=FAULT)
    def limit(self, rate: int | None, fault: str) -> None:
        if rate is None:
            self.do(self.queue.remove_global_rate_limit, fault)
        else:
            self.do(lambda: self.queue.set_global_rate_limit(rate, WINDOW_S), fault)
        self.model.rate = rate

    @rule(fault=FAULT)
    def window_is_used_up(self, fault: str) -> None:
        """A processor has met somebody else's limit."""
        self.do(lambda: self.queue.rate_limit(WINDOW_S), fault)
        self.model.starts = MAX_SAFE_INTEGER

    @rule()
    def window_ends(self) -> None:
        """The key of the window runs out: the server's time cannot be turned."""
        self.bench.client.delete(f"{self.base}limiter")
        self.model.starts = 0
        self.ledger.window_ended()

    # --- job schedulers, time ---

    @rule(
        scheduler=st.sampled_from(["tick", "cron"]), most=st.sampled_from([None, 1, 2]), lasts=st.booleans(),
        fault=FAULT,
    )  # fmt: skip
    def upsert_scheduler(self, scheduler: str, most: int | None, lasts: bool, fault: str) -> None:
        """Some have a limit, some an end that lets one run of a pattern come."""
        until_ms = None if lasts else self.model.now_ms + 3 * CRON_MS // 2
        every = EVERY_MS / 1000 if scheduler == "tick" else None
        pattern = f"*/{CRON_MS // 60_000} * * * *" if scheduler == "cron" else None
        call = lambda: self.queue.upsert_job_scheduler(  # noqa: E731
            scheduler, every=every, pattern=pattern, limit=most, end_date=until_ms
        )
        if self.model.schedulers.upsert(scheduler, most, until_ms):
            self.do(call, fault)
            self._put_off_run(scheduler)
        else:
            with pytest.raises(SchedulerSlotError):
                self.run_now(call)

    @rule(scheduler=st.sampled_from(["tick", "cron"]), most=st.sampled_from([None, 1]), fault=FAULT)
    def run_ahead_of_time(self, scheduler: str, most: int | None, fault: str) -> None:
        """Its pending run is promoted and fetched; then somebody defines it again."""
        self.upsert_scheduler(scheduler, most, False, fault)
        delayed = [job for job in self.model.jobs.values() if job.state == "delayed"]
        for job in delayed:
            if self.model.schedulers.is_pending(job) and job.scheduler == scheduler:
                self.promote(delayed.index(job), fault)
        self.fetch(3, None, fault)
        self.upsert_scheduler(scheduler, most, False, fault)

    @rule(scheduler=st.sampled_from(["tick", "cron"]), fault=FAULT)
    def remove_scheduler(self, scheduler: str, fault: str) -> None:
        self.do(lambda: self.queue.remove_job_scheduler(scheduler), fault)
        self.model.schedulers.remove(scheduler)
        self.ledger.scheduler_ended(scheduler)

    @rule(ms=st.sampled_from([1, 4, 500, 1000, EVERY_MS, 3 * EVERY_MS]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    # --- the end of an example ---

    def open_for_good(self) -> None:
        for scheduler in ("tick", "cron"):
            self.remove_scheduler(scheduler, "")
        self.limit(None, "")
        self.close_or_open(False, None, "")

    def work(self) -> None:
        self.time_passes(3 * EVERY_MS)
        # One job at a time, as a worker without concurrency. What is due joins the line with the first.
        self.fetch(1, None, "")
        while self.model.wait or self.model.prioritized:
            self.fetch(1, None, "")
        for job in [job for job in self.model.jobs.values() if job.state == "active" and not job.token]:
            self.check_stalled("")
            self.check_stalled("")
            assert job.state != "active"
        while (held := self.held(0)) is not None:
            if held[0].can_complete:
                self.complete(0, "")
            else:
                self.fail(0, True, "")
        # A child that has failed without a policy keeps its parent waiting until it is run again.
        ended = [job for job in self.model.jobs.values() if job.state in ("completed", "failed")]
        stuck = {child for job in self.all_jobs() if job.state == "waiting-children" for child in job.open}
        for job in ended:
            if job.id in stuck and job.state == "failed":
                self.retry(ended.index(job), "")
                return

    def at_last(self) -> None:
        for dedup in [name for name, mode in MODES.items() if mode.lasts]:
            self.ttl_passes(dedup, True)
        self.check_stalled("")
