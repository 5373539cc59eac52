"""What tests use beside the servers: a mail server that misbehaves on request, actors, browsers, patience."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, TypeVar

import httpx
from aiosmtpd.smtp import SMTP, Envelope, Session
from redis.asyncio import Redis
from toril import Queue
from toril.embedded import EmbeddedServer

from pharmacy_coverage import clock
from pharmacy_coverage.main import create_app
from pharmacy_coverage.outbox.topics import TOPICS
from pharmacy_coverage.people.models import Actor
from pharmacy_coverage.seed import PHARMACISTS, STAFF
from pharmacy_coverage.services import Services
from pharmacy_coverage.settings import Settings
from pharmacy_coverage.shifts.models import Shift

T = TypeVar("T")


class Inbox:
    """An aiosmtpd handler that keeps what it accepts, and can be told to refuse."""

    def __init__(self) -> None:
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refuse_recipient: str | None = None
        self.refuse_data: str | None = None
        self.hold: asyncio.Event | None = None
        self.delay = 0.0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refuse_recipient:
            return self.refuse_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse_data:
            return self.refuse_data
        if self.delay:
            await asyncio.sleep(self.delay)
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.SMTP)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"

    async def wait_for(self, words: str, within: float = 30) -> EmailMessage:
        """The first message whose subject holds these words."""

        async def is_there() -> bool:
            return any(words in subject for subject in self.subjects())

        async def subjects() -> list[str]:
            return self.subjects()

        await eventually(is_there, f"a mail about {words!r}", within, state=subjects)
        return next(m for m in self.messages if words in str(m["Subject"]))

    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for message in self.messages]


@dataclass
class Platform:
    """One test's view of the platform."""

    settings: Settings
    # Redis clients, whose types do not know that answers are decoded.
    queue_redis: Any
    cache_redis: Any
    services: Services = field(init=False)
    inbox: Inbox = field(init=False)
    queue_server: EmbeddedServer = field(init=False)
    cache_server: EmbeddedServer = field(init=False)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncGenerator["Platform"]:
        queue_redis: Any = Redis.from_url(settings.toril_url, decode_responses=True)
        cache_redis: Any = Redis.from_url(settings.search_cache_url, decode_responses=True)
        try:
            yield cls(settings, queue_redis, cache_redis)
        finally:
            await queue_redis.aclose()
            await cache_redis.aclose()

    # People ---------------------------------------------------------------------------------------------------

    @property
    def mira(self) -> Actor:
        """Manager in Toronto."""
        return Actor.from_document(STAFF[0])

    @property
    def owen(self) -> Actor:
        """Manager in Winnipeg."""
        return Actor.from_document(STAFF[1])

    def pharmacist(self, key: str = "dana") -> Actor:
        """One of dana, amir, clai, jose, meil."""
        person = next(p for p in PHARMACISTS if p["_id"] == f"pha_{key}")
        return Actor(
            f"usr_{key}", person["name"], "", "pharmacist", pharmacist_id=person["_id"], pharmacy_id=None
        )

    async def many_pharmacists(self, count: int) -> list[Actor]:
        """Further pharmacists with an Ontario licence."""
        documents = [
            {
                "_id": f"pha_n{n:03}",
                "user_id": f"usr_n{n:03}",
                "name": f"Relief {n:03}",
                "email": f"relief{n}@relief.example",
                "city": "Guelph",
                "since": 2020,
                "software": ["Kroll"],
                "licences": [
                    {
                        "region": region,
                        "body": "OCP",
                        "number": f"{n}",
                        "state": "verified",
                        "expires_on": (clock.now().date() + timedelta(days=400)).isoformat(),
                    }
                    for region in ("CA-ON", "CA-MB")
                ],
            }
            for n in range(count)
        ]
        await self.services.database.collection("pharmacists").insert_many(documents)
        users = [
            {
                "_id": document["user_id"],
                "name": document["name"],
                "email": document["email"],
                "role": "pharmacist",
                "pharmacist_id": document["_id"],
                "demo": True,
                "order": 100 + n,
                "blurb": "",
                "password_hash": "",
            }
            for n, document in enumerate(documents)
        ]
        await self.services.database.collection("users").insert_many(users)
        return [Actor.from_document(user) for user in users]

    async def many_pharmacies(self, count: int) -> list[Actor]:
        """Further pharmacies in Ontario. Returns their managers."""
        pharmacies = [
            {
                "_id": f"phm_n{n:03}",
                "name": f"Pharmacy {n:03}",
                "region": "CA-ON",
                "tz": "America/Toronto",
                "address": "1 Main Street",
                "city": "Guelph",
                "phone": "+1 519 555 0100",
                "software": "Kroll",
                "report_at": "06:30",
            }
            for n in range(count)
        ]
        await self.services.database.collection("pharmacies").insert_many(pharmacies)
        return [
            Actor(
                f"usr_m{n:03}", f"Manager {n}", "", "manager", pharmacist_id=None, pharmacy_id=pharmacy["_id"]
            )
            for n, pharmacy in enumerate(pharmacies)
        ]

    def queue(self, name: str) -> Queue:
        return Queue(name, connection=self.settings.toril_url, prefix=self.settings.queue_prefix)

    # Deeds ----------------------------------------------------------------------------------------------------

    async def post(
        self,
        days: int = 2,
        start: str = "09:00",
        end: str = "17:00",
        *,
        by: Actor | None = None,
        rate: str = "62.50",
        rest: str = "30",
        day: date | None = None,
    ) -> Shift:
        """Post a shift so many days from now."""
        wanted = day or clock.local_date(clock.now(), "America/Toronto") + timedelta(days=days)
        form = {"date": wanted.isoformat(), "start": start, "end": end, "break_minutes": rest, "rate": rate}
        return await self.services.shifts.post(by or self.mira, form)

    async def documents(self, collection: str, query: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        return await self.services.database.collection(collection).find(query or {}).to_list(None)

    async def owed(self, topic: str, state: str | None = None) -> list[dict[str, Any]]:
        query = {"topic": topic} | ({"state": state} if state else {})
        return await self.documents("outbox", query)

    async def all_done(self, within: float = 20, *, topic: str | None = None) -> None:
        """Wait until nothing is owed any more; or nothing of one topic."""

        async def is_done() -> bool:
            query = {"state": {"$ne": "done"}} | ({"topic": topic} if topic else {})
            return not await self.documents("outbox", query)

        await eventually(is_done, "every outbox entry is done", within, state=self.open_entries)

    async def open_entries(self) -> list[str]:
        """Every entry that is not done, and what its queue says about it."""
        said: list[str] = []
        for document in await self.documents("outbox", {"state": {"$ne": "done"}}):
            topic = TOPICS[document["topic"]]
            job = "no queue"
            if topic.queue:
                async with self.queue(topic.queue) as queue:
                    counts = {name: n for name, n in (await queue.get_job_counts()).items() if n}
                    found = await queue.get_job(document["job_id"])
                    state = await queue.get_job_state(document["job_id"])
                    job = f"{state} in {counts}"
                    if found is not None:
                        job += f", {found.attempts_made} attempts made, the last failed with {found.failed_reason!r}"
            facts = {name: document.get(name) for name in ("state", "last_error", "publishes", "redrives")}
            said.append(f"{document['topic']} {document['job_id']}: {facts}; job {job}")
        return said

    @contextlib.asynccontextmanager
    async def browser(self, actor: Actor | None = None, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
        """A browser on the application in this process, signed in as a seeded person."""
        app = create_app(self.settings, **options)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport,
                base_url="http://testserver",
                headers={"accept": "text/html", "origin": "http://testserver"},
            ) as client,
        ):
            if actor is not None:
                await sign_in(client, actor)
            yield client


@contextlib.asynccontextmanager
async def workers() -> AsyncGenerator[None]:
    """The platform's workers, in this process, for the length of a block."""
    from pharmacy_coverage.worker import make_workers

    async with contextlib.AsyncExitStack() as stack:
        for worker in make_workers():
            await stack.enter_async_context(worker)
        yield


async def sign_in(client: httpx.AsyncClient, actor: Actor) -> None:
    answer = await client.post("/sign-in/demo", data={"user_id": actor.user_id})
    assert answer.status_code == 303, answer.text


def text_of(message: EmailMessage) -> str:
    """The plain text of a mail."""
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def results(answer: httpx.Response) -> str:
    """The part of the search page that lists what was found."""
    assert answer.status_code == 200, answer.text
    return answer.text.split('id="results"', 1)[1].split("<aside", 1)[0]


async def eventually(
    check: Callable[[], Awaitable[bool]],
    what: str,
    within: float = 30,
    *,
    state: Callable[[], Awaitable[Any]] | None = None,
) -> float:
    """Wait until `check` says yes. Returns after how many seconds; the deadline tells what it waited for."""
    begin = time.monotonic()
    while not await check():
        if time.monotonic() - begin > within:
            seen = await state() if state else "no more is known"
            raise AssertionError(f"not within {within} s: {what}; {seen}")
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


def tally(results: Iterable[object]) -> dict[str, int]:
    """How often each kind of result came: a class name for exceptions, `ok` for the rest."""
    counts: dict[str, int] = {}
    for result in results:
        name = type(result).__name__ if isinstance(result, BaseException) else "ok"
        counts[name] = counts.get(name, 0) + 1
    return counts


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)
