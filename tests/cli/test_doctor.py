"""`toril doctor`: what it finds on servers that are well, ill, closed or away."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, cast

import pytest

from toril.embedded import EmbeddedServer

from .conftest import Answer, Toril


def finding(answer: Answer, check: str) -> dict[str, Any]:
    (found,) = [found for found in answer.json["findings"] if found["check"] == check]
    return cast("dict[str, Any]", found)


def test_a_server_in_memory_is_usable_and_warned_about(toril: Toril) -> None:
    """Everything that the issue lists is looked at; no persistence is a warning, which exits with 0."""
    answer = toril("doctor")
    assert answer.code == 0
    assert "PONG" in answer.out
    assert "noeviction" in answer.out
    assert "a restart or a crash loses every job" in answer.out
    assert "CONFIG SET appendonly yes" in answer.out
    assert "the server's and this host's agree" in answer.out
    assert "no problems, 1 warning" in answer.out


def test_json_has_every_finding(toril: Toril, server_url: str) -> None:
    """For programs: one document, with the facts as numbers."""
    answer = toril("doctor", "--json")
    assert answer.json["ok"] is True
    assert answer.json["url"] == server_url
    assert [found["check"] for found in answer.json["findings"]] == [
        "reach",
        "version",
        "scripts",
        "eviction",
        "memory",
        "persistence",
        "clock",
    ]
    assert abs(finding(answer, "clock")["facts"]["offset_ms"]) < 100


def test_an_evicting_server_is_a_problem(toril: Toril) -> None:
    """A policy that drops keys exits with 1 and names the option that mends it."""
    with EmbeddedServer(config={"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"}) as server:
        answer = toril("doctor", "--url", server.url)
        found = finding(toril("doctor", "--url", server.url, "--json"), "eviction")
    assert answer.code == 1
    assert "PROBLEM" in answer.out
    assert "allkeys-lru: above 104,857,600 bytes" in answer.out
    assert found["status"] == "problem"
    assert "maxmemory-policy noeviction" in found["fix"]


@pytest.mark.parametrize(
    ("persistence", "config", "status", "says"),
    [
        ("aof", {}, "ok", "fsync everysec: a crash of the machine loses about the last second"),
        ("aof", {"appendfsync": "always"}, "ok", "fsync always: a crash loses nothing that was answered"),
        ("aof", {"appendfsync": "no"}, "warning", "up to 30 s"),
        ("rdb", {}, "warning", "loses every change since the last one, up to 3600 s of them"),
        ("none", {}, "warning", "a restart or a crash loses every job"),
    ],
)
def test_it_tells_what_persistence_can_lose(
    toril: Toril, tmp_path: Path, persistence: str, config: dict[str, str], status: str, says: str
) -> None:
    """Each way to keep data is described by what a crash costs; where more can be had, the option is named."""
    with EmbeddedServer(tmp_path, persistence, config=config) as server:  # type: ignore[arg-type]
        found = finding(toril("doctor", "--url", server.url, "--json"), "persistence")
    assert (found["status"], says in found["says"]) == (status, True), found
    assert bool(found["fix"]) == (status != "ok")


def test_a_full_server_is_a_problem(toril: Toril) -> None:
    """A server beyond its limit takes no jobs."""
    with EmbeddedServer(config={"maxmemory": "500kb"}) as server:
        answer = toril("doctor", "--url", server.url, "--json")
    assert answer.code == 1
    assert finding(answer, "memory")["status"] == "problem"


def test_a_replica_is_a_problem(toril: Toril, server_url: str) -> None:
    """A replica takes no writes; its primary is named."""
    port = server_url.rsplit(":", 1)[1]
    with EmbeddedServer(config={"replicaof": f"127.0.0.1 {port}"}) as server:
        answer = toril("doctor", "--url", server.url, "--json")
    assert answer.code == 1
    assert f"127.0.0.1:{port}" in finding(answer, "role")["fix"]


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
def test_a_wrong_password_cannot_connect(toril: Toril, credentials: str) -> None:
    """The message is about the password, does not show it, and the exit code is 3."""
    with EmbeddedServer(config={"requirepass": "right"}) as server:
        answer = toril("doctor", "--url", f"redis://{credentials}127.0.0.1:{server.port}")
        right = toril("doctor", "--url", server.url)
    assert answer.code == 3
    assert "refuses the user name or password" in answer.out
    assert "wrong@" not in answer.out
    assert (right.code, "right" in right.out) == (0, False)


def test_a_user_without_the_right_to_run_scripts_is_a_problem(toril: Toril) -> None:
    """Rights are looked at too: without scripts no job can be added."""
    acl = "on >pw ~* +@all -@scripting"
    with EmbeddedServer(config={"user": f"reader {acl}"}) as server:
        answer = toril("doctor", "--url", f"redis://reader:pw@127.0.0.1:{server.port}", "--json")
    assert answer.code == 1
    assert "ACL SETUSER" in finding(answer, "scripts")["fix"]


def test_a_server_that_tells_little_is_still_examined(toril: Toril) -> None:
    """Hosted servers refuse CONFIG: what INFO does not tell is unknown, and said to be."""
    with EmbeddedServer(config={"user": "guest on >pw ~* +@all -config"}) as server:
        answer = toril("doctor", "--url", f"redis://guest:pw@127.0.0.1:{server.port}", "--json")
    assert answer.code == 0
    assert "does not tell" in finding(answer, "persistence")["says"]


def test_nobody_listening_cannot_connect(toril: Toril) -> None:
    """The exit code is 3, and the advice is about a server that does not run or listens elsewhere."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        answer = toril("doctor", "--url", f"redis://127.0.0.1:{closed.getsockname()[1]}")
    assert answer.code == 3
    assert "nobody listens there" in answer.out
    assert "WSL2" in answer.out


def test_an_unknown_host_cannot_connect(toril: Toril) -> None:
    """A name that nobody knows is told apart from a server that is down."""
    answer = toril("doctor", "--url", "redis://no-such-host.invalid")
    assert answer.code == 3
    assert "host name is not known" in answer.out


def test_tls_against_a_server_without_it_cannot_connect(toril: Toril, server_url: str) -> None:
    """rediss:// on a plain port: the advice is about TLS."""
    answer = toril("doctor", "--url", server_url.replace("redis://", "rediss://"))
    assert answer.code == 3
    assert "TLS" in answer.out


def test_a_socket_can_be_examined(toril: Toril, tmp_path: Path) -> None:
    """unix:// is as good as any."""
    with EmbeddedServer(config={"unixsocket": str(tmp_path / "s")}):
        assert toril("doctor", "--url", f"unix://{tmp_path}/s").code == 0


def test_a_missing_socket_cannot_connect(toril: Toril, tmp_path: Path) -> None:
    """unix:// where there is no such file."""
    answer = toril("doctor", "--url", f"unix://{tmp_path}/none.sock")
    assert answer.code == 3
    assert "unixsocket" in answer.out


def test_a_malformed_url_is_wrong_usage(toril: Toril) -> None:
    """Exit code 2: nothing was tried."""
    answer = toril("doctor", "--url", "http://localhost")
    assert answer.code == 2
    assert "redis://" in answer.err


def test_an_embedded_server_can_be_examined(toril: Toril, tmp_path: Path) -> None:
    """doctor starts what the URL stands for, and leaves it as it was."""
    answer = toril("doctor", "--url", f"embedded://{tmp_path}/data")
    assert answer.code == 0
    assert answer.out.startswith(f"embedded://{tmp_path}/data\n")
    assert "append-only file" in answer.out
