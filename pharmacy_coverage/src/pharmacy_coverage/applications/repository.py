"""Queries on `applications` and `calendars`."""

from collections.abc import Iterable, Sequence
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from .. import clock
from ..database import Database, Indexes
from ..errors import NotFound
from ..shifts.models import Shift
from .models import Application, Calendar, FitState, Item

__all__ = ["ApplicationRepository", "CalendarRepository"]

LIVE = ["submitted", "confirmed"]


class ApplicationRepository:
    indexes: Indexes = (
        (
            "applications",
            [
                IndexModel(
                    [("shift_id", ASCENDING), ("pharmacist_id", ASCENDING)],
                    name="one_live",
                    unique=True,
                    partialFilterExpression={"state": {"$in": LIVE}},
                ),
                IndexModel(
                    [("shift_id", ASCENDING)],
                    name="one_confirmed",
                    unique=True,
                    partialFilterExpression={"state": "confirmed"},
                ),
                IndexModel([("shift_id", ASCENDING), ("created_at", ASCENDING)], name="of_shift"),
                IndexModel([("pharmacist_id", ASCENDING), ("shift_start", ASCENDING)], name="of_pharmacist"),
                IndexModel([("pharmacy_id", ASCENDING), ("created_at", ASCENDING)], name="of_pharmacy"),
            ],
        ),
    )

    def __init__(self, database: Database) -> None:
        self._applications = database.collection("applications")

    async def insert(
        self, application_id: str, shift: Shift, pharmacist_id: str, message: str, session: AsyncClientSession
    ) -> None:
        """Raises DuplicateKeyError, which aborts the transaction, where a live application exists."""
        await self._applications.insert_one(
            {
                "_id": application_id,
                "shift_id": shift.id,
                "pharmacy_id": shift.pharmacy_id,
                "pharmacist_id": pharmacist_id,
                "shift_start": shift.start,
                "shift_end": shift.end,
                "state": "submitted",
                "message": message,
                "fit": {"state": "checking", "items": [], "calendar_rev": -1, "checked_at": None},
                "version": 1,
                "created_at": clock.now(),
                "decided_at": None,
            },
            session=session,
        )

    async def get(self, application_id: str, session: AsyncClientSession | None = None) -> Application:
        """Raises NotFound."""
        document = await self._applications.find_one({"_id": application_id}, session=session)
        if document is None:
            raise NotFound("application")
        return Application.from_document(document)

    async def of_shift(self, shift_id: str, session: AsyncClientSession | None = None) -> list[Application]:
        cursor = self._applications.find({"shift_id": shift_id}, session=session).sort(
            "created_at", ASCENDING
        )
        return [Application.from_document(document) async for document in cursor]

    async def of_pharmacist(self, pharmacist_id: str, limit: int = 100) -> list[Application]:
        """The newest first."""
        cursor = self._applications.find({"pharmacist_id": pharmacist_id}).sort("created_at", -1).limit(limit)
        return [Application.from_document(document) async for document in cursor]

    async def submitted_by(self, pharmacist_id: str, session: AsyncClientSession) -> list[Application]:
        """Applications that still wait for an answer, for shifts that have not begun."""
        cursor = self._applications.find(
            {"pharmacist_id": pharmacist_id, "state": "submitted", "shift_start": {"$gt": clock.now()}},
            session=session,
        )
        return [Application.from_document(document) async for document in cursor]

    async def live_for(self, pharmacist_id: str, shift_ids: Iterable[str]) -> dict[str, Application]:
        """This pharmacist's live applications for these shifts, by shift."""
        cursor = self._applications.find(
            {"pharmacist_id": pharmacist_id, "shift_id": {"$in": list(shift_ids)}, "state": {"$in": LIVE}}
        )
        return {document["shift_id"]: Application.from_document(document) async for document in cursor}

    async def latest_for(self, pharmacist_id: str, shift_id: str) -> Application | None:
        document = await self._applications.find_one(
            {"pharmacist_id": pharmacist_id, "shift_id": shift_id}, sort=[("created_at", -1)]
        )
        return Application.from_document(document) if document else None

    async def confirm(self, application_id: str, by: str, session: AsyncClientSession) -> bool:
        result = await self._applications.update_one(
            {"_id": application_id, "state": "submitted"},
            {
                "$set": {"state": "confirmed", "decided_at": clock.now(), "decided_by": by},
                "$inc": {"version": 1},
            },
            session=session,
        )
        return result.matched_count == 1

    async def supersede_others(self, shift_id: str, winner_id: str, session: AsyncClientSession) -> int:
        result = await self._applications.update_many(
            {"shift_id": shift_id, "state": "submitted", "_id": {"$ne": winner_id}},
            {"$set": {"state": "superseded", "decided_at": clock.now()}, "$inc": {"version": 1}},
            session=session,
        )
        return result.modified_count

    async def set_fit(
        self,
        application_id: str,
        state: FitState,
        items: Sequence[Item],
        calendar_rev: int,
        session: AsyncClientSession,
    ) -> None:
        await self._applications.update_one(
            {"_id": application_id, "state": "submitted"},
            {
                "$set": {
                    "fit": {
                        "state": state,
                        "items": [item.document() for item in items],
                        "calendar_rev": calendar_rev,
                        "checked_at": clock.now(),
                    }
                },
                "$inc": {"version": 1},
            },
            session=session,
        )


class CalendarRepository:
    indexes: Indexes = (("calendars", []),)

    def __init__(self, database: Database) -> None:
        self._calendars = database.collection("calendars")

    async def get(self, pharmacist_id: str, session: AsyncClientSession | None = None) -> Calendar:
        """The calendar; an empty one where the pharmacist has never applied."""
        document = await self._calendars.find_one({"_id": pharmacist_id}, session=session)
        return Calendar.from_document(document or {"_id": pharmacist_id, "rev": 0, "entries": []})

    async def ensure(self, pharmacist_id: str) -> None:
        """Make the calendar if it is missing, outside of any transaction, in which two makers would collide."""
        await self._calendars.update_one(
            {"_id": pharmacist_id}, {"$setOnInsert": {"rev": 0, "entries": []}}, upsert=True
        )

    async def book(self, calendar: Calendar, shift: Shift, session: AsyncClientSession) -> bool:
        """Add a shift to a calendar that is as it was read and free at that time. Returns whether it was."""
        entry: dict[str, Any] = {
            "shift_id": shift.id,
            "pharmacy_id": shift.pharmacy_id,
            "pharmacy_name": shift.pharmacy_name,
            "tz": shift.tz,
            "start": shift.start,
            "end": shift.end,
            "paid_minutes": shift.paid_minutes,
        }
        overlapping = {"$elemMatch": {"start": {"$lt": shift.end}, "end": {"$gt": shift.start}}}
        result = await self._calendars.update_one(
            {"_id": calendar.pharmacist_id, "rev": calendar.rev, "entries": {"$not": overlapping}},
            {"$push": {"entries": entry}, "$inc": {"rev": 1}},
            session=session,
        )
        return result.matched_count == 1
