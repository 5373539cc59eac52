"""The outbox collection, and what the relay keeps in `meta`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.client_session import AsyncClientSession

from .. import clock
from ..database import Database, Document, Indexes
from .models import Entry, Owed

__all__ = ["OutboxCounts", "OutboxRepository"]

KEPT = timedelta(days=30)


class OutboxCounts(TypedDict):
    """Entries by state; the age is that of the oldest that waits to be published."""

    pending: int
    published: int
    done: int
    held: int
    dead: int
    oldest_pending_seconds: float


class OutboxRepository:
    """Every query on `outbox` and on the relay's document in `meta`."""

    indexes: Indexes = (
        (
            "outbox",
            [
                IndexModel([("key", ASCENDING)], name="key", unique=True),
                IndexModel([("job_id", ASCENDING)], name="job_id", unique=True),
                IndexModel(
                    [("priority", ASCENDING), ("next_at", ASCENDING)],
                    name="due",
                    partialFilterExpression={"state": "pending"},
                ),
                IndexModel(
                    [("check_at", ASCENDING)],
                    name="undone",
                    partialFilterExpression={"state": "published"},
                ),
                IndexModel([("state", ASCENDING), ("created_at", ASCENDING)], name="by_state"),
                IndexModel(
                    [("done_at", ASCENDING)], name="forget_done", expireAfterSeconds=int(KEPT.total_seconds())
                ),
            ],
        ),
        ("meta", []),
    )

    def __init__(self, database: Database) -> None:
        self._outbox = database.collection("outbox")
        self._meta = database.collection("meta")

    # Writing, by those who owe ------------------------------------------------------------------------------

    async def owe_once(self, owed: Owed) -> bool:
        """Record what is owed unless its key is there already. Returns whether it is new."""
        document = owed.document()
        result = await self._outbox.update_one({"key": owed.key}, {"$setOnInsert": document}, upsert=True)
        return result.upserted_id is not None

    async def mark_done(self, entry_id: str, result: str, session: AsyncClientSession | None = None) -> bool:
        """Mark an entry done, whatever is thought of it. Returns False if it was done already."""
        changed = await self._outbox.update_one(
            {"_id": entry_id, "state": {"$nin": ["done", "dead"]}},
            {"$set": {"state": "done", "done_at": clock.now(), "result": result}},
            session=session,
        )
        return changed.matched_count == 1

    async def mark_dead(self, entry_id: str, reason: str, session: AsyncClientSession | None = None) -> None:
        await self._outbox.update_one(
            {"_id": entry_id, "state": {"$ne": "done"}},
            {"$set": {"state": "dead", "last_error": reason, "dead_at": clock.now()}},
            session=session,
        )

    async def by_job(self, job_id: str) -> Entry | None:
        document = await self._outbox.find_one({"job_id": job_id})
        return Entry.from_document(document) if document else None

    async def by_key(self, key: str) -> Entry | None:
        document = await self._outbox.find_one({"key": key})
        return Entry.from_document(document) if document else None

    # Publishing, by the relay -------------------------------------------------------------------------------

    async def due(self, limit: int) -> list[Entry]:
        """Entries to be published now, the most urgent first."""
        cursor = (
            self._outbox.find({"state": "pending", "next_at": {"$lte": clock.now()}})
            .sort([("priority", ASCENDING), ("next_at", ASCENDING)])
            .limit(limit)
        )
        return [Entry.from_document(document) async for document in cursor]

    async def bury_late(self) -> int:
        """Give up on entries whose deadline passed before they could be published. Returns how many."""
        moment = clock.now()
        result = await self._outbox.update_many(
            {"state": "pending", "deadline_at": {"$lte": moment}},
            {"$set": {"state": "dead", "last_error": "too late", "dead_at": moment}},
        )
        return result.modified_count

    async def mark_published(self, ids: Sequence[str], visibility: timedelta) -> None:
        """Mark entries published whose jobs are in Redis; those that their jobs have done meanwhile stay done."""
        moment = clock.now()
        await self._outbox.update_many(
            {"_id": {"$in": list(ids)}, "state": "pending"},
            {
                "$set": {"state": "published", "published_at": moment, "check_at": moment + visibility},
                "$inc": {"publishes": 1},
            },
        )

    async def refuse(self, entry_id: str, error: str, hold_after: int) -> None:
        """Count a publish that the queue would not take; the `hold_after`th holds the entry for a human."""
        moment = clock.now()
        await self._outbox.update_one(
            {"_id": entry_id, "state": "pending"},
            [
                {"$set": {"refusals": {"$add": ["$refusals", 1]}, "last_error": {"$literal": error}}},
                {
                    "$set": {
                        "state": {"$cond": [{"$gte": ["$refusals", hold_after]}, "held", "pending"]},
                        "next_at": moment + timedelta(seconds=5),
                    }
                },
            ],
        )

    # Reconciling --------------------------------------------------------------------------------------------

    async def silent(self, limit: int) -> list[Entry]:
        """Published entries that have not been done for longer than they may."""
        cursor = (
            self._outbox.find({"state": "published", "check_at": {"$lte": clock.now()}})
            .sort("check_at", ASCENDING)
            .limit(limit)
        )
        return [Entry.from_document(document) async for document in cursor]

    async def ask_again(self, entry_id: str, at: datetime) -> None:
        await self._outbox.update_one({"_id": entry_id, "state": "published"}, {"$set": {"check_at": at}})

    async def redriven(self, entry_id: str, check_at: datetime, why: str) -> None:
        """Count that a job was set going again where it stands."""
        await self._outbox.update_one(
            {"_id": entry_id, "state": "published"},
            {"$set": {"check_at": check_at, "last_error": why}, "$inc": {"redrives": 1}},
        )

    async def republish(self, entry_id: str, why: str) -> None:
        """Publish one entry again whose job is gone."""
        await self._outbox.update_one(
            {"_id": entry_id, "state": "published"},
            {
                "$set": {"state": "pending", "next_at": clock.now(), "last_error": why},
                "$inc": {"redrives": 1},
                "$unset": {"check_at": ""},
            },
        )

    async def republish_all(self, why: str) -> int:
        """Publish everything again that is not known to be done. Returns how many."""
        result = await self._outbox.update_many(
            {"state": "published"},
            {
                "$set": {"state": "pending", "next_at": clock.now(), "last_error": why},
                "$inc": {"redrives": 1},
                "$unset": {"check_at": ""},
            },
        )
        return result.modified_count

    # Watching -----------------------------------------------------------------------------------------------

    async def inserts(self) -> AsyncChangeStream[Document]:
        """A change stream of new entries. Only a wake-up: who misses it loses a second, never an entry."""
        return await self._outbox.watch(
            [{"$match": {"operationType": "insert"}}, {"$project": {"_id": 1}}], max_await_time_ms=1_000
        )

    async def counts(self) -> OutboxCounts:
        totals: dict[str, int] = {}
        async for row in await self._outbox.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}]):
            totals[row["_id"]] = row["n"]
        return OutboxCounts(
            pending=totals.get("pending", 0),
            published=totals.get("published", 0),
            done=totals.get("done", 0),
            held=totals.get("held", 0),
            dead=totals.get("dead", 0),
            oldest_pending_seconds=await self.oldest_pending_seconds(),
        )

    async def oldest_pending_seconds(self) -> float:
        oldest = await self._outbox.find_one({"state": "pending"}, sort=[("created_at", ASCENDING)])
        return (clock.now() - oldest["created_at"]).total_seconds() if oldest else 0.0

    async def troubled(self, limit: int = 20) -> list[Entry]:
        """What somebody should look at, the newest first: held, dead, and what had to be driven again."""
        cursor = (
            self._outbox.find({"$or": [{"state": {"$in": ["held", "dead"]}}, {"redrives": {"$gt": 0}}]})
            .sort("created_at", -1)
            .limit(limit)
        )
        return [Entry.from_document(document) async for document in cursor]

    async def recent(self, limit: int = 20) -> list[Entry]:
        cursor = self._outbox.find().sort("_id", -1).limit(limit)
        return [Entry.from_document(document) async for document in cursor]

    # The epoch ----------------------------------------------------------------------------------------------

    async def epoch(self) -> dict[str, Any]:
        """`{epoch, beat}` as last acknowledged by the queues' Redis; empty on the first day."""
        return await self._meta.find_one({"_id": "queue-epoch"}) or {}

    async def set_epoch(self, epoch: str, beat: int) -> None:
        await self._meta.update_one(
            {"_id": "queue-epoch"}, {"$set": {"epoch": epoch, "beat": beat}}, upsert=True
        )

    async def next_beat(self) -> int:
        document = await self._meta.find_one_and_update(
            {"_id": "queue-epoch"}, {"$inc": {"beat": 1}}, upsert=True, return_document=True
        )
        return int(document["beat"]) if document else 0
