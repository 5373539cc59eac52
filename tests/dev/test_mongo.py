"""The development MongoDB: starts, takes transactions, comes back with its data, and explains itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from dev.mongo import MongoError, MongoServer


@pytest.fixture(autouse=True)
def _no_given_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONGODB_URL", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MongoServer]:
    with MongoServer(tmp_path / "mongo") as server:
        yield server


def connect(server: MongoServer) -> MongoClient[dict[str, Any]]:
    return MongoClient(server.url, serverSelectionTimeoutMS=5000)


def port_of(server: MongoServer) -> int:
    return int(server.url.partition("127.0.0.1:")[2].partition("/")[0])


def test_a_started_server_takes_a_transaction(server: MongoServer) -> None:
    """`start` returns when the server is primary of a replica set, so a transaction works at once."""
    with connect(server) as client, client.start_session() as session:
        with session.start_transaction():
            client.shop.items.insert_one({"_id": 1}, session=session)
        assert client.shop.items.count_documents({}) == 1


def test_a_restart_keeps_data_and_port(tmp_path: Path) -> None:
    """A second server on the same directory has the first one's data, and its port if nobody took it."""
    with MongoServer(tmp_path) as first, connect(first) as client:
        client.shop.items.insert_one({"_id": 1})
        port = port_of(first)
    with MongoServer(tmp_path) as second, connect(second) as client:
        assert port_of(second) == port
        assert client.shop.items.count_documents({}) == 1


def test_a_restart_on_another_port_keeps_data(tmp_path: Path) -> None:
    """Where the old port is taken, the replica set moves to a new one with its data."""
    with MongoServer(tmp_path) as first, connect(first) as client:
        client.shop.items.insert_one({"_id": 1})
        port = port_of(first)
    with (
        socket.create_server(("127.0.0.1", port)),
        MongoServer(tmp_path) as second,
        connect(second) as client,
    ):
        assert port_of(second) != port
        assert client.shop.items.count_documents({}) == 1
        client.shop.items.insert_one({"_id": 2})


def test_a_wanted_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """A port that was asked for is not silently replaced."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MongoError, match=f"port {port} is in use"):
            MongoServer(tmp_path, port).start()


def test_two_servers_on_one_directory_are_refused(server: MongoServer) -> None:
    """The second one says so, and the first goes on."""
    with pytest.raises(MongoError, match=r"Another MongoDB runs on"):
        MongoServer(server.dir).start()
    with connect(server) as client:
        client.admin.command("ping")


def test_a_given_url_is_used_and_nothing_is_started(
    server: MongoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MONGODB_URL set, `start` only checks that a replica set answers there."""
    monkeypatch.setenv("MONGODB_URL", server.url)
    with MongoServer(tmp_path / "unused") as given:
        assert given.url == server.url
        assert given.pid is None
    assert not (tmp_path / "unused").exists()
    with connect(server) as client:
        client.admin.command("ping")


def test_a_given_url_where_nobody_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    monkeypatch.setenv("MONGODB_URL", f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=200")
    with pytest.raises(MongoError, match="MONGODB_URL is set, but no server answers"):
        MongoServer(tmp_path).start()


def test_a_binary_without_its_libraries_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's complaint becomes a message that names the library and the way out."""
    source = tmp_path / "broken.c"
    source.write_text("int absent(void); int main(void) { return absent(); }")
    (tmp_path / "absent.c").write_text("int absent(void) { return 0; }")
    bin = tmp_path / "bin"
    bin.mkdir()
    library = tmp_path / "libabsent.so.4"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "absent.c"], check=True)
        subprocess.run(["cc", "-o", bin / "mongod", source, library], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    library.unlink()
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    with pytest.raises(MongoError, match=r"libabsent\.so\.4.*MONGODB_URL"):
        MongoServer(tmp_path / "mongo").start()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_the_server_dies_with_its_owner(tmp_path: Path, wait_until_gone: Callable[..., None]) -> None:
    """Killing the process that started it leaves no mongod behind."""
    program = textwrap.dedent("""
        import pathlib, sys, threading
        from dev.mongo import MongoServer
        server = MongoServer(pathlib.Path(sys.argv[1]))
        starter = threading.Thread(target=server.start)  # A thread that ends does not take the server along.
        starter.start()
        starter.join()
        server.url
        print(server.pid, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        os.kill(pid, 0)
        owner.kill()
    wait_until_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the wheel's mongod is for Linux")
def test_a_machine_without_libcurl_borrows_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loader finds no libcurl, as on a bare Debian, `mongod` runs with the one in pycurl's wheel."""
    monkeypatch.setattr("dev.mongo._missing_libraries", lambda binary: ["libcurl.so.4"])
    with MongoServer(tmp_path / "mongo") as server, MongoClient[Any](server.url) as client:
        assert client.admin.command("ping")["ok"] == 1
        assert "pycurl.libs/libcurl" in Path(f"/proc/{server.pid}/maps").read_text()
