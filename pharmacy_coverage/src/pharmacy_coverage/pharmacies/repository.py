"""Queries on `pharmacies`."""

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from ..database import Database, Indexes
from ..errors import NotFound
from .models import Pharmacy

__all__ = ["PharmacyRepository"]


class PharmacyRepository:
    indexes: Indexes = (("pharmacies", [IndexModel([("region", ASCENDING)], name="region")]),)

    def __init__(self, database: Database) -> None:
        self._pharmacies = database.collection("pharmacies")

    async def get(self, pharmacy_id: str, session: AsyncClientSession | None = None) -> Pharmacy:
        """Raises NotFound."""
        document = await self._pharmacies.find_one({"_id": pharmacy_id}, session=session)
        if document is None:
            raise NotFound("pharmacy")
        return Pharmacy.from_document(document)

    async def all(self) -> list[Pharmacy]:
        return [Pharmacy.from_document(document) async for document in self._pharmacies.find().sort("name")]
