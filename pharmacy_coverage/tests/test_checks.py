"""The check that runs after the answer: does an application fit its pharmacist's other shifts?"""

from datetime import timedelta

import pytest
from toril import DelayedError

from pharmacy_coverage.applications.models import FitState
from pharmacy_coverage.database import Transaction
from pharmacy_coverage.outbox.consume import consume

from .support import Platform, eventually


async def verdicts(platform: Platform) -> dict[str, tuple[FitState, list[str]]]:
    """Of each application, by shift: the verdict, and the codes of its findings."""
    return {
        document["shift_id"]: (document["fit"]["state"], [item["code"] for item in document["fit"]["items"]])
        for document in await platform.documents("applications")
    }


async def checked(platform: Platform) -> dict[str, tuple[FitState, list[str]]]:
    """Run what is owed to the checks, here and now."""
    for entry in await platform.owed("application.check", "pending"):
        await platform.services.applications.check(entry["data"]["application_id"], entry["_id"])
    for entry in await platform.owed("calendar.changed", "pending"):
        await platform.services.applications.check_all(entry["data"]["pharmacist_id"], entry["_id"])
    return await verdicts(platform)


async def test_it_fits(platform: Platform) -> None:
    """Checking…, until the check has run."""
    shift = await platform.post()
    await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
    assert await verdicts(platform) == {shift.id: ("checking", [])}
    assert await checked(platform) == {shift.id: ("fits", [])}


async def test_it_conflicts_with_a_booking(platform: Platform) -> None:
    """Booked 9 to 17 and applied for 16 to 20 elsewhere: a conflict, named to the pharmacist alone."""
    elsewhere = (await platform.many_pharmacies(1))[0]
    dana, applications = platform.pharmacist(), platform.services.applications
    booked = await platform.post(2, "09:00", "17:00")
    await applications.confirm(platform.mira, await applications.apply(dana, booked.id, ""))
    wanted = await platform.post(2, "16:00", "20:00", by=elsewhere, rest="0")
    await applications.apply(dana, wanted.id, "")

    assert (await checked(platform))[wanted.id] == ("conflicts", ["overlap"])
    async with platform.browser(dana) as browser:
        assert "Conflicts with Harbour Street Pharmacy" in (await browser.get(f"/shifts/{wanted.id}")).text
    page = await platform.services.applications.applicants(wanted)
    assert page[0].application.fit.state == "conflicts"


async def test_a_manager_does_not_learn_where_else_somebody_works(platform: Platform) -> None:
    """The manager reads "another booking"."""
    elsewhere = (await platform.many_pharmacies(1))[0]
    dana, applications = platform.pharmacist(), platform.services.applications
    booked = await platform.post(2, by=elsewhere)
    await applications.confirm(elsewhere, await applications.apply(dana, booked.id, ""))
    wanted = await platform.post(2)
    await applications.apply(dana, wanted.id, "")
    await checked(platform)

    async with platform.browser(platform.mira) as browser:
        page = (await browser.get(f"/shifts/{wanted.id}")).text
    assert "Conflicts with another booking" in page
    assert "Pharmacy 000" not in page


async def test_two_applications_for_the_same_hours(platform: Platform) -> None:
    """Both get a note; when one becomes a booking, the other conflicts, without anybody asking."""
    elsewhere = (await platform.many_pharmacies(1))[0]
    dana, applications = platform.pharmacist(), platform.services.applications
    first, second = await platform.post(3), await platform.post(3, "12:00", "20:00", by=elsewhere)
    winner = await applications.apply(dana, first.id, "")
    await applications.apply(dana, second.id, "")
    assert await checked(platform) == {
        first.id: ("warnings", ["also_applied"]),
        second.id: ("warnings", ["also_applied"]),
    }

    await applications.confirm(platform.mira, winner)

    assert (await checked(platform))[second.id] == ("conflicts", ["overlap"])


async def test_the_verdict_appears_by_itself(platform: Platform, at_work: None) -> None:
    """With workers at work, both sides see it within a moment of the application, and of a confirm elsewhere."""
    elsewhere = (await platform.many_pharmacies(1))[0]
    dana, applications = platform.pharmacist(), platform.services.applications
    first, second = await platform.post(3), await platform.post(3, by=elsewhere)
    winner = await applications.apply(dana, first.id, "")
    await applications.apply(dana, second.id, "")

    async def has_note() -> bool:
        return (await verdicts(platform))[second.id][0] == "warnings"

    async def conflicts() -> bool:
        return (await verdicts(platform))[second.id] == ("conflicts", ["overlap"])

    await eventually(has_note, "the note")
    await applications.confirm(platform.mira, winner)
    await eventually(conflicts, "the conflict")


async def test_documents_that_a_dead_transaction_holds_cost_no_attempt(platform: Platform) -> None:
    """A worker killed within a transaction leaves its documents locked: the job is put off, and done afterwards."""
    shift = await platform.post()
    await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
    (entry,) = await platform.owed("application.check", "pending")

    outbox, database = platform.services.outbox, platform.services.database

    async def run() -> str:
        async def work(entry_id: str) -> str:
            async def done(tx: Transaction) -> str:
                return str(await outbox.mark_done(entry_id, "done", tx.session))

            return await database.transaction(done, within=timedelta(seconds=0.5))

        return await consume(outbox, entry["job_id"], work)

    async with database.client.start_session() as session:
        await session.start_transaction()
        await outbox.mark_dead(entry["_id"], "held", session)
        with pytest.raises(DelayedError):
            await run()
        await session.abort_transaction()

    assert await run() == "True"
