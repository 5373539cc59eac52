"""Applying, checking, confirming."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from .. import clock
from ..database import Database, Transaction
from ..errors import (
    AlreadyApplied,
    CalendarConflict,
    Forbidden,
    NotConfirmable,
    NotEligible,
    NotFound,
    ShiftTaken,
)
from ..ids import new_id
from ..outbox.models import Owed
from ..outbox.repository import OutboxRepository
from ..people.models import Actor, Pharmacist
from ..people.repository import PeopleRepository
from ..shifts.models import Shift
from ..shifts.repository import ShiftRepository
from ..shifts.search import ShiftSearch
from ..shifts.service import make_visible, search_changed
from . import rules
from .models import Application, Calendar, Item
from .repository import ApplicationRepository, CalendarRepository

__all__ = ["Applicant", "ApplicationService", "OwnApplication"]


@dataclass(frozen=True, slots=True)
class Applicant:
    """An application as the pharmacy sees it."""

    application: Application
    pharmacist: Pharmacist


@dataclass(frozen=True, slots=True)
class OwnApplication:
    """An application as the pharmacist sees it."""

    application: Application
    shift: Shift


class ApplicationService:
    def __init__(
        self,
        database: Database,
        applications: ApplicationRepository,
        calendars: CalendarRepository,
        shifts: ShiftRepository,
        people: PeopleRepository,
        outbox: OutboxRepository,
        search: ShiftSearch,
    ) -> None:
        self._database = database
        self._applications = applications
        self._calendars = calendars
        self._shifts = shifts
        self._people = people
        self._outbox = outbox
        self._search = search

    # Applying -----------------------------------------------------------------------------------------------

    async def apply(self, actor: Actor, shift_id: str, message: str) -> str:
        """Apply for a shift. Returns the application's id; it, the mail and the check it owes are one transaction.

        Raises:
            NotEligible: The pharmacist may not practise there and then. Conflicts with other shifts are left to the
                check: until the pharmacy decides, much may change.
            AlreadyApplied, ShiftTaken, NotFound
        """
        pharmacist_id = _pharmacist_of(actor)
        application_id = new_id("app")

        async def work(tx: Transaction) -> Shift:
            shift = await self._shifts.get(shift_id, tx.session)
            if shift.state != "open" or shift.has_begun:
                raise ShiftTaken
            person = await self._pharmacist(pharmacist_id, tx)
            _refuse(rules.licence_items(shift, person), own=True)
            await self._applications.insert(application_id, shift, pharmacist_id, message, tx.session)
            if not await self._shifts.count_application(shift_id, tx.session):
                raise ShiftTaken
            data = {"application_id": application_id}
            tx.owe(
                Owed("application.submitted", f"application.submitted/{application_id}/1", data, shift.start),
                Owed("application.check", f"application.check/{application_id}/1", data, shift.start),
                search_changed(shift, f"{application_id}"),
            )
            return shift

        await self._calendars.ensure(pharmacist_id)
        try:
            shift = await self._database.transaction(work)
        except DuplicateKeyError:
            raise AlreadyApplied from None
        await make_visible(self._search, shift.region)
        return application_id

    async def own(self, actor: Actor) -> list[OwnApplication]:
        """The pharmacist's applications, the newest first."""
        applications = await self._applications.of_pharmacist(_pharmacist_of(actor))
        shifts = await self._shifts.by_ids({application.shift_id for application in applications})
        return [
            OwnApplication(application, shifts[application.shift_id])
            for application in applications
            if application.shift_id in shifts
        ]

    async def own_live(self, actor: Actor, shift_ids: Iterable[str]) -> dict[str, Application]:
        """The pharmacist's live applications for these shifts, by shift."""
        return await self._applications.live_for(_pharmacist_of(actor), shift_ids)

    async def own_for(self, actor: Actor, shift: Shift) -> Application | None:
        """The pharmacist's latest application for a shift."""
        return await self._applications.latest_for(_pharmacist_of(actor), shift.id)

    async def person(self, actor: Actor) -> Pharmacist:
        person = await self._people.pharmacist(_pharmacist_of(actor))
        if person is None:
            raise NotFound("pharmacist")
        return person

    async def refusals(self, actor: Actor, shift: Shift) -> list[Item]:
        """What forbids the pharmacist to apply, said before they try."""
        return rules.licence_items(shift, await self.person(actor))

    async def shift_of(self, actor: Actor, application_id: str) -> Shift:
        """The shift of an application, to the pharmacy whose it is."""
        application = await self._applications.get(application_id)
        if application.pharmacy_id != actor.pharmacy_id:
            raise NotFound("application")
        return await self._shifts.get(application.shift_id)

    async def calendar(self, actor: Actor) -> Calendar:
        return await self._calendars.get(_pharmacist_of(actor))

    async def applicants(self, shift: Shift) -> list[Applicant]:
        """Everyone who applied, in the order in which they did."""
        applications = await self._applications.of_shift(shift.id)
        people = await self._people.pharmacists({application.pharmacist_id for application in applications})
        return [
            Applicant(application, people[application.pharmacist_id])
            for application in applications
            if application.pharmacist_id in people
        ]

    # Checking -----------------------------------------------------------------------------------------------

    async def check(self, application_id: str, entry_id: str | None) -> str:
        """Say how well an application fits, and do the same for all that its pharmacist has open.

        All of them, because what is said of one may hold for the other: two that overlap.
        """
        application = await self._applications.get(application_id)
        return await self.check_all(application.pharmacist_id, entry_id)

    async def check_all(self, pharmacist_id: str, entry_id: str | None) -> str:
        """Check every application of a pharmacist that waits for an answer, and mark the entry done with it.

        The calendar is read in the transaction that writes the verdicts, so that an older one cannot overwrite a
        newer one: the second writer runs again and reads again.
        """

        async def work(tx: Transaction) -> str:
            person = await self._pharmacist(pharmacist_id, tx)
            calendar = await self._calendars.get(pharmacist_id, tx.session)
            waiting = await self._applications.submitted_by(pharmacist_id, tx.session)
            shifts = await self._shifts.by_ids({application.shift_id for application in waiting}, tx.session)
            said: list[str] = []
            for application in waiting:
                items = rules.evaluate(shifts[application.shift_id], person, calendar, shifts.values())
                state = rules.fit_state(items)
                await self._applications.set_fit(application.id, state, items, calendar.rev, tx.session)
                said.append(f"{application.id} {state}")
            result = ", ".join(said) or "nothing waits for an answer"
            if entry_id is not None:
                await self._outbox.mark_done(entry_id, result, tx.session)
            return result

        return await self._database.transaction(work, within=timedelta(seconds=15))

    # Confirming ---------------------------------------------------------------------------------------------

    async def confirm(self, actor: Actor, application_id: str) -> Shift:
        """Make an application the booking of its shift, for exactly one pharmacist and nobody twice.

        Returns the shift as it was read. Everyone else's application is superseded, the calendar holds the booking,
        and what is owed is written, or nothing of it is.

        Raises:
            ShiftTaken, NotConfirmable, CalendarConflict, NotEligible, NotFound
            TemporarilyUnavailable: Not done within five seconds.
        """

        async def work(tx: Transaction) -> Shift:
            application = await self._applications.get(application_id, tx.session)
            if application.pharmacy_id != actor.pharmacy_id or actor.role != "manager":
                raise NotFound("application")
            shift = await self._shifts.get(application.shift_id, tx.session)
            if shift.state != "open" or shift.has_begun:
                raise ShiftTaken
            if application.state != "submitted":
                raise NotConfirmable(application.state)
            person = await self._pharmacist(application.pharmacist_id, tx)
            calendar = await self._calendars.get(person.id, tx.session)
            findings = rules.blocks(rules.evaluate(shift, person, calendar))
            if any(item.code == "overlap" for item in findings):
                raise CalendarConflict
            _refuse(findings, own=False)
            # The calendar first: of many confirms of one person the losers then stop at the cheapest place.
            if not await self._calendars.book(calendar, shift, tx.session):
                raise CalendarConflict
            assigned = await self._shifts.assign(
                shift,
                application_id=application.id,
                pharmacist_id=person.id,
                pharmacist_name=person.name,
                by=actor.user_id,
                session=tx.session,
            )
            if not assigned or not await self._applications.confirm(
                application.id, actor.user_id, tx.session
            ):
                raise ShiftTaken
            await self._applications.supersede_others(shift.id, application.id, tx.session)
            rev = calendar.rev + 1
            tx.owe(
                Owed(
                    "shift.filled",
                    f"shift.filled/{shift.id}/{shift.version}",
                    {"shift_id": shift.id},
                    shift.start,
                ),
                Owed(
                    "calendar.changed",
                    f"calendar.changed/{person.id}/{rev}",
                    {"pharmacist_id": person.id, "rev": rev},
                    clock.now() + timedelta(hours=1),
                ),
                search_changed(shift, f"filled-{shift.version}"),
            )
            return shift

        try:
            shift = await self._database.transaction(work)
        except DuplicateKeyError:
            # The index `one_confirmed`: it has never been seen to speak before the shift's version does.
            raise ShiftTaken from None
        await make_visible(self._search, shift.region)
        return shift

    async def _pharmacist(self, pharmacist_id: str, tx: Transaction) -> Pharmacist:
        person = await self._people.pharmacist(pharmacist_id, tx.session)
        if person is None:
            raise NotFound("pharmacist")
        return person


def _pharmacist_of(actor: Actor) -> str:
    if actor.pharmacist_id is None:
        raise Forbidden("pharmacist")
    return actor.pharmacist_id


def _refuse(items: list[Item], *, own: bool) -> None:
    if items:
        raise NotEligible([(item.code, rules.sentence(item, own=own) + ".") for item in items])
