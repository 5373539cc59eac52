"""Applying and confirming, and a pharmacist's own applications."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from .. import clock
from ..dependencies import Form, Manager, Pharmacist, ServicesDep
from ..errors import NotEligible, StateConflict
from ..shifts.routes import manager_page, pharmacist_page
from ..shifts.schemas import clean_text
from ..web import page, see_other, wants_page

__all__ = ["router"]

router = APIRouter()

MESSAGE_LENGTH = 1_000


@router.post("/shifts/{shift_id}/applications")
async def apply(
    request: Request, services: ServicesDep, actor: Pharmacist, form: Form, shift_id: str
) -> Response:
    message = clean_text(form.get("message", ""), MESSAGE_LENGTH)
    try:
        await services.applications.apply(actor, shift_id, message)
    except (StateConflict, NotEligible) as error:
        if not wants_page(request):
            raise
        shift = await services.shifts.get(actor, shift_id)
        return await pharmacist_page(
            request, services, actor, shift, message=message, problem=error.detail, status=error.status
        )
    return see_other(f"/shifts/{shift_id}?done=applied")


@router.post("/applications/{application_id}/confirm")
async def confirm(request: Request, services: ServicesDep, actor: Manager, application_id: str) -> Response:
    try:
        shift = await services.applications.confirm(actor, application_id)
    except (StateConflict, NotEligible) as error:
        if not wants_page(request):
            raise
        shift = await services.applications.shift_of(actor, application_id)
        return await manager_page(request, services, shift, problem=error.detail, status=error.status)
    return see_other(f"/shifts/{shift.id}?done=confirmed")


@router.get("/applications")
async def own(request: Request, services: ServicesDep, actor: Pharmacist) -> Response:
    everything = await services.applications.own(actor)
    moment = clock.now()
    return page(
        request,
        "applications/own.html",
        {
            "booked": sorted(
                (o for o in everything if o.application.state == "confirmed" and o.shift.end > moment),
                key=lambda o: o.shift.start,
            ),
            "waiting": sorted(
                (o for o in everything if o.application.state == "submitted" and o.shift.start > moment),
                key=lambda o: o.shift.start,
            ),
            "past": [o for o in everything if o.application.state == "superseded" or o.shift.start <= moment],
        },
    )
