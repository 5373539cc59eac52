"""The pages of the daily reports."""

from datetime import date, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response

from .. import clock
from ..dependencies import Manager, ServicesDep
from ..errors import NotFound
from ..web import page, see_other

__all__ = ["router"]

router = APIRouter(prefix="/pharmacy/reports")


@router.get("")
async def index(request: Request, services: ServicesDep, actor: Manager) -> Response:
    pharmacy = await services.shifts.pharmacy_of(actor)
    today = clock.local_date(clock.now(), pharmacy.tz)
    return page(
        request,
        "reports/index.html",
        {
            "pharmacy": pharmacy,
            "reports": await services.reports.latest(pharmacy.id),
            "yesterday": today - timedelta(days=1),
        },
    )


@router.get("/{day}")
async def show(request: Request, services: ServicesDep, actor: Manager, day: str) -> Response:
    pharmacy = await services.shifts.pharmacy_of(actor)
    report = await services.reports.get(pharmacy.id, _day(day).isoformat())
    return page(
        request, "reports/show.html", {"pharmacy": pharmacy, "report": report, "figures": report.figures}
    )


@router.post("/{day}")
async def again(request: Request, services: ServicesDep, actor: Manager, day: str) -> Response:
    """Owe the report of a day once more; it is made by a worker."""
    pharmacy = await services.shifts.pharmacy_of(actor)
    wanted = _day(day)
    if wanted > clock.local_date(clock.now(), pharmacy.tz):
        raise NotFound("day")
    await services.reports.request(pharmacy, wanted)
    return see_other("/pharmacy/reports?done=report")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NotFound("day") from None
