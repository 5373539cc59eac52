"""Queries on `reports`, and those that count a day."""

from datetime import date, timedelta

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from .. import clock
from ..database import Database, Indexes
from ..pharmacies.models import Pharmacy
from .models import OUTLOOK_DAYS, Figures, Hole, Report

__all__ = ["ReportRepository"]


class ReportRepository:
    indexes: Indexes = (
        (
            "reports",
            [IndexModel([("pharmacy_id", ASCENDING), ("date", ASCENDING)], name="one_a_day", unique=True)],
        ),
    )

    def __init__(self, database: Database) -> None:
        self._reports = database.collection("reports")
        self._shifts = database.collection("shifts")
        self._applications = database.collection("applications")

    async def count(self, pharmacy: Pharmacy, day: date, session: AsyncClientSession) -> Figures:
        """Count a local day, on one snapshot."""
        begin, end = clock.day_bounds(day, pharmacy.tz)
        last = day + timedelta(days=OUTLOOK_DAYS)
        on_day = {"$gte": begin, "$lt": end}
        filled = {"$cond": [{"$eq": ["$state", "filled"]}, 1, 0]}
        cost = {"$floor": {"$divide": [{"$multiply": ["$rate_cents", "$paid_minutes"]}, 60]}}
        rows = await self._shifts.aggregate(
            [
                {"$match": {"pharmacy_id": pharmacy.id, "local.date": day.isoformat()}},
                {
                    "$group": {
                        "_id": None,
                        "shifts": {"$sum": 1},
                        "filled": {"$sum": filled},
                        "paid_minutes": {"$sum": {"$multiply": [filled, "$paid_minutes"]}},
                        "cost_cents": {"$sum": {"$multiply": [filled, cost]}},
                    }
                },
            ],
            session=session,
        )
        totals = (await rows.to_list(1) or [{}])[0]
        ahead = {
            "pharmacy_id": pharmacy.id,
            "local.date": {"$gt": day.isoformat(), "$lte": last.isoformat()},
        }
        holes = self._shifts.find({**ahead, "state": "open"}, session=session).sort("start", ASCENDING)
        shifts, filled_count = int(totals.get("shifts", 0)), int(totals.get("filled", 0))
        return Figures(
            shifts=shifts,
            filled=filled_count,
            unfilled=shifts - filled_count,
            paid_minutes=int(totals.get("paid_minutes", 0)),
            cost_cents=int(totals.get("cost_cents", 0)),
            posted=await self._shifts.count_documents(
                {"pharmacy_id": pharmacy.id, "created_at": on_day}, session=session
            ),
            applications=await self._applications.count_documents(
                {"pharmacy_id": pharmacy.id, "created_at": on_day}, session=session
            ),
            confirmed=await self._applications.count_documents(
                {"pharmacy_id": pharmacy.id, "state": "confirmed", "decided_at": on_day}, session=session
            ),
            ahead_filled=await self._shifts.count_documents({**ahead, "state": "filled"}, session=session),
            holes=tuple(
                [
                    Hole(shift["_id"], shift["start"], shift["end"], shift["counts"]["live"])
                    async for shift in holes
                ]
            ),
        )

    async def save(
        self, pharmacy: Pharmacy, day: date, figures: Figures, session: AsyncClientSession
    ) -> tuple[int, bool]:
        """Store a report. Returns its revision, and whether its figures are new."""
        key = {"pharmacy_id": pharmacy.id, "date": day.isoformat()}
        before = await self._reports.find_one(key, session=session)
        is_new = before is None or Report.from_document(before).figures != figures
        revision = (before["revision"] if before else 0) + (1 if is_new else 0)
        await self._reports.update_one(
            key,
            {
                "$set": {
                    "pharmacy_name": pharmacy.name,
                    "tz": pharmacy.tz,
                    "figures": figures.document(),
                    "revision": revision,
                    "generated_at": clock.now(),
                }
            },
            upsert=True,
            session=session,
        )
        return revision, is_new

    async def find(self, pharmacy_id: str, day: str) -> Report | None:
        document = await self._reports.find_one({"pharmacy_id": pharmacy_id, "date": day})
        return Report.from_document(document) if document else None

    async def latest(self, pharmacy_id: str, limit: int = 60) -> list[Report]:
        """The newest day first."""
        cursor = self._reports.find({"pharmacy_id": pharmacy_id}).sort("date", -1).limit(limit)
        return [Report.from_document(document) async for document in cursor]
