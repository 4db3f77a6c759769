"""Who may do what: which permission each table and verb, and each operation, needs; and the people who try."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local.auth.tokens import Issuer
from infra.local.settings import KEY_ID, Settings
from tests.database.builders import Json, Organisation, Sql, new_phone, value
from tests.support.api import Caller, Member, make_member

ROLES = ("owner", "admin", "sender", "viewer", "billing", "privacy")
VERBS = ("select", "insert", "update", "delete")

CONTACTS = {
    "select": "contacts.read", "insert": "contacts.write", "update": "contacts.write", "delete": "contacts.write",
}  # fmt: skip
ANYONE_SIGNED_IN = "signed in"

# the permission that a verb needs; a verb that is not here is for nobody
TABLES: dict[str, dict[str, str]] = {
    "organisations": {"select": "organisation.read", "update": "organisation.manage"},
    "memberships": {"select": "members.read"},
    "invitations": {"select": "members.manage"},
    "contacts": CONTACTS,
    "addresses": CONTACTS,
    "groups": CONTACTS,
    "group_members": {verb: permission for verb, permission in CONTACTS.items() if verb != "update"},
    "suppressions": {"select": "contacts.read"},
    "templates": {"select": "alerts.read"},
    "template_contents": {"select": "alerts.read"},
    "alerts": {"select": "alerts.read"},
    "deliveries": {"select": "deliveries.read"},
    "delivery_events": {"select": "deliveries.read"},
    "responses": {"select": "deliveries.read"},
    "credit_accounts": {"select": "billing.read"},
    "credit_ledger": {"select": "billing.read"},
    "credit_reservations": {"select": "billing.read"},
    "price_lists": {"select": ANYONE_SIGNED_IN},
    "prices": {"select": ANYONE_SIGNED_IN},
}

TENANT_COLUMN = {"organisations": "id", "price_lists": "version", "prices": "version"}
CHANGES: dict[str, Json] = {
    "organisations": {"name": "Renamed"}, "contacts": {"name": "Renamed"}, "addresses": {"position": 7},
}  # fmt: skip

# operations of members: the permission, and arguments after p_organisation_id that no operation takes to an end
OPERATIONS: dict[str, tuple[str, Json]] = {
    "invite_member": ("members.manage", {"p_email": "no address", "p_role": "viewer"}),
    "revoke_invitation": ("members.manage", {"p_invitation_id": str(uuid4())}),
    "change_member_role": ("members.manage", {"p_user_id": str(uuid4()), "p_role": "viewer"}),
    "remove_member": ("members.manage", {"p_user_id": str(uuid4())}),
    "transfer_organisation": ("organisation.manage", {"p_user_id": str(uuid4())}),
    "import_contacts": ("contacts.write", {"p_contacts": "no array"}),
    "suppress_address": ("contacts.write", {"p_value": "", "p_channel": "sms", "p_reason": "manual"}),
    "read_endpoint": ("contacts.write", {"p_address_id": str(uuid4())}),
    "save_template": ("alerts.send", {"p_template": {}}),
    "quote_alert": ("alerts.send", {"p_alert": {}}),
    "send_alert": ("alerts.send", {"p_alert": {}}),
    "alert_report": ("deliveries.read", {"p_alert_id": str(uuid4())}),
}
# operations of anybody who signed in: they name no organisation of the caller's
OPEN_OPERATIONS: dict[str, Json] = {
    "create_organisation": {
        "p_organisation_id": str(uuid4()), "p_name": "", "p_country": "FR", "p_language": "fr", "p_time_zone": "Europe/Paris",
    },
    "accept_invitation": {"p_token": "unknown"},
}  # fmt: skip
SERVICE_OPERATIONS: dict[str, Json] = {
    "grant_credits": {"p_organisation_id": str(uuid4()), "p_amount": 0, "p_source": "x", "p_source_id": "x"},
    "claim_deliveries": {"p_channel": "sms", "p_batch": 0, "p_lease_seconds": 60, "p_worker": "w"},
    "claim_unknown": {"p_channel": "sms", "p_lease_seconds": 60, "p_worker": "w"},
    "record_results": {"p_lease": str(uuid4()), "p_results": []},
    "record_receipts": {"p_receipts": []},
    "record_inbound": {"p_messages": []},
    "record_answer": {"p_answer": {}},
    "sweep_deliveries": {},
    "begin_dispatch": {"p_worker": "w", "p_limit": 0, "p_lease_seconds": 1},
    "end_dispatch": {"p_worker": "w"},
    "dispatch_backlog": {},
}


@dataclass(frozen=True, slots=True)
class World:
    """Two organisations with a row in every table, and everybody who may try something."""

    sql: Sql
    own: Organisation
    other: Organisation
    members: dict[str, Member]  # one of each role in `own`
    outsiders: dict[str, Caller]  # signed in, but not in `own`
    refused: dict[str, Caller]  # not signed in, or with a token that proves nothing

    @classmethod
    def make(cls, settings: Settings, sql: Sql) -> World:
        own, other = full_organisation(sql), full_organisation(sql)
        members = {role: joined(settings, own, role) for role in ROLES}
        outsiders: dict[str, Caller] = {
            "owner elsewhere": joined(settings, other, "owner"),
            "nobody's member": make_member(settings, sql),
        }
        return cls(sql, own, other, members, outsiders, without_identity(settings, members["owner"]))

    def permits(self, role: str, permission: str | None) -> bool:
        if permission == ANYONE_SIGNED_IN:
            return True
        return role in ROLES and bool(
            value(
                self.sql,
                "select count(*) from private.role_permissions where role = %s::public.member_role and permission = %s",
                role, permission or "",
            )
        )  # fmt: skip


def joined(settings: Settings, organisation: Organisation, role: str) -> Member:
    member = make_member(settings, organisation.sql)
    organisation.sql.execute(
        "insert into public.memberships (organisation_id, user_id, role) values (%s, %s, %s)",
        (organisation.id, member.id, role),
    )
    return member


def without_identity(settings: Settings, owner: Member) -> dict[str, Caller]:
    """Tokens that must open nothing, though each names the owner."""
    key = settings.secrets.publishable_key
    issuer = Issuer.of(settings)
    claims = jwt.decode(owner.token or "", options={"verify_signature": False})
    headers = {"kid": KEY_ID}
    stranger = ec.generate_private_key(ec.SECP256R1())
    tokens = {
        "expired": jwt.encode(claims | {"exp": int(time.time()) - 120}, issuer.private_key, "ES256", headers),
        "of another key": jwt.encode(claims, stranger, "ES256", headers),
        "unsigned": jwt.encode(claims, "", "none"),
        "of an unknown secret": jwt.encode(claims, secrets.token_hex(32), "HS256"),
    }
    callers = {name: Caller(settings, key, token) for name, token in tokens.items()}
    return callers | {"no token": Caller(settings, key)}


def full_organisation(sql: Sql) -> Organisation:
    """An organisation with at least one row in every table that members can see."""
    organisation = Organisation.make(sql)
    contact = organisation.contact(new_phone(), "https://example.com/hook", external_id="1")
    group = organisation.group([contact])
    organisation.call("suppress_address", new_phone(), "sms", "manual")
    organisation.call("invite_member", "invited@example.com", "viewer")
    alert = organisation.alert(groups=[group])
    organisation.send(alert)
    key = (organisation.id, UUID(alert["alert_id"]), 1)
    sql.execute(
        "insert into public.delivery_events (organisation_id, alert_id, number, at, kind, state)"
        " values (%s, %s, %s, now(), 'receipt', 'sent')",
        key,
    )
    sql.execute(
        "insert into public.responses (organisation_id, alert_id, number, contact_id, source, source_id, option, is_clear)"
        " values (%s, %s, %s, %s, 'link', 'x', '1', true)",
        (*key, contact),
    )
    return organisation


def insertable(organisation: Organisation, table: str) -> Json:
    """A row that the table would take in this organisation."""
    tenant = {TENANT_COLUMN.get(table, "organisation_id"): str(organisation.id)}
    match table:
        case "contacts":
            return tenant | {"name": "New"}
        case "groups":
            return tenant | {"name": str(uuid4())}
        case "addresses":
            return tenant | {"contact_id": str(organisation.contact()), "kind": "phone", "value": new_phone()}
        case "group_members":
            return tenant | {
                "contact_id": str(organisation.contact()),
                "group_id": str(organisation.group([])),
            }
        case "price_lists" | "prices":
            return {"version": 99}
    return tenant


def change(organisation: Organisation, table: str) -> Json:
    """A change that the table would take, or any where it takes none."""
    if table == "groups":
        return {"name": str(uuid4())}
    return CHANGES.get(table) or insertable(organisation, table)


def rows_of(sql: Sql, table: str, organisation: Organisation) -> Any:
    """Everything that a table holds of an organisation, to see that nothing moved."""
    where = (
        ""
        if table in {"price_lists", "prices"}
        else f" where {TENANT_COLUMN.get(table, 'organisation_id')} = %s"
    )
    query = f"select count(*), md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from public.{table} t{where}"
    return sql.execute(query.encode(), (organisation.id,) if where else None).fetchone()
