"""Health over HTTP: what `toril worker --health` answers, and `toril check` asks.

A thread of its own answers, so that a worker whose event loop is blocked can still say so.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit

import typer

from toril import ConfigurationError, Worker, WorkerHealth
from toril.cli.common import CANNOT_CONNECT, PROBLEM, Json, complain, errors_explained
from toril.cli.output import console, print_json, printable

__all__ = ["Address", "check", "served"]

ALIVE: Final = "/healthz"
READY: Final = "/readyz"
# Of a probe that says nothing, and of a worker that answers nothing.
_PATIENCE: Final = 5.0
_LONGEST_ANSWER: Final = 16 << 20

Address = Annotated[
    str | None,
    typer.Option(
        "--health",
        envvar="TORIL_HEALTH",
        metavar="HOST:PORT",
        help="Answer probes there, at /healthz and /readyz. Nobody is asked for a password.",
        show_default=False,
    ),
]

logger = logging.getLogger("toril.cli")


def check(
    address: Annotated[
        str,
        typer.Argument(
            metavar="HOST:PORT",
            envvar="TORIL_HEALTH",
            help="Where the worker answers, as it was told by --health.",
        ),
    ],
    ready: Annotated[
        bool,
        typer.Option("--ready", envvar="TORIL_READY", help="Ask whether it takes part in the work."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a `toril worker --health` how it is getting on. Exits with 1 if it is to be restarted: it has work to do, and
    nothing comes of it. A server that is away is no reason for that; with --ready it is one."""
    with errors_explained(as_json=as_json):
        host, port = _split(address)
    answer = _ask(host, port, READY if ready else ALIVE, as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        for worker in answer["workers"]:
            line = f"{worker['queue']}: {worker['state']}, {worker['why']}"
            console().print(printable(line), markup=False)
    if not answer["is_ready" if ready else "is_alive"]:
        raise typer.Exit(PROBLEM)


def _ask(host: str, port: int, path: str, *, as_json: bool) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        answer: Any = json.loads(connection.getresponse().read(_LONGEST_ANSWER))
    except (OSError, http.client.HTTPException, ValueError) as error:
        answer = str(error) or type(error).__name__
    finally:
        connection.close()
    # Anybody may listen there by now.
    if not isinstance(answer, dict) or not {"workers", "is_alive", "is_ready"} <= answer.keys():
        reason = answer if isinstance(answer, str) else "what answers is no worker"
        complain(f"no worker answers at {host}:{port}: {reason}", CANNOT_CONNECT, as_json=as_json)
    return cast("dict[str, Any]", answer)


@contextlib.contextmanager
def served(address: str | None, workers: Sequence[Worker]) -> Generator[None]:
    """Answer probes for the time of a block; None serves nobody.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    if address is None:
        yield
        return
    host, port = _split(address)
    try:
        server = _Server(host, port, list(workers))
    except OSError as error:
        raise ConfigurationError(
            f"--health {address}: cannot listen there: {error.strerror or error}"
        ) from error
    logger.info("health: http://%s:%d%s", f"[{host}]" if ":" in host else host, server.port, ALIVE)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="toril-health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _split(address: str) -> tuple[str, int]:
    """Take HOST:PORT apart.

    Raises:
        ConfigurationError: It is none.
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port is not None and parts.netloc == address and "@" not in address:
            return parts.hostname, parts.port
    raise ConfigurationError(
        f"{address!r} is no HOST:PORT, such as 127.0.0.1:8080, or 0.0.0.0:8080 for all hosts"
    )


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True

    def __init__(self, host: str, port: int, workers: list[Worker]) -> None:
        self.workers = workers
        # Names, and both kinds of addresses.
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(cast("tuple[str, int]", place), _Probe)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has gone."""


class _Probe(BaseHTTPRequestHandler):
    timeout = _PATIENCE
    server_version = "toril"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path not in (ALIVE, READY):
            self.send_error(404)
            return
        answer = _report([worker.health() for worker in cast("_Server", self.server).workers])
        is_well = answer["is_alive"] if self.path == ALIVE else answer["is_ready"]
        body = json.dumps(answer).encode()
        self.send_response(200 if is_well else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a probe every few seconds is no news."""


def _report(found: list[WorkerHealth]) -> dict[str, Any]:
    return {
        # Who has not begun yet, or has ended before the others, is on his way: one that fails takes all with it.
        "is_alive": all(health.is_alive or health.state == "stopped" for health in found),
        "is_ready": all(health.is_ready for health in found),
        "workers": [asdict(health) for health in found],
    }
