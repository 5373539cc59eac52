"""Argon2id, with OWASP's cheaper parameters, in threads, two at a time.

The library's default of 64 MiB takes 220 ms of a core; 19 MiB takes 40 ms. Two at a time, so that a flood of
sign-ins cannot take the machine from everyone else.
"""

import asyncio
from functools import cache

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

__all__ = ["hash_password", "verify_password"]

_gate = asyncio.Semaphore(2)
_hasher = PasswordHash((Argon2Hasher(memory_cost=19 * 1024, time_cost=2, parallelism=1),))


@cache
def _nobody() -> str:
    return _hasher.hash("the password of nobody")


def hash_password(password: str) -> str:
    """Blocks for about 40 ms."""
    return _hasher.hash(password)


async def verify_password(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Check a password. Returns whether it fits, and a fresh hash where the stored one has old parameters.

    Without a stored hash it takes as long as with one, so that time does not tell who has an account.
    """
    async with _gate:
        fits, fresh = await asyncio.to_thread(_hasher.verify_and_update, password, stored or _nobody())
    return (fits and stored is not None), (fresh if stored is not None else None)
