"""The scene: an organisation with a member of every role, its people, groups, template and credits.

Everything goes through the doors that a frontend has: the auth stand-in, the API with each member's own token.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from infra.local.demo import people, texts
from infra.local.demo.people import Crowd
from infra.local.settings import Settings
from shared import contacts, organisations, templates
from shared import credits as accounts
from shared.contacts import ImportReport
from shared.database import Database, KeepAliveTransport
from shared.settings import DatabaseSettings
from supabase import Client, ClientOptions, create_client

ROLES = ("owner", "admin", "sender", "viewer", "billing", "privacy")
API_TIMEOUT_SECONDS = 120
RESPONDERS = "responders"


@dataclass(slots=True, frozen=True)
class Member:
    """Somebody who signed up: `db` calls the API with their token, `client` is Supabase's own."""

    role: str
    token: str
    client: Client
    db: Database


@dataclass(slots=True, frozen=True)
class Scene:
    """What is needed to send, and what the import said."""

    organisation_id: UUID
    members: dict[str, Member]
    group_ids: dict[str, str]
    template_id: UUID
    crowd: Crowd
    imported: ImportReport


def set_up(settings: Settings, recipients: int, seed: int) -> Scene:
    """Make all of it but the credits. Raises AppError or Supabase's errors when a door refuses."""
    organisation_id = uuid4()
    members = _members(settings, organisation_id)
    group_ids = _groups(members["admin"], organisation_id)
    crowd = people.crowd(recipients, seed, sink=settings.carriers_url, group_ids=group_ids)
    # before the import: it must not lift them
    _suppress(members["admin"], organisation_id, crowd.opted_out, "opt_out")
    _suppress(members["admin"], organisation_id, crowd.bounced, "bounce")
    imported = _import(members["sender"], organisation_id, crowd, settings.carriers_url)
    saved = templates.save(
        members["sender"].db, organisation_id, uuid4(), name=texts.TEMPLATE_NAME, contents=texts.CONTENTS
    )
    return Scene(organisation_id, members, group_ids, UUID(saved["template_id"]), crowd, imported)


def grant(settings: Settings, organisation_id: UUID, amount: int) -> None:
    """Credits, as the platform grants them once a payment came in: with the secret key, never a member's token."""
    environment = {"SUPABASE_URL": settings.api_url, "SUPABASE_SECRET_KEY": settings.secrets.secret_key}
    service = DatabaseSettings.read("service", environment)
    accounts.grant(
        Database(KeepAliveTransport(service), service), organisation_id, amount, source="demo", source_id="1"
    )


def _members(settings: Settings, organisation_id: UUID) -> dict[str, Member]:
    """The owner makes the organisation and invites the others, who accept with their own tokens."""
    members = {role: _sign_up(settings, role) for role in ROLES}
    owner = members["owner"]
    organisations.create(
        owner.db,
        organisation_id,
        name="Aciéries du Rhône",
        country="FR",
        language="fr",
        time_zone="Europe/Paris",
    )
    for role in ROLES[1:]:
        user = members[role].client.auth.get_user()
        assert user is not None
        assert user.user.email is not None
        invitation = organisations.invite_member(owner.db, organisation_id, email=user.user.email, role=role)
        organisations.accept_invitation(members[role].db, invitation["token"])
    return members


def _sign_up(settings: Settings, role: str) -> Member:
    options = ClientOptions(
        auto_refresh_token=False, persist_session=False, postgrest_client_timeout=API_TIMEOUT_SECONDS
    )
    client = create_client(settings.api_url, settings.secrets.publishable_key, options)
    answer = client.auth.sign_up(
        {"email": f"{role}.{secrets.token_hex(4)}@example.com", "password": secrets.token_urlsafe(16)}
    )
    assert answer.session is not None, "the auth stand-in confirms at once"
    token = answer.session.access_token
    environment = {
        "SUPABASE_URL": settings.api_url,
        "SUPABASE_PUBLISHABLE_KEY": settings.secrets.publishable_key,
    }
    member = DatabaseSettings.read("member", environment)
    return Member(role, token, client, Database(KeepAliveTransport(member), member, token))


def _groups(member: Member, organisation_id: UUID) -> dict[str, str]:
    """A group for each site, and one across them."""
    wanted = [*(site.name for site in people.SITES), RESPONDERS]
    rows = [{"organisation_id": str(organisation_id), "name": name} for name in wanted]
    answer = member.client.table("groups").insert(rows).execute()
    made: Any = answer.data
    return {group["name"]: group["id"] for group in made}


def _suppress(member: Member, organisation_id: UUID, destinations: Iterable[str], reason: str) -> None:
    for destination in destinations:
        member.db.rpc(
            "suppress_address",
            p_organisation_id=str(organisation_id),
            p_value=destination,
            p_channel=None,
            p_reason=reason,
        )


def _import(member: Member, organisation_id: UUID, crowd: Crowd, sink: str) -> ImportReport:
    """One file a country, since its national spellings are read with it; one report, rows by file."""
    whole = ImportReport()
    for country, rows in crowd.files.items():
        report = contacts.import_rows(member.db, organisation_id, rows, country=country, local_sink=sink)
        whole.created += report.created
        whole.updated += report.updated
        whole.refused_count += report.refused_count
        whole.refused += [{"file": country} | row for row in report.refused]
    return whole
