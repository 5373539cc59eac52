"""From "somebody applied" to a message that the mail server has taken.

Two steps. `announce_…` finds out who is to hear of it and writes one delivery each, with an outbox entry, in the
transaction that marks the first entry done. `deliver` sends one of them, under a lease.
"""

import logging
from datetime import datetime, timedelta

from .. import clock
from ..applications.repository import ApplicationRepository
from ..database import Database, Transaction
from ..errors import NotFound
from ..outbox.repository import OutboxRepository
from ..people.models import Actor
from ..people.repository import PeopleRepository
from ..pharmacies.repository import PharmacyRepository
from ..reports.repository import ReportRepository
from ..settings import Settings
from ..shifts.repository import ShiftRepository
from .messages import Letter, Letters
from .models import Delivery
from .repository import DeliveryRepository
from .smtp import AddressRefused, Mailer, MailServerUnavailable, MessageRefused

__all__ = ["DeliverLater", "MailService"]

logger = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(minutes=5)


class DeliverLater(Exception):
    """Nothing is wrong with the message, but now is not the time: try again at `until`."""

    def __init__(self, until: datetime, why: str) -> None:
        super().__init__(why)
        self.until = until


class MailService:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        deliveries: DeliveryRepository,
        outbox: OutboxRepository,
        people: PeopleRepository,
        pharmacies: PharmacyRepository,
        shifts: ShiftRepository,
        applications: ApplicationRepository,
        reports: ReportRepository,
    ) -> None:
        self._settings = settings
        self._database = database
        self._deliveries = deliveries
        self._outbox = outbox
        self._people = people
        self._pharmacies = pharmacies
        self._shifts = shifts
        self._applications = applications
        self._reports = reports
        self._letters = Letters(settings)
        # The lease must outlive the conversation, or another worker would begin a second one.
        self._mailer = Mailer(settings.smtp_url, within=settings.mail_lease_seconds * 0.8)

    async def announce_application(self, application_id: str, entry_id: str) -> str:
        """Owe a message to each manager of the pharmacy that somebody applied at."""
        application = await self._applications.get(application_id)
        managers = await self._people.managers_of(application.pharmacy_id)

        async def work(tx: Transaction) -> str:
            result = f"{len(managers)} to tell"
            if not await self._outbox.mark_done(entry_id, result, tx.session):
                return "done already"
            for manager in managers:
                await self._deliveries.owe(
                    tx,
                    f"application.submitted/{application_id}/1",
                    "application-received",
                    {"application_id": application_id},
                    manager.user_id,
                    application.shift_start,
                )
            return result

        return await self._database.transaction(work)

    async def announce_filled(self, shift_id: str, entry_id: str) -> str:
        """Owe a message to everyone who applied for a shift that is filled: one good, the others kind."""
        shift = await self._shifts.get(shift_id)
        applications = await self._applications.of_shift(shift_id)
        people = await self._people.pharmacists({application.pharmacist_id for application in applications})

        async def work(tx: Transaction) -> str:
            told = [a for a in applications if a.state in ("confirmed", "superseded")]
            result = f"{len(told)} to tell"
            if not await self._outbox.mark_done(entry_id, result, tx.session):
                return "done already"
            for application in told:
                won = application.state == "confirmed"
                await self._deliveries.owe(
                    tx,
                    f"shift.filled/{shift_id}/{application.id}",
                    "booking-confirmed" if won else "not-chosen",
                    {"application_id": application.id},
                    people[application.pharmacist_id].user_id,
                    shift.start,
                )
            return result

        return await self._database.transaction(work)

    async def deliver(self, delivery_id: str, entry_id: str) -> str:
        """Send one message, unless it was sent, is being sent, or has become untrue.

        Raises:
            DeliverLater: The mail server is not there, or another worker is at it.
            MessageRefused: The server took offence at the message; a later attempt may do better.
        """
        delivery = await self._deliveries.claim(delivery_id, self._settings.mail_lease)
        if delivery is None:
            return await self._not_claimed(delivery_id, entry_id)
        letter, to = await self._compose(delivery)
        if to is None or letter is None:
            return await self._conclude(delivery, entry_id, "skipped", "no longer true")
        try:
            message = self._letters.message(delivery, letter, to)
        except ValueError as error:
            await self._deliveries.finish(delivery, "retry", f"cannot be written: {error}")
            raise MessageRefused(f"delivery {delivery.id} cannot be written as a message") from error
        try:
            await self._mailer.send(message)
        except MailServerUnavailable as error:
            await self._deliveries.finish(delivery, "retry", str(error))
            wait = timedelta(seconds=self._settings.mail_retry_seconds) * 2 ** min(delivery.attempts - 1, 16)
            raise DeliverLater(clock.now() + min(wait, LONGEST_WAIT), str(error)) from error
        except AddressRefused as error:
            return await self._conclude(delivery, entry_id, "bounced", str(error))
        except MessageRefused as error:
            await self._deliveries.finish(delivery, "retry", str(error))
            raise
        return await self._conclude(delivery, entry_id, "sent", None)

    async def _not_claimed(self, delivery_id: str, entry_id: str) -> str:
        delivery = await self._deliveries.get(delivery_id)
        if delivery is None:
            await self._outbox.mark_done(entry_id, "no such delivery")
            return "no such delivery"
        if delivery.state == "sending" and delivery.lease_until is not None:
            raise DeliverLater(delivery.lease_until, "another worker is sending it, or died over it")
        if delivery.state in ("queued", "retry"):
            raise DeliverLater(clock.now() + timedelta(seconds=1), "another worker had it a moment ago")
        await self._outbox.mark_done(entry_id, delivery.state)
        return delivery.state

    async def _conclude(self, delivery: Delivery, entry_id: str, state: str, error: str | None) -> str:
        async def work(tx: Transaction) -> str:
            match state:
                case "sent" | "bounced" | "skipped":
                    await self._deliveries.finish(delivery, state, error, tx.session)
                case _:
                    raise AssertionError(state)
            await self._outbox.mark_done(
                entry_id, state if error is None else f"{state}: {error}", tx.session
            )
            return state

        return await self._database.transaction(work, within=timedelta(seconds=15))

    async def _compose(self, delivery: Delivery) -> tuple[Letter | None, Actor | None]:
        """The letter as it is true now, and whom it goes to; None where it is true no longer."""
        to = await self._people.user(delivery.user_id)
        try:
            if delivery.template == "daily-report":
                return await self._report_letter(delivery), to
            return await self._application_letter(delivery), to
        except NotFound:
            return None, to

    async def _application_letter(self, delivery: Delivery) -> Letter | None:
        application = await self._applications.get(delivery.about["application_id"])
        shift = await self._shifts.get(application.shift_id)
        person = await self._people.pharmacist(application.pharmacist_id)
        if person is None:
            return None
        facts = {"application": application, "shift": shift, "person": person}
        path = f"/shifts/{shift.id}"
        match delivery.template:
            case "application-received":
                if application.state != "submitted":
                    return None
                return Letter(f"{person.name} applied for {shift.when}", "See who applied", path, facts)
            case "booking-confirmed":
                if application.state != "confirmed":
                    return None
                pharmacy = await self._pharmacies.get(shift.pharmacy_id)
                return Letter(
                    f"You are booked: {shift.when}, {shift.pharmacy_name}",
                    "Open the shift",
                    path,
                    {**facts, "pharmacy": pharmacy},
                )
            case _:
                return Letter(
                    f"Covered by someone else: {shift.when}, {shift.pharmacy_name}",
                    "Find shifts",
                    "/shifts",
                    facts,
                )

    async def _report_letter(self, delivery: Delivery) -> Letter | None:
        report = await self._reports.find(delivery.about["pharmacy_id"], delivery.about["date"])
        if report is None:
            return None
        figures = report.figures
        return Letter(
            f"{report.pharmacy_name}, {report.day:%a %-d %b}: {figures.filled} of {figures.shifts} covered",
            "Open the report",
            f"/pharmacy/reports/{report.day}",
            {"report": report, "figures": figures},
        )
