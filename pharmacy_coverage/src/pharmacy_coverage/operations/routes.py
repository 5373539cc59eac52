"""`/healthz`, and the operator's page."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pymongo.errors import PyMongoError

from ..dependencies import Operator, ServicesDep, is_ready
from ..web import page
from .queues import QueueWatch

__all__ = ["router"]

router = APIRouter()

LATE_SECONDS = 60


@router.get("/healthz")
async def healthz(request: Request, services: ServicesDep) -> JSONResponse:
    """200 while requests can be served, which needs MongoDB and its indexes; `degraded` says what else is amiss."""
    if not is_ready(request):
        return JSONResponse({"status": "starting", "degraded": ["database"]}, 503)
    queue_watch: QueueWatch = request.app.state.queue_watch
    try:
        async with asyncio.timeout(2):
            await services.database.ping()
            oldest = await services.outbox.oldest_pending_seconds()
    except (PyMongoError, TimeoutError):
        return JSONResponse({"status": "unavailable", "degraded": ["database"]}, 503)
    degraded: list[str] = []
    if not await queue_watch.is_up():
        degraded.append("queue")
    if oldest > LATE_SECONDS:
        degraded.append("outbox")
    return JSONResponse(
        {
            "status": "degraded" if degraded else "ok",
            "degraded": degraded,
            "outbox_oldest_pending_seconds": round(oldest, 1),
        }
    )


@router.get("/operations")
async def operations(request: Request, services: ServicesDep, actor: Operator) -> Response:
    queue_watch: QueueWatch = request.app.state.queue_watch
    outbox, deliveries, troubled, recent, queues = await asyncio.gather(
        services.outbox.counts(),
        services.deliveries.counts(),
        services.outbox.troubled(),
        services.outbox.recent(12),
        queue_watch.counts(),
    )
    return page(
        request,
        "operations.html",
        {
            "outbox": outbox,
            "deliveries": deliveries,
            "troubled": troubled,
            "recent": recent,
            "queues": queues,
            "cache": services.cache.outcomes,
        },
    )
