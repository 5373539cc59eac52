"""The web application.

    uvicorn pharmacy_coverage.main:create_app --factory --loop uvloop

It writes MongoDB and reads the search cache. The queues' Redis is no part of any request but the operator's page.
It waits for MongoDB at its start, and answers 503 meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from pymongo.monitoring import CommandListener
from starlette.staticfiles import StaticFiles

from . import web
from .applications.routes import router as applications
from .dependencies import guard
from .operations.queues import QueueWatch
from .operations.routes import router as operations
from .people.routes import demo_router
from .people.routes import router as people
from .reports.routes import router as reports
from .security import Guard
from .services import Services
from .settings import Settings, process_settings
from .shifts.routes import router as shifts

__all__ = ["create_app"]

FIRST_TRY_SECONDS = 5.0
"""A start waits so long for MongoDB before it answers that it is not ready."""


def create_app(settings: Settings | None = None, *, listeners: Sequence[CommandListener] = ()) -> FastAPI:
    """The application; settings come from the environment unless they are given."""
    chosen = settings or process_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with Services(chosen, listeners=listeners) as services, QueueWatch(chosen) as queue_watch:
            app.state.services = services
            app.state.queue_watch = queue_watch
            app.state.preparing = preparing = asyncio.create_task(services.prepare_when_there())
            try:
                # Without MongoDB it begins all the same, and says that it is not ready.
                await asyncio.wait({preparing}, timeout=FIRST_TRY_SECONDS)
                if preparing.done():
                    preparing.result()
                yield
            finally:
                preparing.cancel()
                await asyncio.gather(preparing, return_exceptions=True)

    # No generated pages: they need inline scripts, which no page here has.
    app = FastAPI(
        title="Pharmacy Coverage",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(guard)],
    )
    app.state.settings = chosen
    app.add_middleware(Guard, is_secure=not chosen.is_development)
    web.install_errors(app)
    routers = [people, shifts, applications, reports, operations]
    if chosen.is_development:
        routers.append(demo_router)
    for router in routers:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=web.STATIC), name="static")
    return app
