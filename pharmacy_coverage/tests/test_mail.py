"""One message to one person: sent once, whatever the mail server says and whoever dies."""

import asyncio
from datetime import timedelta

import pytest

from pharmacy_coverage import clock
from pharmacy_coverage.mail.messages import Letter, Letters
from pharmacy_coverage.mail.models import Delivery
from pharmacy_coverage.mail.service import DeliverLater
from pharmacy_coverage.people.models import Actor

from .support import Platform, eventually, text_of


async def a_delivery(platform: Platform) -> tuple[str, str]:
    """A message to the manager that is owed. Returns the delivery's id and the entry's."""
    shift = await platform.post()
    application_id = await platform.services.applications.apply(
        platform.pharmacist(), shift.id, "Good <b>evening</b>"
    )
    entry = (await platform.owed("application.submitted"))[0]
    await platform.services.mail.announce_application(application_id, entry["_id"])
    mail = (await platform.owed("mail.deliver"))[0]
    return mail["data"]["delivery_id"], mail["_id"]


async def state_of(platform: Platform) -> tuple[str, str]:
    """The state of the delivery, and that of its entry."""
    delivery = (await platform.documents("deliveries"))[0]
    return delivery["state"], (await platform.owed("mail.deliver"))[0]["state"]


async def test_the_message(platform: Platform) -> None:
    """To the right person, in text and HTML, escaped there, with an id that a repeat would share."""
    await platform.services.mail.deliver(*await a_delivery(platform))

    message = platform.inbox.messages[0]
    assert str(message["To"]) == "Mira Castellan <mira@harbour-street.example>"
    assert str(message["Subject"]).startswith("Dana Kim applied for ")
    assert message["Auto-Submitted"] == "auto-generated"
    assert str(message["Message-ID"]).startswith("<ob-")
    assert "Good <b>evening</b>" in text_of(message)
    html = message.get_body(("html",))
    assert html is not None
    assert "Good &lt;b&gt;evening&lt;/b&gt;" in html.get_content()
    assert await state_of(platform) == ("sent", "done")


async def test_sent_once(platform: Platform) -> None:
    """Twenty jobs for one delivery at once, and one more afterwards: one message."""
    delivery_id, entry_id = await a_delivery(platform)
    platform.inbox.delay = 0.1
    results = await asyncio.gather(
        *(platform.services.mail.deliver(delivery_id, entry_id) for _ in range(20)), return_exceptions=True
    )
    assert results.count("sent") == 1
    assert all(isinstance(result, DeliverLater) for result in results if result != "sent")
    assert await platform.services.mail.deliver(delivery_id, entry_id) == "sent"
    assert len(platform.inbox.messages) == 1


async def test_a_worker_that_died_over_it(platform: Platform) -> None:
    """Its lease runs out, and another sends the same message, under the same id."""
    delivery_id, entry_id = await a_delivery(platform)
    claimed = await platform.services.deliveries.claim(delivery_id, timedelta(seconds=0.5))
    assert claimed is not None

    with pytest.raises(DeliverLater) as later:
        await platform.services.mail.deliver(delivery_id, entry_id)
    assert later.value.until == claimed.lease_until
    await asyncio.sleep((later.value.until - clock.now()).total_seconds() + 0.01)
    assert await platform.services.mail.deliver(delivery_id, entry_id) == "sent"
    assert claimed.token.lower() in str(platform.inbox.messages[0]["Message-ID"])


async def test_a_mail_server_that_is_away(platform: Platform, at_work: None) -> None:
    """Sends everybody away for a while: no attempt is spent, no job fails, and then the mail arrives."""
    platform.inbox.refuse_recipient = "421 come back later"
    await platform.all_done()
    shift = await platform.post()
    await platform.services.applications.apply(platform.pharmacist(), shift.id, "")

    async def has_tried() -> bool:
        return any(
            d["attempts"] >= 3
            for d in await platform.documents("deliveries", {"template": "application-received"})
        )

    await eventually(has_tried, "three tries")
    async with platform.queue("mail") as queue:
        counts = await queue.get_job_counts()
        assert counts["failed"] == 0
        job = next(iter(await queue.get_delayed()), None)
        assert job is None or job.attempts_made <= 1
    platform.inbox.refuse_recipient = None
    await platform.inbox.wait_for("Dana Kim applied")


async def test_an_address_that_does_not_exist(platform: Platform) -> None:
    """It bounced: that is the end of it, and it is written down."""
    delivery = await a_delivery(platform)
    platform.inbox.refuse_recipient = "550 no such user"
    assert await platform.services.mail.deliver(*delivery) == "bounced"
    assert await state_of(platform) == ("bounced", "done")


async def test_a_message_that_is_refused(platform: Platform) -> None:
    """A refusal of the message is an error, which the job's attempts are for."""
    delivery = await a_delivery(platform)
    platform.inbox.refuse_data = "451 try again"
    with pytest.raises(Exception, match="451"):
        await platform.services.mail.deliver(*delivery)
    assert await state_of(platform) == ("retry", "pending")
    platform.inbox.refuse_data = None
    assert await platform.services.mail.deliver(*delivery) == "sent"


async def test_no_longer_true(platform: Platform) -> None:
    """Somebody was confirmed before the mail about the applicant went out: it is skipped."""
    delivery = await a_delivery(platform)
    application = (await platform.documents("applications"))[0]
    await platform.services.applications.confirm(platform.mira, application["_id"])

    assert await platform.services.mail.deliver(*delivery) == "skipped"
    assert platform.inbox.messages == []
    assert await state_of(platform) == ("skipped", "done")


@pytest.mark.parametrize(
    ("name", "address"),
    [("Ann\r\nBcc: x@evil.example", "a@b.example"), ("Ann", "a@b.example\r\nRCPT TO:<x@evil.example>")],
)
async def test_header_injection(platform: Platform, name: str, address: str) -> None:
    """A name or an address with a line end in it never becomes a message."""
    moment = clock.now()
    delivery = Delivery("d/1", "not-chosen", {}, "usr_x", "01TOKEN", "sending", 1, None, None, None, moment)
    to = Actor("usr_x", name, address, "pharmacist", pharmacist_id=None, pharmacy_id=None)
    shift = await platform.post()
    letter = Letter("Subject", "Open", "/shifts", {"shift": shift})
    with pytest.raises(ValueError, match=r".*"):
        Letters(platform.settings).message(delivery, letter, to)
    injected = Letter("Subject\r\nBcc: x@evil.example", "Open", "/shifts", {"shift": shift})
    with pytest.raises(ValueError, match=r".*"):
        Letters(platform.settings).message(delivery, injected, platform.mira)


async def test_everyone_hears_of_a_filled_shift(platform: Platform, at_work: None) -> None:
    """The winner gets the address, the others a kind word."""
    shift = await platform.post()
    apply = platform.services.applications.apply
    winner = await apply(platform.pharmacist("dana"), shift.id, "")
    await apply(platform.pharmacist("amir"), shift.id, "")
    await platform.services.applications.confirm(platform.mira, winner)

    booked = await platform.inbox.wait_for("You are booked")
    other = await platform.inbox.wait_for("Covered by someone else")
    assert (booked["To"].addresses[0].display_name, other["To"].addresses[0].display_name) == (
        "Dana Kim",
        "Amir Haddad",
    )
    assert "+1 416 555 0142" in text_of(booked)
    await platform.all_done()
    assert len(platform.inbox.messages) == len({str(m["Message-ID"]) for m in platform.inbox.messages})
