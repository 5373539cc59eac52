"""Confirm: exactly one pharmacist, and nobody twice."""

import asyncio
import time

import pytest

from pharmacy_coverage.errors import (
    AlreadyApplied,
    CalendarConflict,
    NotConfirmable,
    NotEligible,
    NotFound,
    ShiftTaken,
    TemporarilyUnavailable,
)

from .support import Platform, tally


async def test_of_a_hundred_confirms_one_wins(platform: Platform) -> None:
    """A hundred applicants, a hundred confirms at once: one booking, ninety-nine polite refusals, fast."""
    shift = await platform.post()
    people = await platform.many_pharmacists(100)
    ids = [await platform.services.applications.apply(person, shift.id, "") for person in people]

    begin = time.monotonic()
    results = await asyncio.gather(
        *(platform.services.applications.confirm(platform.mira, id) for id in ids), return_exceptions=True
    )
    took = time.monotonic() - begin

    counts = tally(results)
    assert counts.pop("ok") == 1
    assert sum(counts.values()) == 99
    assert set(counts) <= {"ShiftTaken", "NotConfirmable"}
    confirmed = await platform.documents("applications", {"state": "confirmed"})
    assert len(confirmed) == 1
    assert len(await platform.documents("applications", {"state": "superseded"})) == 99
    calendars = await platform.documents("calendars", {"entries.shift_id": shift.id})
    assert [calendar["_id"] for calendar in calendars] == [confirmed[0]["pharmacist_id"]]
    stored = (await platform.documents("shifts"))[0]
    assert stored["assignment"]["application_id"] == confirmed[0]["_id"]
    assert len(await platform.owed("shift.filled")) == 1
    assert took < 10


async def test_the_same_application_confirmed_a_hundred_times(platform: Platform) -> None:
    """An impatient manager confirms once, however often they press."""
    shift = await platform.post()
    application_id = await platform.services.applications.apply(platform.pharmacist(), shift.id, "")

    results = await asyncio.gather(
        *(platform.services.applications.confirm(platform.mira, application_id) for _ in range(100)),
        return_exceptions=True,
    )

    assert tally(results)["ok"] == 1
    calendar = (await platform.documents("calendars", {"_id": "pha_dana"}))[0]
    assert len(calendar["entries"]) == 1
    assert len(await platform.owed("shift.filled")) == 1


async def test_overlapping_shifts_of_a_hundred_pharmacies(platform: Platform) -> None:
    """A hundred pharmacies confirm one pharmacist for the same hours at once: one gets them."""
    managers = await platform.many_pharmacies(100)
    dana = platform.pharmacist()
    ids: list[str] = []
    for manager in managers:
        shift = await platform.post(by=manager)
        ids.append(await platform.services.applications.apply(dana, shift.id, ""))

    results = await asyncio.gather(
        *(
            platform.services.applications.confirm(manager, id)
            for manager, id in zip(managers, ids, strict=True)
        ),
        return_exceptions=True,
    )

    assert tally(results) == {"ok": 1, "CalendarConflict": 99}
    assert len(await platform.documents("shifts", {"state": "filled"})) == 1
    assert len(await platform.documents("applications", {"state": "confirmed"})) == 1
    calendar = (await platform.documents("calendars", {"_id": "pha_dana"}))[0]
    assert len(calendar["entries"]) == 1
    # The others are as open as before, and theirs to give to someone else.
    assert len(await platform.documents("shifts", {"state": "open", "assignment": None})) == 99


async def test_shifts_apart_are_all_booked(platform: Platform) -> None:
    """Confirms that do not overlap get in each other's way, and all succeed in the end."""
    managers = await platform.many_pharmacies(10)
    dana = platform.pharmacist()
    ids: list[str] = []
    for day, manager in enumerate(managers, start=1):
        shift = await platform.post(day, by=manager)
        ids.append(await platform.services.applications.apply(dana, shift.id, ""))

    await asyncio.gather(
        *(
            platform.services.applications.confirm(manager, id)
            for manager, id in zip(managers, ids, strict=True)
        )
    )

    calendar = (await platform.documents("calendars", {"_id": "pha_dana"}))[0]
    assert (len(calendar["entries"]), calendar["rev"]) == (10, 10)


async def test_applying_races_with_confirm(platform: Platform) -> None:
    """Nobody is left with a live application for a shift that is filled."""
    people = await platform.many_pharmacists(20)
    for _ in range(5):
        shift = await platform.post()
        first = await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
        confirmed, *_ = await asyncio.gather(
            platform.services.applications.confirm(platform.mira, first),
            *(platform.services.applications.apply(person, shift.id, "") for person in people),
            return_exceptions=True,
        )
        if isinstance(confirmed, TemporarilyUnavailable):
            # On a busy machine the others may be in its way until its time is up; the manager tries again.
            await platform.services.applications.confirm(platform.mira, first)
        live = await platform.documents("applications", {"shift_id": shift.id, "state": "submitted"})
        assert live == []
        await platform.services.database.collection("calendars").update_many({}, {"$set": {"entries": []}})


async def test_an_application_and_what_it_owes_are_one(platform: Platform) -> None:
    """Of a refused application nothing is left, nor anything owed."""
    shift = await platform.post()
    results = await asyncio.gather(
        *(platform.services.applications.apply(platform.pharmacist(), shift.id, "") for _ in range(20)),
        return_exceptions=True,
    )

    assert tally(results) == {"ok": 1, AlreadyApplied.__name__: 19}
    assert len(await platform.documents("applications")) == 1
    assert len(await platform.owed("application.submitted")) == 1
    assert len(await platform.owed("application.check")) == 1
    assert (await platform.documents("shifts"))[0]["counts"]["live"] == 1


async def test_rest_between_shifts_is_kept(platform: Platform) -> None:
    """Booked until 23:00, not for 06:00; two short shifts on one day are fine."""
    late = await platform.post(2, "14:00", "23:00", rest="0")
    early = await platform.post(3, "06:00", "14:00", rest="0", by=platform.mira)
    morning = await platform.post(5, "09:00", "13:00", rest="0")
    afternoon = await platform.post(5, "15:00", "19:00", rest="0")
    dana, applications = platform.pharmacist(), platform.services.applications
    ids = [await applications.apply(dana, shift.id, "") for shift in (late, early, morning, afternoon)]

    await applications.confirm(platform.mira, ids[0])
    with pytest.raises(NotEligible) as refused:
        await applications.confirm(platform.mira, ids[1])
    await applications.confirm(platform.mira, ids[2])
    await applications.confirm(platform.mira, ids[3])

    assert refused.value.reasons[0][0] == "rest_too_short"
    assert "another booking" in refused.value.detail


async def test_who_may_confirm(platform: Platform) -> None:
    """Only the manager of that pharmacy; to everybody else the application does not exist."""
    shift = await platform.post()
    application_id = await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
    for stranger in (platform.owen, platform.pharmacist()):
        with pytest.raises(NotFound):
            await platform.services.applications.confirm(stranger, application_id)
    with pytest.raises(NotFound):
        await platform.services.applications.confirm(platform.mira, "app_00000000000000000000000000")


async def test_after_the_confirm(platform: Platform) -> None:
    """A filled shift takes no applications and no second confirm."""
    shift = await platform.post()
    winner = await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
    loser = await platform.services.applications.apply(platform.pharmacist("amir"), shift.id, "")
    await platform.services.applications.confirm(platform.mira, winner)

    with pytest.raises(ShiftTaken):
        await platform.services.applications.apply(platform.pharmacist("clai"), shift.id, "")
    with pytest.raises((ShiftTaken, NotConfirmable)):
        await platform.services.applications.confirm(platform.mira, loser)


async def test_a_conflict_names_no_other_pharmacy(platform: Platform) -> None:
    """Where else somebody works is not the business of the one who is refused."""
    elsewhere = (await platform.many_pharmacies(1))[0]
    dana, applications = platform.pharmacist(), platform.services.applications
    mine, theirs = await platform.post(), await platform.post(by=elsewhere)
    first, second = await applications.apply(dana, mine.id, ""), await applications.apply(dana, theirs.id, "")
    await applications.confirm(platform.mira, first)

    with pytest.raises(CalendarConflict) as refused:
        await applications.confirm(elsewhere, second)
    assert "Harbour" not in refused.value.detail


async def test_licences_decide_at_the_application(platform: Platform) -> None:
    """No licence for the region, or one that ends before the shift does: refused at once, with the reason."""
    manitoba = await platform.post(by=platform.owen)
    late = await platform.post(9)
    soon = await platform.post(2)
    apply = platform.services.applications.apply

    with pytest.raises(NotEligible) as missing:
        await apply(platform.pharmacist("amir"), manitoba.id, "")
    with pytest.raises(NotEligible) as expired:
        await apply(platform.pharmacist("meil"), late.id, "")
    await apply(platform.pharmacist("meil"), soon.id, "")

    assert [code for code, _ in missing.value.reasons] == ["licence_missing"]
    assert [code for code, _ in expired.value.reasons] == ["licence_expires_before"]
