"""A list leaves exactly what its members would leave one after another: calls with N against N calls with one.

Two queues get the same jobs; one is called once, the other member by member. Then all their keys are equal.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from toril.options import KeepRule
from toril.scripts import FinishedJob, NewRecord
from toril.states import FinishedState

from .room import NOW, TOKEN, Room, end, record

STATES: list[FinishedState] = ["completed", "failed"]
RULES = [
    KeepRule(),
    KeepRule(count="0"),
    KeepRule(count="2"),
    KeepRule(count="", age="1"),
    KeepRule(count="3", age="0"),
]


def some_records(chance: random.Random, count: int) -> list[NewRecord]:
    """Standard, LIFO, delayed, prioritized, with ids that repeat."""
    return [
        record(
            chance.choice(["", "", "", f"own-{chance.randrange(4)}"]),
            name=chance.choice(["paint", "dry"]),
            delay=chance.choice([0, 0, 0, 1, 1, 500]),
            priority=chance.choice([0, 0, 0, 1, 7]),
            lifo=chance.random() < 0.3,
            at=NOW + chance.randrange(3),
        )
        for _ in range(count)
    ]


async def prepare(rooms: tuple[Room, Room], chance: random.Random) -> None:
    """The same past for both."""
    meta: dict[str, Any] = chance.choice(
        [{}, {}, {"paused": 1}, {"concurrency": 3}, {"max": 4, "duration": 60_000}]
    )
    records = some_records(chance, chance.randrange(4))
    for room in rooms:
        if records:
            await room.add(*records)
        if meta:
            await room.set_meta(**meta)


@pytest.mark.parametrize("seed", range(25))
async def test_adding_a_list(room: Room, other_room: Room, seed: int) -> None:
    """add_job of N = N times add_job, in every key and in the ids."""
    chance = random.Random(seed)
    await prepare((room, other_room), chance)
    records = some_records(chance, chance.randrange(1, 12))

    ids = await room.add(*records)
    singly = [(await other_room.add(member))[0] for member in records]

    assert ids == singly
    assert await room.dump() == await other_room.dump()


@pytest.mark.parametrize("apart_ms", [0, 1])
async def test_adding_a_list_that_only_waits(room: Room, other_room: Room, apart_ms: int) -> None:
    """The same of the short ways through add_job, also where it cuts old events away."""
    records = [record(name=f"n{n}", data=f'"é{n}"', at=NOW + n * apart_ms) for n in range(230)]
    for each in (room, other_room):
        await each.set_meta(**{"opts.maxLenEvents": 120})

    ids = await room.add(*records)
    singly = [(await other_room.add(member))[0] for member in records]

    assert ids == singly
    left = await room.dump()
    assert left == await other_room.dump()
    assert 120 <= len(left["events"]) < 230


@pytest.mark.parametrize("seed", range(25))
async def test_fetching_a_list(room: Room, other_room: Room, seed: int) -> None:
    """move_to_active for N = fetches for one, until one comes back empty."""
    chance = random.Random(seed)
    await prepare((room, other_room), chance)
    records = some_records(chance, chance.randrange(12))
    for each in (room, other_room):
        if records:
            await each.add(*records)
    want, now = chance.randrange(1, 8), NOW + chance.choice([0, 1, 502])
    limit = chance.choice([None, None, (3, 60_000)])

    fetched = await room.take(want, now=now, worker="w", limit=limit)
    singly: list[tuple[str, dict[str, str]]] = []
    one = await other_room.take(1, now=now, worker="w", limit=limit)
    while one.jobs:
        singly += one.jobs
        if len(singly) == want:
            break
        one = await other_room.take(1, now=now, worker="w", limit=limit)

    assert fetched.jobs == singly
    if len(fetched.jobs) < want:
        assert (fetched.due_ms, fetched.is_closed) == (one.due_ms, one.is_closed)
        assert abs(fetched.limit_ttl_ms - one.limit_ttl_ms) < 5_000
    assert await room.dump() == await other_room.dump()


@pytest.mark.parametrize("seed", range(80))
async def test_finishing_a_list(room: Room, other_room: Room, seed: int) -> None:
    """move_to_finished of N, refused members among them = N times move_to_finished, with the fetch in the last."""
    chance = random.Random(seed)
    count = chance.randrange(1, 8)
    # A list of plain ends goes another way than one with refusals.
    is_plain = seed % 2 == 0
    for each in (room, other_room):
        await each.start(*(record(f"job-{n}") for n in range(count)))
    await prepare((room, other_room), chance)
    ends: list[FinishedJob] = []
    for n in chance.sample(range(count), count):
        if not is_plain and chance.random() < 0.2:
            for each in (room, other_room):
                await each.client.delete(each.keys.job(f"job-{n}") + ":lock")
        ends.append(
            end(
                f"job-{n}" if is_plain else chance.choice([f"job-{n}"] * 6 + ["no-such"]),
                chance.choice(STATES),
                f'"{n}"',
                token=TOKEN if is_plain else chance.choice([TOKEN] * 6 + ["worker:other"]),
                attempts=chance.randrange(3),
                stacktrace="[]",
                keep=chance.choice(RULES),
            )
        )
    if not is_plain:
        ends += chance.sample(ends, min(1, len(ends)))  # one of them twice
    elif chance.random() < 0.3:
        # Somebody has taken it out of the list of active jobs, though not its lock.
        for each in (room, other_room):
            await each.client.lrem(each.keys.key("active"), 1, ends[0].job_id)
    want, points = chance.randrange(4), chance.choice([0, 3])
    if points:
        # The first job of a later minute.
        for each in (room, other_room):
            await each.client.hset(
                each.keys.key("metrics:completed"), mapping={"count": 5, "prevTS": NOW - 120_000}
            )

    codes, fetched = await room.finish(*ends, want=want, points=points)
    # The fetch goes with the last that ends; who is refused after it says nothing about `drained`.
    last = max((n for n, code in enumerate(codes) if code == 0), default=len(ends) - 1)
    singly: list[int] = []
    jobs: list[tuple[str, dict[str, str]]] = []
    for number, member in enumerate(ends):
        some_codes, one = await other_room.finish(member, want=want if number == last else 0, points=points)
        singly += some_codes
        jobs += one.jobs

    assert codes == singly
    assert fetched.jobs == jobs
    assert await room.dump() == await other_room.dump()
