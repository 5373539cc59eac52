"""A mail server that delivers to nobody: it takes what it is given over SMTP, and shows it on a web page.

Run it with `python -m dev.mailcatcher --smtp-port 1025 --http-port 8025`. The page lists the last 500 mails.
For tests there is JSON: `GET /api/messages?after=<id>&wait=<seconds>`, `DELETE /api/messages`, and
`POST /api/outage`, which makes the server fail the way mail servers do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email
import email.policy
import html
import json
import logging
import re
import socket
import sys
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from email.utils import getaddresses
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import quote

import jinja2
import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

__all__ = ["Mail", "MailCatcher", "MailStore", "Outage"]

KEPT: Final = 500
LARGEST_MAIL_BYTES: Final = 10 * 1024 * 1024
LONGEST_WAIT_SECONDS: Final = 30.0
PAGES: Final = Path(__file__).with_name("mail_pages")

Outage = Literal["none", "closed", "busy", "reject"]
"""How the SMTP side fails: connections refused; "421, try later" on every mail; "550, no such mailbox"."""

log = logging.getLogger("dev.mailcatcher")


@dataclass(frozen=True)
class Attachment:
    name: str
    content_type: str
    data: bytes

    @property
    def size(self) -> str:
        return f"{len(self.data):,} bytes" if len(self.data) < 10_000 else f"{len(self.data) // 1024:,} KiB"


@dataclass(frozen=True)
class Mail:
    """One mail as it came in. Everything about its content is worked out on demand, and never raises."""

    id: int
    received_at: datetime
    sender: str
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)

    @cached_property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        return [(name, self.header(name, index)) for index, name in _numbered(self.message.keys())]

    def header(self, name: str, index: int = 0) -> str:
        """Return a header decoded, or as it stands where it cannot be; empty if there is none."""
        try:
            values = self.message.get_all(name, [])
        except Exception:  # The parser trips over some malformed headers, each in its own way.
            values = [value for key, value in self.message.raw_items() if key.lower() == name.lower()]
        return str(values[index]) if index < len(values) else ""

    @property
    def subject(self) -> str:
        return self.header("Subject") or "(no subject)"

    @property
    def from_(self) -> str:
        return self.header("From") or self.sender

    @property
    def to(self) -> str:
        return self.header("To") or ", ".join(self.recipients)

    @property
    def to_names(self) -> str:
        """As `to`, but who has a name goes by it alone."""
        return ", ".join(name or address for name, address in getaddresses([self.to])) or self.to

    @property
    def text(self) -> str | None:
        return self._body("plain")

    @property
    def html(self) -> str | None:
        return self._body("html")

    @cached_property
    def attachments(self) -> list[Attachment]:
        found: list[Attachment] = []
        shown = {id(part) for kind in ("plain", "html") if (part := self._part(kind)) is not None}
        for part in self.message.walk():
            if part.is_multipart() or id(part) in shown:
                continue
            data = part.get_payload(decode=True)
            found.append(
                Attachment(
                    name=part.get_filename() or f"part-{len(found) + 1}",
                    content_type=part.get_content_type(),
                    data=data if isinstance(data, bytes) else b"",
                )
            )
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "received_at": self.received_at.isoformat(),
            "sender": self.sender,
            "recipients": list(self.recipients),
            "message_id": self.header("Message-ID"),
            "from": self.from_,
            "to": self.to,
            "subject": self.subject,
            "headers": self.headers,
            "text": self.text,
            "html": self.html,
            "attachments": [
                {"name": a.name, "content_type": a.content_type, "size_bytes": len(a.data)}
                for a in self.attachments
            ],
        }

    def _part(self, kind: Literal["plain", "html"] | str) -> Message | None:
        try:
            return self.message.get_body((kind,))
        except Exception:  # A multipart without parts, and the like.
            return None

    def _body(self, kind: Literal["plain", "html"]) -> str | None:
        part = self._part(kind)
        if part is None:
            return None
        data = part.get_payload(decode=True)
        content = data if isinstance(data, bytes) else b""
        try:
            text = content.decode(part.get_content_charset("utf-8"), errors="replace")
        except LookupError:  # A charset that nobody knows.
            text = content.decode("latin-1")
        return text.replace("\r\n", "\n")


def _numbered(names: list[str]) -> list[tuple[int, str]]:
    """Number each name among its equals: the third Received is (2, "Received")."""
    seen: dict[str, int] = {}
    numbered: list[tuple[int, str]] = []
    for name in names:
        index = seen.get(name.lower(), 0)
        seen[name.lower()] = index + 1
        numbered.append((index, name))
    return numbered


class MailStore:
    """The last mails, newest first. With a directory they survive a restart, one file a mail."""

    def __init__(self, dir: Path | None = None) -> None:
        self._dir = dir
        self._mails: deque[Mail] = deque()
        self._last_id = 0
        self._changed = asyncio.Event()
        if dir is not None:
            dir.mkdir(parents=True, exist_ok=True)
            for path in sorted(dir.glob("*.json"))[-KEPT:]:
                with contextlib.suppress(ValueError, KeyError, OSError):
                    self._mails.appendleft(_read(path))
            self._last_id = max((mail.id for mail in self._mails), default=0)

    @property
    def version(self) -> int:
        """Grows with every mail; the id of the newest that was ever received."""
        return self._last_id

    def newest_first(self) -> list[Mail]:
        return list(self._mails)

    def get(self, id: int) -> Mail | None:
        return next((mail for mail in self._mails if mail.id == id), None)

    def add(self, sender: str, recipients: list[str], raw: bytes) -> Mail:
        self._last_id += 1
        mail = Mail(self._last_id, datetime.now(UTC), sender, tuple(recipients), raw)
        self._mails.appendleft(mail)
        if self._dir is not None:
            _write(self._path(mail.id), mail)
        while len(self._mails) > KEPT:
            self._forget(self._mails.pop())
        self._changed.set()
        self._changed = asyncio.Event()
        return mail

    def clear(self) -> None:
        while self._mails:
            self._forget(self._mails.pop())

    async def wait_for_newer(self, than: int, seconds: float) -> None:
        """Return when a mail newer than `than` is here, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._last_id <= than:
                    await self._changed.wait()

    def _path(self, id: int) -> Path:
        assert self._dir is not None
        return self._dir / f"{id:09}.json"

    def _forget(self, mail: Mail) -> None:
        if self._dir is not None:
            self._path(mail.id).unlink(missing_ok=True)


def _write(path: Path, mail: Mail) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(
        json.dumps(
            {
                "id": mail.id,
                "received_at": mail.received_at.isoformat(),
                "sender": mail.sender,
                "recipients": list(mail.recipients),
                # Mail may hold any byte; latin-1 gives each one a character and takes it back.
                "raw": mail.raw.decode("latin-1"),
            }
        )
    )
    unfinished.replace(path)


def _read(path: Path) -> Mail:
    stored = json.loads(path.read_text())
    return Mail(
        id=stored["id"],
        received_at=datetime.fromisoformat(stored["received_at"]),
        sender=stored["sender"],
        recipients=tuple(stored["recipients"]),
        raw=stored["raw"].encode("latin-1"),
    )


class MailCatcher:
    """The SMTP server and the application behind the page, in one event loop."""

    def __init__(self, store: MailStore, smtp_socket: socket.socket) -> None:
        self.store = store
        self.outage: Outage = "none"
        self._address: tuple[str, int] = smtp_socket.getsockname()
        self._socket: socket.socket | None = smtp_socket
        self._server: asyncio.Server | None = None
        self._end_of_outage: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()

    @property
    def smtp_port(self) -> int:
        return self._address[1]

    async def open(self) -> None:
        listening = self._socket or _listen(*self._address)
        self._socket = None
        self._server = await asyncio.get_running_loop().create_server(self._converse, sock=listening)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def fail(self, outage: Outage, seconds: float | None = None) -> None:
        """Begin or end an outage; with `seconds` it ends by itself."""
        if self._end_of_outage is not None:
            self._end_of_outage.cancel()
            self._end_of_outage = None
        self.outage = outage
        if outage == "closed":
            await self.close()
        elif self._server is None:
            await self.open()
        if outage != "none" and seconds is not None:
            self._end_of_outage = asyncio.get_running_loop().call_later(seconds, self._recover)
        log.info("outage: %s%s", outage, "" if seconds is None else f" for {seconds:g} s")

    def _recover(self) -> None:
        task = asyncio.get_running_loop().create_task(self.fail("none"))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _converse(self) -> SMTP:
        return SMTP(
            self,
            hostname="localhost",
            ident="toril mail catcher",
            enable_SMTPUTF8=True,
            data_size_limit=LARGEST_MAIL_BYTES,
            loop=asyncio.get_running_loop(),
        )

    # The names of what follows are aiosmtpd's.

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.outage == "busy":
            return "421 4.3.2 Simulated outage, try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.outage == "reject":
            return "550 5.1.1 Simulated outage, no such mailbox"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        mail = self.store.add(envelope.mail_from or "", list(envelope.rcpt_tos), content)
        log.info(
            "mail %d to %s: %s", mail.id, _printable(", ".join(mail.recipients)), _printable(mail.subject)
        )
        return f"250 OK, caught as {mail.id}"


def create_app(catcher: MailCatcher) -> Starlette:
    """Build the pages and the JSON interface. The lifespan opens and closes the SMTP side."""
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGES), autoescape=True)
    templates.filters["linked"] = _linked
    templates.filters["clock"] = _clock
    store = catcher.store

    def page(name: str, **facts: Any) -> HTMLResponse:
        return HTMLResponse(
            templates.get_template(name).render(kept=KEPT, smtp_port=catcher.smtp_port, **facts)
        )

    def wanted(request: Request) -> Mail:
        mail = store.get(request.path_params["id"])
        if mail is None:
            raise HTTPException(404, "This mail is not kept any more, or never came.")
        return mail

    async def show_list(request: Request) -> Response:
        return page("list.html", mails=store.newest_first(), version=store.version, outage=catcher.outage)

    async def show_mail(request: Request) -> Response:
        return page("mail.html", mail=wanted(request))

    async def show_html(request: Request) -> Response:
        content = wanted(request).html
        if content is None:
            raise HTTPException(404, "This mail has no HTML part.")
        # Links are to open beside the catcher, not inside the small frame.
        response = HTMLResponse('<base target="_blank">' + content)
        response.headers["Content-Security-Policy"] = (
            "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
            "style-src 'unsafe-inline'; frame-ancestors 'self'"
        )
        return response

    async def show_source(request: Request) -> Response:
        return Response(wanted(request).raw, media_type="text/plain; charset=utf-8")

    async def download(request: Request) -> Response:
        attachments, index = wanted(request).attachments, int(request.path_params["index"])
        if index >= len(attachments):
            raise HTTPException(404, "This mail has no such attachment.")
        name = quote(attachments[index].name, safe="")
        return Response(
            attachments[index].data,
            media_type="application/octet-stream",
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
        )

    async def messages(request: Request) -> Response:
        try:
            after = int(request.query_params.get("after", "0"))
            wait = min(float(request.query_params.get("wait", "0")), LONGEST_WAIT_SECONDS)
        except ValueError as error:
            raise HTTPException(422, "`after` is the id of a mail, `wait` a number of seconds.") from error
        if wait > 0:
            await store.wait_for_newer(after, wait)
        recipient = request.query_params.get("to")
        found = [
            mail
            for mail in store.newest_first()
            if mail.id > after and (recipient is None or recipient in mail.recipients)
        ]
        return JSONResponse({"version": store.version, "messages": [mail.as_json() for mail in found]})

    async def message(request: Request) -> Response:
        return JSONResponse(wanted(request).as_json())

    async def clear(request: Request) -> Response:
        store.clear()
        return Response(status_code=204)

    async def set_outage(request: Request) -> Response:
        # A page of another site can post a form to us, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "Send JSON.")
        try:
            order: Any = json.loads(await request.body())
            mode, seconds = order["mode"], order.get("seconds")
            if mode not in get_args(Outage) or not (seconds is None or 0 < float(seconds) <= 86_400):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            modes = ", ".join(get_args(Outage))
            raise HTTPException(422, f'Send {{"mode": one of {modes}, "seconds": optional}}.') from error
        await catcher.fail(mode, seconds)
        return JSONResponse({"mode": catcher.outage})

    async def get_outage(request: Request) -> Response:
        return JSONResponse({"mode": catcher.outage})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "smtp_port": catcher.smtp_port})

    async def explain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": error.detail}, status_code=error.status_code)
        response = page("error.html", detail=error.detail)
        response.status_code = error.status_code
        return response

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await catcher.open()
        yield
        await catcher.close()

    return Starlette(
        routes=[
            Route("/", show_list),
            Route("/messages/{id:int}", show_mail),
            Route("/messages/{id:int}/html", show_html),
            Route("/messages/{id:int}/source", show_source),
            Route("/messages/{id:int}/attachments/{index:int}", download),
            Route("/api/messages", messages, methods=["GET"]),
            Route("/api/messages", clear, methods=["DELETE"]),
            Route("/api/messages/{id:int}", message),
            Route("/api/outage", get_outage, methods=["GET"]),
            Route("/api/outage", set_outage, methods=["POST"]),
            Route("/health", health),
            Mount("/static", StaticFiles(directory=PAGES / "static")),
        ],
        middleware=[
            # A foreign name that resolves to this machine must not read mail.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]),
            Middleware(_SecurityHeaders),
        ],
        exception_handlers={HTTPException: explain},
        lifespan=lifespan,
    )


class _SecurityHeaders:
    """Mail is written by strangers: nothing in it may run, load or frame anything."""

    DEFAULTS: Final = {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-src 'self'; "
            "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: ASGIMessage) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_guarded)


_LINK = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")


def _linked(text: str) -> Markup:
    """Escape a text, and make links of the web addresses in it."""
    parts: list[str] = []
    end = 0
    for found in _LINK.finditer(text):
        address = html.escape(found[0])
        parts.append(html.escape(text[end : found.start()]))
        parts.append(f'<a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a>')
        end = found.end()
    parts.append(html.escape(text[end:]))
    return Markup("".join(parts))


def _printable(text: str) -> str:
    """Mail is not to send control sequences to the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _clock(instant: datetime) -> str:
    return f"{instant.astimezone():%d %b, %H:%M:%S}"


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), backlog=128)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Prints one line when both ports are open."""
    parser = argparse.ArgumentParser(prog="python -m dev.mailcatcher", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--smtp-port", type=int, default=1025, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--http-port", type=int, default=8025, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--dir", type=Path, help="keep mails here over a restart (default: in memory only)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("mail").setLevel(logging.WARNING)  # aiosmtpd tells every step of every conversation.
    try:
        smtp, web = _listen(options.host, options.smtp_port), _listen(options.host, options.http_port)
    except OSError as error:
        print(f"mail catcher: cannot listen: {error}", file=sys.stderr)
        return 1
    return asyncio.run(_serve(smtp, web, options.dir))


async def _serve(smtp: socket.socket, web: socket.socket, dir: Path | None) -> int:
    catcher = MailCatcher(MailStore(dir), smtp)
    config = uvicorn.Config(
        create_app(catcher), log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    host, port = web.getsockname()[:2]
    log.info("mail catcher: SMTP on %s:%d, page on http://%s:%d", host, catcher.smtp_port, host, port)
    await server.serve(sockets=[web])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
