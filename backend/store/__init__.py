"""The only room with queries. Journeys write `with ctx.store.begin() as s:` and call these modules."""

from sqlalchemy.orm import Session

from backend.store.database import Store

__all__ = ["Session", "Store"]
