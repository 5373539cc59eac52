"""The bench itself: it sees differences of every kind, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from .bench import MOVES, Bench
from .keyspace import Keyspace
from .operations import NodeSide, Operation, TorilSide

Json = Any


async def _nothing(side: NodeSide, **_: Json) -> None: ...


def _on_toril_only(*command: str) -> Operation:
    async def send(side: TorilSide) -> None:
        client: Any = side.client
        client.execute_command(command[0], side.keys.key(command[1]), *command[2:])

    return Operation(_nothing, send)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("HSET", "1", "opts", '{"attempts":1}'), "q:1.opts: node {'attempts': 0}, toril {'attempts': 1}"),
        (("HSET", "1", "data", '{ "a":1}'), """q:1.data: node '{"a":1}', toril '{ "a":1}'"""),
        (("HDEL", "1", "priority"), "q:1.priority: node '0', toril None"),
        (("LSET", "wait", "0", "9"), "q:wait: node"),
        (("ZINCRBY", "delayed", "1", "3"), "q:delayed: node"),
        (("ZADD", "marker", "5", "0"), "q:marker: node"),
        (("XADD", "events", "*", "event", "x"), "'content': [['event', 'x']]"),
        (("EXPIRE", "1", "100"), "q:1: node"),
        (("SET", "other", "1"), "q:other: node None"),
        (("DEL", "id"), "q:id: node"),
        (("HSET", "meta", "paused", "1"), "q:meta.paused: node None, toril '1'"),
    ],
    ids=str,
)
async def test_the_bench_sees(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], told: str
) -> None:
    """A change on one side fails the program, and the message names the key and the field."""
    monkeypatch.setitem(MOVES, "meddle", _on_toril_only(*command))
    jobs: list[Json] = [("a", {"a": 1}, {}), ("b", {}, {}), ("c", {}, {"delay": 100})]

    with pytest.raises(AssertionError) as caught:
        await bench.run([("add_bulk", {"jobs": jobs}), ("meddle", {}), ("state", {"job": "1"})])

    assert "after step 1 meddle" in str(caught.value)
    assert told in str(caught.value)


async def test_the_bench_sees_another_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal keys do not excuse different answers."""

    async def seven(side: TorilSide) -> int:
        return 7

    monkeypatch.setitem(MOVES, "guess", Operation(_nothing, seven))

    with pytest.raises(AssertionError, match="answer: node None, toril 7"):
        await bench.run([("guess", {})])


@pytest.mark.parametrize(
    "command", [("HSET", "meta", "version", "x:1"), ("SET", "toril:private", "1")], ids=str
)
async def test_the_bench_overlooks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The version stamp and toril's private keys may differ."""
    monkeypatch.setitem(MOVES, "meddle", _on_toril_only(*command))

    await bench.run([("pause", {}), ("meddle", {})])


async def test_the_keys_of_a_program_are_read_in_full(bench: Bench) -> None:
    """What is compared is the whole of what the format describes."""
    space: Keyspace = await bench.run(
        [
            ("add", {"name": "paint", "data": {"color": "red"}, "options": {"attempts": 3}}),
            ("take", {"token": "t1", "worker": "named"}),
            ("log", {"job": "1", "row": "row 1"}),
        ]
    )

    assert space == {
        "q:id": {"type": "string", "expires": False, "content": "1"},
        "q:meta": {"type": "hash", "expires": False, "content": {"opts.maxLenEvents": "10000"}},
        "q:active": {"type": "list", "expires": False, "content": ["1"]},
        "q:marker": {"type": "zset", "expires": False, "content": [("0", "0")]},
        "q:1:lock": {"type": "string", "expires": True, "content": "t1"},
        "q:1:logs": {"type": "list", "expires": False, "content": ["row 1"]},
        "q:1": {
            "type": "hash",
            "expires": False,
            "content": {
                "name": "paint",
                "data": '{"color":"red"}',
                "opts": {"attempts": 3},
                "timestamp": "1800000000000",
                "delay": "0",
                "priority": "0",
                "processedOn": "1800000000000",
                "pb": "w-1",
                "ats": "1",
            },
        },
        "q:events": {
            "type": "stream",
            "expires": False,
            "content": [
                ["event", "added", "jobId", "1", "name", "paint"],
                ["event", "waiting", "jobId", "1"],
                ["event", "active", "jobId", "1", "prev", "waiting"],
            ],
        },
    }
