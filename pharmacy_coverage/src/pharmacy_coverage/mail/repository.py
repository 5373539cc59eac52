"""Queries on `deliveries`."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from ulid import ULID

from .. import clock
from ..database import Database, Indexes, Transaction
from ..outbox.models import Owed
from .models import Delivery, DeliveryState, Template

__all__ = ["DeliveryRepository"]


class DeliveryRepository:
    indexes: Indexes = (
        (
            "deliveries",
            [
                IndexModel([("state", ASCENDING), ("updated_at", ASCENDING)], name="by_state"),
                IndexModel([("user_id", ASCENDING), ("created_at", ASCENDING)], name="of_user"),
            ],
        ),
    )

    def __init__(self, database: Database) -> None:
        self._deliveries = database.collection("deliveries")

    async def owe(
        self,
        tx: Transaction,
        key: str,
        template: Template,
        about: Mapping[str, str],
        user_id: str,
        deadline: datetime,
    ) -> None:
        """Write a delivery, and the outbox entry that sees it sent.

        Args:
            key: What it is about; with the recipient it is the delivery's id, so the same is never owed twice.
            about: Ids, from which the message is rendered when it is sent.
        """
        delivery_id = f"{key}/{user_id}"
        tx.owe(Owed("mail.deliver", f"mail.deliver/{delivery_id}", {"delivery_id": delivery_id}, deadline))
        moment = clock.now()
        await self._deliveries.insert_one(
            {
                "_id": delivery_id,
                "template": template,
                "about": dict(about),
                "user_id": user_id,
                "token": str(ULID()),
                "state": "queued",
                "attempts": 0,
                "lease_until": None,
                "error": None,
                "sent_at": None,
                "created_at": moment,
                "updated_at": moment,
            },
            session=tx.session,
        )

    async def get(self, delivery_id: str) -> Delivery | None:
        document = await self._deliveries.find_one({"_id": delivery_id})
        return Delivery.from_document(document) if document else None

    async def claim(self, delivery_id: str, lease: timedelta) -> Delivery | None:
        """Become the only one to send it for the length of the lease. None where it is not to be had."""
        moment = clock.now()
        document = await self._deliveries.find_one_and_update(
            {
                "_id": delivery_id,
                "$or": [
                    {"state": {"$in": ["queued", "retry"]}},
                    {"state": "sending", "lease_until": {"$lte": moment}},
                ],
            },
            {
                "$set": {"state": "sending", "lease_until": moment + lease, "updated_at": moment},
                "$inc": {"attempts": 1},
            },
            return_document=True,
        )
        return Delivery.from_document(document) if document else None

    async def finish(
        self,
        delivery: Delivery,
        state: DeliveryState,
        error: str | None = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Say how it went. Returns False where the lease ran out and another worker has it."""
        moment = clock.now()
        result = await self._deliveries.update_one(
            {"_id": delivery.id, "state": "sending", "lease_until": delivery.lease_until},
            {
                "$set": {
                    "state": state,
                    "lease_until": None,
                    "error": error,
                    "sent_at": moment if state == "sent" else None,
                    "updated_at": moment,
                }
            },
            session=session,
        )
        return result.matched_count == 1

    async def counts(self) -> dict[str, int]:
        """Deliveries by state."""
        rows = await self._deliveries.aggregate([{"$group": {"_id": "$state", "n": {"$sum": 1}}}])
        return {row["_id"]: row["n"] async for row in rows}

    async def recent(self, limit: int = 15) -> list[Delivery]:
        cursor = self._deliveries.find().sort("updated_at", -1).limit(limit)
        return [Delivery.from_document(document) async for document in cursor]
