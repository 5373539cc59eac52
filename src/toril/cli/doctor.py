"""`toril doctor`: is this server fit for a job queue, and what mends it if not?"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, cast

import typer

from toril import Connection
from toril.cli.common import CANNOT_CONNECT, PROBLEM, Json, Prefix, Url, Yes, errors_explained
from toril.cli.fsck import look_at_queues
from toril.cli.output import console, print_json
from toril.errors import AuthenticationError, ConnectionLostError, ServerRefusedError

__all__ = ["Finding", "doctor", "examine"]

Status = Literal["ok", "warning", "problem"]

OLDEST_REDIS = (6, 2)
CLOCK_WARNING_MS = 1000
_MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok     ", "green"),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "bold red"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    status: Status
    says: str
    fix: str | None = None
    """What to do about it, with the name of the option."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


def doctor(
    url: Url = None,
    prefix: Prefix = "bull",
    fsck: Annotated[
        bool,
        typer.Option(
            "--fsck",
            envvar="TORIL_FSCK",
            help="Look at the keys of the queues instead: is each job in one place, …?",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            envvar="TORIL_REPAIR",
            help="With --fsck: mend what can be mended. Shows it first, and asks.",
        ),
    ] = False,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", envvar="TORIL_QUEUES", help="With --fsck: only this queue.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Look into a server: can it be reached, does it keep jobs, do the clocks agree? Every finding says what mends it.

    With `--fsck` it looks at what stands in the queues, which may be in use, and changes nothing.
    Exits with 0 if there is no problem (warnings are none), 1 if there is one, 3 if the server cannot be used at all.
    """
    if fsck or repair:
        look_at_queues(url, prefix, queue or [], repair=repair, yes=yes, as_json=as_json)
        return
    with errors_explained(as_json=as_json):
        connection = Connection(url)
        findings = asyncio.run(examine(connection))
    code = 0
    if any(finding.status == "problem" for finding in findings):
        code = CANNOT_CONNECT if findings[-1].check in ("reach", "sign-in") else PROBLEM
    if as_json:
        print_json({"url": connection.safe_url, "ok": code == 0, "findings": [asdict(f) for f in findings]})
    else:
        _show(connection.safe_url, findings)
    raise typer.Exit(code)


def _show(url: str, findings: list[Finding]) -> None:
    out = console()
    out.print(f"{url}\n", markup=False)
    for finding in findings:
        mark, style = _MARKS[finding.status]
        out.print(mark, style=style, end="  ")
        out.print(f"{finding.check}: {finding.says}", markup=False)
        if finding.fix:
            out.print(f"         -> {finding.fix}", markup=False)
    problems = sum(finding.status == "problem" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    out.print(f"\n{_count(problems, 'problem')}, {_count(warnings, 'warning')}", markup=False)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


async def examine(connection: Connection) -> list[Finding]:
    """Look at everything that can be looked at. If the server cannot be used, the last finding says why."""
    async with connection:
        try:
            started = time.perf_counter()
            answer = await connection.execute("PING")
            first_ms = (time.perf_counter() - started) * 1000
            info = _parsed(await connection.execute("INFO"))
        except AuthenticationError as error:
            return [_sign_in(error)]
        except ConnectionLostError as error:
            return [_unreachable(error, connection.safe_url)]
        except ServerRefusedError as error:
            return [_refused(error)]
        says = f"{answer} after {first_ms:.1f} ms, connecting included"
        findings = [Finding("reach", "ok", says, facts={"connect_ms": round(first_ms, 1)})]
        findings.append(_version(info))
        findings += _role(info)
        findings.append(await _scripts(connection))
        findings.append(_eviction(info))
        findings += _memory(info)
        findings.append(_persistence(info, await _settings(connection)))
        findings += _failed_saves(info)
        findings.append(await _clock(connection))
        return findings


# --- no way in -----------------------------------------------------------------------------------------------


def _sign_in(error: AuthenticationError) -> Finding:
    return Finding(
        "sign-in",
        "problem",
        f"the server refuses the user name or password ({error.__cause__ or error})",
        "put user and password into the URL: redis://user:password@host:6379, special characters percent-encoded; "
        "the server's own are `requirepass` or `user` in its configuration file",
    )


def _refused(error: ServerRefusedError) -> Finding:
    text = str(error)
    if "DENIED" in text or "protected mode" in text:
        fix = (
            "the server takes connections from its own host only: set a password (`requirepass`) and `bind` it to the "
            "address that clients use, or, on a closed network only, `protected-mode no`"
        )
        return Finding("reach", "problem", "the server is in protected mode and refuses other hosts", fix)
    return Finding("reach", "problem", text, "wait until it has loaded its data, or look at the server's log")


def _unreachable(error: ConnectionLostError, url: str) -> Finding:
    causes = list(_causes(error))
    text = " ".join(str(cause) for cause in causes)
    fix = "check host and port in the URL: `--url` or TORIL_URL"
    if "DENIED" in text or "protected mode" in text:
        return _refused(ServerRefusedError("DENIED"))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        fix = "the host name is not known here: check its spelling, or use the address"
    elif any(isinstance(cause, ssl.SSLError) for cause in causes) or (
        # A server without TLS takes a handshake for the beginning of a command, and waits for the rest.
        url.startswith("rediss:") and "timeout" in text.lower()
    ):
        fix = (
            "TLS failed: rediss:// needs a server with TLS (`tls-port`) and a certificate that this host trusts "
            "(?ssl_ca_certs=/path in the URL); without TLS use redis://"
        )
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "refused" in text.lower():
        fix = (
            "nobody listens there: start the server (`toril server` runs one), or, if it runs on another host or in "
            "WSL2, let it listen beyond its own host (`bind`) and check the port"
        )
    elif any(isinstance(cause, TimeoutError) for cause in causes) or "timeout" in text.lower():
        fix = (
            "no answer: a firewall between here and there drops packets, or the address is not the server's (any more; "
            "WSL2 gets a new one at each start)"
        )
    elif any(isinstance(cause, FileNotFoundError) for cause in causes):
        fix = "there is no such socket: the server's option is `unixsocket`"
    elif any(isinstance(cause, PermissionError) for cause in causes):
        fix = "this user may not open the socket: the server's option is `unixsocketperm`"
    return Finding("reach", "problem", f"no connection: {error.__cause__ or error}", fix)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# --- the server ----------------------------------------------------------------------------------------------


def _version(info: dict[str, str]) -> Finding:
    if "valkey_version" in info:
        name, version = "Valkey", info["valkey_version"]
    elif "dragonfly_version" in info:
        name, version = "Dragonfly", info["dragonfly_version"]
    else:
        name, version = "Redis", info.get("redis_version", "unknown")
    facts = {"server": name, "version": version}
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if name == "Redis" and numbers < OLDEST_REDIS:
        oldest = ".".join(map(str, OLDEST_REDIS))
        return Finding(
            "version", "problem", f"Redis {version} is too old", f"use Redis {oldest}+ or Valkey", facts
        )
    return Finding("version", "ok", f"{name} {version}", facts=facts)


def _role(info: dict[str, str]) -> list[Finding]:
    if info.get("role") != "slave":
        return []
    master = f"{info.get('master_host')}:{info.get('master_port')}"
    fix = f"connect to the primary, {master}"
    return [Finding("role", "problem", "this is a replica, which takes no writes", fix, {"primary": master})]


async def _scripts(connection: Connection) -> Finding:
    try:
        await connection.execute("EVAL", "return 1", 0)
    except (AuthenticationError, ServerRefusedError) as error:
        fix = "let this user run scripts: `ACL SETUSER name +@scripting +@all ~*`"
        return Finding("scripts", "problem", f"scripts are refused: {error}", fix)
    return Finding("scripts", "ok", "runs Lua scripts")


def _eviction(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    facts = {"maxmemory_policy": policy}
    if policy == "noeviction":
        return Finding(
            "eviction", "ok", "noeviction: a full server refuses new jobs rather than drop some", facts=facts
        )
    if policy == "unknown":
        says = "the server does not tell its eviction policy"
        return Finding("eviction", "warning", says, "make sure that `maxmemory-policy` is noeviction", facts)
    limit = int(info.get("maxmemory", "0"))
    when = f"above {limit:,} bytes" if limit else "once `maxmemory` is set"
    return Finding(
        "eviction",
        "problem",
        f"{policy}: {when} the server drops keys, jobs and whole queues among them",
        "`CONFIG SET maxmemory-policy noeviction`, and `maxmemory-policy noeviction` in the configuration file",
        facts,
    )


def _memory(info: dict[str, str]) -> list[Finding]:
    used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    facts = {"used_bytes": used, "limit_bytes": limit}
    if not limit:
        return [Finding("memory", "ok", f"{used:,} bytes in use, no limit set", facts=facts)]
    share = used / limit
    says = f"{used:,} of {limit:,} bytes in use ({share:.0%})"
    if share < 0.9:
        return [Finding("memory", "ok", says, facts=facts)]
    fix = "raise `maxmemory`, or let finished jobs go: remove_on_complete and remove_on_fail"
    return [Finding("memory", "problem" if share >= 1 else "warning", says, fix, facts)]


async def _settings(connection: Connection) -> dict[str, str]:
    """Settings that INFO does not tell. Hosted servers refuse the question; then there are none."""
    try:
        answer = await connection.execute("CONFIG", "GET", "*")
    except (AuthenticationError, ServerRefusedError):
        return {}
    if isinstance(answer, dict):
        return cast("dict[str, str]", answer)
    flat = cast("list[str]", answer)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _persistence(info: dict[str, str], settings: dict[str, str]) -> Finding:
    has_log = info.get("aof_enabled") == "1"
    fsync = settings.get("appendfsync", "unknown")
    rules = settings.get("save")
    facts: dict[str, Any] = {"aof": has_log, "appendfsync": fsync, "save": rules}
    better = "`CONFIG SET appendonly yes`, and `appendonly yes` in the configuration file"
    if has_log:
        loses = {
            "always": "a crash loses nothing that was answered",
            "everysec": "a crash of the machine loses about the last second, of the server alone nothing",
            "no": "a crash of the machine loses what the system had not written yet, up to 30 s",
        }.get(fsync, "how much a crash loses depends on `appendfsync`, which the server does not tell")
        says = f"append-only file, fsync {fsync}: {loses}"
        if fsync == "no":
            fix = "`CONFIG SET appendfsync everysec`, and `appendfsync everysec` in the configuration file"
            return Finding("persistence", "warning", says, fix, facts)
        return Finding("persistence", "ok", says, facts=facts)
    if rules is None:
        says = "no append-only file; the server does not tell whether it takes snapshots"
        return Finding("persistence", "warning", says, better, facts)
    if not rules:
        says = "none: a restart or a crash loses every job"
        return Finding("persistence", "warning", says, better, facts)
    numbers = [int(number) for number in rules.split()]
    longest = max(numbers[::2])
    since = int(info.get("rdb_changes_since_last_save", "0"))
    facts["changes_since_last_save"] = since
    says = (
        f"snapshots only (`save {rules}`): a crash loses every change since the last one, up to {longest} s of them; "
        f"now it would be {_count(since, 'change')}"
    )
    return Finding("persistence", "warning", says, better, facts)


def _failed_saves(info: dict[str, str]) -> list[Finding]:
    findings: list[Finding] = []
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        says = "the last snapshot failed; the server may refuse writes until one succeeds"
        fix = "look at the server's log: mostly the disk (`dir`) is full or not writable"
        findings.append(Finding("snapshot", "problem", says, fix))
    if info.get("aof_last_write_status", "ok") != "ok":
        says = "the last write to the append-only file failed; the server refuses writes"
        findings.append(
            Finding("append-only file", "problem", says, "make room on the disk that holds `appenddirname`")
        )
    return findings


async def _clock(connection: Connection) -> Finding:
    """Measure the offset several times; the quickest answer is the most exact."""
    best_round_trip, best_offset = float("inf"), 0.0
    for _ in range(5):
        asked, started = time.time(), time.perf_counter()
        seconds, microseconds = await connection.execute("TIME")
        round_trip = time.perf_counter() - started
        if round_trip < best_round_trip:
            best_round_trip = round_trip
            best_offset = int(seconds) + int(microseconds) / 1e6 - (asked + round_trip / 2)
    offset_ms, round_trip_ms = best_offset * 1000, best_round_trip * 1000
    facts = {"offset_ms": round(offset_ms, 1), "round_trip_ms": round(round_trip_ms, 2)}
    if abs(offset_ms) < max(1, round_trip_ms):
        says = "the server's and this host's agree"
    else:
        where = "ahead of" if offset_ms > 0 else "behind"
        says = f"the server's is {abs(offset_ms):,.0f} ms {where} this host's"
    says += f"; a round trip takes {round_trip_ms:.2f} ms"
    if abs(offset_ms) < CLOCK_WARNING_MS:
        return Finding("clock", "ok", says, facts=facts)
    return Finding(
        "clock",
        "warning",
        says + "; toril goes by the server's clock, BullMQ for Node by its host's",
        "synchronise both hosts with NTP: `timedatectl set-ntp true`; in WSL2 after standby: `hwclock -s`",
        facts,
    )


def _parsed(info: Any) -> dict[str, str]:
    lines = (line.partition(":") for line in str(info).splitlines())
    return {name: value for name, colon, value in lines if colon}
