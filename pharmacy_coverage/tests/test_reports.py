"""The daily report: due once a local day, right to the cent, and mailed when its figures are new."""

import asyncio
import contextlib
import io
import json
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pharmacy_coverage import clock, report
from pharmacy_coverage.outbox.relay import Relay
from pharmacy_coverage.pharmacies.models import Pharmacy
from pharmacy_coverage.reports.service import day_due
from pharmacy_coverage.seed import PHARMACIES, seed

from .support import Platform

TORONTO = Pharmacy.from_document(PHARMACIES[0])


async def recount(platform: Platform, pharmacy: Mapping[str, Any], day: date) -> dict[str, Any]:
    """The figures of a report, counted from the plain documents in another way."""
    zone = ZoneInfo(pharmacy["tz"])

    def local(moment: datetime) -> date:
        return moment.astimezone(zone).date()

    shifts = await platform.documents("shifts", {"pharmacy_id": pharmacy["_id"]})
    applications = await platform.documents("applications", {"pharmacy_id": pharmacy["_id"]})
    of_day = [s for s in shifts if local(s["start"]) == day]
    ahead = [s for s in shifts if day < local(s["start"]) <= day + timedelta(days=14)]
    filled = [s for s in of_day if s["assignment"] is not None]
    minutes = [int((s["end"] - s["start"]).total_seconds()) // 60 - s["break_minutes"] for s in filled]
    return {
        "shifts": len(of_day),
        "filled": len(filled),
        "unfilled": len(of_day) - len(filled),
        "paid_minutes": sum(minutes),
        "cost_cents": sum(m * s["rate_cents"] // 60 for m, s in zip(minutes, filled, strict=True)),
        "posted": sum(local(s["created_at"]) == day for s in shifts),
        "applications": sum(local(a["created_at"]) == day for a in applications),
        "confirmed": sum(a["state"] == "confirmed" and local(a["decided_at"]) == day for a in applications),
        "ahead_filled": sum(s["assignment"] is not None for s in ahead),
        "holes": sorted(s["_id"] for s in ahead if s["assignment"] is None),
    }


async def test_the_figures_are_right(platform: Platform) -> None:
    """On the lively demonstration, for both pharmacies and every day around today, against a count of our own."""
    await seed(platform.services)
    for pharmacy in PHARMACIES:
        today = clock.local_date(clock.now(), pharmacy["tz"])
        for offset in range(-3, 14):
            day = today + timedelta(days=offset)
            await platform.services.reports.make(pharmacy["_id"], day, None)
            stored = (await platform.services.reports.get(pharmacy["_id"], str(day))).figures.document()
            stored["holes"] = sorted(hole["shift_id"] for hole in stored["holes"])
            assert stored == await recount(platform, pharmacy, day), (pharmacy["_id"], day)
    busy = (
        await platform.services.reports.get("phm_harbour", str(clock.local_date(clock.now(), TORONTO.tz)))
    ).figures
    assert busy.posted > 5
    assert busy.applications > 3
    assert busy.confirmed == 2


async def test_seeding_again_adds_nothing(platform: Platform) -> None:
    """The demonstration may be seeded at every start."""
    await seed(platform.services)
    names = ("users", "pharmacists", "pharmacies", "shifts", "applications", "outbox")
    before = {name: len(await platform.documents(name)) for name in names}
    await seed(platform.services)
    assert {name: len(await platform.documents(name)) for name in names} == before


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2027-01-15T11:29:00+00:00", date(2027, 1, 13)),  # 06:29 in Toronto
        ("2027-01-15T11:30:00+00:00", date(2027, 1, 14)),  # 06:30
        ("2027-01-16T04:59:00+00:00", date(2027, 1, 14)),  # still the 15th in Toronto
        ("2027-03-14T10:29:00+00:00", date(2027, 3, 12)),  # the clocks went forward at two: 06:29 EDT
        ("2027-03-14T10:30:00+00:00", date(2027, 3, 13)),
        ("2027-11-07T11:30:00+00:00", date(2027, 11, 6)),  # and back: 06:30 EST
    ],
)
def test_when_a_report_is_due(moment: str, day: date) -> None:
    """At 06:30 on the pharmacy's own wall, that of the day before."""
    assert day_due(TORONTO, datetime.fromisoformat(moment)) == day


def test_one_report_for_each_day_of_a_year() -> None:
    """Asked every twenty minutes for a year, each local day comes up once, in order, also at 02:30 and 01:30."""
    for report_at in (time(6, 30), time(2, 30), time(1, 30)):
        pharmacy = Pharmacy.from_document({**PHARMACIES[0], "report_at": f"{report_at:%H:%M}"})
        moment = datetime.fromisoformat("2027-01-01T12:00:00+00:00")
        days = [day_due(pharmacy, moment)]
        seen = set(days)
        for _ in range(365 * 72):
            moment += timedelta(minutes=20)
            day = day_due(pharmacy, moment)
            if day not in seen:
                seen.add(day)
                days.append(day)
        assert days == [days[0] + timedelta(days=n) for n in range(len(days))]
        assert len(days) >= 365


async def test_planning_twice_owes_once(platform: Platform, relay: Relay) -> None:
    """Two relays plan, again and again: one report for each pharmacy."""
    await asyncio.gather(*(relay.plan() for _ in range(10)))
    assert len(await platform.owed("report.due")) == len(PHARMACIES)


async def test_it_is_made_and_mailed(platform: Platform, at_work: None) -> None:
    """Planned by the relay, made by a worker, mailed to the manager, shown on its page."""
    mail = await platform.inbox.wait_for("Harbour Street Pharmacy, ")
    assert "Mira Castellan" in str(mail["To"])
    await platform.all_done()
    day = day_due(TORONTO, clock.now())
    async with platform.browser(platform.mira) as browser:
        assert f"/pharmacy/reports/{day}" in (await browser.get("/pharmacy/reports")).text
        assert (await browser.get(f"/pharmacy/reports/{day}")).status_code == 200
        assert (await browser.get("/pharmacy/reports/1999-01-01")).status_code == 404
        assert (await browser.get("/pharmacy/reports/soon")).status_code == 404


async def test_the_same_figures_are_mailed_once(platform: Platform) -> None:
    """Made again with nothing new: no second mail, no new revision. With news: both."""
    today = clock.local_date(clock.now(), TORONTO.tz)
    for _ in range(3):
        await platform.services.reports.make("phm_harbour", today, None)
    assert len(await platform.documents("deliveries")) == 1
    await platform.post()
    await platform.services.reports.make("phm_harbour", today, None)
    assert len(await platform.documents("deliveries")) == 2
    assert (await platform.services.reports.get("phm_harbour", str(today))).revision == 2


async def test_the_command(platform: Platform, at_work: None) -> None:
    """`python -m pharmacy_coverage.report` prints what a worker has counted."""
    await seed(platform.services)
    today = clock.local_date(clock.now(), TORONTO.tz)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = await report.main(["--date", str(today), "--pharmacy", "phm_harbour", "--json"])
    assert code == 0
    printed = json.loads(out.getvalue())
    assert printed["posted"] == (await recount(platform, PHARMACIES[0], today))["posted"]


async def test_the_command_without_workers(platform: Platform) -> None:
    """Nobody works: it says so, and the report stays owed."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = await report.main(["--date", "2026-11-01", "--pharmacy", "phm_harbour", "--wait", "0.2"])
        assert await report.main(["--pharmacy", "phm_nowhere"]) == 2
    assert code == 1
    assert "stays owed" in err.getvalue()
    assert len(await platform.owed("report.due", "pending")) == 1
