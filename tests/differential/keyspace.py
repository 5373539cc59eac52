"""What stands in the server, in a form that two clients' keys can be compared in.

Compared are all keys under a prefix, type and content: lists in order, sorted sets with the scores' text, hashes field
by field, streams entry by entry in order. Left out is what cannot be equal or says nothing: stream ids, how long a key
has still to live (but not whether it expires), the order of members in JSON that a client may write in any order, the
prefix itself inside values, `meta`'s `version`, and keys that are private to toril.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

__all__ = ["Keyspace", "difference", "forget", "new_events", "read"]

Json = Any
Keyspace = dict[str, Json]
"""Key without the prefix, such as `q:wait` -> {"type", "expires", "content"}."""

_DUMP = Path(__file__).with_name("dump.lua").read_text()
_PRIVATE = ":toril:"
_JSON = ("opts", "parent", "pd")


def read(client: redis.Redis, base: str) -> Keyspace:
    """Read all keys that begin with `base`."""
    entries: list[Json] = client.eval(_DUMP, 0, base, "0")  # pyright: ignore[reportAssignmentType]
    return {
        suffix: {"type": kind, "expires": ttl >= 0, "content": _normal(base, suffix, kind, content)}
        for suffix, kind, ttl, content in sorted(entries)
        if _PRIVATE not in suffix
    }


def forget(client: redis.Redis, base: str) -> None:
    """Delete all keys that begin with `base`."""
    client.eval(_DUMP, 0, base, "1")


def difference(node: Keyspace, toril: Keyspace) -> list[str]:
    """Say where two keyspaces differ, a line each; empty when they are equal."""
    lines: list[str] = []
    for suffix in sorted(node.keys() | toril.keys()):
        ours, theirs = toril.get(suffix), node.get(suffix)
        if ours == theirs:
            continue
        if ours and theirs and ours["type"] == theirs["type"] == "hash":
            lines += _fields(suffix, theirs["content"], ours["content"])
            if ours["expires"] == theirs["expires"]:
                continue
        lines.append(f"{suffix}: node {theirs}, toril {ours}")
    return lines


def _normal(base: str, suffix: str, kind: str, content: Json) -> Json:
    match kind:
        case "string":
            return _own(base, content)
        case "list":
            return [_own(base, item) for item in content]
        case "set":
            return sorted(_own(base, item) for item in content)
        case "zset":
            return [(_own(base, member), score) for member, score in _pairs(content)]
        case "hash":
            fields = {_own(base, field): _own(base, value) for field, value in _pairs(content)}
            if suffix.endswith(":meta"):
                fields.pop("version", None)
            for field in _JSON:
                if field in fields:
                    fields[field] = _json(fields[field])
            return fields
        case "stream":
            return [[_own(base, part) for part in parts] for _, parts in content]
        case _:
            raise AssertionError(f"{suffix} is a {kind}, which no queue has")


def _json(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return f"no JSON: {text}"


def _own(base: str, value: str) -> str:
    """Values may name keys in full."""
    return value.replace(base, "<base>")


def _pairs(flat: list[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _fields(suffix: str, node: dict[str, Json], toril: dict[str, Json]) -> list[str]:
    return [
        f"{suffix}.{field}: node {node.get(field)!r}, toril {toril.get(field)!r}"
        for field in sorted(node.keys() | toril.keys())
        if node.get(field) != toril.get(field)
    ]


def new_events(space: Keyspace, before: Keyspace, *, is_ordered: bool) -> Keyspace:
    """Return the keys with only those events that have come since `before`; sorted, where their order is free."""

    def new(suffix: str, value: Json) -> Json:
        if value["type"] != "stream":
            return value
        known = len(before[suffix]["content"]) if suffix in before else 0
        events = value["content"]
        # A stream that has shrunk was deleted and begun anew.
        events = events[known:] if known <= len(events) else events
        return {**value, "content": events if is_ordered else sorted(events)}

    return {suffix: new(suffix, value) for suffix, value in space.items()}
