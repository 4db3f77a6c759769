"""Credits: grants to an organisation's prepaid account; the SQL of a send reserves and settles them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from shared.database import Database


def grant(db: Database, organisation_id: UUID, amount: int, *, source: str, source_id: str) -> Any:
    """Adds credits once for each (source, source_id); with our own identity only."""
    return db.rpc(
        "grant_credits",
        p_organisation_id=str(organisation_id),
        p_amount=amount,
        p_source=source,
        p_source_id=source_id,
    )
