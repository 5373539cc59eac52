"""The mail catcher: takes mail over real SMTP, shows it safely, and fails on request."""

from __future__ import annotations

import http.client
import json
import re
import smtplib
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Catcher:
    """A running mail catcher, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], smtp_port: int, http_port: int) -> None:
        self.process = process
        self.smtp_port = smtp_port
        self.http_port = http_port

    def send(self, message: EmailMessage, to: str | None = None) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=30) as client:
            client.send_message(message, to_addrs=to)

    def request(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=40)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read().decode(errors="replace")

    def get(self, path: str) -> str:
        response, body = self.request("GET", path)
        assert response.status == 200, body
        return body

    def messages(self, query: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get(f"/api/messages{query}"))["messages"]
        return found

    def fail(self, mode: str, seconds: float | None = None) -> None:
        response, body = self.request(
            "POST",
            "/api/outage",
            json.dumps({"mode": mode, "seconds": seconds}),
            {"Content-Type": "application/json"},
        )
        assert response.status == 200, body


@contextmanager
def running(*arguments: str | Path) -> Generator[Catcher]:
    command = [sys.executable, "-m", "dev.mailcatcher", "--smtp-port", "0", "--http-port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"SMTP on 127\.0\.0\.1:(\d+), page on http://127\.0\.0\.1:(\d+)", line)
            assert found is not None, line
            yield Catcher(process, int(found[1]), int(found[2]))
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def shared() -> Iterator[Catcher]:
    with running() as catcher:
        yield catcher


@pytest.fixture
def catcher(shared: Catcher) -> Catcher:
    shared.fail("none")
    shared.request("DELETE", "/api/messages")
    return shared


def mail(
    subject: str = "New applicant", to: str = "manager@example.org", text: str = "Hello"
) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Pharmacy Coverage <no-reply@example.org>"
    message["To"] = to
    message["Message-ID"] = "<1@example.org>"
    message.set_content(text)
    return message


def test_a_sent_mail_is_listed_and_shown(catcher: Catcher) -> None:
    """A mail with text, HTML and an attachment appears with all of its parts."""
    message = mail(subject="Zoë applied — 09:00", text="See https://example.org/shifts/1.")
    message.add_alternative("<p>See <a href='https://example.org/shifts/1'>the shift</a></p>", subtype="html")
    message.add_attachment(b"BEGIN:VCALENDAR", maintype="text", subtype="calendar", filename="shift.ics")
    catcher.send(message)

    [found] = catcher.messages()
    assert found["subject"] == "Zoë applied — 09:00"
    assert found["recipients"] == ["manager@example.org"]
    assert found["message_id"] == "<1@example.org>"
    assert found["text"] == "See https://example.org/shifts/1.\n"
    assert [attachment["name"] for attachment in found["attachments"]] == ["shift.ics"]
    assert "Zoë applied — 09:00" in catcher.get("/")
    page = catcher.get(f"/messages/{found['id']}")
    assert '<a href="https://example.org/shifts/1" target="_blank" rel="noopener noreferrer">' in page
    assert "<iframe" in page
    assert "the shift" in catcher.get(f"/messages/{found['id']}/html")
    assert catcher.get(f"/messages/{found['id']}/attachments/0") == "BEGIN:VCALENDAR"
    assert "Message-ID: <1@example.org>" in catcher.get(f"/messages/{found['id']}/source")


def test_the_newest_mail_comes_first(catcher: Catcher) -> None:
    """In the list and in JSON; `after` leaves out what is known, `to` picks a recipient."""
    for number in range(3):
        catcher.send(mail(subject=f"mail {number}", to=f"m{number}@example.org"))
    found = catcher.messages()
    assert [message["subject"] for message in found] == ["mail 2", "mail 1", "mail 0"]
    assert [m["subject"] for m in catcher.messages(f"?after={found[1]['id']}")] == ["mail 2"]
    assert [m["subject"] for m in catcher.messages("?to=m1@example.org")] == ["mail 1"]
    page = catcher.get("/")
    assert page.index("mail 2") < page.index("mail 1") < page.index("mail 0")


def test_waiting_ends_when_a_mail_comes(catcher: Catcher) -> None:
    """A request with `wait` is answered by the mail, not by the clock."""
    version = json.loads(catcher.get("/api/messages"))["version"]
    connection = http.client.HTTPConnection("127.0.0.1", catcher.http_port, timeout=40)
    connection.request("GET", f"/api/messages?after={version}&wait=30")
    began = time.monotonic()
    catcher.send(mail())
    answer = json.loads(connection.getresponse().read())
    assert len(answer["messages"]) == 1
    assert time.monotonic() - began < 15


def test_hostile_mail_is_shown_and_runs_nothing(catcher: Catcher) -> None:
    """Markup in headers and text is escaped; HTML lives in a sandbox without scripts; links are web links."""
    message = mail(
        subject="<script>alert(1)</script>", text='"><img src=x> javascript:alert(1) https://a/"><b>'
    )
    message.add_alternative("<script>alert(1)</script>", subtype="html")
    message.add_attachment(b"<script>", maintype="text", subtype="html", filename='"><script>.html')
    catcher.send(message)

    id = catcher.messages()[0]["id"]
    for path in ("/", f"/messages/{id}"):
        response, page = catcher.request("GET", path)
        assert "<script>alert" not in page
        assert "<img src=x>" not in page
        assert "><b>" not in page
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert 'href="javascript:' not in page
    assert "allow-scripts" not in page
    assert "allow-same-origin" not in page
    response, _ = catcher.request("GET", f"/messages/{id}/html")
    assert response.headers["Content-Security-Policy"].startswith("sandbox ")
    assert "allow-scripts" not in response.headers["Content-Security-Policy"]
    response, _ = catcher.request("GET", f"/messages/{id}/attachments/0")
    assert response.headers["Content-Disposition"].startswith("attachment;")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"Subject: =?no-such-charset?q?=FF?=\r\nContent-Type: text/plain; charset=no-such\r\n\r\n\xff\xfe",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b--",
        b"From: <<>>@@\r\nTo: ,,,;:\r\nDate: yesterday\r\nMessage-ID: <\r\n\r\nbody",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!",
        b"Content-Type: text/html; charset=utf-8\r\n\r\n\xc3\x28",
        b"Subject: a\r\nSubject: b\r\n\r\n\x00",
    ],
)
def test_broken_mail_is_shown_all_the_same(catcher: Catcher, raw: bytes) -> None:
    """Whatever bytes come in, list, page and JSON answer."""
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=30) as client:
        client.sendmail("a@example.org", ["b@example.org"], raw)
    [found] = catcher.messages()
    catcher.get("/")
    catcher.get(f"/messages/{found['id']}")
    catcher.get(f"/messages/{found['id']}/source")


def test_a_closed_port_opens_again(catcher: Catcher) -> None:
    """During "closed" nobody answers; afterwards the same port does."""
    catcher.fail("closed")
    with pytest.raises(ConnectionRefusedError):
        catcher.send(mail())
    assert "Simulated outage" in catcher.get("/")
    catcher.fail("none")
    catcher.send(mail())
    assert len(catcher.messages()) == 1


def test_an_outage_can_end_by_itself(catcher: Catcher) -> None:
    """With `seconds` nobody has to remember."""
    catcher.fail("closed", seconds=0.3)
    deadline = time.monotonic() + 30
    while json.loads(catcher.get("/api/outage"))["mode"] != "none":
        assert time.monotonic() < deadline, "the outage did not end"
        time.sleep(0.02)
    catcher.send(mail())
    assert len(catcher.messages()) == 1


def test_a_busy_server_asks_to_come_back(catcher: Catcher) -> None:
    """ "busy" answers 421, which is temporary; "reject" answers 550, which is not."""
    catcher.fail("busy")
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        catcher.send(mail())
    assert refused.value.smtp_code == 421
    catcher.fail("reject")
    with pytest.raises(smtplib.SMTPRecipientsRefused) as rejected:
        catcher.send(mail(to="x@example.org"))
    assert rejected.value.recipients["x@example.org"][0] == 550
    assert catcher.messages() == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"mode": "closed"}', "text/plain", 415),
        ('{"mode": "fire"}', "application/json", 422),
        ('{"mode": "closed", "seconds": -1}', "application/json", 422),
        ('{"mode": ["closed"]}', "application/json", 422),
        ("[]", "application/json", 422),
        ("{", "application/json", 422),
    ],
)
def test_a_bad_order_is_refused(catcher: Catcher, body: str, content_type: str, status: int) -> None:
    """And changes nothing. A form of another site cannot order an outage."""
    response, _ = catcher.request("POST", "/api/outage", body, {"Content-Type": content_type})
    assert response.status == status
    catcher.send(mail())


def test_another_host_name_is_refused(catcher: Catcher) -> None:
    """A foreign name that resolves to this machine does not read mail."""
    response, _ = catcher.request("GET", "/api/messages", headers={"Host": "evil.example"})
    assert response.status == 400


def test_an_unknown_mail_is_not_found(catcher: Catcher) -> None:
    """As a page, and as JSON."""
    assert catcher.request("GET", "/messages/99999")[0].status == 404
    assert catcher.request("GET", "/api/messages/99999")[0].status == 404


def test_the_last_five_hundred_survive_a_restart(tmp_path: Path) -> None:
    """With a directory; older ones are gone from the page and from the disk."""
    with (
        running("--dir", tmp_path) as catcher,
        smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=30) as client,
    ):
        for number in range(503):
            client.send_message(mail(subject=f"mail {number}"))
    with running("--dir", tmp_path) as catcher:
        found = catcher.messages()
        assert [found[0]["subject"], found[-1]["subject"], len(found)] == ["mail 502", "mail 3", 500]
        catcher.send(mail(subject="one more"))
        assert catcher.messages()[0]["id"] == found[0]["id"] + 1
    assert len(list(tmp_path.iterdir())) == 500


def test_sigterm_ends_it_at_once_even_while_a_page_waits() -> None:
    """An open browser page does not hold up the end."""
    with running() as catcher:
        connection = http.client.HTTPConnection("127.0.0.1", catcher.http_port, timeout=40)
        connection.request("GET", "/api/messages?wait=30")
        catcher.process.terminate()
        catcher.process.wait(20)
