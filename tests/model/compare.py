"""A queue on a server and a modelled one, in the same form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import redis

from toril.fsck import Entry, Keyspace

from .model import Model

__all__ = ["PART_MS", "read", "seen", "told"]

PART_MS: Final = 1_800_000
"""What is left of a ttl after `part` of it has passed; all are longer."""
_DUMP: Final = (Path(__file__).parents[1] / "differential" / "dump.lua").read_text()


def read(client: redis.Redis, base: str) -> dict[str, Entry]:
    """Return all keys that begin with `base`, of one moment."""
    raw: Any = client.eval(_DUMP, 0, base, "0")
    space: dict[str, Entry] = {}
    for suffix, kind, ttl, content in raw:
        if ":toril:" in f":{suffix}":
            # Receipts of adds, which expire by themselves.
            continue
        match kind:
            case "hash":
                content = dict(zip(content[::2], content[1::2], strict=True))
            case "zset":
                content = dict(zip(content[::2], map(float, content[1::2]), strict=True))
            case "set":
                content = set(content)
            case "stream":
                content = [dict(zip(parts[::2], parts[1::2], strict=True)) for _, parts in content]
            case _:
                pass
        space[base + suffix] = Entry(kind, ttl, content)
    return space


def seen(space: Keyspace, base: str) -> dict[str, Any]:
    """What stands in the server, as far as the model knows of it."""

    def content(suffix: str, nothing: Any) -> Any:
        return space[base + suffix].content if base + suffix in space else nothing

    def ids(job_id: str, part: str) -> list[str]:
        return sorted(key.rpartition(":")[2] for key in content(f"{job_id}:{part}", ()))

    def ttl(ms: int) -> str:
        return "" if ms == -1 else "whole" if ms > PART_MS else "part"

    def metrics(record: dict[str, str], minutes: list[str]) -> tuple[int, int | None, int, list[int]]:
        since = record.get("prevTS")
        counts = int(record.get("count", 0)), int(record.get("prevCount", 0))
        return counts[0], None if since is None else int(since), counts[1], [int(one) for one in minutes]

    jobs = {
        key.removeprefix(base): entry.content
        for key, entry in space.items()
        if key.startswith(base) and entry.kind == "hash" and "timestamp" in entry.content
    }
    return {
        "wait": content("wait", []),
        "active": content("active", []),
        "prioritized": list(content("prioritized", {})),
        "delayed": [(job_id, int(score // 4096)) for job_id, score in content("delayed", {}).items()],
        "waiting-children": sorted(content("waiting-children", {})),
        "completed": list(content("completed", {})),
        "failed": list(content("failed", {})),
        "stalled": sorted(set(content("stalled", set())) & jobs.keys()),
        "owners": {
            key.removeprefix(f"{base}de:"): (entry.content, ttl(entry.ttl_ms))
            for key, entry in space.items()
            if key.startswith(f"{base}de:")
        },
        "kept": {
            key.removeprefix(f"{base}dn:"): entry.content["jid"]
            for key, entry in space.items()
            if key.startswith(f"{base}dn:")
        },
        "metrics": {
            how: metrics(content(f"metrics:{how}", {}), content(f"metrics:{how}:data", []))
            for how in ("completed", "failed")
        },
        "starts": int(content("limiter", 0)),
        "limits": [content("meta", {}).get(name) for name in ("max", "concurrency")],
        "schedulers": {name: int(at) for name, at in content("repeat", {}).items()},
        "paused": "paused" in content("meta", {}),
        "jobs": {
            job_id: {
                "started": int(record.get("ats", 0)),
                "made": int(record.get("atm", 0)),
                "stalled": int(record.get("stc", 0)),
                "priority": int(record["priority"]),
                "doomed": "defa" in record,
                "progress": record.get("progress"),
                "late": "late" in record["data"] or f"{base}{job_id}:logs" in space,
                "token": content(f"{job_id}:lock", ""),
                "open": ids(job_id, "dependencies"),
                "processed": ids(job_id, "processed"),
                "ignored": ids(job_id, "failed"),
                "unsuccessful": ids(job_id, "unsuccessful"),
            }
            for job_id, record in jobs.items()
        },
    }


def told(model: Model) -> dict[str, Any]:
    """What the model says."""
    jobs = model.jobs.values()
    return {
        "wait": model.wait,
        "active": model.active,
        "prioritized": [job_id for _, _, job_id in sorted(model.prioritized)],
        "delayed": [(job_id, due) for due, _, job_id in sorted(model.delayed)],
        "waiting-children": sorted(job.id for job in jobs if job.state == "waiting-children"),
        "completed": model.in_order("completed"),
        "failed": model.in_order("failed"),
        "stalled": sorted(model.suspects & model.jobs.keys()),
        "owners": {dedup: (owner.job_id, owner.ttl) for dedup, owner in model.owners.items()},
        "kept": {dedup: job.id for dedup, (job, _) in model.kept.items()},
        "metrics": {
            how: (metrics.count, metrics.since_ms, metrics.counted, metrics.minutes)
            for how, metrics in model.metrics.items()
        },
        "starts": model.starts,
        "limits": [None if limit is None else str(limit) for limit in (model.rate, model.concurrency)],
        "schedulers": model.schedulers.planned,
        "paused": model.is_paused,
        "jobs": {
            job.id: {
                "started": job.started,
                "made": job.made,
                "stalled": job.stalled,
                "priority": job.priority,
                "doomed": job.is_doomed,
                "progress": None if job.progress is None else str(job.progress),
                "late": False,
                "token": job.token,
                "open": sorted(job.open),
                "processed": sorted(job.processed),
                "ignored": sorted(job.ignored),
                "unsuccessful": sorted(job.unsuccessful),
            }
            for job in jobs
        },
    }
