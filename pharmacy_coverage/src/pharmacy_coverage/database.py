"""MongoDB: the client, the collections, the indexes, and the one way to change several documents at once.

`Database.transaction` is the unit of work: what a change owes (`Transaction.owe`) is written by the same transaction
as the change, so neither exists without the other. Repositories hold the queries.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from .errors import TemporarilyUnavailable
from .outbox.models import Owed

__all__ = ["Collection", "Database", "Document", "Indexes", "Transaction"]

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Indexes = tuple[tuple[str, list[IndexModel]], ...]
"""What a repository needs: names of collections, and their indexes."""

T = TypeVar("T")

TRANSACTION_TIMEOUT = timedelta(seconds=5)
MAJORITY = WriteConcern(w="majority", j=True)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One run of a transaction's callback: pass `session` to every query, and say what the change owes."""

    session: AsyncClientSession
    owed: list[Owed] = field(default_factory=list[Owed])

    def owe(self, *what: Owed) -> None:
        """Record that this change owes something, to be published once it is committed, and only then."""
        self.owed.extend(what)


class Database:
    """One process's connection to MongoDB. Whoever makes it closes it."""

    def __init__(self, url: str, name: str, *, listeners: Sequence[CommandListener] = ()) -> None:
        self.client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            tz_aware=True,
            appname="pharmacy-coverage",
            event_listeners=list(listeners),
            # A request must not hang for the driver's default of 30 s when MongoDB is away.
            serverSelectionTimeoutMS=5_000,
            retryWrites=True,
        )
        self.db: AsyncDatabase[Document] = self.client.get_database(
            name, codec_options=CodecOptions[Document](tz_aware=True), write_concern=MAJORITY
        )

    def collection(self, name: str) -> Collection:
        return self.db[name]

    async def transaction(
        self, work: Callable[[Transaction], Awaitable[T]], *, within: timedelta = TRANSACTION_TIMEOUT
    ) -> T:
        """Run `work` in a transaction and return what it returns; its outbox entries are part of it.

        `work` may run many times, when other transactions get in its way, and must derive everything from what it
        reads in this run. It must not catch PyMongo's errors: the server has then aborted the transaction already,
        and the driver would run it again until the time is up.

        Raises:
            TemporarilyUnavailable: Not done `within` the time. Unless the very commit was under way, nothing changed.
        """

        async def callback(session: AsyncClientSession) -> T:
            transaction = Transaction(session)
            result = await work(transaction)
            if transaction.owed:
                documents = [owed.document() for owed in transaction.owed]
                await self.db["outbox"].insert_many(documents, session=session)
            return result

        try:
            async with asyncio.timeout(within.total_seconds()), self.client.start_session() as session:
                return await session.with_transaction(
                    callback,
                    read_concern=ReadConcern("snapshot"),
                    write_concern=MAJORITY,
                    read_preference=ReadPreference.PRIMARY,
                )
        except TimeoutError:
            raise TemporarilyUnavailable(
                "This took too long. Look whether it happened before you try again."
            ) from None

    async def prepare(self, indexes: Indexes) -> None:
        """Create collections and indexes that are missing. A transaction could not create them in passing."""
        existing = set(await self.db.list_collection_names())
        for name, models in indexes:
            if name not in existing:
                # Another process may be faster; if it is something else, the next line says so.
                with contextlib.suppress(PyMongoError):
                    await self.db.create_collection(name)
            if models:
                await self.db[name].create_indexes(models)

    async def ping(self) -> None:
        await self.client.admin.command("ping")

    async def close(self) -> None:
        await self.client.close()
