"""Templates: texts by channel and language, every save a new version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict
from uuid import UUID

from shared.database import Database


class Content(TypedDict):
    """One channel's text in one language. Only an e-mail has a subject and HTML."""

    channel: str
    language: str
    subject: str | None
    body: str
    html: str | None


def save(
    db: Database, organisation_id: UUID, template_id: UUID, *, name: str, contents: Sequence[Content]
) -> Any:
    """Saves a version; alerts that were sent keep theirs. {template_id, version}."""
    template = {"template_id": str(template_id), "name": name, "contents": list(contents)}
    return db.rpc("save_template", p_organisation_id=str(organisation_id), p_template=template)
