"""Harm to a link that is one: a worker behind a network interface of its own, as if it were another machine.

The worker runs in a network namespace, which a pair of virtual interfaces joins to this one. Their addresses are of a
range that is for documentation (RFC 5737) and leads nowhere. The server listens there too, under a password that
nobody else knows. It takes root, or the right to administer networks.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import threading
from typing import Final

from chaos.stage import WORKER, Plan, SkipCellError, Stage

from ._registry import cell

__all__: list[str] = []

_CHOOSING: Final = threading.Lock()
"""Cells beside each other must not take the same network."""

GUARDED = Plan(workers=2, proxied=False, config={"requirepass": secrets.token_hex(16)})


@cell(
    "16b",
    "one worker's network link is down for 3 locks, in a network namespace of its own",
    GUARDED,
    clients=("toril",),
)
async def link_down(stage: Stage) -> None:
    """Both ends keep their sockets, and hear nothing: no RST, no refusal."""
    link = await asyncio.to_thread(_Link, stage)
    async with stage.look() as client:
        await client.config_set("bind", f"127.0.0.1 {link.here}")
    lone = stage.start_worker(url=stage.direct_url(link.here), within=link.inside)
    await stage.ready(40)
    await stage.has_run(lone)
    await stage.pause(1.0)
    stage.fault("link down")
    await asyncio.to_thread(link.set, "down")
    await asyncio.sleep(3 * WORKER["lock_duration"])
    await asyncio.to_thread(link.set, "up")
    stage.healed("link up")
    await stage.pause(3.0)


class _Link:
    """A network namespace and the pair of interfaces that joins it to this one. Both end with the stage.

    Attributes:
        here: The address at this end.
        inside: What a command has to begin with in order to run at the other.

    Raises:
        SkipCellError: This machine does not allow it.
    """

    def __init__(self, stage: Stage) -> None:
        name = f"toril-{secrets.token_hex(3)}"
        # An interface's name has 15 characters at most.
        self._interface, other = f"{name}-a", f"{name}-b"
        self.inside = ("ip", "netns", "exec", name)
        self._may("ip", "netns", "add", name)
        # Its processes may live a little longer than its name; the interfaces do not.
        stage.exits.callback(_run, "ip", "netns", "delete", name)
        self._may("ip", "link", "add", self._interface, "type", "veth", "peer", "name", other, "netns", name)
        stage.exits.callback(_run, "ip", "link", "delete", self._interface)
        network = self._join()
        self.here = f"192.0.2.{network + 1}"
        self._may(*self.inside, "ip", "address", "add", f"192.0.2.{network + 2}/30", "dev", other)
        self._may(*self.inside, "ip", "link", "set", other, "up")
        self.set("up")

    def set(self, state: str) -> None:
        """Take this end `up` or `down`."""
        self._may("ip", "link", "set", self._interface, state)

    def _join(self) -> int:
        """Give this end an address in a network that nobody has here; return where that begins."""
        with _CHOOSING:
            taken = _run("ip", "-brief", "address").stdout
            free = [at for at in range(0, 256, 4) if f"192.0.2.{at + 1}/" not in taken]
            if not free:
                raise SkipCellError("all networks in 192.0.2.0/24 are taken")
            # By chance, since other processes may be choosing as well.
            network = secrets.choice(free)
            self._may("ip", "address", "add", f"192.0.2.{network + 1}/30", "dev", self._interface)
            return network

    def _may(self, *command: str) -> None:
        done = _run(*command)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it failed"])[0]
            raise SkipCellError(f"network namespaces are not allowed here: `{' '.join(command[:3])}`: {said}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return subprocess.CompletedProcess(
            command, 127, "", "the program is missing: apt-get install iproute2"
        )
