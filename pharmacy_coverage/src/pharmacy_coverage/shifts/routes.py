"""The pages around shifts: search, a shift, the pharmacy's board, the form that posts one."""

import asyncio
from datetime import timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from fastapi.responses import Response

from .. import clock
from ..dependencies import Form, Manager, Pharmacist, ServicesDep, SignedIn
from ..errors import Invalid
from ..ids import new_id
from ..people.models import Actor
from ..services import Services
from ..web import page, see_other
from .models import Shift
from .schemas import ShiftFilter

__all__ = ["router"]

router = APIRouter()

BOARD_DAYS = 14
# Days begin here for the search's default; the platform's regions are all west of it.
SEARCH_TZ = "America/Winnipeg"


@router.get("/shifts")
async def find(request: Request, services: ServicesDep, actor: Pharmacist) -> Response:
    today = clock.local_date(clock.now(), SEARCH_TZ)
    wanted = ShiftFilter.from_query(request.query_params, today)
    person, calendar = await asyncio.gather(
        services.applications.person(actor), services.applications.calendar(actor)
    )
    regions = [wanted.region] if wanted.region in person.regions else person.regions
    found = await services.search.find(regions, wanted)
    applied = await services.applications.own_live(actor, [card.id for card in found.cards])
    moment = clock.now()
    response = page(
        request,
        "shifts/find.html",
        {
            "wanted": wanted,
            "today": today,
            "regions": person.regions,
            "days": [(day, list(cards)) for day, cards in groupby(found.cards, key=lambda c: c.local_date)],
            "count": len(found.cards),
            "applied": applied,
            "clashes": {
                card.id: booking
                for card in found.cards
                for booking in calendar.bookings
                if booking.overlaps(card.start, card.end)
            },
            "bookings": sorted((b for b in calendar.bookings if b.end > moment), key=lambda b: b.start),
            "person": person,
        },
    )
    response.headers["x-cache"] = ", ".join(
        f"{region}={outcome}" for region, outcome in found.outcomes.items()
    )
    return response


@router.get("/shifts/{shift_id}")
async def show(request: Request, services: ServicesDep, actor: SignedIn, shift_id: str) -> Response:
    shift = await services.shifts.get(actor, shift_id)
    if actor.role == "manager":
        return await manager_page(request, services, shift)
    return await pharmacist_page(request, services, actor, shift)


async def manager_page(
    request: Request, services: Services, shift: Shift, *, problem: str = "", status: int = 200
) -> Response:
    """A shift as its pharmacy sees it: who applied, and how well they fit."""
    applicants = await services.applications.applicants(shift)
    context = {"shift": shift, "applicants": applicants, "problem": problem}
    return page(request, "shifts/manage.html", context, status=status)


async def pharmacist_page(
    request: Request,
    services: Services,
    actor: Actor,
    shift: Shift,
    *,
    message: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    """A shift as a pharmacist sees it: all that is needed to decide, and their own application."""
    own = await services.applications.own_for(actor, shift)
    is_booked = own is not None and own.state == "confirmed"
    context = {
        "shift": shift,
        "own": own,
        "refusals": [] if own else await services.applications.refusals(actor, shift),
        "pharmacy": await services.pharmacies.get(shift.pharmacy_id) if is_booked else None,
        "message": message,
        "problem": problem,
    }
    return page(request, "shifts/show.html", context, status=status)


@router.get("/pharmacy")
async def board(request: Request, services: ServicesDep, actor: Manager) -> Response:
    pharmacy = await services.shifts.pharmacy_of(actor)
    today = clock.local_date(clock.now(), pharmacy.tz)
    pharmacy, shifts = await services.shifts.board(actor, today, BOARD_DAYS)
    moment = clock.now()
    by_day = {day: list(group) for day, group in groupby(shifts, key=lambda shift: shift.local_date)}
    days = [today + timedelta(days=n) for n in range(BOARD_DAYS)]
    return page(
        request,
        "shifts/board.html",
        {
            "pharmacy": pharmacy,
            "today": today,
            "days": [(day, by_day.get(day, [])) for day in days],
            "covered": sum(shift.state == "filled" for shift in shifts),
            "open": sum(shift.state == "open" and shift.start > moment for shift in shifts),
            "waiting": sum(shift.live for shift in shifts if shift.state == "open" and shift.start > moment),
            "now": moment,
            "local_time": moment.astimezone(ZoneInfo(pharmacy.tz)),
        },
    )


@router.get("/pharmacy/shifts/new")
async def new(request: Request, services: ServicesDep, actor: Manager) -> Response:
    pharmacy = await services.shifts.pharmacy_of(actor)
    tomorrow = clock.local_date(clock.now(), pharmacy.tz) + timedelta(days=1)
    day = request.query_params.get("date", tomorrow.isoformat())[:10]
    form = {"date": day, "start": "09:00", "end": "17:00", "break_minutes": "30", "rate": "62.50"}
    return await _form(request, services, actor, form, {})


@router.post("/pharmacy/shifts")
async def post(request: Request, services: ServicesDep, actor: Manager, form: Form) -> Response:
    try:
        shift = await services.shifts.post(actor, form)
    except Invalid as error:
        return await _form(request, services, actor, form, error.errors)
    return see_other(f"/shifts/{shift.id}?done=posted")


async def _form(
    request: Request, services: Services, actor: Actor, form: dict[str, str], errors: dict[str, str]
) -> Response:
    pharmacy = await services.shifts.pharmacy_of(actor)
    fields = ("date", "start", "end", "break_minutes", "rate", "notes")
    return page(
        request,
        "shifts/new.html",
        {
            "pharmacy": pharmacy,
            "form": {name: form.get(name, "") for name in fields},
            "shift_id": form.get("shift_id") or new_id("shf"),
            "errors": errors,
            "today": clock.local_date(clock.now(), pharmacy.tz),
        },
        status=422 if errors else 200,
    )
