"""Messages, rendered from what is true when they are sent.

Only `EmailMessage` with `policy.SMTP` builds them: it refuses line ends in headers, which older classes let through.
"""

from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from .. import clock
from ..people.models import Actor
from ..settings import Settings
from ..wording import filters
from .models import Delivery

__all__ = ["Letter", "Letters"]


@dataclass(frozen=True, slots=True)
class Letter:
    """What a template needs beside the recipient. `path` is where its one button leads."""

    subject: str
    button: str
    path: str
    facts: dict[str, Any]


class Letters:
    """Turns letters into messages."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = Environment(
            loader=PackageLoader("pharmacy_coverage", "mail/templates"),
            autoescape=select_autoescape(enabled_extensions=("html",), default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(filters)

    def message(self, delivery: Delivery, letter: Letter, to: Actor) -> EmailMessage:
        """The message: plain text, and the same in HTML.

        Raises:
            ValueError: A name or an address would break out of its header.
        """
        url = self._settings.public_url.rstrip("/") + letter.path
        context = {
            "to": to,
            "letter": letter,
            "url": url,
            "public_url": self._settings.public_url,
            **letter.facts,
        }
        name, address = parseaddr(self._settings.mail_from)

        message = EmailMessage(policy=SMTP)
        message["From"] = Address(display_name=name, addr_spec=address)
        message["To"] = Address(display_name=to.name, addr_spec=to.email)
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(clock.now())
        # A function of the delivery: should it be sent twice, both are the same message to whoever compares.
        message["Message-ID"] = f"<ob-{delivery.token.lower()}@{self._settings.mail_domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(self._environment.get_template(f"{delivery.template}.txt").render(context))
        message.add_alternative(
            self._environment.get_template(f"{delivery.template}.html").render(context), subtype="html"
        )
        return message
