"""A lively demonstration: `python -m pharmacy_coverage.seed`. Running it again adds only what is missing.

Two pharmacies with a manager each, five pharmacists with licences, an operator, shifts around today, some of them
covered, and applications. Everything goes through the services that people use, so the mail, the checks and the
reports of it are owed as always.
"""

import argparse
import asyncio
import hashlib
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from itertools import product
from typing import Any

from . import clock
from .applications.service import ApplicationService
from .database import Document
from .errors import PlatformError
from .people.models import Actor
from .people.passwords import hash_password
from .services import Services
from .settings import process_settings

__all__ = ["PASSWORD", "PHARMACIES", "PHARMACISTS", "STAFF", "seed", "seed_people"]

PASSWORD = "relief-demo-2026"

PHARMACIES: tuple[Document, ...] = (
    {
        "_id": "phm_harbour",
        "name": "Harbour Street Pharmacy",
        "region": "CA-ON",
        "tz": "America/Toronto",
        "address": "48 Harbour Street",
        "city": "Toronto",
        "phone": "+1 416 555 0142",
        "software": "Kroll",
        "report_at": "06:30",
    },
    {
        "_id": "phm_prairie",
        "name": "Prairie Cross Drugs",
        "region": "CA-MB",
        "tz": "America/Winnipeg",
        "address": "210 Portage Avenue",
        "city": "Winnipeg",
        "phone": "+1 204 555 0117",
        "software": "PropelRx",
        "report_at": "06:30",
    },
)

STAFF: tuple[Document, ...] = (
    {
        "_id": "usr_mira",
        "name": "Mira Castellan",
        "email": "mira@harbour-street.example",
        "role": "manager",
        "pharmacy_id": "phm_harbour",
        "blurb": "Manager, Harbour Street Pharmacy, Toronto",
    },
    {
        "_id": "usr_owen",
        "name": "Owen Bergstrom",
        "email": "owen@prairie-cross.example",
        "role": "manager",
        "pharmacy_id": "phm_prairie",
        "blurb": "Manager, Prairie Cross Drugs, Winnipeg",
    },
    {
        "_id": "usr_oper",
        "name": "Sam Okonedo",
        "email": "operator@pharmacy-coverage.example",
        "role": "operator",
        "blurb": "Operator of the platform",
    },
)

# Expiry in days from the day of the seed, so that Mei's licence always ends in the middle of what can be found.
PHARMACISTS: tuple[Document, ...] = (
    {
        "_id": "pha_dana",
        "name": "Dana Kim",
        "city": "Toronto",
        "since": 2014,
        "software": ["Kroll", "PropelRx"],
        "licences": [("CA-ON", "OCP", "624117", 420), ("CA-MB", "CPhM", "38842", 300)],
        "blurb": "Pharmacist, licensed in Ontario and Manitoba",
    },
    {
        "_id": "pha_amir",
        "name": "Amir Haddad",
        "city": "Mississauga",
        "since": 2019,
        "software": ["Kroll"],
        "licences": [("CA-ON", "OCP", "631902", 380)],
        "blurb": "Pharmacist, licensed in Ontario",
    },
    {
        "_id": "pha_clai",
        "name": "Claire Tremblay",
        "city": "Winnipeg",
        "since": 2008,
        "software": ["PropelRx", "Fillware"],
        "licences": [("CA-MB", "CPhM", "30155", 250), ("CA-ON", "OCP", "609871", 190)],
        "blurb": "Pharmacist, licensed in Manitoba and Ontario",
    },
    {
        "_id": "pha_jose",
        "name": "Joseph Okafor",
        "city": "Brandon",
        "since": 2021,
        "software": ["PropelRx", "Kroll"],
        "licences": [("CA-MB", "CPhM", "40217", 330)],
        "blurb": "Pharmacist, licensed in Manitoba",
    },
    {
        "_id": "pha_meil",
        "name": "Mei Lin",
        "city": "Toronto",
        "since": 2017,
        "software": ["Kroll", "HealthWatch"],
        "licences": [("CA-ON", "OCP", "627730", 6)],
        "blurb": "Pharmacist, whose Ontario licence ends in six days",
    },
)

# Days from today, start, end, break, rate, notes.
SHIFTS: Mapping[str, tuple[tuple[int, str, str, int, str, str], ...]] = {
    "phm_harbour": (
        (1, "09:00", "17:00", 30, "64.00", "Two technicians on. The safe code is with the front store."),
        (1, "17:00", "22:00", 0, "68.50", ""),
        (2, "09:00", "17:00", 30, "62.50", "Flu clinic from ten to noon; injections needed."),
        (4, "08:00", "16:00", 30, "62.50", ""),
        (5, "10:00", "18:00", 30, "71.00", "Methadone dispensing. Quiet Saturday otherwise."),
        (6, "11:00", "17:00", 0, "75.00", ""),
        (8, "09:00", "17:00", 30, "62.50", ""),
        (9, "22:00", "06:00", 45, "84.00", "Night shift, one technician until midnight."),
        (12, "09:00", "17:00", 30, "64.00", ""),
    ),
    "phm_prairie": (
        (1, "09:00", "18:00", 45, "58.00", "Blister packs for two homes are due at noon."),
        (2, "12:00", "20:00", 30, "60.00", ""),
        (3, "09:00", "17:00", 30, "57.50", ""),
        (5, "09:00", "17:00", 30, "66.00", "Alone until eleven."),
        (7, "09:00", "18:00", 45, "58.00", ""),
        (10, "09:00", "13:00", 0, "61.00", ""),
        (13, "09:00", "17:00", 30, "57.50", ""),
    ),
}

# Pharmacist, pharmacy, number of the shift above, message, confirmed at once.
APPLICATIONS: tuple[tuple[str, str, int, str, bool], ...] = (
    ("pha_dana", "phm_harbour", 3, "Happy to come back.", True),
    ("pha_amir", "phm_harbour", 2, "I am certified for injections and live twenty minutes away.", False),
    ("pha_meil", "phm_harbour", 2, "", False),
    ("pha_dana", "phm_harbour", 2, "I know the store and the team.", False),
    ("pha_amir", "phm_harbour", 8, "Nights are fine with me.", False),
    ("pha_clai", "phm_prairie", 0, "", False),
    ("pha_jose", "phm_prairie", 1, "I can drive in from Brandon the evening before.", False),
    ("pha_clai", "phm_prairie", 3, "", True),
    ("pha_amir", "phm_harbour", 0, "I worked with your team in spring.", True),
    ("pha_dana", "phm_harbour", 1, "", False),
    ("pha_dana", "phm_prairie", 1, "In Winnipeg that week anyway.", False),
    ("pha_clai", "phm_harbour", 4, "", False),
    ("pha_jose", "phm_prairie", 4, "", False),
)


async def seed(services: Services) -> None:
    """Everything; adds what is missing."""
    await services.prepare()
    await seed_people(services)
    await _seed_past(services)
    shifts = await _seed_shifts(services)
    await _seed_applications(services, shifts)


async def seed_people(services: Services) -> None:
    """Pharmacies, staff, pharmacists, and an empty calendar for each of those."""
    today = clock.now().date()
    db = services.database
    password_hash = await asyncio.to_thread(hash_password, PASSWORD)
    for pharmacy in PHARMACIES:
        await _add(db.collection("pharmacies"), pharmacy)
    for order, person in enumerate(STAFF):
        user = {**person, "password_hash": password_hash, "demo": True, "order": order}
        await _add(db.collection("users"), user)
    for order, person in enumerate(PHARMACISTS, start=len(STAFF)):
        key = person["_id"].removeprefix("pha_")
        email = f"{person['name'].split()[0].lower()}@relief.example"
        await _add(
            db.collection("users"),
            {
                "_id": f"usr_{key}",
                "name": person["name"],
                "email": email,
                "role": "pharmacist",
                "pharmacist_id": person["_id"],
                "blurb": person["blurb"],
                "password_hash": password_hash,
                "demo": True,
                "order": order,
            },
        )
        await _add(
            db.collection("pharmacists"),
            {
                "_id": person["_id"],
                "user_id": f"usr_{key}",
                "name": person["name"],
                "email": email,
                "city": person["city"],
                "since": person["since"],
                "software": person["software"],
                "licences": [
                    {
                        "region": region,
                        "body": body,
                        "number": number,
                        "state": "verified",
                        "expires_on": (today + timedelta(days=days)).isoformat(),
                    }
                    for region, body, number, days in person["licences"]
                ],
            },
        )
        await services.calendars.ensure(person["_id"])


async def _seed_shifts(services: Services) -> dict[tuple[str, int], str]:
    """Post the shifts. Their ids are made of day and place: a second run on the same day finds them there."""
    ids: dict[tuple[str, int], str] = {}
    for pharmacy in PHARMACIES:
        actor = _actor(next(p for p in STAFF if p.get("pharmacy_id") == pharmacy["_id"]))
        today = clock.local_date(clock.now(), pharmacy["tz"])
        for number, (days, start, end, rest, rate, notes) in enumerate(SHIFTS[pharmacy["_id"]]):
            shift_id = _id("shf", pharmacy["_id"], today, number)
            form = {
                "shift_id": shift_id,
                "date": (today + timedelta(days=days)).isoformat(),
                "start": start,
                "end": end,
                "break_minutes": str(rest),
                "rate": rate,
                "notes": notes,
            }
            await services.shifts.post(actor, form)
            ids[pharmacy["_id"], number] = shift_id
    return ids


async def _seed_applications(services: Services, shifts: Mapping[tuple[str, int], str]) -> None:
    applications: ApplicationService = services.applications
    for pharmacist_id, pharmacy_id, number, message, is_confirmed in APPLICATIONS:
        shift_id = shifts[pharmacy_id, number]
        person = next(p for p in PHARMACISTS if p["_id"] == pharmacist_id)
        applicant = Actor(
            f"usr_{pharmacist_id[4:]}",
            person["name"],
            "",
            "pharmacist",
            pharmacist_id=pharmacist_id,
            pharmacy_id=None,
        )
        manager = _actor(next(p for p in STAFF if p.get("pharmacy_id") == pharmacy_id))
        if await applications.own_for(applicant, await services.shifts.get(applicant, shift_id)):
            continue
        try:
            application_id = await applications.apply(applicant, shift_id, message)
            if is_confirmed:
                await applications.confirm(manager, application_id)
        except PlatformError:
            # Somebody has been busy with the demonstration in the meantime.
            continue


async def _seed_past(services: Services) -> None:
    """Shifts that are over, which nobody could post today, so that the first report has something to tell."""
    for pharmacy, days in product(PHARMACIES, (1, 2)):
        day = clock.local_date(clock.now(), pharmacy["tz"]) - timedelta(days=days)
        for number, (start, end, name, pharmacist_id) in enumerate(
            (
                (time(9), time(17), "Dana Kim", "pha_dana"),
                (time(17), time(21), None, None),
            )
        ):
            begin = clock.instant(day, start, pharmacy["tz"])
            finish = clock.instant(day, end, pharmacy["tz"])
            if pharmacy["_id"] == "phm_prairie" and pharmacist_id:
                name, pharmacist_id = "Claire Tremblay", "pha_clai"
            await _add(
                services.database.collection("shifts"),
                _past_shift(pharmacy, day, number, begin, finish, name, pharmacist_id),
            )


def _past_shift(
    pharmacy: Mapping[str, Any],
    day: date,
    number: int,
    begin: datetime,
    finish: datetime,
    name: str | None,
    pharmacist_id: str | None,
) -> Document:
    posted = begin - timedelta(days=3)
    return {
        "_id": _id("shf", pharmacy["_id"], day, 90 + number),
        "pharmacy_id": pharmacy["_id"],
        "region": pharmacy["region"],
        "tz": pharmacy["tz"],
        "local": {"date": day.isoformat(), "start": "", "end": "", "end_next_day": False},
        "start": begin,
        "end": finish,
        "break_minutes": 0,
        "paid_minutes": int((finish - begin).total_seconds()) // 60,
        "rate_cents": 62_00,
        "notes": "",
        "state": "filled" if name else "open",
        "version": 2,
        "assignment": {
            "application_id": "",
            "pharmacist_id": pharmacist_id,
            "pharmacist_name": name,
            "by": "seed",
            "at": posted + timedelta(days=1),
        }
        if name
        else None,
        "counts": {"live": 1 if name else 0},
        "card": {
            "pharmacy_name": pharmacy["name"],
            "city": pharmacy["city"],
            "software": pharmacy["software"],
        },
        "posted_by": "seed",
        "created_at": posted,
        "updated_at": posted,
    }


async def _add(collection: Any, document: Mapping[str, Any]) -> None:
    rest = {name: value for name, value in document.items() if name != "_id"}
    await collection.update_one({"_id": document["_id"]}, {"$setOnInsert": rest}, upsert=True)


def _actor(person: Mapping[str, Any]) -> Actor:
    return Actor.from_document(person)


def _id(prefix: str, *parts: object) -> str:
    return f"{prefix}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:26]}"


async def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    async with Services(process_settings()) as services:
        await seed(services)
    print(f"The demonstration is there. Everyone's password is {PASSWORD}.")


if __name__ == "__main__":
    asyncio.run(main())
