"""Posting shifts, and showing them to those who may see them."""

import logging
from collections.abc import Mapping
from datetime import date, timedelta

from pymongo.errors import DuplicateKeyError

from .. import clock
from ..database import Database, Transaction
from ..errors import Forbidden, Invalid, NotFound
from ..ids import is_id, new_id
from ..outbox.models import Owed
from ..people.models import Actor
from ..pharmacies.models import Pharmacy
from ..pharmacies.repository import PharmacyRepository
from .cache import CacheUnavailable
from .models import Shift
from .repository import ShiftRepository
from .schemas import NewShift
from .search import ShiftSearch

__all__ = ["ShiftService", "make_visible", "search_changed"]

logger = logging.getLogger(__name__)


class ShiftService:
    def __init__(
        self,
        database: Database,
        shifts: ShiftRepository,
        pharmacies: PharmacyRepository,
        search: ShiftSearch,
    ) -> None:
        self._database = database
        self._shifts = shifts
        self._pharmacies = pharmacies
        self._search = search

    async def pharmacy_of(self, actor: Actor) -> Pharmacy:
        if actor.role != "manager" or actor.pharmacy_id is None:
            raise Forbidden("pharmacy manager")
        return await self._pharmacies.get(actor.pharmacy_id)

    async def post(self, actor: Actor, form: Mapping[str, str]) -> Shift:
        """Post a shift for the actor's pharmacy.

        The form carries the id that the shift will have, so that a form sent twice posts one shift.

        Raises:
            Invalid: With a sentence for each field.
        """
        pharmacy = await self.pharmacy_of(actor)
        new = NewShift.from_form(form, pharmacy.tz)
        shift_id = form.get("shift_id", "")
        if not is_id(shift_id, "shf"):
            shift_id = new_id("shf")

        async def work(tx: Transaction) -> Shift:
            shift = await self._shifts.insert(shift_id, new, pharmacy, actor.user_id, tx.session)
            tx.owe(search_changed(shift, "posted"))
            return shift

        try:
            shift = await self._database.transaction(work)
        except DuplicateKeyError:
            shift = await self._shifts.get(shift_id)
            if shift.pharmacy_id != pharmacy.id:
                raise Invalid({"date": "Please open the form again."}) from None
            return shift
        await make_visible(self._search, shift.region)
        return shift

    async def get(self, actor: Actor, shift_id: str) -> Shift:
        """A shift: any to pharmacists, to managers only those of their pharmacy."""
        shift = await self._shifts.get(shift_id)
        if actor.role == "manager" and shift.pharmacy_id != actor.pharmacy_id:
            raise NotFound("shift")
        if actor.role == "operator":
            raise NotFound("shift")
        return shift

    async def board(self, actor: Actor, first: date, days: int) -> tuple[Pharmacy, list[Shift]]:
        """The shifts of the actor's pharmacy on these local days."""
        pharmacy = await self.pharmacy_of(actor)
        return pharmacy, await self._shifts.board(pharmacy.id, first, first + timedelta(days=days - 1))


def search_changed(shift: Shift, why: str) -> Owed:
    """The entry that makes a change visible in the search for certain, should the process die before it does."""
    return Owed(
        "search.changed",
        f"search.changed/{shift.id}/{why}",
        {"region": shift.region},
        clock.now() + timedelta(minutes=10),
    )


async def make_visible(search: ShiftSearch, region: str) -> None:
    """Show a committed change to the next search. Without the cache this is left to the relay."""
    try:
        await search.changed(region)
    except CacheUnavailable as error:
        logger.warning("region %s: %s; the relay will try again", region, error)
