"""Signing in and out."""

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from ..dependencies import Anyone, Form, ServicesDep
from ..errors import Invalid
from ..services import Services
from ..web import page, see_other
from .models import Actor
from .service import LONGEST

__all__ = ["demo_router", "home_of", "router"]

router = APIRouter()
demo_router = APIRouter()


@router.get("/")
async def home(actor: Anyone) -> RedirectResponse:
    return see_other(home_of(actor) if actor else "/sign-in")


@router.get("/sign-in")
async def sign_in_page(request: Request, services: ServicesDep, actor: Anyone) -> Response:
    return await _sign_in_page(request, services, next_path=request.query_params.get("next", ""))


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDep, form: Form) -> Response:
    email, next_path = form.get("email", ""), form.get("next", "")
    try:
        actor, token = await services.people.sign_in(email[:254], form.get("password", "")[:256])
    except Invalid as error:
        return await _sign_in_page(
            request, services, next_path=next_path, email=email[:254], errors=error.errors, status=422
        )
    return _signed_in(services, actor, token, next_path)


@router.post("/sign-out")
async def sign_out(request: Request, services: ServicesDep) -> Response:
    cookie = services.settings.session_cookie
    if token := request.cookies.get(cookie):
        await services.people.sign_out(token)
    response = see_other("/sign-in?done=signed-out")
    response.delete_cookie(cookie, path="/", secure=not services.settings.is_development, httponly=True)
    return response


@demo_router.post("/sign-in/demo")
async def sign_in_demo(services: ServicesDep, form: Form) -> Response:
    actor, token = await services.people.sign_in_demo(form.get("user_id", ""))
    return _signed_in(services, actor, token, form.get("next", ""))


def home_of(actor: Actor) -> str:
    match actor.role:
        case "pharmacist":
            return "/shifts"
        case "manager":
            return "/pharmacy"
        case "operator":
            return "/operations"


async def _sign_in_page(
    request: Request,
    services: Services,
    *,
    next_path: str,
    email: str = "",
    errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    is_development = services.settings.is_development
    accounts = await services.people.demo_accounts() if is_development else []
    return page(
        request,
        "sign_in.html",
        {
            "accounts": accounts,
            "next": _own_path(next_path),
            "email": email,
            "errors": errors or {},
            "inbox_url": services.settings.inbox_url if is_development else "",
        },
        status=status,
    )


def _signed_in(services: Services, actor: Actor, token: str, next_path: str) -> RedirectResponse:
    response = see_other(_own_path(next_path) or home_of(actor))
    response.set_cookie(
        services.settings.session_cookie,
        token,
        max_age=int(LONGEST.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=not services.settings.is_development,
    )
    return response


def _own_path(text: str) -> str:
    """A path on this site, or nothing: browsers read `//x` and `/\\x` as another host."""
    parts = urlsplit(text)
    is_own = (
        text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    )
    return text if is_own and all(" " <= c < "\x7f" and c != "\\" for c in text) else ""
