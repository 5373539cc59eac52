"""What a worker looks at before it begins: whether the server is new enough, and keeps what it is given."""

from __future__ import annotations

import logging
from typing import Final

from ._answers import understood
from .connection import Connection
from .errors import AuthenticationError, ConfigurationError

__all__ = ["OLDEST_REDIS", "look_at_server"]

OLDEST_REDIS: Final = (6, 2)
"""See docs/decisions/oldest-server.md. All versions of Valkey, and of Dragonfly, are taken for new enough."""

logger = logging.getLogger("toril.worker")


async def look_at_server(connection: Connection, *, skip_version_check: bool = False) -> None:
    """Refuse a server that is too old, and warn of one that evicts keys.

    Raises:
        ConfigurationError: It is too old.
        TorilError: It cannot be reached.
    """
    try:
        text = understood(str, await connection.ask_together("INFO"), f"{connection.safe_url}: INFO")
    except AuthenticationError:
        # INFO is not among this user's rights; `toril doctor` says so.
        return
    info: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        info[name] = value
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    is_redis = "valkey_version" not in info and "dragonfly_version" not in info
    if is_redis and len(numbers) == 2 and numbers < OLDEST_REDIS and not skip_version_check:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise ConfigurationError(
            f"{connection.safe_url}: Redis {version} is too old; use Redis {oldest} or later, or Valkey; "
            "skip_version_check=True tries all the same"
        )
    policy = info.get("maxmemory_policy") or "noeviction"
    if policy != "noeviction":
        logger.warning(
            "the server at %s evicts keys when its memory is full (maxmemory-policy %s), which loses jobs; "
            "set it to noeviction",
            connection.safe_url,
            policy,
        )
