"""What a job knows of its parent and its children. `Job` has all of it; see `job`.

Children are named by their full keys, `<prefix>:<queue>:<id>`, since they may be in other queues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ._answers import ask
from .codec import loads, pairs
from .errors import ConfigurationError

if TYPE_CHECKING:
    from .queue import Queue

__all__ = ["Dependencies", "DependenciesPage", "DependencyCounts", "DependencyKind", "JobChildren"]

DependencyKind = Literal["processed", "unprocessed", "ignored", "failed"]
"""How a child stands; see `Dependencies`."""

_KINDS: Final = get_args(DependencyKind)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The children of a job, by their full keys.

    Attributes:
        processed: What those that completed have returned.
        unprocessed: Those that have not ended.
        ignored: Why those failed whose failure was ignored.
        failed: Those whose failure fails the parent.
    """

    processed: dict[str, Any]
    unprocessed: list[str]
    ignored: dict[str, str]
    failed: list[str]


@dataclass(frozen=True, slots=True)
class DependencyCounts:
    """How many children a job has, by how they stand; as `Dependencies`."""

    processed: int
    unprocessed: int
    ignored: int
    failed: int


@dataclass(frozen=True, slots=True)
class DependenciesPage:
    """Some of a job's children of one kind.

    Attributes:
        keys: Their full keys.
        values: By key, what they have returned (`processed`) or why they failed (`ignored`); else empty.
        next_cursor: Where the next page begins; 0 after the last.
    """

    keys: list[str]
    values: dict[str, Any]
    next_cursor: int


class JobChildren:
    """The verbs of a job that concern its parent and its children."""

    __slots__ = ()

    id: str
    queue: Queue
    _record: dict[str, str]

    async def get_children_values(self) -> dict[str, Any]:
        """Return what the children that completed have returned, by their full keys."""
        values = await self._children("HGETALL", "processed")
        return {key: loads(value, f"job {key!r}: return value") for key, value in values.items()}

    async def get_ignored_children_failures(self) -> dict[str, str]:
        """Return why children failed whose failure was ignored, or let this job continue, by their full keys."""
        return await self._children("HGETALL", "failed")

    async def get_failed_children(self) -> list[str]:
        """Return the full keys of the children whose failure fails this job."""
        key = self.queue.keys.job(self.id) + ":unsuccessful"
        return await ask(self.queue.connection, list[str], "ZRANGE", key, 0, -1)

    async def get_dependencies(self) -> Dependencies:
        """Return the children, by how they stand, all at one moment. `get_dependencies_page` is for very many."""
        processed, pending, ignored, failed = await self.queue.scripts.get_dependencies(self.id)
        return Dependencies(_values(pairs(processed)), sorted(pending), pairs(ignored), failed)

    async def get_dependencies_page(
        self, kind: DependencyKind, cursor: int = 0, count: int = 20
    ) -> DependenciesPage:
        """Return some of the children of one kind: `cursor=0` begins, then `next_cursor` until that is 0.

        A child that is there all the while is returned at least once; one that ends meanwhile may be missed.

        Args:
            kind: Which.
            cursor: Where to go on.
            count: About how many; small families come whole.

        Raises:
            ConfigurationError: There is no such kind, or the count is not positive.
        """
        if kind not in _KINDS:
            raise ConfigurationError(
                f"job {self.id!r}: unknown kind of children {kind!r}; there are {', '.join(_KINDS)}"
            )
        if count < 1:
            raise ConfigurationError(f"job {self.id!r}: count must be at least 1; got {count}")
        key, connection = self.queue.keys.job(self.id), self.queue.connection
        if kind == "failed":
            # One more than asked for tells whether there is a next page.
            last = cursor + count
            found = await ask(connection, list[str], "ZRANGE", f"{key}:unsuccessful", cursor, last)
            return DependenciesPage(found[:count], {}, cursor + count if len(found) > count else 0)
        if kind == "unprocessed":
            scan = ("SSCAN", f"{key}:dependencies", cursor, "COUNT", count)
            after, keys = await ask(connection, tuple[int, list[str]], *scan)
            return DependenciesPage(keys, {}, after)
        suffix = "processed" if kind == "processed" else "failed"
        scan = ("HSCAN", f"{key}:{suffix}", cursor, "COUNT", count)
        after, flat = await ask(connection, tuple[int, list[str]], *scan)
        texts = pairs(flat)
        return DependenciesPage(list(texts), _values(texts) if kind == "processed" else texts, after)

    async def get_dependencies_count(self) -> DependencyCounts:
        """Return how many children there are, by how they stand, all at one moment."""
        return DependencyCounts(*await self.queue.scripts.count_dependencies(self.id))

    async def remove_unprocessed_children(self) -> None:
        """Remove the children that have neither ended nor begun."""
        await self.queue.scripts.remove_unprocessed_children(self.id)

    async def remove_child_dependency(self) -> bool:
        """Cut this job from its parent, which no longer waits for it; False where it had none.

        Raises:
            JobNotFoundError, ParentNotFoundError: One of them is gone.
        """
        parent_key = self._record.get("parentKey")
        if parent_key is None:
            return False
        is_cut = await self.queue.scripts.remove_child_dependency(self.id, parent_key)
        if is_cut:
            for field in ("parentKey", "parent"):
                self._record.pop(field, None)
        return is_cut

    async def _children(self, command: str, suffix: str) -> dict[str, str]:
        key = f"{self.queue.keys.job(self.id)}:{suffix}"
        return pairs(await ask(self.queue.connection, list[str], command, key))


def _values(texts: dict[str, str]) -> dict[str, Any]:
    return {key: loads(text, f"job {key!r}: return value") for key, text in texts.items()}
