"""Making reports, and finding out which are due."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from ulid import ULID

from .. import clock
from ..database import Database, Transaction
from ..errors import NotFound
from ..mail.repository import DeliveryRepository
from ..outbox.models import Owed
from ..outbox.repository import OutboxRepository
from ..people.repository import PeopleRepository
from ..pharmacies.models import Pharmacy
from ..pharmacies.repository import PharmacyRepository
from .models import Report
from .repository import ReportRepository

__all__ = ["ReportService", "day_due"]

DEADLINE = timedelta(hours=24)


def day_due(pharmacy: Pharmacy, moment: datetime) -> date:
    """The local day whose report is the last to have fallen due by `moment`: the day before, from `report_at` on.

    Asked every few seconds, it needs no memory: a time that the clocks skip is over when they have skipped it, and when
    an hour comes twice, it names for a while once more a day that is owed already.
    """
    local = moment.astimezone(ZoneInfo(pharmacy.tz))
    is_past = local.time() >= pharmacy.report_at
    return local.date() - timedelta(days=1 if is_past else 2)


class ReportService:
    def __init__(
        self,
        database: Database,
        reports: ReportRepository,
        pharmacies: PharmacyRepository,
        people: PeopleRepository,
        deliveries: DeliveryRepository,
        outbox: OutboxRepository,
    ) -> None:
        self._database = database
        self._reports = reports
        self._pharmacies = pharmacies
        self._people = people
        self._deliveries = deliveries
        self._outbox = outbox

    async def plan(self, moment: datetime) -> int:
        """Record the reports that have fallen due. Returns how many are new; asking again is harmless."""
        count = 0
        for pharmacy in await self._pharmacies.all():
            day = day_due(pharmacy, moment)
            owed = Owed(
                "report.due",
                f"report.daily/{pharmacy.id}/{day}",
                {"pharmacy_id": pharmacy.id, "date": day.isoformat()},
                moment + DEADLINE,
            )
            count += await self._outbox.owe_once(owed)
        return count

    async def request(self, pharmacy: Pharmacy, day: date) -> str:
        """Owe a report once more, whatever has been reported of that day. Returns the entry's key."""
        key = f"report.daily/{pharmacy.id}/{day}/{ULID()}"
        data = {"pharmacy_id": pharmacy.id, "date": day.isoformat()}
        await self._outbox.owe_once(Owed("report.due", key, data, clock.now() + DEADLINE))
        return key

    async def make(self, pharmacy_id: str, day: date, entry_id: str | None) -> str:
        """Count the day, store the report and owe it by mail to the managers, if its figures are new to them."""
        pharmacy = await self._pharmacies.get(pharmacy_id)
        managers = await self._people.managers_of(pharmacy_id)

        async def work(tx: Transaction) -> str:
            figures = await self._reports.count(pharmacy, day, tx.session)
            revision, is_new = await self._reports.save(pharmacy, day, figures, tx.session)
            result = f"{figures.filled} of {figures.shifts} covered, revision {revision}"
            if entry_id is not None and not await self._outbox.mark_done(entry_id, result, tx.session):
                return "done already"
            if is_new:
                for manager in managers:
                    await self._deliveries.owe(
                        tx,
                        f"report.daily/{pharmacy_id}/{day}/{revision}",
                        "daily-report",
                        {"pharmacy_id": pharmacy_id, "date": day.isoformat()},
                        manager.user_id,
                        clock.now() + DEADLINE,
                    )
            return result

        return await self._database.transaction(work, within=timedelta(seconds=30))

    async def get(self, pharmacy_id: str, day: str) -> Report:
        report = await self._reports.find(pharmacy_id, day)
        if report is None:
            raise NotFound("report")
        return report

    async def latest(self, pharmacy_id: str) -> list[Report]:
        return await self._reports.latest(pharmacy_id)
