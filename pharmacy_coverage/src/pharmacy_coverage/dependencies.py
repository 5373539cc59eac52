"""What routes ask for: the services, the person who is signed in, and that they are who the page is for."""

from typing import Annotated

from fastapi import Depends, Request

from .errors import Forbidden, NotAuthenticated, PlatformError
from .people.models import Actor
from .services import Services
from .web import read_form

__all__ = ["Anyone", "Form", "Manager", "Operator", "Pharmacist", "ServicesDep", "SignedIn", "guard"]


async def guard(request: Request) -> None:
    """Refuse what the middleware found wanting, here, where it becomes a proper answer."""
    refused: PlatformError | None = request.scope.get("platform.refused")
    if refused is not None:
        raise refused


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
