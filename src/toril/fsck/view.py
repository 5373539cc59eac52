"""A queue's keys, sorted by what they are. Nothing here judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

__all__ = ["PARTS", "QUEUE_KEYS", "STATE_KEYS", "Entry", "Keyspace", "View", "split_key"]


class Entry(NamedTuple):
    """One key.

    Attributes:
        kind: Its type, as TYPE names it.
        ttl_ms: How long it has still to live; -1 for ever.
        content: By kind: text, a list of texts, a set of texts, a dict of scores, a dict of fields, and for a stream a
            list of dicts of fields, with None where entries were missed.
    """

    kind: str
    ttl_ms: int
    content: Any


Keyspace = Mapping[str, Entry]
"""Full key -> what stands there."""

STATE_KEYS: Final[dict[str, str]] = {
    "wait": "list",
    "paused": "list",
    "active": "list",
    "prioritized": "zset",
    "delayed": "zset",
    "waiting-children": "zset",
    "completed": "zset",
    "failed": "zset",
}
"""Every key that holds the ids of a state's jobs -> its type. `paused` is what an old version left."""

QUEUE_KEYS: Final[dict[str, str]] = {
    **STATE_KEYS,
    "id": "string",
    "pc": "string",
    "stalled": "set",
    "stalled-check": "string",
    "marker": "zset",
    "limiter": "string",
    "meta": "hash",
    "events": "stream",
    "repeat": "zset",
    "metrics:completed": "hash",
    "metrics:failed": "hash",
    "metrics:completed:data": "list",
    "metrics:failed:data": "list",
}
"""The other keys of which a queue has one each, too."""

PARTS: Final[dict[str, str]] = {
    "lock": "string",
    "logs": "list",
    "dependencies": "set",
    "processed": "hash",
    "failed": "hash",
    "unsuccessful": "zset",
}
"""What hangs off a job's key, behind a colon -> its type."""

_LEGACY: Final = ("delay", "priority")
# Any record has one of these, and neither a child's key nor a row of a set has.
_RECORD_FIELDS: Final = ("timestamp", "name", "data", "opts", "ats", "processedOn")
_PRIVATE: Final = "toril:"


def split_key(key: str) -> tuple[str, str]:
    """Return the base of a job's queue, with its colon, and the job's id, cut as all clients cut: at the last colon."""
    head, _, job_id = key.rpartition(":")
    return f"{head}:", job_id


@dataclass(slots=True)
class View:
    """What a queue holds. Ids of jobs, schedulers and deduplication are the keys of the dicts.

    Attributes:
        where: Job -> the keys of states that it is in, one for each time.
        records: Job -> fields.
        parts: Job -> which parts it has; without locks.
        locks: Job -> ms that its lock has still to live; -1 for ever.
        dependencies: Job -> full keys of children that have not ended.
        planned: Scheduler -> the time of its pending job, as text.
        schedulers: Scheduler -> fields.
        owners: Deduplication id -> the job that owns it, ms that this lasts or -1.
        next_jobs: Deduplication ids that keep a job for when the owner ends.
        stalled: Jobs that the last stalled check saw active.
        markers: What blocked workers wait for.
        strangers: Full keys that no client writes -> what is wrong with them.
    """

    base: str
    where: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    records: dict[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    parts: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    locks: dict[str, int] = field(default_factory=dict[str, int])
    dependencies: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    planned: dict[str, str] = field(default_factory=dict[str, str])
    schedulers: dict[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    owners: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    next_jobs: set[str] = field(default_factory=set[str])
    stalled: set[str] = field(default_factory=set[str])
    markers: set[str] = field(default_factory=set[str])
    strangers: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, space: Keyspace, base: str) -> View:
        """Sort the keys that begin with `base`."""
        view = cls(base)
        repeat = space.get(f"{base}repeat")
        if repeat is not None and repeat.kind == "zset":
            view.planned = {member: f"{score:.0f}" for member, score in repeat.content.items()}
        for key, entry in space.items():
            if key.startswith(base):
                view._take(key.removeprefix(base), entry)
        return view

    def _take(self, suffix: str, entry: Entry) -> None:
        expected = QUEUE_KEYS.get(suffix)
        if expected is not None:
            if entry.kind == expected:
                self._take_queue_key(suffix, entry)
            else:
                self.strangers[self.base + suffix] = f"is a {entry.kind}, should be a {expected}"
        elif not suffix.startswith(_PRIVATE) and suffix not in _LEGACY:
            self._take_other(suffix, entry)

    def _take_queue_key(self, suffix: str, entry: Entry) -> None:
        if suffix in STATE_KEYS:
            for job_id in cast("list[str]", entry.content):
                # Markers of old versions stand among the ids of waiting jobs, and are thrown away when they are met.
                if not job_id.startswith("0:"):
                    self.where.setdefault(job_id, []).append(suffix)
        elif suffix == "stalled":
            self.stalled = set(entry.content)
        elif suffix == "marker":
            self.markers = set(entry.content)

    def _take_other(self, suffix: str, entry: Entry) -> None:
        kind, rest = suffix.partition(":")[0], suffix.partition(":")[2]
        if kind == "de" and entry.kind == "string":
            self.owners[rest] = (entry.content, entry.ttl_ms)
            return
        job_id, _, part = suffix.rpartition(":")
        if entry.kind == "hash":
            fields = cast("Mapping[str, str]", entry.content)
            is_record = any(name in fields for name in _RECORD_FIELDS)
            if kind == "repeat" and (rest in self.planned or "ic" in fields):
                self.schedulers[rest] = fields
                return
            if kind == "dn" and "jid" in fields:
                self.next_jobs.add(rest)
                return
            if is_record or PARTS.get(part) != "hash" or not job_id:
                self.records[suffix] = fields
                return
        if job_id and PARTS.get(part) == entry.kind:
            self._take_part(job_id, part, entry)
        else:
            self.strangers[self.base + suffix] = f"a {entry.kind} that belongs to no job"

    def _take_part(self, job_id: str, part: str, entry: Entry) -> None:
        if part == "lock":
            self.locks[job_id] = entry.ttl_ms
            return
        self.parts.setdefault(job_id, set()).add(part)
        if part == "dependencies" and entry.content is not None:
            self.dependencies[job_id] = set(entry.content)
