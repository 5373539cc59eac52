"""Finding open shifts: pages that everyone shares, from the cache or from MongoDB.

Search is advice. Applying and confirming decide on MongoDB, so a page that is a second old can mislead, but not harm.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from .. import clock
from ..errors import TemporarilyUnavailable
from .cache import Outcome, RegionCache
from .repository import ShiftRepository
from .schemas import Card, ShiftFilter

__all__ = ["SearchResult", "ShiftSearch"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
_cards = TypeAdapter(list[Card])


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Cards, the next shift first, and where each region's page came from."""

    cards: list[Card]
    outcomes: dict[str, Outcome]


class ShiftSearch:
    def __init__(self, shifts: ShiftRepository, cache: RegionCache, concurrency: int) -> None:
        self._shifts = shifts
        self._cache = cache
        self._gate = asyncio.Semaphore(concurrency)

    async def find(self, regions: Sequence[str], wanted: ShiftFilter) -> SearchResult:
        """Open shifts of these regions.

        Raises:
            TemporarilyUnavailable: Too many searches are at MongoDB, which happens only without the cache.
        """
        pages = await asyncio.gather(*(self._region(region, wanted) for region in regions))
        moment = clock.now()
        # A cached page may hold a shift that began a moment ago.
        cards = [card for page, _ in pages for card in page if card.start > moment]
        cards.sort(key=lambda card: (card.start, card.id))
        outcomes: dict[str, Outcome] = {
            region: outcome for region, (_, outcome) in zip(regions, pages, strict=True)
        }
        return SearchResult(cards, outcomes)

    async def changed(self, region: str) -> None:
        """Make what changed in a region visible to the next search. Raises CacheUnavailable."""
        await self._cache.bump(region)

    async def _region(self, region: str, wanted: ShiftFilter) -> tuple[list[Card], Outcome]:
        async def load() -> bytes:
            try:
                await asyncio.wait_for(self._gate.acquire(), PATIENCE_SECONDS)
            except TimeoutError:
                raise TemporarilyUnavailable("Too many people are searching at this moment.") from None
            try:
                return _cards.dump_json(await self._shifts.search(region, wanted, clock.now()))
            finally:
                self._gate.release()

        page, outcome = await self._cache.page(region, wanted.fingerprint, load)
        try:
            return _cards.validate_json(page), outcome
        except ValidationError:
            # Written by another version, or by somebody who should not.
            logger.warning("region %s: a cached page makes no sense; asking MongoDB", region)
            return _cards.validate_json(await load()), "miss"
