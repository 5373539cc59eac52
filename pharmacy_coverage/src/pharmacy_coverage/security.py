"""What surrounds every request: no forms from other sites, no bodies without end, strict headers on every answer."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CrossSiteRequest, PlatformError

__all__ = ["BODY_LIMIT", "Guard", "TooLarge", "is_same_site"]

BODY_LIMIT = 64 * 1024
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class TooLarge(PlatformError):
    status, slug, title = 413, "payload-too-large", "That is too much at once"

    def __init__(self) -> None:
        super().__init__(f"A form may hold {BODY_LIMIT // 1024} KiB.")


def is_same_site(method: str, headers: Headers) -> bool:
    """Whether a request that may change something comes from our own pages.

    Browsers say so in `Sec-Fetch-Site`; those that are too old for it, or speak plain HTTP to another host than
    localhost, send `Origin`. Who sends neither is no browser with a person's cookie.
    """
    if method in SAFE_METHODS:
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


class Guard:
    """ASGI middleware around the whole application.

    Args:
        is_secure: Served over HTTPS: browsers shall never try anything else.
    """

    def __init__(self, app: ASGIApp, *, is_secure: bool) -> None:
        self._app = app
        self._headers = dict(HEADERS)
        if is_secure:
            self._headers["strict-transport-security"] = "max-age=31536000; includeSubDomains"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_static = scope["path"].startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    answer.setdefault(name, value)
                answer.setdefault("cache-control", "max-age=31536000, immutable" if is_static else "no-store")
            await send(message)

        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > BODY_LIMIT:
                    raise TooLarge
            return message

        if not is_same_site(scope["method"], headers):
            scope["platform.refused"] = CrossSiteRequest()
        elif int(headers.get("content-length") or 0) > BODY_LIMIT:
            scope["platform.refused"] = TooLarge()
        await self._app(scope, receive_within_limit, send_with_headers)
