"""pause: closes a queue to fetching, or opens it again."""

from __future__ import annotations

from .room import NOW, Room, record


async def test_pausing_leaves_jobs_where_they_are(room: Room) -> None:
    """`meta.paused` stands, nobody is woken any more, jobs stay in `wait`."""
    await room.start(record())
    await room.add(record(), record(delay=5))
    await room.events()

    assert await room.scripts.pause("pause") == 0

    dump = await room.dump()
    assert dump["meta"]["paused"] == "1"
    assert "marker" not in dump
    assert (dump["wait"], dump["active"]) == (["2"], ["1"])
    assert await room.events() == ["paused"]


async def test_resuming_wakes_somebody_for_what_waits(room: Room) -> None:
    """For waiting and for prioritized jobs alike."""
    for job in (record(), record(priority=1)):
        await room.client.delete(room.keys.key("wait"))
        await room.add(job)
        await room.scripts.pause("pause")
        await room.events()

        assert await room.scripts.pause("resume") == 0

        assert await room.marker() == {"0": 0.0}
        assert "paused" not in (await room.dump())["meta"]
        assert await room.events() == ["resumed"]


async def test_resuming_sets_the_alarm_for_what_is_delayed(room: Room) -> None:
    """Without anything to run now, a worker is told when there will be."""
    await room.scripts.pause("pause")
    await room.add(record(delay=5_000))
    await room.forget_marker()

    await room.scripts.pause("resume")

    assert await room.marker() == {"1": NOW + 5_000}


async def test_a_list_of_an_old_version_becomes_the_line(room: Room) -> None:
    """Where nothing waits, `paused` is renamed."""
    await room.scripts.pause("pause")
    await room.client.rpush(room.keys.key("paused"), "b", "a")

    assert await room.scripts.pause("resume") == 0

    assert await room.wait() == ["b", "a"]
    assert "paused" not in await room.dump()


async def test_a_list_of_an_old_version_runs_before_newer_jobs(room: Room) -> None:
    """Its ids join the right end, at most 7000 a call; the rest is said and follows with `continue`."""
    await room.add(record())
    await room.scripts.pause("pause")
    await room.client.rpush(room.keys.key("paused"), *(f"old-{n}" for n in range(7_500)))
    await room.events()

    assert await room.scripts.pause("resume") == 500
    assert await room.scripts.pause("continue") == 0

    assert await room.wait() == ["1", *(f"old-{n}" for n in range(7_500))]
    assert await room.events() == ["resumed"], "announced once"


async def test_resuming_an_open_queue_is_harmless(room: Room) -> None:
    """It says so, and nothing else happens."""
    await room.scripts.pause("resume")

    assert await room.dump() == {"events": ["resumed"]}
