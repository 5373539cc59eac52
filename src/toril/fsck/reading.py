"""Looks at a queue in use: reads its keys in bounded steps, and what seems wrong once more, at one moment.

While keys are read one after another, jobs move from the ones that are still to be read to the ones that have been,
and the other way round. So a first reading only makes suspects. Each suspect's own keys are then read in one
call, and only what the same rules find there is reported. Nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, cast

from ..connection import Connection
from ..keys import QueueKeys
from ..queue_verbs import escaped
from ..scripts import Scripts
from .histories import Replay
from .rules import Violation, violations
from .view import PARTS, QUEUE_KEYS, STATE_KEYS, Entry, split_key

__all__ = ["FIELDS", "check"]

FIELDS: Final = (
    "name", "timestamp", "opts", "finishedOn", "processedOn", "ats", "atm", "stc", "rjk", "deid", "parentKey",
    "ic", "limit", "endDate", "every", "pattern", "jid",
)  # fmt: skip
"""What the rules read of records, of jobs and of schedulers. Data and return values may be large, and stay there."""

_PAGE: Final = 1000
# Looked at again at once: each may make the server search a list.
_SUSPECTS: Final = 20
# With more, the queue is read anew before they are.
_CROWD: Final = 200
_Command = tuple[Any, ...]
_Space = dict[str, Entry]
_Take = Callable[[_Space, list[Any]], None]
_LISTS: Final = tuple(suffix for suffix, kind in STATE_KEYS.items() if kind == "list")
_ZSETS: Final = tuple(suffix for suffix, kind in STATE_KEYS.items() if kind == "zset")


async def check(
    connection: Connection, queue: str, prefix: str = "bull", *, at_rest: bool = False, most: int = 1000
) -> list[Violation]:
    """Say which invariants a queue breaks; see the package for what they are.

    The queue may be in use. A job that moves while it is looked at is not reported.

    Args:
        connection: Where it is.
        queue: Its name.
        prefix: Its prefix.
        at_rest: Nobody works on the queue and everything is done: nothing may be active, locked or stalled.
        most: How many violations are looked for.

    Raises:
        TorilError: The server could not be read.
    """
    await connection.learn_time()
    keys, now_ms = QueueKeys(prefix, queue), connection.clock.now_ms()

    async def read() -> tuple[_Reader, list[Violation]]:
        reader = _Reader(connection, keys)
        await reader.read_all()
        return reader, violations(reader.space, reader.base, now_ms, at_rest=at_rest, replay=reader.replay)

    reader, suspects = await read()
    if len(suspects) > _CROWD:
        # Mostly jobs that moved while the queue was read. By now those have gone further, and need not be searched for.
        earlier = set(map(_what, suspects))
        reader, suspects = await read()
        suspects = [one for one in suspects if _what(one) in earlier]
    confirmed: dict[Violation, None] = {}
    for some in _pages(suspects, _SUSPECTS):
        for suspect, space in zip(some, await reader.look_again(some), strict=True):
            found = violations(space, reader.base, now_ms, at_rest=at_rest, replay=reader.replay_of(suspect))
            # A text may have changed, such as a number in it; it is still wrong in the same way.
            confirmed |= {one: None for one in found if _what(one) == _what(suspect)}
        if len(confirmed) >= most:
            break
    return list(confirmed)[:most]


def _what(violation: Violation) -> tuple[str, str, tuple[str, ...]]:
    return violation.invariant, violation.key, violation.about


class _Reader:
    """Keys of a queue and of the children that its parents wait for."""

    def __init__(self, connection: Connection, keys: QueueKeys) -> None:
        self.base = keys.base
        self.space: _Space = {}
        self.replay = Replay()
        self._connection = connection
        self._scripts = Scripts(keys, connection)
        self._last_event = "-"

    async def read_all(self) -> None:
        """Read the whole queue, a page at a time."""
        kinds = {key: kind async for page in self._kinds() for key, kind in page}
        for key, kind in kinds.items():
            suffix = key.removeprefix(self.base)
            if STATE_KEYS.get(suffix) == kind or (suffix, kind) in (
                ("repeat", "zset"), ("marker", "zset"), ("stalled", "set"),
            ):  # fmt: skip
                self.space[key] = Entry(kind, -1, await self._members(key, kind))
            elif suffix in QUEUE_KEYS or kind not in ("hash", "string"):
                self.space[key] = Entry(kind, -1, None)
        hashes = [key for key, kind in kinds.items() if kind == "hash" and key not in self.space]
        for page in _pages(hashes):
            answers = await self._all([("HMGET", key, *FIELDS) for key in page])
            self.space |= {
                key: Entry("hash", -1, _fields(values)) for key, values in zip(page, answers, strict=True)
            }
        strings = [key for key, kind in kinds.items() if kind == "string" and key not in self.space]
        for page in _pages(strings, _PAGE // 2):
            answers = await self._all([part for key in page for part in self._string(key)])
            for key, ttl_ms, text in zip(page, answers[::2], answers[1::2], strict=True):
                if ttl_ms != -2:
                    self.space[key] = Entry("string", ttl_ms, text)
        await self._read_children()
        await self._read_events()

    async def look_again(self, suspects: Sequence[Violation]) -> list[_Space]:
        """Read what some suspicions rest on in one call, and the events up to that moment."""
        events = self.space.get(f"{self.base}events")
        has_events = events is not None and events.kind == "stream"
        commands: list[_Command] = [
            ("XREVRANGE", f"{self.base}events", "+", "-", "COUNT", 1) if has_events else ("TIME",)
        ]
        takers: list[tuple[_Space, int, _Take]] = []
        spaces: list[_Space] = []
        for suspect in suspects:
            spaces.append({})
            for key in dict.fromkeys((suspect.key, *suspect.about)):
                new, take = self._about(key, suspect)
                takers.append((spaces[-1], len(new), take))
                commands += new
        last, *answers = await self._scripts.read_together(commands)
        at = 0
        for space, count, take in takers:
            take(space, answers[at : at + count])
            at += count
        if has_events and isinstance(last, list) and last:
            await self._read_events(until=cast("list[list[str]]", last)[0][0])
        return spaces

    def replay_of(self, suspect: Violation) -> Replay:
        """The history of the job alone: of the others nothing was read again."""
        replay = Replay()
        job_id = suspect.key.removeprefix(self.base)
        if job_id in self.replay.jobs:
            replay.jobs[job_id] = self.replay.jobs[job_id]
        return replay

    # --- reading in pages ---

    async def _kinds(self) -> AsyncIterator[list[tuple[str, str]]]:
        cursor = "0"
        while True:
            cursor, keys = await self._connection.execute(
                "SCAN", cursor, "MATCH", escaped(self.base) + "*", "COUNT", _PAGE
            )
            if keys:
                kinds = await self._all([("TYPE", key) for key in keys])
                yield [(key, kind) for key, kind in zip(keys, kinds, strict=True) if kind != "none"]
            if cursor == "0":
                return

    async def _members(self, key: str, kind: str) -> Any:
        if kind == "list":
            items: list[str] = []
            length: int = await self._connection.execute("LLEN", key)
            for start in range(0, length, _PAGE):
                items += await self._connection.execute("LRANGE", key, start, start + _PAGE - 1)
            return items
        flat: list[str] = []
        cursor = "0"
        while True:
            cursor, part = await self._connection.execute(
                "ZSCAN" if kind == "zset" else "SSCAN", key, cursor, "COUNT", _PAGE
            )
            flat += part
            if cursor == "0":
                return _scores(flat) if kind == "zset" else set(flat)

    def _string(self, key: str) -> list[_Command]:
        suffix = key.removeprefix(self.base)
        # A lock's token is nobody's business.
        return [("PTTL", key), ("GET", key) if suffix.startswith("de:") else ("EXISTS", key)]

    async def _read_children(self) -> None:
        """The children of jobs that wait for them: who their parent is, and whether they have completed."""
        parents = self.space.get(f"{self.base}waiting-children")
        for parent in parents.content if parents is not None and parents.kind == "zset" else ():
            key = f"{self.base}{parent}:dependencies"
            entry = self.space.get(key)
            if entry is None or entry.kind != "set":
                continue
            children: set[str] = await self._members(key, "set")
            self.space[key] = entry._replace(content=children)
            for page in _pages([child for child in children if not child.startswith(self.base)]):
                await self._read_foreign(page)

    async def _read_foreign(self, children: Sequence[str]) -> None:
        commands = [command for child in children for command in _foreign(child)]
        for child, answers in zip(children, _pages(await self._all(commands), 3), strict=True):
            _take_foreign(child, self.space, answers)

    async def _read_events(self, until: str = "+") -> None:
        """Go on where the last reading ended."""
        key = f"{self.base}events"
        events = self.space.get(key)
        if events is None or events.kind != "stream":
            return
        while True:
            start = self._last_event if self._last_event == "-" else f"({self._last_event}"
            commands = [("XRANGE", key, "-", "+", "COUNT", 1), ("XRANGE", key, start, until, "COUNT", _PAGE)]
            oldest, page = await self._scripts.read_together(commands)
            if oldest and self._last_event != "-" and _order(oldest[0][0]) > _order(self._last_event):
                # What lies between was trimmed before it was read.
                self.replay.feed(None)
            for event_id, parts in page:
                self.replay.feed(dict(zip(parts[::2], parts[1::2], strict=True)))
                self._last_event = event_id
            if len(page) < _PAGE:
                return

    async def _all(self, commands: Sequence[_Command]) -> list[Any]:
        return await self._connection.execute_all(commands) if commands else []

    # --- reading once more ---

    def _about(self, key: str, suspect: Violation) -> tuple[list[_Command], _Take]:
        """Return commands that read what one of a suspicion's keys is, and what takes their answers."""
        suffix = key.removeprefix(self.base)
        kind = suffix.partition(":")[0]
        if not key.startswith(self.base):
            return list(_foreign(key)), partial(_take_foreign, key)
        if suffix in QUEUE_KEYS or (key in self.space and self.space[key].kind not in ("hash", "string")):
            return self._plain(key)
        if kind == "de":
            return [*self._string(key), ("TYPE", key)], partial(_take_string, key)
        if kind == "dn" or (kind == "repeat" and self._is_scheduler(suffix)):
            return self._hash(key)
        return self._job(suffix, suspect)

    def _is_scheduler(self, suffix: str) -> bool:
        repeat, entry = self.space.get(f"{self.base}repeat"), self.space.get(self.base + suffix)
        is_planned = repeat is not None and suffix.removeprefix("repeat:") in (repeat.content or ())
        return is_planned or (entry is not None and entry.kind == "hash" and "ic" in entry.content)

    def _plain(self, key: str) -> tuple[list[_Command], _Take]:
        kind = self.space[key].kind
        commands: list[_Command] = [("TYPE", key)]
        if kind == "zset":
            commands.append(("ZRANGE", key, 0, _PAGE, "WITHSCORES"))

        def take(space: _Space, answers: list[Any]) -> None:
            if answers[0] != "none":
                space[key] = Entry(answers[0], -1, _scores(answers[1]) if len(answers) > 1 else None)

        return commands, take

    def _hash(self, key: str) -> tuple[list[_Command], _Take]:
        repeat = f"{self.base}repeat"
        scheduler_id = key.removeprefix(f"{repeat}:")
        commands = [("HMGET", key, *FIELDS), ("ZSCORE", repeat, scheduler_id)]

        def take(space: _Space, answers: list[Any]) -> None:
            fields, score = answers
            if _fields(fields):
                space[key] = Entry("hash", -1, _fields(fields))
            if score is not None:
                space[repeat] = Entry("zset", -1, {scheduler_id: float(score)})

        return commands, take

    def _job(self, job_id: str, suspect: Violation) -> tuple[list[_Command], _Take]:
        key = self.base + job_id
        named = [child for child in suspect.about if child != key]
        commands: list[_Command] = [
            ("HMGET", key, *FIELDS),
            ("TYPE", key),
            ("PTTL", f"{key}:lock"),
            ("SISMEMBER", f"{self.base}stalled", job_id),
            *(("LPOS", self.base + suffix, job_id, "COUNT", 0) for suffix in _LISTS),
            *(("ZSCORE", self.base + suffix, job_id) for suffix in _ZSETS),
            *(("TYPE", f"{key}:{part}") for part in PARTS),
            ("SCARD", f"{key}:dependencies"),
            *(("SISMEMBER", f"{key}:dependencies", child) for child in named),
        ]

        def take(space: _Space, answers: list[Any]) -> None:
            fields, kind, lock_ms, is_stalled, *rest = answers
            if kind == "hash":
                space[key] = Entry("hash", -1, _fields(fields))
            if lock_ms != -2:
                space[f"{key}:lock"] = Entry("string", lock_ms, "")
            if is_stalled == 1:
                space[f"{self.base}stalled"] = Entry("set", -1, {job_id})
            for suffix, found in zip(_LISTS, rest, strict=False):
                if isinstance(found, list) and found:
                    _add(space, self.base + suffix, "list", [job_id] * len(cast("list[int]", found)))
            rest = rest[len(_LISTS) :]
            for suffix, found in zip(_ZSETS, rest, strict=False):
                if isinstance(found, str):
                    _add(space, self.base + suffix, "zset", {job_id: float(found)})
            rest = rest[len(_ZSETS) :]
            for part, kind in zip(PARTS, rest, strict=False):
                if part != "lock" and kind != "none":
                    space[f"{key}:{part}"] = Entry(kind, -1, {} if kind == "hash" else None)
            how_many, *are_members = rest[len(PARTS) :]
            open_children = {child for child, is_one in zip(named, are_members, strict=True) if is_one == 1}
            if isinstance(how_many, int) and how_many > len(open_children):
                # Others are open, too, which were not suspected of anything.
                other = f"{key}:others"
                space[other] = Entry("hash", -1, {"parentKey": key})
                open_children.add(other)
            if open_children:
                space[f"{key}:dependencies"] = Entry("set", -1, open_children)

        return commands, take


def _foreign(child: str) -> tuple[_Command, ...]:
    base, child_id = split_key(child)
    return ("TYPE", child), ("HGET", child, "parentKey"), ("ZSCORE", f"{base}completed", child_id)


def _take_foreign(child: str, space: _Space, answers: Sequence[Any]) -> None:
    kind, parent, completed = answers
    base, child_id = split_key(child)
    if kind != "none":
        space[child] = Entry(kind, -1, {"parentKey": parent} if isinstance(parent, str) else {})
    if isinstance(completed, str):
        _add(space, f"{base}completed", "zset", {child_id: float(completed)})


def _take_string(key: str, space: _Space, answers: Sequence[Any]) -> None:
    ttl_ms, text, kind = answers
    if kind == "string":
        space[key] = Entry(kind, ttl_ms, text)


def _add(space: _Space, key: str, kind: str, content: Any) -> None:
    """Put content to what stands there already."""
    if key in space:
        held = space[key].content
        content = held + content if kind == "list" else held | content
    space[key] = Entry(kind, -1, content)


def _fields(values: list[str | None] | Exception) -> dict[str, str]:
    if not isinstance(values, list):
        return {}
    return {name: value for name, value in zip(FIELDS, values, strict=True) if value is not None}


def _scores(flat: Any) -> dict[str, float]:
    if not isinstance(flat, list):
        return {}
    pairs = iter(cast("list[str]", flat))
    return {member: float(score) for member, score in zip(pairs, pairs, strict=True)}


def _order(event_id: str) -> tuple[int, int]:
    ms, _, sequence = event_id.partition("-")
    return int(ms), int(sequence)


def _pages(items: Sequence[Any], size: int = _PAGE) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
