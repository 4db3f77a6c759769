"""Organisations and their members: names over SQL functions, which decide who may."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from shared.database import Database


def create(
    db: Database, organisation_id: UUID, *, name: str, country: str, language: str, time_zone: str
) -> Any:
    """Creates an organisation with the caller as its owner. The same id again gives the first answer."""
    return db.rpc(
        "create_organisation",
        p_organisation_id=str(organisation_id),
        p_name=name,
        p_country=country,
        p_language=language,
        p_time_zone=time_zone,
    )


def invite_member(db: Database, organisation_id: UUID, *, email: str, role: str) -> Any:
    """Invites a person to a role that the caller may grant."""
    return db.rpc("invite_member", p_organisation_id=str(organisation_id), p_email=email, p_role=role)


def accept_invitation(db: Database, token: str) -> Any:
    """Makes the caller a member, by the token of an invitation to the caller's own e-mail."""
    return db.rpc("accept_invitation", p_token=token)


def change_member_role(db: Database, organisation_id: UUID, user_id: UUID, *, role: str) -> Any:
    """Gives a member another role; it counts from the member's next request."""
    return db.rpc(
        "change_member_role", p_organisation_id=str(organisation_id), p_user_id=str(user_id), p_role=role
    )


def remove_member(db: Database, organisation_id: UUID, user_id: UUID) -> Any:
    """Ends a membership at once. The last owner can't be removed."""
    return db.rpc("remove_member", p_organisation_id=str(organisation_id), p_user_id=str(user_id))
