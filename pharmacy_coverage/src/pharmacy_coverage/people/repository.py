"""Queries on `users`, `sessions` and `pharmacists`."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from ..database import Database, Indexes
from .models import Actor, Licence, Pharmacist

__all__ = ["PeopleRepository"]


class PeopleRepository:
    indexes: Indexes = (
        (
            "users",
            [
                IndexModel([("email", ASCENDING)], name="email", unique=True),
                IndexModel([("pharmacy_id", ASCENDING), ("role", ASCENDING)], name="staff"),
            ],
        ),
        (
            "sessions",
            [
                IndexModel([("user_id", ASCENDING)], name="user"),
                IndexModel([("expires_at", ASCENDING)], name="forget", expireAfterSeconds=0),
            ],
        ),
        ("pharmacists", [IndexModel([("user_id", ASCENDING)], name="user", unique=True)]),
    )

    def __init__(self, database: Database) -> None:
        self._users = database.collection("users")
        self._sessions = database.collection("sessions")
        self._pharmacists = database.collection("pharmacists")

    async def credentials(self, email: str) -> tuple[Actor, str] | None:
        """The user with that address, and the hash of the password."""
        document = await self._users.find_one({"email": email.strip().lower()})
        return (Actor.from_document(document), document["password_hash"]) if document else None

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        await self._users.update_one({"_id": user_id}, {"$set": {"password_hash": password_hash}})

    async def demo_accounts(self) -> list[Mapping[str, Any]]:
        """The seeded people, managers first."""
        cursor = self._users.find({"demo": True}, {"password_hash": 0}).sort([("order", ASCENDING)])
        return [document async for document in cursor]

    async def demo_account(self, user_id: str) -> Actor | None:
        document = await self._users.find_one({"_id": user_id, "demo": True})
        return Actor.from_document(document) if document else None

    async def managers_of(self, pharmacy_id: str, session: AsyncClientSession | None = None) -> list[Actor]:
        cursor = self._users.find({"pharmacy_id": pharmacy_id, "role": "manager"}, session=session)
        return [Actor.from_document(document) async for document in cursor]

    async def user(self, user_id: str) -> Actor | None:
        document = await self._users.find_one({"_id": user_id})
        return Actor.from_document(document) if document else None

    async def start_session(self, token_hash: str, user_id: str, now: datetime, expires_at: datetime) -> None:
        await self._sessions.insert_one(
            {
                "_id": token_hash,
                "user_id": user_id,
                "created_at": now,
                "last_seen_at": now,
                "expires_at": expires_at,
            }
        )

    async def session_actor(self, token_hash: str, now: datetime) -> tuple[Actor, datetime] | None:
        """Whom a session belongs to, and when it was last seen; None where it has run out."""
        session = await self._sessions.find_one({"_id": token_hash, "expires_at": {"$gt": now}})
        if session is None:
            return None
        user = await self.user(session["user_id"])
        return (user, session["last_seen_at"]) if user else None

    async def touch_session(self, token_hash: str, now: datetime) -> None:
        await self._sessions.update_one({"_id": token_hash}, {"$set": {"last_seen_at": now}})

    async def end_session(self, token_hash: str) -> None:
        await self._sessions.delete_one({"_id": token_hash})

    async def pharmacist(
        self, pharmacist_id: str, session: AsyncClientSession | None = None
    ) -> Pharmacist | None:
        document = await self._pharmacists.find_one({"_id": pharmacist_id}, session=session)
        return _pharmacist(document) if document else None

    async def pharmacists(self, ids: Iterable[str]) -> dict[str, Pharmacist]:
        cursor = self._pharmacists.find({"_id": {"$in": list(ids)}})
        return {document["_id"]: _pharmacist(document) async for document in cursor}


def _pharmacist(document: Mapping[str, Any]) -> Pharmacist:
    return Pharmacist(
        id=document["_id"],
        user_id=document["user_id"],
        name=document["name"],
        email=document["email"],
        city=document["city"],
        software=tuple(document["software"]),
        since=document["since"],
        licences=tuple(Licence.from_document(licence) for licence in document["licences"]),
    )
