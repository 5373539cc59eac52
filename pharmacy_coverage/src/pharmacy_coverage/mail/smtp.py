"""Handing one message to the mail server, and telling apart the ways in which it may refuse."""

import asyncio
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import aiosmtplib

__all__ = ["AddressRefused", "MailServerUnavailable", "Mailer", "MessageRefused"]

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 20.0


class MailServerUnavailable(Exception):
    """The server is not there, or sends everybody away: nothing is wrong with this message."""


class AddressRefused(Exception):
    """The server says that this recipient does not exist."""


class MessageRefused(Exception):
    """The server does not take this message from us, now or ever."""


class Mailer:
    """Speaks SMTP to the server of a URL, one connection a message.

    Args:
        within: Seconds for the whole conversation. Shorter than the lease under which it is held.
    """

    def __init__(self, url: str, *, within: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._is_tls = parts.scheme == "smtps"
        self._port = parts.port or (465 if self._is_tls else 25)
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._within = within

    async def send(self, message: EmailMessage) -> str:
        """Deliver to the server. Returns its answer.

        Raises:
            MailServerUnavailable, AddressRefused, MessageRefused: It was not accepted, or, if the connection broke
                at the very end, nobody knows.
        """
        try:
            async with asyncio.timeout(self._within):
                async with aiosmtplib.SMTP(
                    hostname=self._host,
                    port=self._port,
                    use_tls=self._is_tls,
                    username=self._username,
                    password=self._password,
                    timeout=CONNECT_SECONDS,
                ) as server:
                    _, answer = await server.send_message(message, timeout=COMMAND_SECONDS)
                    return answer
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            if first.code == 421:
                raise MailServerUnavailable(_said(first)) from error
            raise (AddressRefused if first.code >= 500 else MessageRefused)(_said(first)) from error
        except aiosmtplib.SMTPResponseException as error:
            if error.code == 421 or isinstance(error, aiosmtplib.SMTPConnectResponseError):
                raise MailServerUnavailable(_said(error)) from error
            raise MessageRefused(_said(error)) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailServerUnavailable(f"{type(error).__name__}: {error}") from error


def _said(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {error.message}"
