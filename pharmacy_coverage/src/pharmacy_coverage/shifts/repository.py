"""Queries on `shifts`."""

from collections.abc import Iterable
from datetime import date, datetime

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from .. import clock
from ..database import Database, Indexes
from ..errors import NotFound
from ..pharmacies.models import Pharmacy
from .models import Shift
from .schemas import Card, NewShift, ShiftFilter

__all__ = ["PAGE_SIZE", "ShiftRepository"]

PAGE_SIZE = 100


class ShiftRepository:
    indexes: Indexes = (
        (
            "shifts",
            [
                IndexModel(
                    [("region", ASCENDING), ("state", ASCENDING), ("start", ASCENDING), ("_id", ASCENDING)],
                    name="search",
                ),
                IndexModel([("pharmacy_id", ASCENDING), ("start", ASCENDING)], name="board"),
                IndexModel([("pharmacy_id", ASCENDING), ("created_at", ASCENDING)], name="posted"),
            ],
        ),
    )

    def __init__(self, database: Database) -> None:
        self._shifts = database.collection("shifts")

    async def insert(
        self, shift_id: str, new: NewShift, pharmacy: Pharmacy, by: str, session: AsyncClientSession
    ) -> Shift:
        """Raises DuplicateKeyError, which aborts the transaction, where the id is taken."""
        moment = clock.now()
        document = {
            "_id": shift_id,
            "pharmacy_id": pharmacy.id,
            "region": pharmacy.region,
            "tz": pharmacy.tz,
            "local": {
                "date": new.day.isoformat(),
                "start": f"{new.start_at:%H:%M}",
                "end": f"{new.end_at:%H:%M}",
                "end_next_day": new.end_at <= new.start_at,
            },
            "start": new.start,
            "end": new.end,
            "break_minutes": new.break_minutes,
            "paid_minutes": new.paid_minutes,
            "rate_cents": new.rate_cents,
            "notes": new.notes,
            "state": "open",
            "version": 1,
            "assignment": None,
            "counts": {"live": 0},
            "card": {"pharmacy_name": pharmacy.name, "city": pharmacy.city, "software": pharmacy.software},
            "posted_by": by,
            "created_at": moment,
            "updated_at": moment,
        }
        await self._shifts.insert_one(document, session=session)
        return Shift.from_document(document)

    async def get(self, shift_id: str, session: AsyncClientSession | None = None) -> Shift:
        """Raises NotFound."""
        document = await self._shifts.find_one({"_id": shift_id}, session=session)
        if document is None:
            raise NotFound("shift")
        return Shift.from_document(document)

    async def by_ids(self, ids: Iterable[str], session: AsyncClientSession | None = None) -> dict[str, Shift]:
        cursor = self._shifts.find({"_id": {"$in": list(ids)}}, session=session)
        return {document["_id"]: Shift.from_document(document) async for document in cursor}

    async def search(self, region: str, wanted: ShiftFilter, moment: datetime) -> list[Card]:
        """Open shifts of a region, the next first; at most a page."""
        cursor = (
            self._shifts.find(
                {
                    "region": region,
                    "state": "open",
                    "start": {"$gt": moment},
                    "local.date": {"$gte": wanted.first.isoformat(), "$lte": wanted.last.isoformat()},
                    "rate_cents": {"$gte": wanted.min_rate * 100},
                },
                # Listeners and the profiler count these.
                comment="search",
            )
            .sort([("start", ASCENDING), ("_id", ASCENDING)])
            .limit(PAGE_SIZE)
        )
        return [_card(Shift.from_document(document)) async for document in cursor]

    async def board(self, pharmacy_id: str, first: date, last: date) -> list[Shift]:
        """A pharmacy's shifts that begin on the local days from `first` to `last`."""
        cursor = self._shifts.find(
            {
                "pharmacy_id": pharmacy_id,
                "local.date": {"$gte": first.isoformat(), "$lte": last.isoformat()},
            }
        ).sort([("start", ASCENDING), ("_id", ASCENDING)])
        return [Shift.from_document(document) async for document in cursor]

    async def count_application(self, shift_id: str, session: AsyncClientSession) -> bool:
        """Count one more application, if the shift is open and has not begun. Returns whether it was.

        It is a write on purpose: an application and a confirm of the same shift get in each other's way, so that
        none slips in behind a confirm.
        """
        moment = clock.now()
        result = await self._shifts.update_one(
            {"_id": shift_id, "state": "open", "start": {"$gt": moment}},
            {"$inc": {"counts.live": 1, "version": 1}, "$set": {"updated_at": moment}},
            session=session,
        )
        return result.matched_count == 1

    async def assign(
        self,
        shift: Shift,
        *,
        application_id: str,
        pharmacist_id: str,
        pharmacist_name: str,
        by: str,
        session: AsyncClientSession,
    ) -> bool:
        """Fill a shift that is still as it was read. Returns False where it is not."""
        moment = clock.now()
        result = await self._shifts.update_one(
            {"_id": shift.id, "version": shift.version, "state": "open", "start": {"$gt": moment}},
            {
                "$set": {
                    "state": "filled",
                    "assignment": {
                        "application_id": application_id,
                        "pharmacist_id": pharmacist_id,
                        "pharmacist_name": pharmacist_name,
                        "by": by,
                        "at": moment,
                    },
                    "counts.live": 1,
                    "updated_at": moment,
                },
                "$inc": {"version": 1},
            },
            session=session,
        )
        return result.matched_count == 1


def _card(shift: Shift) -> Card:
    return Card(
        id=shift.id,
        version=shift.version,
        pharmacy_name=shift.pharmacy_name,
        city=shift.city,
        software=shift.software,
        region=shift.region,
        tz=shift.tz,
        local_date=shift.local_date,
        start=shift.start,
        end=shift.end,
        paid_minutes=shift.paid_minutes,
        break_minutes=shift.break_minutes,
        rate_cents=shift.rate_cents,
        live=shift.live,
    )
