"""Signing in and out.

Sessions are random tokens, kept hashed in MongoDB: a wiped Redis signs nobody out, and who reads the collection
cannot use what stands there.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .. import clock
from ..errors import Invalid, NotFound
from .models import Actor
from .passwords import verify_password
from .repository import PeopleRepository

__all__ = ["PeopleService"]

LONGEST = timedelta(days=30)
IDLE = timedelta(hours=12)
SEEN_EVERY = timedelta(minutes=5)


class PeopleService:
    def __init__(self, people: PeopleRepository) -> None:
        self._people = people

    async def sign_in(self, email: str, password: str) -> tuple[Actor, str]:
        """Check a password and start a session. Returns the person and the token for their cookie.

        Raises:
            Invalid: Wrong, or unknown; the two are told in the same words and take the same time.
        """
        found = await self._people.credentials(email)
        fits, fresh_hash = await verify_password(password, found[1] if found else None)
        if found is None or not fits:
            raise Invalid({"email": "The address and the password do not fit together."})
        if fresh_hash:
            await self._people.set_password_hash(found[0].user_id, fresh_hash)
        return found[0], await self._start(found[0])

    async def sign_in_demo(self, user_id: str) -> tuple[Actor, str]:
        """Start a session for a seeded person without a password. Development only: the route decides."""
        actor = await self._people.demo_account(user_id)
        if actor is None:
            raise NotFound("account")
        return actor, await self._start(actor)

    async def demo_accounts(self) -> list[Mapping[str, Any]]:
        return await self._people.demo_accounts()

    async def actor(self, token: str) -> Actor | None:
        """Whom the token of a cookie stands for; None when the session is over."""
        moment = clock.now()
        found = await self._people.session_actor(_hash(token), moment)
        if found is None:
            return None
        actor, last_seen = found
        if moment - last_seen > IDLE:
            await self._people.end_session(_hash(token))
            return None
        if moment - last_seen > SEEN_EVERY:
            await self._people.touch_session(_hash(token), moment)
        return actor

    async def sign_out(self, token: str) -> None:
        await self._people.end_session(_hash(token))

    async def _start(self, actor: Actor) -> str:
        token = secrets.token_urlsafe(32)
        moment = clock.now()
        await self._people.start_session(_hash(token), actor.user_id, moment, moment + LONGEST)
        return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
