"""The invariants themselves: a dump of keys in, what is wrong with them out. See the package for what they say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from .histories import History, Replay
from .view import STATE_KEYS, Keyspace, View, split_key

__all__ = ["Violation", "violations"]


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must be true and is not.

    Attributes:
        invariant: Its number, such as `I3`.
        key: The full key of the job, or of what else it is about.
        text: What is wrong, in words; no data.
        repairable: Whether it can be put right without a guess and without losing a job.
        about: Full keys that were looked at, besides `key`.
    """

    invariant: str
    key: str
    text: str
    repairable: bool
    about: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.invariant} {self.key}: {self.text}"


_ENDED: Final = ("completed", "failed")
_COUNTERS: Final = ("ats", "atm", "stc")
_STATES_OF_EVENT: Final[dict[str, frozenset[str]]] = {
    "added": frozenset(STATE_KEYS),
    "waiting": frozenset({"wait", "paused", "prioritized"}),
    # See `_COMES_FROM`: the release may go unsaid.
    "waiting-children": frozenset({"waiting-children", "wait", "paused", "prioritized"}),
}
"""What the last event of a job says -> the keys that it may be found under; the others are called alike."""


def violations(
    space: Keyspace, base: str, now_ms: int, *, at_rest: bool = False, replay: Replay | None = None
) -> list[Violation]:
    """Say what is wrong with a queue.

    Args:
        space: Its keys at one moment, and those of the queues that its flows go through. Of records it needs the
            fields that `reading.FIELDS` names, of a job's parts no content but that of `dependencies`.
        base: `prefix:queue:`.
        now_ms: What time it is.
        at_rest: Nobody works on the queue and everything is done: nothing may be active, locked or stalled.
        replay: The events so far; without it those of `space`.
    """
    view = View.of(space, base)
    if replay is None:
        events = space.get(f"{base}events")
        replay = Replay(events.content if events is not None and events.kind == "stream" else ())
    found = [
        *_strangers(view),
        *_states(view),
        *_records(view),
        *_histories(view, replay),
        *_locks(view, at_rest=at_rest),
        *_parents(view, space),
        *_schedulers(view, now_ms),
        *_runs_of_nobody(view),
        *_deduplication(view),
    ]
    return sorted(found, key=lambda violation: (violation.key, violation.invariant, violation.text))


def _strangers(view: View) -> Iterator[Violation]:
    for key, what in view.strangers.items():
        yield Violation("I3", key, what, False)
    for job_id, parts in view.parts.items():
        if job_id not in view.records:
            names = ", ".join(sorted(parts))
            yield Violation("I3", view.base + job_id, f"has {names} but no record", True)
    for member in view.markers - {"0", "1"}:
        yield Violation("I9", f"{view.base}marker", f"holds {member!r}, which wakes nobody", True)


def _states(view: View) -> Iterator[Violation]:
    for job_id, keys in view.where.items():
        key = view.base + job_id
        if len(set(keys)) > 1:
            yield Violation("I2", key, f"is in {' and in '.join(sorted(set(keys)))}", False)
        for suffix, times in Counter(keys).items():
            if times > 1:
                yield Violation("I2", key, f"is in {suffix} {times} times", True)
        if job_id not in view.records:
            yield Violation("I3", key, f"is in {keys[0]}, and has no record", True)


def _records(view: View) -> Iterator[Violation]:
    for job_id, record in view.records.items():
        key, keys = view.base + job_id, view.where.get(job_id, [])
        if not keys:
            yield Violation("I3", key, "has a record, and is in no state", False)
        elif keys[0] in _ENDED and "finishedOn" not in record:
            yield Violation("I4", key, f"is in {keys[0]}, and has no finishedOn", False)
        elif keys[0] not in _ENDED and "finishedOn" in record:
            yield Violation("I4", key, f"is in {keys[0]}, and has a finishedOn", False)
        for name in _COUNTERS:
            if name in record and not record[name].isdecimal():
                yield Violation("I7", key, f"{name} is no count", False)


def _histories(view: View, replay: Replay) -> Iterator[Violation]:
    for job_id, history in replay.jobs.items():
        key, keys = view.base + job_id, view.where.get(job_id, [])
        for invariant, text in history.faults:
            yield Violation(invariant, key, text, False)
        record = view.records.get(job_id)
        # Draining, cleaning and eviction say nothing.
        if not keys or record is None or not history.state:
            continue
        allowed = _STATES_OF_EVENT.get(history.state, frozenset({history.state}))
        if keys[0] not in allowed:
            yield Violation("I8", key, f"is in {keys[0]}, and its last event says {history.state!r}", False)
        if history.is_whole:
            for text in _miscounted(record, history):
                yield Violation("I7", key, text, False)


def _miscounted(record: Any, history: History) -> Iterator[str]:
    values = [record.get(name, "0") for name in _COUNTERS]
    if not all(value.isdecimal() for value in values):
        return
    started, made, stalled = map(int, values)
    if stalled != history.stalls:
        yield f"stc is {stalled}, and it stalled {history.stalls} times"
    if history.was_retried:
        return
    # What goes back before a processor has seen it is not counted as a start.
    if not history.starts - (history.returns - history.stalls) <= started <= history.starts:
        yield f"ats is {started}, and it was started {history.starts} times"
    if made > started:
        yield f"atm is {made}, and ats only {started}"
    attempts = _attempts(record)
    if attempts is not None and made > attempts:
        yield f"atm is {made}, and it has {attempts} attempts"


def _attempts(record: Any) -> int | None:
    try:
        options: Any = json.loads(record.get("opts") or "{}")
        return max(1, int(options.get("attempts", 1)))
    except (ValueError, TypeError, AttributeError):
        return None


def _locks(view: View, *, at_rest: bool) -> Iterator[Violation]:
    for job_id, ttl_ms in view.locks.items():
        key, keys = view.base + job_id, view.where.get(job_id, [])
        if "active" not in keys:
            yield Violation("I9", key, f"has a lock, and is in {keys[0] if keys else 'no state'}", True)
        elif ttl_ms == -1:
            yield Violation("I9", key, "has a lock that never runs out", True)
    if at_rest:
        for job_id, keys in view.where.items():
            if "active" in keys:
                yield Violation("I9", view.base + job_id, "is active, and nobody works", False)
        for job_id in view.stalled:
            yield Violation("I9", view.base + job_id, "is still taken for stalled", True)


def _parents(view: View, space: Keyspace) -> Iterator[Violation]:
    for job_id, keys in view.where.items():
        if "waiting-children" not in keys:
            continue
        key, children = view.base + job_id, view.dependencies.get(job_id, set[str]())
        if not children:
            yield Violation("I11", key, "waits for children, and has none that have not ended", True)
        for child in children:
            fault = _child_fault(space, child, key)
            if fault:
                yield Violation("I11", key, f"waits for {child}, which {fault}", True, (child,))


def _child_fault(space: Keyspace, child: str, parent: str) -> str:
    entry = space.get(child)
    if entry is None or entry.kind != "hash":
        return "is not there"
    if entry.content.get("parentKey") != parent:
        return "has another parent, or none"
    base, child_id = split_key(child)
    completed = space.get(f"{base}completed")
    return "has completed" if completed is not None and child_id in completed.content else ""


def _schedulers(view: View, now_ms: int) -> Iterator[Violation]:
    for scheduler_id, record in view.schedulers.items():
        key = f"{view.base}repeat:{scheduler_id}"
        planned = view.planned.get(scheduler_id)
        if planned is None:
            yield Violation("I12", key, "a job scheduler that is planned for no time", False)
            continue
        pending = f"repeat:{scheduler_id}:{planned}"
        keys = set(view.where.get(pending, ()))
        # Without a count it is a repeatable job of an old version, which nobody plans any more.
        if "ic" in record and not keys - set(_ENDED) and not _may_have_ended(record, now_ms):
            yield Violation("I12", key, "a job scheduler without a pending job", True, (view.base + pending,))


def _runs_of_nobody(view: View) -> Iterator[Violation]:
    """Runs to come that are not the one that their scheduler has planned."""
    for job_id, keys in view.where.items():
        record = view.records.get(job_id)
        if record is None or keys[0] != "delayed" or "rjk" not in record or "processedOn" in record:
            continue
        scheduler_id = record["rjk"]
        beginning = f"repeat:{scheduler_id}:"
        planned = view.planned.get(scheduler_id)
        if "ats" in record or not job_id.startswith(beginning) or job_id == f"{beginning}{planned}":
            continue
        of_whom = "another is planned" if planned else "which is gone"
        yield Violation(
            "I12", view.base + job_id, f"a run of {scheduler_id!r} that is to come, and {of_whom}", False,
            (f"{view.base}repeat:{scheduler_id}",),
        )  # fmt: skip


def _may_have_ended(record: Any, now_ms: int) -> bool:
    """Whether the last run may have been the last of all. Of a pattern with an end only the calendar could tell."""
    fields = cast("dict[str, str]", record)
    limit, end, count = (_number(fields.get(name)) for name in ("limit", "endDate", "ic"))
    if limit is not None and (count or 0) >= limit:
        return True
    return end is not None and ("pattern" in fields or now_ms > end)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _deduplication(view: View) -> Iterator[Violation]:
    for dedup_id, (owner, ttl_ms) in view.owners.items():
        key = f"{view.base}de:{dedup_id}"
        keys = view.where.get(owner, [])
        if ttl_ms == -1 and owner not in view.records:
            yield Violation(
                "I21", key, f"is owned for ever by {owner!r}, which is gone", True, (view.base + owner,)
            )
        elif ttl_ms == -1 and keys and keys[0] in _ENDED:
            yield Violation(
                "I21", key, f"is owned for ever by {owner!r}, which has ended", True, (view.base + owner,)
            )
    live = {
        record.get("deid") for job_id, record in view.records.items() if _is_live(view.where.get(job_id, []))
    }
    for dedup_id in view.next_jobs - live:
        key = f"{view.base}dn:{dedup_id}"
        owner = view.owners.get(dedup_id, ("", 0))[0]
        text = "keeps a job for when the owner of the deduplication id ends, and none is to end"
        yield Violation(
            "I21", key, text, False, (f"{view.base}de:{dedup_id}", *([view.base + owner] if owner else []))
        )


def _is_live(keys: list[str]) -> bool:
    return bool(keys) and keys[0] not in _ENDED
