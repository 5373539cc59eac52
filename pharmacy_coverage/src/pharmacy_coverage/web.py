"""Pages and problems: how what the services say becomes an answer."""

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException

from .errors import Invalid, NotAuthenticated, PlatformError, TemporarilyUnavailable
from .people.models import Actor
from .wording import filters

__all__ = ["STATIC", "install_errors", "page", "read_form", "see_other", "wants_page"]

logger = logging.getLogger(__name__)

STATIC = Path(str(files("pharmacy_coverage") / "static"))

# What a page says at its top after a form was sent; the query string only chooses among these.
DONE = {
    "applied": "Your application is with the pharmacy. You will hear from them by mail.",
    "confirmed": "Confirmed. Everyone who applied is told by mail.",
    "posted": "The shift is posted and can be found.",
    "report": "The report is being made again. It appears here when it is done.",
    "signed-out": "You are signed out.",
}


def _static(name: str) -> str:
    """The URL of a file, which changes when the file does: browsers may keep it for a year."""
    return f"/static/{name}?v={_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pharmacy_coverage", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    shared: dict[str, Any] = environment.globals
    shared["static"] = _static
    return environment


def page(
    request: Request, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
) -> HTMLResponse:
    """Render a page for whoever is signed in."""
    actor: Actor | None = getattr(request.state, "actor", None)
    html = (
        _environment()
        .get_template(template)
        .render(
            {
                "actor": actor,
                "path": request.url.path,
                "done": DONE.get(request.query_params.get("done", "")),
                "is_development": request.app.state.settings.is_development,
                **(context or {}),
            }
        )
    )
    return HTMLResponse(html, status)


def see_other(path: str) -> RedirectResponse:
    """After a form: the browser fetches `path`, and a reload sends nothing twice."""
    return RedirectResponse(path, 303)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, texts only; of a name that comes twice, the last."""
    form = await request.form(max_files=0, max_fields=50)
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def install_errors(app: FastAPI) -> None:
    """Answer errors as RFC 9457 problems to programs, and as pages to people."""

    async def platform_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, PlatformError)
        if isinstance(error, NotAuthenticated) and wants_page(request):
            where = request.url.path if request.method == "GET" else "/"
            return see_other(f"/sign-in?next={quote(where)}")
        return _answer(request, error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = _answer(request, _of_http(error))
        response.headers.update(error.headers or {})
        return response

    async def validation_error(request: Request, error: Exception) -> Response:
        return _answer(request, Invalid({"request": "This address does not make sense."}))

    async def database_error(request: Request, error: Exception) -> Response:
        logger.error(
            "%s %s: %s: %s", request.method, request.url.path, type(error).__name__, str(error)[:300]
        )
        return _answer(request, TemporarilyUnavailable("The database does not answer at the moment."))

    async def unexpected(request: Request, error: Exception) -> Response:
        return _answer(request, PlatformError("It is our fault, and it has been written down."))

    app.add_exception_handler(PlatformError, platform_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(PyMongoError, database_error)
    app.add_exception_handler(Exception, unexpected)


class _HttpProblem(PlatformError):
    def __init__(self, status: int, slug: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title = status, slug, title


def _of_http(error: HTTPException) -> PlatformError:
    match error.status_code:
        case 404:
            return _HttpProblem(404, "not-found", "There is nothing here", "No page has this address.")
        case 405:
            return _HttpProblem(
                405, "method-not-allowed", "That cannot be done here", "This address has no such form."
            )
        case status:
            return _HttpProblem(status, "request", "That did not work", str(error.detail))


def wants_page(request: Request) -> bool:
    """Whether a person is looking, rather than a program."""
    accept = request.headers.get("accept", "")
    return "text/html" in accept


def _answer(request: Request, error: PlatformError) -> Response:
    response: Response
    if wants_page(request):
        response = page(request, "problem.html", {"problem": error}, status=error.status)
    else:
        response = JSONResponse(
            {
                "type": f"/problems/{error.slug}",
                "title": error.title,
                "status": error.status,
                "detail": error.detail,
                "instance": request.url.path,
                **error.extensions,
            },
            error.status,
            media_type="application/problem+json",
        )
    if isinstance(error, TemporarilyUnavailable):
        response.headers["retry-after"] = str(error.retry_after)
    return response
