"""What is owed is done: with the relay late, the queue's server dead, wiped or replaced, the job lost or failed."""

import asyncio
from datetime import timedelta

import pytest
from redis.exceptions import RedisError
from toril import Job, TorilError, UnrecoverableError, Worker

from pharmacy_coverage import clock
from pharmacy_coverage.outbox.models import Owed, job_id_of
from pharmacy_coverage.outbox.relay import Relay
from pharmacy_coverage.outbox.topics import TOPICS

from .support import Platform, eventually, workers


async def apply(platform: Platform, who: str = "dana") -> str:
    shift = await platform.post()
    return await platform.services.applications.apply(platform.pharmacist(who), shift.id, "")


async def test_topics_and_processors_agree(platform: Platform) -> None:
    """Every topic has a processor on its queue, whose parameters are the topic's data."""
    from pharmacy_coverage.worker import PROCESSORS

    owed = {(topic.queue, topic.job) for topic in TOPICS.values() if topic.queue}
    assert owed == {(processor.queue.name, processor.name) for processor in PROCESSORS}


async def test_published_once_under_a_deterministic_id(platform: Platform, relay: Relay) -> None:
    """The job's id is made from the entry's; publishing again, after a crash before the mark, adds nothing."""
    await apply(platform)
    entry = (await platform.owed("application.submitted"))[0]
    assert entry["job_id"] == job_id_of(entry["_id"]) == "ob." + entry["_id"].removeprefix("obx_")

    await relay.publish_due()
    # As a relay leaves it that dies between publishing and marking.
    await platform.services.database.collection("outbox").update_many(
        {"state": "published"}, {"$set": {"state": "pending"}}
    )
    await relay.publish_due()

    async with platform.queue("notify") as queue:
        assert await queue.get_ids("waiting") == [entry["job_id"]]
        job = await queue.get_job(entry["job_id"])
        assert job is not None
        # Ids only: Redis is clear text.
        assert set(job.data) == {"application_id"}


async def test_nothing_is_sent_for_a_transaction_that_failed(platform: Platform, relay: Relay) -> None:
    """The entry is written by the transaction or not at all."""
    shift = await platform.post(9)
    with pytest.raises(Exception, match="licence"):
        await platform.services.applications.apply(platform.pharmacist("meil"), shift.id, "")
    assert await platform.owed("application.submitted") == []


async def test_a_new_entry_is_published_at_once(platform: Platform, at_work: None) -> None:
    """The change stream wakes the relay: a verdict is there long before the next poll would have come."""
    await platform.all_done()
    begin = asyncio.get_running_loop().time()
    await apply(platform)

    async def is_checked() -> bool:
        return bool(await platform.documents("applications", {"fit.state": "fits"}))

    await eventually(is_checked, "the application is checked")
    assert asyncio.get_running_loop().time() - begin < 2


async def test_a_wiped_redis_loses_nothing(platform: Platform, relay: Relay) -> None:
    """Jobs were waiting, Redis was wiped: the relay notices and publishes them again; each mail is sent once."""
    await relay.check_epoch()
    ids = [await apply(platform, who) for who in ("dana", "amir", "clai")]
    await relay.publish_due()
    assert len(await platform.owed("application.submitted", "published")) == 3

    await platform.queue_redis.flushall()
    assert await relay.check_epoch() is True
    assert len(await platform.owed("application.submitted", "pending")) == 3
    async with workers():
        running = asyncio.create_task(relay.run())
        await platform.all_done()
        running.cancel()

    told = [
        message["Message-ID"] for message in platform.inbox.messages if "applied for" in message["Subject"]
    ]
    assert len(told) == len(set(told)) == len(ids)


async def test_redis_that_went_back_in_time(platform: Platform, relay: Relay) -> None:
    """The epoch is right but the heartbeat is old: a snapshot was restored, and jobs since then are lost."""
    await relay.check_epoch()
    snapshot = {key: await platform.queue_redis.get(key) for key in await platform.queue_redis.keys("pc:*")}
    for _ in range(5):
        assert await relay.check_epoch() is False
    await apply(platform)
    await relay.publish_due()

    await platform.queue_redis.flushall()
    await platform.queue_redis.mset(snapshot)

    assert await relay.check_epoch() is True
    assert len(await platform.owed("application.check", "pending")) == 1
    assert await relay.check_epoch() is False


async def test_an_outage_is_not_time_travel(platform: Platform, relay: Relay) -> None:
    """While Redis is away nothing is published twice, and MongoDB's heartbeat stands still."""
    await relay.check_epoch()
    await relay.check_epoch()
    before = await platform.services.outbox.epoch()
    platform.queue_server.stop()
    for _ in range(4):
        with pytest.raises((TorilError, RedisError, TimeoutError)):
            await relay.check_epoch()
    assert await platform.services.outbox.epoch() == before


async def test_a_dead_redis_delays_and_loses_nothing(platform: Platform) -> None:
    """Killed without persistence and started again: applications go on meanwhile, and their mail arrives after."""
    async with workers(), Relay(platform.services) as relay:
        running = asyncio.create_task(relay.run())
        await platform.all_done()
        await apply(platform, "dana")
        platform.queue_server.kill()
        begin = asyncio.get_running_loop().time()
        await apply(platform, "amir")
        await apply(platform, "clai")
        assert asyncio.get_running_loop().time() - begin < 2
        await asyncio.sleep(0.7)
        assert len(await platform.owed("application.submitted", "pending")) >= 2
        platform.queue_server.start()
        await platform.all_done(30)
        running.cancel()

    told = [
        message["Message-ID"] for message in platform.inbox.messages if "applied for" in message["Subject"]
    ]
    assert len(set(told)) == 3


async def test_a_lost_job_is_published_again(platform: Platform, relay: Relay) -> None:
    """Redis has forgotten one job, and nothing else betrays it: the reconciler asks, and it is published again."""
    await apply(platform)
    await relay.publish_due()
    entry = (await platform.owed("application.check", "published"))[0]
    prefix = platform.settings.queue_prefix
    await platform.queue_redis.delete(f"{prefix}:checks:{entry['job_id']}")
    await platform.queue_redis.lrem(f"{prefix}:checks:wait", 0, entry["job_id"])
    await overdue(platform)

    await relay.reconcile()

    again = (await platform.owed("application.check"))[0]
    assert (again["state"], again["redrives"]) == ("pending", 1)


async def test_a_waiting_job_is_left_in_peace(platform: Platform, relay: Relay) -> None:
    """Nobody works yet: the job waits where it is."""
    await apply(platform)
    await relay.publish_due()
    await overdue(platform)

    assert await relay.reconcile() == 0
    assert {entry["state"] for entry in await platform.owed("application.check")} == {"published"}


async def test_a_failed_job_goes_on(platform: Platform, relay: Relay) -> None:
    """Out of attempts, but not out of time: the failed job itself is retried, as its id is taken."""
    await apply(platform)
    await relay.publish_due()
    await fail_everything(platform, "checks")
    await overdue(platform)

    assert await relay.reconcile() >= 1
    async with workers():
        await platform.all_done(topic="application.check")


async def test_a_completed_job_that_left_no_mark_runs_again(platform: Platform, relay: Relay) -> None:
    """The job says that it is done, the entry does not: it is the entry that counts."""
    await apply(platform)
    await relay.publish_due()
    async with workers():
        await platform.all_done(topic="application.check")
    await platform.services.database.collection("outbox").update_one(
        {"topic": "application.check"}, {"$set": {"state": "published"}}
    )
    await overdue(platform)

    async with workers():
        assert await relay.reconcile() == 1
        await platform.all_done(topic="application.check")


async def test_after_its_deadline_nothing_is_done(platform: Platform, relay: Relay) -> None:
    """A message about a shift that is over helps nobody: the entry is dead, visibly, with the reason."""
    owed = Owed(
        "application.check", "late/1", {"application_id": "app_x"}, clock.now() - timedelta(seconds=1)
    )
    await platform.services.outbox.owe_once(owed)

    await relay.publish_due()

    entry = (await platform.owed("application.check"))[0]
    assert (entry["state"], entry["last_error"]) == ("dead", "too late")
    assert [e.id for e in await platform.services.outbox.troubled()] == [entry["_id"]]


async def test_an_entry_that_no_queue_takes_is_held(platform: Platform, relay: Relay) -> None:
    """It is tried three times and then held for a human; the others of its batch are published."""
    await apply(platform)
    later = clock.now() + timedelta(hours=1)
    await platform.services.outbox.owe_once(
        Owed("application.check", "poison/1", {"application_id": "x"}, later)
    )
    outbox = platform.services.database.collection("outbox")
    # No queue takes NaN; only a mistake in the program could write it.
    await outbox.update_one({"key": "poison/1"}, {"$set": {"data.application_id": float("nan")}})

    for _ in range(3):
        await relay.publish_due()
        await outbox.update_many({"state": "pending"}, {"$set": {"next_at": clock.now()}})

    states = {entry["key"]: entry["state"] for entry in await platform.owed("application.check")}
    assert states.pop("poison/1") == "held"
    assert set(states.values()) == {"published"}


async def test_two_relays_do_everything_once(platform: Platform) -> None:
    """Any number of relays may run: each mail is sent once, each entry done once."""
    async with workers(), Relay(platform.services) as one, Relay(platform.services) as two:
        running = [asyncio.create_task(relay.run()) for relay in (one, two)]
        for who in ("dana", "amir", "clai"):
            await apply(platform, who)
        await platform.all_done()
        for task in running:
            task.cancel()

    told = [
        message["Message-ID"] for message in platform.inbox.messages if "applied for" in message["Subject"]
    ]
    assert len(told) == len(set(told)) == 3


async def overdue(platform: Platform) -> None:
    """Let every published entry have been silent for too long."""
    await platform.services.database.collection("outbox").update_many(
        {"state": "published"}, {"$set": {"check_at": clock.now() - timedelta(seconds=1)}}
    )


async def fail_everything(platform: Platform, queue_name: str) -> None:
    """Let a worker of somebody else's fail all jobs of a queue for good."""

    async def fail(job: Job[object]) -> None:
        raise UnrecoverableError("a bug that has been mended since")

    async with platform.queue(queue_name) as queue, Worker(queue, fail):

        async def all_failed() -> bool:
            counts = await queue.get_job_counts()
            return counts["failed"] > 0 and counts["waiting"] == counts["active"] == 0

        await eventually(all_failed, "the jobs have failed")
