"""`toril doctor --fsck` and `--repair`, as people and programs see them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, TypeAlias

from toril import Queue

Client: TypeAlias = Any


def toril(*args: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toril.cli", "doctor", *args, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


async def test_a_dry_run_then_the_repair(queue: Queue, client: Client, server_url: str, prefix: str) -> None:
    """It shows what it would do, does it only when told to, and says what is left for a person."""
    await queue.add("a", job_id="gone")
    await queue.add("a", job_id="twice")
    await queue.add("a", job_id="lost")
    await client.delete(queue.keys.job("gone"))
    await client.lpush(queue.keys.key("wait"), "twice")
    await client.lrem(queue.keys.key("wait"), 1, "lost")

    shown = toril("--fsck", "--repair", "--prefix", prefix, url=server_url)
    assert shown.returncode == 2, shown.stderr
    assert "will take the id out of its state" in shown.stdout
    assert "will leave the id in its place once" in shown.stdout
    assert "needs a person" in shown.stdout
    assert "Say so with --yes" in shown.stderr
    assert await client.llen(queue.keys.key("wait")) == 3

    done = toril(
        "--fsck", "--repair", "--yes", "--json", "--prefix", prefix, "--queue", queue.name, url=server_url
    )
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["mended"]) == (False, 2)
    assert [(row["invariant"], row["repair"]) for row in told["queues"][queue.name]] == [("I3", None)]
    assert await client.lrange(queue.keys.key("wait"), 0, -1) == ["twice"]


async def test_queues_in_order_exit_with_0(queue: Queue, server_url: str, prefix: str) -> None:
    """Without names it looks at all queues under the prefix."""
    await queue.add("a")

    done = toril("--fsck", "--prefix", prefix, url=server_url)

    assert (done.returncode, done.stdout) == (0, f"{queue.name}: in order\n")


async def test_a_mistyped_queue_does_not_look_well(queue: Queue, server_url: str, prefix: str) -> None:
    """It is said not to be there; what is left of one that is gone is still looked at."""
    await queue.add("a")

    done = toril("--fsck", "--prefix", prefix, "--queue", queue.name, "--queue", "mistyped", url=server_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no queue 'mistyped' under the prefix" in done.stderr

    await queue.connection.execute("DEL", queue.keys.key("meta"), queue.keys.job("1"))
    left = toril("--fsck", "--prefix", prefix, "--queue", queue.name, url=server_url)
    assert left.returncode == 1
    assert "has no record" in left.stdout


async def test_an_id_does_not_steer_the_terminal(
    queue: Queue, client: Client, server_url: str, prefix: str
) -> None:
    """Other clients write any id; what would move the cursor is escaped."""
    await queue.add("a")
    await client.lpush(queue.keys.key("wait"), "\x1b[2Jgone")

    done = toril("--fsck", "--prefix", prefix, url=server_url)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "\\x1b[2Jgone" in done.stdout
