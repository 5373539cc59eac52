"""The cache of search pages in Redis.

A page's key holds its region's *generation*, a random id in Redis. Giving the region another one makes all its pages
unreachable at once, without finding them; and because the generation is read before the database is asked, a slow
loader writes its old page under the old generation, where nobody looks.

It is our own, on redis-py, rather than a cache library: what matters here is that order, JSON instead of pickle (who
can write to the cache must not run code in the API), and that trouble with Redis is a miss. What is left of a library
is the single flight, which is a dictionary of futures.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from ulid import ULID

__all__ = ["CacheUnavailable", "Outcome", "RegionCache"]

logger = logging.getLogger(__name__)

Outcome = Literal["hit", "miss", "shared", "down"]
"""Found in Redis; loaded; loaded by another request at the same moment; loaded because Redis did not answer."""

LIFE = timedelta(seconds=60)
LIFE_SPREAD = timedelta(seconds=10)
# Long enough not to mistake a busy event loop for a dead server.
TIMEOUT_SECONDS = 0.25
BUMP_TIMEOUT_SECONDS = 1.0
BREAK_SECONDS = 2.0
FORMAT = 1


class CacheUnavailable(Exception):
    """Redis did not take a new generation: old pages may live on for as long as their `LIFE`."""


class RegionCache:
    """Pages of bytes by region and fingerprint. Whoever makes it closes it."""

    def __init__(self, url: str, prefix: str) -> None:
        self._prefix = prefix
        self._redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=16,
                timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                socket_timeout=BUMP_TIMEOUT_SECONDS,
                decode_responses=False,
            )
        )
        self._flights: dict[str, asyncio.Future[bytes]] = {}
        self._broken_until = 0.0
        self.outcomes: Counter[Outcome] = Counter()

    async def page(
        self, region: str, fingerprint: str, load: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, Outcome]:
        """The page, from Redis or from `load`. Of requests for it at the same moment, one loads."""
        generation = await self._generation(region)
        key = f"{self._prefix}:s:{FORMAT}:{region}:{generation}:{fingerprint}"
        flight = self._flights.get(key)
        if flight is None:
            return await self._lead(key, generation is not None, load)
        # Shielded: a follower who hangs up must not take the page from the others.
        page = await asyncio.shield(flight)
        self.outcomes["shared"] += 1
        return page, "shared"

    async def bump(self, region: str) -> None:
        """Make every page of a region unreachable.

        Raises:
            CacheUnavailable: Redis did not answer, and pages from before may still be shown.
        """
        try:
            async with asyncio.timeout(BUMP_TIMEOUT_SECONDS):
                await self._redis.set(self._generation_key(region), str(ULID()))
        except (RedisError, OSError, TimeoutError) as error:
            raise CacheUnavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._redis.aclose()

    async def _lead(
        self, key: str, is_up: bool, load: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, Outcome]:
        flight: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        try:
            page = await self._read(key) if is_up else None
            outcome: Outcome = "hit"
            if page is None:
                outcome = "miss" if is_up else "down"
                page = await load()
                if is_up:
                    await self._write(key, page)
            flight.set_result(page)
            self.outcomes[outcome] += 1
            return page, outcome
        except BaseException as error:
            # A leader that was cancelled hands its followers an error they can report, not its own cancellation.
            is_ours = isinstance(error, Exception)
            flight.set_exception(
                error if is_ours else TimeoutError("the request that was loading this page ended")
            )
            flight.exception()  # Retrieved: there may be no follower to do it.
            raise
        finally:
            del self._flights[key]

    async def _generation(self, region: str) -> str | None:
        """The region's generation; None where Redis does not answer."""
        key = self._generation_key(region)

        async def ask() -> bytes | None:
            found = await self._redis.get(key)
            if found is None:
                # A new one, never an old one: after a wiped or evicted key no page from before comes back.
                await self._redis.set(key, str(ULID()), nx=True)
                found = await self._redis.get(key)
            return cast("bytes | None", found)

        found = await self._guarded(ask())
        return found.decode() if found is not None else None

    async def _read(self, key: str) -> bytes | None:
        return await self._guarded(cast("Awaitable[bytes | None]", self._redis.get(key)))

    async def _write(self, key: str, page: bytes) -> None:
        spread_ms = random.randint(0, int(LIFE_SPREAD.total_seconds() * 1000))
        life_ms = int(LIFE.total_seconds() * 1000) - spread_ms
        await self._guarded(cast("Awaitable[bytes | None]", self._redis.set(key, page, px=life_ms)))

    async def _guarded(self, call: Awaitable[bytes | None]) -> bytes | None:
        """What Redis answers, or None; after trouble it is left alone for a moment."""
        if time.monotonic() < self._broken_until:
            if asyncio.iscoroutine(call):
                call.close()
            return None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await call
        except (RedisError, OSError, TimeoutError) as error:
            self._broken_until = time.monotonic() + BREAK_SECONDS
            logger.warning(
                "search cache: %s; searching without it for %s s", type(error).__name__, BREAK_SECONDS
            )
            return None

    def _generation_key(self, region: str) -> str:
        return f"{self._prefix}:gen:{region}"
