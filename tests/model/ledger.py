"""What was asked of a queue and what it started: order, time and rates, judged without the model."""

from __future__ import annotations

from collections import Counter
from typing import Final

from toril.fsck import Keyspace

__all__ = ["Ledger"]

_WAITING: Final = ("wait", "prioritized", "delayed", "active", "waiting-children")


class Ledger:
    """The ledger of one queue; ids are of its jobs.

    Attributes:
        due: Job -> the time before which it must not start, where it was put off.
        retried: Jobs that somebody ran again, which take no notice of their deduplication id.
    """

    def __init__(self) -> None:
        self.due: dict[str, int] = {}
        self.retried: set[str] = set()
        self._line: dict[str, tuple[int, int]] = {}
        self._turn = 0
        self._starts = 0
        self._begun: set[str] = set()

    def joined(self, job_id: str, priority: int) -> None:
        """A job was added at the back of the line, and nothing else has been done to it."""
        self._turn += 1
        self._line[job_id] = priority, self._turn

    def moved(self, job_id: str) -> None:
        """Somebody changed the job's place in the line, or made it wait no longer."""
        self._line.pop(job_id, None)
        self.due.pop(job_id, None)

    def window_ended(self) -> None:
        self._starts = 0

    def scheduler_ended(self, scheduler: str) -> None:
        """One that is made anew may plan the same time again."""
        self._begun = {job_id for job_id in self._begun if not job_id.startswith(f"repeat:{scheduler}:")}

    def started(
        self, ids: list[str], doomed: set[str], now_ms: int, rate: int | None, most: int | None, space: Keyspace,
        base: str,
    ) -> None:  # fmt: skip
        """Judge the jobs of a fetch, in their order; the keys are those after it."""
        waiting = [*_ids(space, f"{base}wait"), *_ids(space, f"{base}prioritized")]
        line = [self._line.pop(job_id) for job_id in ids if job_id in self._line]
        assert line == sorted(line), f"I14: not in the order of priority and time: {ids}"
        ahead = [
            job_id for job_id in waiting if line and job_id in self._line and self._line[job_id] < line[-1]
        ]
        assert not ahead, f"I14: {ahead} were before {ids}"
        for job_id in set(ids) - doomed:
            early = self.due.pop(job_id, 0) - now_ms
            assert early <= 1, f"I15: job {job_id!r} started {early} ms early"
        for job_id in ids:
            if job_id.startswith("repeat:") and space[base + job_id].content["ats"] == "1":
                assert job_id not in self._begun, f"I12: a second run for {job_id}"
                self._begun.add(job_id)
        if ids and most is not None:
            assert len(_ids(space, f"{base}active")) <= most, "I13: more jobs run than may"
        if rate is not None:
            counted = len(set(ids) - doomed)
            self._starts += counted
            assert not counted or self._starts <= rate, "I13: more jobs have started in this window than may"

    def judge_deduplication(self, space: Keyspace, base: str, ids: set[str]) -> None:
        """Of these deduplication ids, which no time limits, each has one live job at most."""
        live: Counter[str] = Counter()
        for state in _WAITING:
            for job_id in _ids(space, base + state):
                dedup_id = space[base + job_id].content.get("deid")
                live[dedup_id] += dedup_id in ids and job_id not in self.retried
        assert max(live.values(), default=0) <= 1, f"I21: {live.most_common(1)} live jobs of one id"

    def judge_metrics(self, space: Keyspace, base: str) -> None:
        """Each end is counted once, in the metrics and in the events."""
        said = Counter(event["event"] for event in space[f"{base}events"].content)
        for how in ("completed", "failed"):
            counted = space[f"{base}metrics:{how}"].content["count"] if f"{base}metrics:{how}" in space else 0
            assert said[how] == int(counted), f"I7: {said[how]} events say {how!r}, {counted} are counted"

    def judge_retention(
        self, space: Keyspace, base: str, how: str, count: int | None, oldest_ms: int | None
    ) -> None:
        """What is left of the jobs that ended so, by the rule of the one that has just ended."""
        ended = space[base + how].content if base + how in space else {}
        assert not count or len(ended) <= count, f"I22: {len(ended)} {how} jobs are kept, of {count}"
        if oldest_ms is not None:
            assert min(ended.values()) > oldest_ms, f"I22: a {how} job is kept for longer than it may"


def _ids(space: Keyspace, key: str) -> list[str]:
    return list(space[key].content) if key in space else []
