"""The relay: what MongoDB says is owed becomes jobs in Redis, and stays so until it is done.

Four loops, each of which may be late, be killed or run twice without harm:

    publish     entries that are due -> `add_bulk` under their deterministic ids, then marked published
    epoch       has Redis forgotten? Then everything that is not done is published again
    reconcile   a published entry that stays silent: ask its queue about the job
    plan        daily reports that have fallen due become entries

Publish, *then* mark: a crash in between publishes the same ids again, which an existing job ignores and a finished one
has recorded in the entry.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError
from toril import (
    ConfigurationError,
    ConnectionLostError,
    KeepJobs,
    NewJob,
    Queue,
    SerializationError,
    ServerRefusedError,
)
from ulid import ULID

from .. import clock
from ..services import Services
from ..shifts.cache import CacheUnavailable
from .models import Entry
from .repository import OutboxRepository
from .topics import QUEUE_NAMES, TOPICS, QueueName, TopicName

__all__ = ["Relay"]

logger = logging.getLogger(__name__)

BATCH = 200
HOLD_AFTER = 3
SHORTEST_BACKOFF, LONGEST_BACKOFF = 0.5, 5.0
REDIS_TIMEOUT_SECONDS = 5.0
FAILED_AGAIN = timedelta(minutes=15)

# What a published job keeps in Redis is for dashboards only: MongoDB knows what is owed.
KEEP_COMPLETED = KeepJobs(age=timedelta(hours=24), count=5_000)
KEEP_FAILED = KeepJobs(age=timedelta(days=14))

OUTAGE = (ConnectionLostError, ServerRefusedError, RedisError, OSError, TimeoutError)


class Relay:
    """`async with Relay(services) as relay: await relay.run()`."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._settings = settings
        self._outbox: OutboxRepository = services.outbox
        self._queues: dict[QueueName, Queue] = {
            name: Queue(name, connection=settings.toril_url, prefix=settings.queue_prefix)
            for name in QUEUE_NAMES
        }
        self._wake = asyncio.Event()

    async def __aenter__(self) -> "Relay":
        return self

    async def __aexit__(self, *error: object) -> None:
        for queue in self._queues.values():
            await queue.close()

    async def run(self) -> None:
        """Until cancelled."""
        settings = self._settings
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="watch")
            group.create_task(self._publish_forever(), name="publish")
            for name, every, work in (
                ("epoch", settings.relay_epoch_seconds, self.check_epoch),
                ("reconcile", settings.relay_reconcile_seconds, self.reconcile),
                ("plan", settings.relay_plan_seconds, self.plan),
            ):
                group.create_task(self._regularly(name, every, work), name=name)

    # Publishing ---------------------------------------------------------------------------------------------

    async def publish_due(self) -> int:
        """Publish everything that is due now. Returns how many entries; raises when Redis is away."""
        total = 0
        await self._outbox.bury_late()
        while entries := await self._outbox.due(BATCH):
            by_topic: defaultdict[TopicName, list[Entry]] = defaultdict(list)
            for entry in entries:
                by_topic[entry.topic].append(entry)
            outage: Exception | None = None
            published = 0
            for topic, group in by_topic.items():
                try:
                    published += await self._publish(topic, group)
                except (*OUTAGE, CacheUnavailable) as error:
                    # The cache and the queues may be different servers: one that is away holds nobody else up.
                    outage = error
            total += published
            if outage is not None:
                raise outage
            if not published:
                # Everything in this batch was refused and comes again later.
                break
        return total

    async def _publish(self, topic: TopicName, entries: list[Entry]) -> int:
        name = TOPICS[topic].queue
        if name is None:
            return await self._make_visible(entries)
        queue = self._queues[name]
        visibility = TOPICS[topic].visibility * self._settings.relay_visibility_factor
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                await queue.add_bulk([_job(entry) for entry in entries])
        except (ConfigurationError, SerializationError, ServerRefusedError):
            return await self._publish_one_by_one(queue, entries, visibility)
        await self._outbox.mark_published([entry.id for entry in entries], visibility)
        return len(entries)

    async def _publish_one_by_one(self, queue: Queue, entries: list[Entry], visibility: timedelta) -> int:
        """Find the entry that the queue will not take: it must not hold up the others.

        A server that takes none of them, because it is full or read-only, is an outage, and no entry's fault.
        """
        published = 0
        refused: list[tuple[Entry, Exception]] = []
        for entry in entries:
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                    await queue.add_bulk([_job(entry)])
            except (ConfigurationError, SerializationError, ServerRefusedError) as error:
                refused.append((entry, error))
                if published == 0 and len(refused) >= HOLD_AFTER and isinstance(error, ServerRefusedError):
                    raise
            else:
                await self._outbox.mark_published([entry.id], visibility)
                published += 1
        for entry, refusal in refused:
            if published == 0 and isinstance(refusal, ServerRefusedError):
                raise refusal
            logger.error("outbox entry %s: %s does not take it: %s", entry.id, queue.name, refusal)
            await self._outbox.refuse(entry.id, f"{type(refusal).__name__}: {refusal}", HOLD_AFTER)
        return published

    async def _make_visible(self, entries: list[Entry]) -> int:
        for region in sorted({str(entry.data["region"]) for entry in entries}):
            await self._services.search.changed(region)
        for entry in entries:
            await self._outbox.mark_done(entry.id, "visible")
        return len(entries)

    async def _publish_forever(self) -> None:
        backoff = SHORTEST_BACKOFF
        while True:
            self._wake.clear()
            try:
                await self.publish_due()
                backoff = SHORTEST_BACKOFF
            except (*OUTAGE, CacheUnavailable, PyMongoError) as error:
                logger.warning("publish: %s; entries wait in MongoDB, again in %s s", _brief(error), backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF)
                continue
            except Exception:
                logger.exception("publish: unexpected; it goes on in %s s", backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF)
                continue
            # The poll is the guarantee; the change stream only makes it quick.
            try:
                async with asyncio.timeout(self._settings.relay_poll_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _watch(self) -> None:
        while True:
            try:
                async with await self._outbox.inserts() as stream:
                    async for _ in stream:
                        self._wake.set()
            except PyMongoError as error:
                logger.warning("change stream: %s; the poll carries on", _brief(error))
            await asyncio.sleep(1)

    # The epoch ----------------------------------------------------------------------------------------------

    async def check_epoch(self) -> bool:
        """Notice that the queues' Redis was wiped, replaced, or set back to an older state. Returns whether it was.

        MongoDB's side moves only after Redis has acknowledged, so an outage is not mistaken for time travel; the new
        epoch is stored last, so a crash on the way repeats everything, which is harmless.
        """
        known = await self._outbox.epoch()
        async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
            redis = self._queues["notify"].connection.client
            found = cast("list[Any]", await redis.mget(self._epoch_key, self._beat_key))
            epoch, beat = found[0], int(found[1] or 0)
            is_known = known.get("epoch") is not None and epoch == known["epoch"]
            if is_known and beat >= known.get("beat", 0) - 2:
                await redis.set(self._beat_key, await self._outbox.next_beat())
                return False
            if known.get("epoch") is None and epoch is None:
                why = "first run"
            elif not is_known:
                why = "Redis was wiped or replaced"
            else:
                why = "Redis went back in time"
            fresh = str(ULID())
            await redis.set(self._epoch_key, fresh)
            await redis.set(self._beat_key, known.get("beat", 0))
        count = await self._outbox.republish_all(why)
        logger.warning("epoch: %s; %d entries are published again", why, count)
        await self._outbox.set_epoch(fresh, known.get("beat", 0))
        self._wake.set()
        return True

    @property
    def _epoch_key(self) -> str:
        return f"pc:{self._settings.queue_prefix}:epoch"

    @property
    def _beat_key(self) -> str:
        return f"pc:{self._settings.queue_prefix}:beat"

    # Reconciling --------------------------------------------------------------------------------------------

    async def reconcile(self) -> int:
        """Ask after entries that have been silent for too long. Returns how many were set going again."""
        redriven = 0
        for entry in await self._outbox.silent(BATCH):
            name = TOPICS[entry.topic].queue
            if name is None:
                continue
            async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                redriven += await self._reconcile(self._queues[name], entry)
        if redriven:
            self._wake.set()
        return redriven

    async def _reconcile(self, queue: Queue, entry: Entry) -> bool:
        moment = clock.now()
        visibility = entry.visibility * self._settings.relay_visibility_factor
        job = await queue.get_job(entry.job_id)
        state = await queue.get_job_state(entry.job_id) if job is not None else "unknown"
        if job is None or state == "unknown":
            logger.warning("outbox entry %s: its job is gone from %s; published again", entry.id, queue.name)
            await self._outbox.republish(entry.id, "the job was gone")
            return True
        if state == "failed":
            if entry.deadline_at <= moment:
                await self._outbox.mark_dead(entry.id, f"failed: {job.failed_reason}")
                return False
            # Adding its id again would be ignored: it is the failed job itself that goes on.
            await job.retry("failed", reset_attempts_made=True)
            again = moment + FAILED_AGAIN * self._settings.relay_visibility_factor * 2 ** min(
                entry.redrives, 4
            )
            await self._outbox.redriven(entry.id, again, f"failed: {job.failed_reason}")
            return True
        if state == "completed":
            # Its processor says that it is done and the entry does not: a crash, or a mistake, in between.
            await job.retry("completed", reset_attempts_made=True)
            await self._outbox.redriven(entry.id, moment + visibility, "completed, but not marked done")
            return True
        await self._outbox.ask_again(entry.id, moment + visibility)
        return False

    # Planning -----------------------------------------------------------------------------------------------

    async def plan(self) -> int:
        """Turn daily reports that have fallen due into entries."""
        return await self._services.reports.plan(clock.now())

    async def _regularly(self, name: str, every: float, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await work()
            except (*OUTAGE, PyMongoError) as error:
                logger.warning("%s: %s; again in %s s", name, _brief(error), every)
            except Exception:
                logger.exception("%s: unexpected; it goes on in %s s", name, every)
            await asyncio.sleep(every)


def _job(entry: Entry) -> NewJob:
    topic = TOPICS[entry.topic]
    return NewJob(
        topic.job,
        dict(entry.data),
        {
            "job_id": entry.job_id,
            "attempts": topic.attempts,
            "backoff": topic.backoff,
            "remove_on_complete": KEEP_COMPLETED,
            "remove_on_fail": KEEP_FAILED,
        },
    )


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
