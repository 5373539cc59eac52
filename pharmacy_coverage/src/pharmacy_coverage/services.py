"""Everything that a process of the platform needs, wired once: no globals below this line.

The web application and the relay open one `Services` and close it. In a worker the processors reach theirs through
`current`, one for the process's event loop.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Self
from weakref import WeakKeyDictionary

from pymongo.errors import ConnectionFailure
from pymongo.monitoring import CommandListener

from .applications.repository import ApplicationRepository, CalendarRepository
from .applications.service import ApplicationService
from .database import Database
from .mail.repository import DeliveryRepository
from .mail.service import MailService
from .outbox.repository import OutboxRepository
from .people.repository import PeopleRepository
from .people.service import PeopleService
from .pharmacies.repository import PharmacyRepository
from .reports.repository import ReportRepository
from .reports.service import ReportService
from .settings import Settings, process_settings
from .shifts.cache import RegionCache
from .shifts.repository import ShiftRepository
from .shifts.search import ShiftSearch
from .shifts.service import ShiftService

__all__ = ["Services", "current"]

logger = logging.getLogger(__name__)

# Seconds between tries to reach MongoDB at the start; each of them waits a few seconds itself.
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 2.0


class Services:
    """`async with Services(settings) as services`. Opening it touches no server; `prepare` makes the indexes."""

    def __init__(self, settings: Settings, *, listeners: Sequence[CommandListener] = ()) -> None:
        self.settings = settings
        self.database = Database(settings.mongodb_url, settings.mongodb_database, listeners=listeners)
        self.cache = RegionCache(settings.search_cache_url, settings.cache_prefix)

        self.outbox = OutboxRepository(self.database)
        self.deliveries = DeliveryRepository(self.database)
        self.pharmacies = PharmacyRepository(self.database)
        self.calendars = CalendarRepository(self.database)
        people = PeopleRepository(self.database)
        shifts = ShiftRepository(self.database)
        applications = ApplicationRepository(self.database)
        reports = ReportRepository(self.database)

        self.people = PeopleService(people)
        self.search = ShiftSearch(shifts, self.cache, settings.search_concurrency)
        self.shifts = ShiftService(self.database, shifts, self.pharmacies, self.search)
        self.applications = ApplicationService(
            self.database, applications, self.calendars, shifts, people, self.outbox, self.search
        )
        self.reports = ReportService(
            self.database, reports, self.pharmacies, people, self.deliveries, self.outbox
        )
        self.mail = MailService(
            settings,
            self.database,
            self.deliveries,
            self.outbox,
            people,
            self.pharmacies,
            shifts,
            applications,
            reports,
        )

    async def prepare(self) -> None:
        """Create the collections and indexes that are missing."""
        for repository in (
            OutboxRepository,
            DeliveryRepository,
            PharmacyRepository,
            CalendarRepository,
            PeopleRepository,
            ShiftRepository,
            ApplicationRepository,
            ReportRepository,
        ):
            await self.database.prepare(repository.indexes)

    async def prepare_when_there(self) -> None:
        """Prepare as soon as MongoDB is there, however long that takes; what waiting does not mend is raised."""
        wait = SHORTEST_WAIT
        while True:
            try:
                await self.prepare()
            except ConnectionFailure as error:
                # PyMongo describes the whole topology behind the first line's comma.
                logger.warning(
                    "MongoDB is not there (%s); trying until it is", str(error).partition(",")[0][:200]
                )
                await asyncio.sleep(wait * random.uniform(0.5, 1))
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                return

    async def close(self) -> None:
        await self.cache.close()
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Services] = WeakKeyDictionary()


def current() -> Services:
    """The services of the running event loop, opened at the first call and kept as long as the process lives."""
    loop = asyncio.get_running_loop()
    services = _of_loop.get(loop)
    if services is None:
        services = _of_loop[loop] = Services(process_settings())
    return services
