"""What routes ask for: the services, the person who is signed in, and that they are who the page is for."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from .errors import Forbidden, NotAuthenticated, PlatformError, TemporarilyUnavailable
from .people.models import Actor
from .services import Services
from .web import read_form

__all__ = [
    "Anyone",
    "Form",
    "Manager",
    "Operator",
    "Pharmacist",
    "ServicesDep",
    "SignedIn",
    "guard",
    "is_ready",
]


async def guard(request: Request) -> None:
    """Refuse what the middleware found wanting, here, where it becomes a proper answer; and all before we are ready."""
    refused: PlatformError | None = request.scope.get("platform.refused")
    if refused is not None:
        raise refused
    if not is_ready(request) and request.url.path != "/healthz":
        raise TemporarilyUnavailable("The platform has just started, and waits for its database.")


def is_ready(request: Request) -> bool:
    """Whether MongoDB was there and has its indexes, without which two people could take the same shift."""
    preparing: asyncio.Task[None] = request.app.state.preparing
    return preparing.done() and not preparing.cancelled() and preparing.exception() is None


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


async def _anyone(request: Request, services: ServicesDep) -> Actor | None:
    token = request.cookies.get(services.settings.session_cookie)
    actor = await services.people.actor(token) if token else None
    request.state.actor = actor
    return actor


Anyone = Annotated[Actor | None, Depends(_anyone)]


async def _signed_in(actor: Anyone) -> Actor:
    if actor is None:
        raise NotAuthenticated
    return actor


SignedIn = Annotated[Actor, Depends(_signed_in)]


async def _pharmacist(actor: SignedIn) -> Actor:
    if actor.role != "pharmacist":
        raise Forbidden("pharmacist")
    return actor


async def _manager(actor: SignedIn) -> Actor:
    if actor.role != "manager":
        raise Forbidden("pharmacy manager")
    return actor


async def _operator(actor: SignedIn) -> Actor:
    if actor.role != "operator":
        raise Forbidden("platform operator")
    return actor


Pharmacist = Annotated[Actor, Depends(_pharmacist)]
Manager = Annotated[Actor, Depends(_manager)]
Operator = Annotated[Actor, Depends(_operator)]
Form = Annotated[dict[str, str], Depends(read_form)]
