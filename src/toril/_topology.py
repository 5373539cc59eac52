"""What a URL says: one server, a service that Sentinels know, or a cluster; with which credentials, with which TLS.

It makes redis-py's clients, which find the server, speak TLS and sign in. What is around a call is `connection`'s,
and which node of a cluster is asked is `_cluster`'s.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis
import redis.asyncio
import redis.asyncio.connection as redis_asyncio_connection
import redis.connection as redis_connection
import redis.credentials
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from ._sentinels import AsyncSentinels, SyncSentinels
from .errors import ConfigurationError

__all__ = ["SCHEMES", "Credentials", "Place", "driver", "make_async", "make_sync", "settings"]

SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "embedded",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_DEFAULT_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
# A Sentinel that is silent for so long is passed over; the others know as much.
_SENTINEL_TIMEOUT: Final = 1.0

_parse_async: Callable[[str], Any] = cast("Any", redis_asyncio_connection).parse_url
_parse_sync: Callable[[str], Any] = cast("Any", redis_connection).parse_url

Credentials = Callable[[], tuple[str, str]]
"""Returns user name and password; asked whenever a connection is opened, from any thread."""


class _Provider(redis.credentials.CredentialProvider):
    def __init__(self, ask: Credentials) -> None:
        self._ask = ask

    def get_credentials(self) -> tuple[str, str]:
        try:
            return self._ask()
        except Exception as error:
            # Without them there is no connection, which is met like any other fault: tried again where that helps.
            raise RedisConnectionError(f"credentials= raised {type(error).__name__}") from error

    # The inherited one logs a warning at each connection.
    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is.

    Attributes:
        kind: `one` server under this URL, a `sentinel` service, or a `cluster`.
        url: For redis-py; of a Sentinel service or a cluster without hosts.
        hosts: Sentinels, or nodes of the cluster to begin with.
        service: By which Sentinels know the primary.
        sentinel: User and password of the Sentinels, which have their own.
    """

    kind: Literal["one", "sentinel", "cluster"]
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel: tuple[str | None, str | None] = (None, None)

    @staticmethod
    def of(url: str, shown: str) -> Place:
        """Read a URL.

        Args:
            url: As given.
            shown: Without its password, for errors.

        Raises:
            ConfigurationError: It is none, lacks hosts or the service, or would not verify the server's certificate.
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ConfigurationError(
                f"cannot connect to {shown!r}: a URL begins with "
                f"{', '.join(f'{known}://' for known in SCHEMES)}"
            )
        query = _checked(dict(parse_qsl(parts.query)), shown)
        base, _, kind = parts.scheme.partition("+")
        if not kind:
            tail = f"?{urlencode(query)}" if query else ""
            place = Place("one", url.partition("?")[0] + tail)
            if base in ("redis", "rediss"):
                _check_address(parts, shown)
            if query and base != "embedded":
                _check_options(place.url, shown)
            return place
        user, at, hosts = parts.netloc.rpartition("@")
        found = tuple(_host(text, _DEFAULT_PORTS[kind], shown) for text in hosts.split(",") if text)
        if not found:
            raise ConfigurationError(f"cannot connect to {shown!r}: it names no host")
        sentinel = (query.pop("sentinel_username", None), query.pop("sentinel_password", None))
        if kind == "cluster" and "tls_insecure=yes" in parts.query:
            # Each node's URL is looked at like any other.
            query["tls_insecure"] = "yes"
        tail = f"?{urlencode(query)}" if query else ""
        if kind == "cluster":
            if parts.path.strip("/") not in ("", "0"):
                raise ConfigurationError(f"cannot connect to {shown!r}: a cluster has no databases but 0")
            return Place("cluster", f"{base}://{user}{at}{{host}}/0{tail}", found)
        service, _, database = parts.path.strip("/").partition("/")
        if not service or not (database or "0").isdecimal():
            raise ConfigurationError(
                f"cannot connect to {shown!r}: after the Sentinels comes the name of the service, "
                "and perhaps a database: redis+sentinel://host1:26379,host2:26379/mymaster/0"
            )
        target = f"{base}://{user}{at}localhost/{database or 0}{tail}"
        return Place("sentinel", target, found, unquote(service), sentinel)

    def node(self, host: str, port: int) -> str:
        """Return the URL of one node of the cluster."""
        return self.url.replace("{host}", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", 1)

    def at(self, url: str) -> Place:
        """Return the same with another URL."""
        return replace(self, url=url)


def _checked(query: dict[str, str], shown: str) -> dict[str, str]:
    """The options of a URL, once it is sure that TLS verifies, or that somebody wants it not to."""
    is_insecure = query.pop("tls_insecure", "no") == "yes"
    checks = query.get("ssl_cert_reqs", "required").lower()
    verifies_host = query.get("ssl_check_hostname", "true").lower() not in ("false", "no", "n", "0", "f")
    if (checks != "required" or not verifies_host) and not is_insecure:
        raise ConfigurationError(
            f"cannot connect to {shown!r}: without verifying its certificate TLS protects from nobody; "
            "name the authority that signed it with ssl_ca_certs=/path, or say tls_insecure=yes"
        )
    return query


def _check_address(parts: SplitResult, shown: str) -> None:
    try:
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"cannot connect to {shown!r}: a port is a number up to 65535") from None
    # redis-py would quietly take another database.
    if not (parts.path.strip("/") or "0").isdecimal():
        raise ConfigurationError(
            f"cannot connect to {shown!r}: after the host comes the number of a database, such as /0"
        )


def _check_options(url: str, shown: str) -> None:
    """Let redis-py look at what stands behind the question mark; nothing is opened."""
    try:
        pool: Any = redis.asyncio.ConnectionPool.from_url(url)  # pyright: ignore[reportUnknownMemberType]
        pool.make_connection()
    except (TypeError, ValueError) as error:
        unknown = re.search(r"keyword argument '(\w+)'", str(error))
        why = f"there is no option {unknown[1]!r} in a URL" if unknown else "an option has no such value"
        raise ConfigurationError(f"cannot connect to {shown!r}: {why}") from None


def _host(text: str, port: int, shown: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        return parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise ConfigurationError(
            f"cannot connect to {shown!r}: {text.rpartition('@')[2]!r} is no host:port"
        ) from None


def settings(url: str, connect_timeout: float, timeout: float) -> dict[str, Any]:
    """How all clients are set up; timeouts in seconds."""
    # A Unix socket has nothing to keep alive, and its class of connection refuses the option.
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {
        **keepalive,
        "decode_responses": True,
        # As Node reads it: what is no UTF-8 is replaced. One spoilt value would make every fetch fail.
        "encoding_errors": "replace",
        # Answers of the two protocol versions differ in type.
        "protocol": 2,
        # What may be tried again depends on the script, so nothing is behind our back; nor has the client retries.
        "retry_on_error": [],
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": timeout,
        "health_check_interval": 0,
        **driver(),
    }


def make_async(
    place: Place, settings: dict[str, Any], credentials: Credentials | None
) -> redis.asyncio.Redis:
    """Return a client for an event loop; it has not connected yet."""
    settings = {**settings, "retry": AsyncRetry(NoBackoff(), 0)}
    if place.kind == "sentinel":
        sentinel: Any = AsyncSentinels
        client: redis.asyncio.Redis = sentinel(
            place.hosts, sentinel_kwargs=_sentinel_settings(place, AsyncRetry(NoBackoff(), 0))
        ).master_for(place.service, **_of_url(_parse_async, place, settings, credentials))
        return client
    return redis.asyncio.Redis.from_url(place.url, **settings, **_provider(credentials))  # pyright: ignore[reportUnknownMemberType]


def make_sync(place: Place, settings: dict[str, Any], credentials: Credentials | None) -> redis.Redis:
    """Return a blocking client; it has not connected yet."""
    settings = {**settings, "retry": Retry(NoBackoff(), 0)}
    if place.kind == "sentinel":
        sentinel: Any = SyncSentinels
        client: redis.Redis = sentinel(
            place.hosts, sentinel_kwargs=_sentinel_settings(place, Retry(NoBackoff(), 0))
        ).master_for(place.service, **_of_url(_parse_sync, place, settings, credentials))
        return client
    return redis.Redis.from_url(place.url, **settings, **_provider(credentials))  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownArgumentType]


def _of_url(
    parse: Callable[[str], Any], place: Place, settings: dict[str, Any], credentials: Credentials | None
) -> dict[str, Any]:
    """What the URL says beside the address, as keywords of a client. The pool chooses the class of TLS by `ssl`."""
    options: dict[str, Any] = {**parse(place.url), **settings, **_provider(credentials)}
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    if credentials is not None:
        options.pop("username", None)
        options.pop("password", None)
    if place.url.startswith("rediss:"):
        options["ssl"] = True
    return options


def _provider(credentials: Credentials | None) -> dict[str, Any]:
    return {} if credentials is None else {"credential_provider": _Provider(credentials)}


def _sentinel_settings(place: Place, retry: Any) -> dict[str, Any]:
    user, password = place.sentinel
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,
        "retry": retry,
        "socket_timeout": _SENTINEL_TIMEOUT,
        "socket_connect_timeout": _SENTINEL_TIMEOUT,
    }
    if password is not None:
        options |= {"username": user, "password": password}
    if place.url.startswith("rediss:"):
        tls = dict(parse_qsl(urlsplit(place.url).query))
        options |= {"ssl": True} | {name: tls[name] for name in tls if name.startswith("ssl_")}
    return options


@functools.cache
def driver() -> dict[str, Any]:
    """Return the setting by which a connection says what it is.

    Without it redis-py looks for its own version among the installed packages, for each connection anew, which takes
    longer than all else that opening one takes. Versions before 7.2 do so once, and do not know the setting.
    """
    try:
        from redis.driver_info import DriverInfo
    except ImportError:
        return {}
    return {"driver_info": DriverInfo()}
