"""What an error of the client library means to toril, in words that name the server and the remedy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from redis.exceptions import (
    AuthenticationError as RedisAuthenticationError,
)
from redis.exceptions import (
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .errors import (
    AuthenticationError,
    ConnectionLostError,
    ScriptForgottenError,
    ServerRefusedError,
    ServerUnreachableError,
    TorilError,
)

__all__ = ["explain", "first_line", "safe_url"]


def explain(
    error: RedisError, where: str, lost: type[ConnectionLostError] = ConnectionLostError
) -> TorilError:
    """Return what a client's error means to toril.

    Args:
        error: What redis-py raised.
        where: The server, without its password.
        lost: What a broken connection means at this point.
    """
    if isinstance(error, NoScriptError):
        return ScriptForgottenError(f"{where}: {error}")
    if isinstance(error, (RedisAuthenticationError, AuthorizationError)) or _is_about_password(error):
        return AuthenticationError(
            f"{where}: the server refuses the user name or password ({error}); check the URL: redis://user:password@host"
        )
    if isinstance(error, NoPermissionError):
        return AuthenticationError(f"{where}: the ACL of this user lacks a right ({error})")
    if isinstance(error, BusyLoadingError):
        return ServerRefusedError(f"{where}: the server is loading its data; try again in a moment")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
        if lost is ServerUnreachableError or _is_about_connecting(error):
            return ServerUnreachableError(
                f"cannot reach {where} ({first_line(error)}); is the server running, and is the URL right? "
                "`connection=` or TORIL_URL sets it, `toril doctor` looks into it"
            )
        return lost(f"{where}: connection lost before the answer came ({first_line(error)})")
    if isinstance(error, ResponseError):
        return ServerRefusedError(f"{where}: {first_line(error)}")
    return ServerRefusedError(f"{where}: {type(error).__name__}: {first_line(error)}")


def _is_about_password(error: RedisError) -> bool:
    return str(error).startswith(
        ("WRONGPASS", "NOAUTH", "invalid username-password", "Authentication required")
    )


def _is_about_connecting(error: RedisError) -> bool:
    # A client that opens its connection by itself raises the same classes before it is open and after.
    return re.match(r"(Error( -?\d+)?|Timeout) connecting to |No master found ", str(error)) is not None


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error says: errors of scripts go on with the script's own lines."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def safe_url(url: str) -> str:
    """Return a URL without its password, its user name and its query, which may hold secrets too."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if not url.startswith((f"{parts.scheme}://", "unix:", "embedded:")) or not parts.scheme:
        # Of `user:password@host` the user would pass for the scheme, and the password for the path.
        return "(not a URL)"
    # Not urlunsplit, which makes unix:/path of unix:///path.
    return f"{parts.scheme}://{host}{parts.path}"
