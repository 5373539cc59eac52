"""Judges a cell: ledger, what stands in the server, and its stream of events must tell the same story.

The invariants are numbered as in `docs/explanation/reliability.md`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

import redis

from toril import Connection, fsck

from .endings import check_limits, check_order, check_pauses
from .ledger import read
from .stage import PREFIX, QUEUE, WORKER, Stage

__all__ = ["Verdict", "judge"]

LISTS: Final = ("wait", "paused", "active")
SETS: Final = ("delayed", "prioritized", "waiting-children", "completed", "failed")
_FINAL: Final = frozenset({"completed", "failed"})
_CLOCKS: Final = 0.02
"""Seconds by which the clocks of two processes and the server's milliseconds may differ."""


@dataclass
class Verdict:
    """One cell's line. Times in seconds.

    Attributes:
        jobs: That the producer began to add.
        acked: Whose `add` returned.
        executed: Starts of a processor.
        lost: Acknowledged, and nowhere at the end.
        stuck: Acknowledged, and not ended in time.
        duplicates: Starts beyond the first and the planned retries.
        explained: Those of them that follow a lost lock: the run before has not ended, or the job was taken back.
        false_failed: Jobs in failed that should have completed.
        recover_s: From the end of a fault until the slowest worker ran jobs again; for a dead worker, until the last of
            its jobs ran elsewhere. None where there was nothing to recover from; -1 where a worker never came back.
        rss_mb: Of the largest worker.
    """

    jobs: int = 0
    acked: int = 0
    executed: int = 0
    completed: int = 0
    lost: int = 0
    stuck: int = 0
    duplicates: int = 0
    explained: int = 0
    false_failed: int = 0
    recover_s: float | None = None
    errors: int = 0
    rss_mb: float = 0.0
    violations: list[str] = field(default_factory=list[str])

    def dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Story:
    """What the ledger says about one job."""

    sent: float = 0.0
    delay: float = 0.0
    fails: int = 0
    acked: float = 0.0
    is_trimmed: bool = False
    starts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ends: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def results(self) -> set[str]:
        """What the runs that went well have returned."""
        return {f"{end['pid']}:{end['run']}" for end in self.ends if not end.get("failed")}

    def may_be_forgotten(self, losses: Iterable[tuple[float, float]]) -> bool:
        """Whether the server may have forgotten a part of it."""
        times = [self.sent, self.acked, *(line["t"] for line in (*self.starts, *self.ends))]
        return any(low <= at <= high for low, high in losses for at in times if at)


async def judge(stage: Stage) -> Verdict:
    """Compare all that is known, after the load has drained and before the workers end."""
    lines = sorted(read(stage.directory), key=lambda line: line["t"])
    stories = tell(lines)
    verdict = Verdict(rss_mb=round(max((one.rss_mb() for one in stage.workers), default=0.0), 1))
    verdict.violations += [*stage.faults, *check_limits(stage, lines), *check_order(stage, lines)]
    async with stage.look() as client:
        states, records = await dump(client, verdict)
        said = await _check_events(client, states, records, verdict)
    await _check_queue(stage, verdict)
    _check_ledger(stage, stories, states, records, said, verdict)
    verdict.errors = sum(line["e"] == "error" for line in lines)
    alive = [one.pid for one in stage.workers]
    verdict.recover_s = recovery([line for line in lines if line.get("id") not in stage.may_fail], alive)
    if verdict.recover_s is not None and not 0 <= verdict.recover_s <= stage.within:
        took = "for ever" if verdict.recover_s < 0 else f"{verdict.recover_s:g} s"
        verdict.violations.append(f"I17 recovery took {took}, not {stage.within:g} s")
    _check_health(lines, alive, verdict)
    if stage.client == "toril":
        unclean = stage.unclean()
        if unclean:
            verdict.violations.append(
                f"I20 unclean log, {len(unclean)} lines, first {_placeless(unclean[0])!r}"
            )
    return verdict


def tell(lines: Iterable[dict[str, Any]]) -> dict[str, _Story]:
    """Sort the ledger's lines by job; one that was added without an id is known by the id that it was given.

    A server that has forgotten gives an id again: it is the later job's then, and the earlier one is there no more.
    """
    lines = list(lines)
    owners = {line["given"]: line["id"] for line in lines if line["e"] == "acked" and "given" in line}
    given = {job_id: name for name, job_id in owners.items()}
    stories: defaultdict[str, _Story] = defaultdict(_Story)
    for line in lines:
        event = line["e"]
        if event == "sent":
            story = stories[given.get(line["id"], line["id"])]
            story.sent, story.delay, story.fails = line["t"], line["delay"], line["fails"]
            story.is_trimmed = bool(line.get("keep"))
        elif event == "acked":
            stories[given.get(line["id"], line["id"])].acked = line["t"]
        elif event == "start":
            stories[line["id"]].starts.append(line)
        elif event == "end":
            stories[line["id"]].ends.append(line)
    return stories


async def dump(client: Any, verdict: Verdict) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Read which states each job is in, and each job's record; I2, I3, I9."""
    states: defaultdict[str, list[str]] = defaultdict(list)
    for name in LISTS:
        for job_id in await client.lrange(PREFIX + name, 0, -1):
            if not job_id.startswith("0:"):
                states[job_id].append(name)
    for name in SETS:
        for job_id in await client.zrange(PREFIX + name, 0, -1):
            states[job_id].append(name)
    keys = [key async for key in client.scan_iter(match=f"{PREFIX}*", count=2000)]
    ids = [key.removeprefix(PREFIX) for key in keys if ":" not in key.removeprefix(PREFIX)]
    # Runs of job schedulers have colons in their ids.
    ids += [job_id for job_id in states if ":" in job_id]
    records: dict[str, dict[str, str]] = {}
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        pipeline = client.pipeline(transaction=False)
        for job_id in some:
            pipeline.type(PREFIX + job_id)
        kinds = await pipeline.execute()
        jobs = [
            job_id for job_id, kind in zip(some, kinds, strict=True) if kind == "hash" and job_id != "meta"
        ]
        for job_id in jobs:
            pipeline.hgetall(PREFIX + job_id)
        records.update(zip(jobs, await pipeline.execute(), strict=True))
    several = [job_id for job_id, held in states.items() if len(held) > 1]
    _note(verdict, "I2 in several states", several)
    _note(verdict, "I3 a record in no state", records.keys() - states.keys())
    _note(verdict, "I3 a state without record", states.keys() - records.keys())
    locks = [key for key in keys if key.endswith(":lock")]
    held = {f"{PREFIX}{job_id}:lock" for job_id, names in states.items() if "active" in names}
    _note(verdict, "I9 a lock without an active job", set(locks) - held)
    wrong = [
        job_id
        for job_id, record in records.items()
        if ("finishedOn" in record) != bool(_FINAL & set(states.get(job_id, ())))
    ]
    _note(verdict, "I4 finishedOn and state differ", wrong)
    unnamed = Counter(
        str(json.loads(record["data"])["unnamed"])
        for record in records.values()
        if '"unnamed"' in record.get("data", "")
    )
    _note(verdict, "I5 added twice by one call", [name for name, count in unnamed.items() if count > 1])
    return states, records


async def _check_events(
    client: Any,
    states: dict[str, list[str]],
    records: dict[str, dict[str, str]],
    verdict: Verdict,
) -> set[str] | None:
    """I4, I8, I16, I21: the events, one after another; each job ends once, and is where the last of them says.

    Returns:
        The jobs of which they say that they have completed; None where the first of them are gone.
    """
    finals: Counter[str] = Counter()
    last: dict[str, str] = {}
    owners: dict[str, str] = {}
    together: list[str] = []
    at, is_paused, broken = "-", False, 0
    completed: set[str] = set()
    is_whole = await _are_all_there(client)
    while rows := await client.xrange(PREFIX + "events", at, "+", count=5000):
        is_paused, some = check_pauses(rows, is_paused)
        broken += some
        for _, row in rows:
            job_id, event = row.get("jobId"), row.get("event", "")
            if not job_id or event not in _MOVES:
                continue
            last[job_id] = event
            shared = records.get(job_id, {}).get("deid")
            if event in _FINAL:
                finals[job_id] += 1
                completed |= {job_id} if event == "completed" else set()
                if shared and owners.get(shared) == job_id:
                    del owners[shared]
            elif event == "added" and shared and owners.setdefault(shared, job_id) != job_id:
                together.append(job_id)
        at = f"({rows[-1][0]}"
    if broken:
        verdict.violations.append(f"I16 {broken} jobs began while the queue was paused")
    verdict.completed = sum("completed" in held for held in states.values())
    _note(verdict, "I4 ended more than once", [job_id for job_id, count in finals.items() if count > 1])
    differ = [
        job_id
        for job_id, held in states.items()
        if held[0] in _FINAL and (job_id in last or is_whole) and last.get(job_id) != held[0]
    ]
    _note(verdict, "I8 the last event is not the state", differ)
    _note(verdict, "I21 added while another of its deduplication id was there", together)
    return completed if is_whole else None


_MOVES: Final = frozenset(
    {"added", "waiting", "prioritized", "delayed", "waiting-children", "active", *_FINAL}
)


async def _are_all_there(client: Any) -> bool:
    """Whether no event has been trimmed."""
    try:
        about = await client.xinfo_stream(PREFIX + "events")
    except redis.ResponseError:
        return False
    return bool(about.get("entries-added") == about["length"])


def _check_health(lines: list[dict[str, Any]], alive: list[int], verdict: Verdict) -> None:
    """I17: nothing here is mended by a restart, and when all is done each worker says that it is well."""
    said: dict[int, list[str]] = defaultdict(list)
    for line in lines:
        if line["e"] == "health":
            said[line["pid"]].append(line["state"])
    if stuck := sum("stuck" in states for states in said.values()):
        verdict.violations.append(f"I17 workers that took themselves for stuck: {stuck}")
    for pid in alive:
        if said[pid] and said[pid][-1] != "ok":
            verdict.violations.append(f"I17 a worker that is done says of itself: {said[pid][-1]}")


async def _check_queue(stage: Stage, verdict: Verdict) -> None:
    """All that `toril doctor --fsck` looks at, of a queue where everything is done."""
    async with Connection(stage.direct_url()) as connection:
        found = await fsck.check(connection, QUEUE, at_rest=True, most=200)
    for invariant in sorted({one.invariant for one in found}):
        some = [one for one in found if one.invariant == invariant]
        verdict.violations.append(f"fsck {invariant}: {len(some)}, such as {some[0].text} ({some[0].key})")


def _check_ledger(
    stage: Stage,
    stories: dict[str, _Story],
    states: dict[str, list[str]],
    records: dict[str, dict[str, str]],
    said: set[str] | None,
    verdict: Verdict,
) -> None:
    lock = float({**WORKER, **stage.plan.worker}["lock_duration"])
    found: defaultdict[str, list[str]] = defaultdict(list)
    failed: dict[str, str] = {}
    for job_id, story in stories.items():
        held, record = states.get(job_id, []), records.get(job_id, {})
        verdict.jobs += bool(story.sent)
        verdict.acked += bool(story.acked)
        verdict.executed += len(story.starts)
        may_fail, is_forgotten = job_id in stage.may_fail, story.may_be_forgotten(stage.losses)
        was_removed = (
            story.is_trimmed and bool(story.results) and not held and (said is None or job_id in said)
        )
        if story.acked and not held and not was_removed:
            verdict.lost += 1
            if not is_forgotten:
                found["I1 acknowledged jobs are lost"].append(job_id)
        elif story.acked and held and not _FINAL & set(held):
            verdict.stuck += 1
        if "failed" in held and not may_fail:
            failed[job_id] = record.get("failedReason", "no reason")[:100]
        extra = len(story.starts) - 1 - story.fails
        if extra > 0 and not may_fail:
            verdict.duplicates += extra
            unended = len(story.starts) - len(story.ends)
            taken_back = int(record.get("stc", 0))
            # Of a job that was removed nobody knows any more how often it was taken back.
            is_unknown = is_forgotten or (was_removed and not record)
            verdict.explained += extra if is_unknown else min(extra, max(unended, taken_back))
        if not stage.may_be_early and not is_forgotten and _is_early(story):
            found["I15 started early"].append(job_id)
        if "completed" in held:
            for what in _faults_of_completed(story, record, may_fail=may_fail):
                found[what].append(job_id)
        if held and not is_forgotten:
            if int(record.get("ats", 0)) < len(story.starts):
                found["I7 more starts than counted"].append(job_id)
            if _overlaps(story, lock) and not int(record.get("stc", 0)):
                found["I6 two runs at once within one lock"].append(job_id)
    for what, ids in found.items():
        _note(verdict, what, ids)
    if verdict.stuck:
        verdict.violations.append(f"I17 {verdict.stuck} jobs did not end in time")
    verdict.false_failed = len(failed)
    if failed:
        why = " / ".join(sorted(set(failed.values()))[:3])
        _note(verdict, f"I4 good jobs failed ({why})", failed)
    stalled = [job_id for job_id, record in records.items() if int(record.get("stc", 0))]
    if stage.no_stalls:
        _note(verdict, "I5 taken back from a healthy worker", stalled)
    if verdict.duplicates > verdict.explained:
        verdict.violations.append(f"I5 {verdict.duplicates - verdict.explained} runs that nothing explains")


def _is_early(story: _Story) -> bool:
    due = story.sent + story.delay - _CLOCKS
    return bool(story.sent and story.starts) and story.starts[0]["t"] < due


def _faults_of_completed(story: _Story, record: dict[str, str], *, may_fail: bool) -> Iterator[str]:
    """What the record of a job that has completed says about its runs, and the ledger does not."""
    if not story.results:
        yield "I4 completed without a good run"
        return
    # A result names its run, and whoever took the job last has made the last start of all.
    value = json.loads(record.get("returnvalue", "null"))
    if value not in story.results or value.partition(":")[2] != record.get("ats"):
        yield "I6 a result that is not the winner's"
    if may_fail:
        return
    if sum(bool(end.get("failed")) for end in story.ends) < story.fails:
        yield "I5 completed without its planned retry"
    # What is taken or handed back is no attempt.
    if int(record.get("atm", 0)) != story.fails + 1:
        yield "I7 attempts counted that were none, or not counted"


def _overlaps(story: _Story, lock: float) -> bool:
    """Whether a run began while another had not ended, and not because its lock had run out."""
    ends = {(end["pid"], end["run"]): end["t"] for end in story.ends}
    for first, second in pairwise(story.starts):
        end = ends.get((first["pid"], first["run"]))
        if end is not None and second["t"] < end - _CLOCKS and second["t"] - first["t"] < lock - _CLOCKS:
            return True
    return False


def recovery(lines: list[dict[str, Any]], living: list[int]) -> float | None:
    """How long the slowest recovery took; see `Verdict.recover_s`."""
    slowest: float | None = None
    starts = [line for line in lines if line["e"] == "start"]
    ends = {(line["id"], line["run"], line["pid"]) for line in lines if line["e"] == "end"}
    last = max((line["t"] for line in starts), default=0.0)
    marks = [line for line in lines if line["e"] in ("healed", "fault")]
    for number, mark in enumerate(marks):
        if mark["e"] == "healed":
            until = min(marks[number + 1]["t"] if number + 1 < len(marks) else last, mark["t"] + 30)
            for pid in living:
                mine = [line["t"] for line in starts if line["pid"] == pid]
                if not mine or mine[0] > mark["t"] or until < mark["t"]:
                    continue
                # The longest pause, since a job that had arrived before the fault may still begin after it.
                beats = [mark["t"], *(t for t in mine if mark["t"] < t < until)]
                pauses = [later - earlier for earlier, later in pairwise(beats)]
                if until - beats[-1] > 10:
                    return -1.0
                slowest = max(slowest or 0.0, *pauses, 0.0)
        elif "pid" in mark:
            orphans = {
                line["id"]
                for line in starts
                if line["pid"] == mark["pid"] and (line["id"], line["run"], line["pid"]) not in ends
            }
            for orphan in orphans:
                again = [line["t"] for line in starts if line["id"] == orphan and line["t"] > mark["t"]]
                if again:
                    slowest = max(slowest or 0.0, again[0] - mark["t"])
    return None if slowest is None else round(slowest, 2)


def _note(verdict: Verdict, what: str, ids: Iterable[str]) -> None:
    found = sorted(ids)
    if found:
        shown = ", ".join(found[:3])
        verdict.violations.append(f"{what}: {len(found)}, such as {shown}")


def _placeless(line: str) -> str:
    """A line of a log without the folders of this machine."""
    return re.sub(r"/[^\s'\"]*/(?:site-packages|python3\.\d+|src)/", "", line)
