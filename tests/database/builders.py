"""Builders: an organisation with people, templates and alerts, through the database's own operations and as its owner."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

Sql = psycopg.Connection[Any]
Json = dict[str, Any]
Connect = Callable[[], Sql]
Alert = Mapping[str, Any]

_phones = count(10_000_000)
HOUR_SECONDS = 3600


def uuid7(now_seconds: float | None = None) -> UUID:
    """A UUID version 7 (RFC 9562) of now or of the given instant."""
    milliseconds = int((time.time() if now_seconds is None else now_seconds) * 1000)
    value = milliseconds << 80 | 0x7 << 76 | int.from_bytes(os.urandom(2)) >> 4 << 64 | 0b10 << 62
    return UUID(int=value | int.from_bytes(os.urandom(8)) >> 2)


def new_phone() -> str:
    """A French mobile number that no other test has."""
    return f"+336{next(_phones)}"


@dataclass(slots=True)
class Refused:
    """How the database refused: filled in when the block of `refused` ends."""

    hint: str = ""
    detail: Json = field(default_factory=dict)


@contextmanager
def refused(status: int, code: str) -> Iterator[Refused]:
    """The block must end in a refusal PT<status> with this code."""
    told = Refused()
    with pytest.raises(psycopg.Error, match=f"^{re.escape(code)}") as caught:
        yield told
    assert caught.value.sqlstate == f"PT{status}", (caught.value.sqlstate, code)
    told.hint = caught.value.diag.message_hint or ""
    told.detail = json.loads(caught.value.diag.message_detail or "{}")


def value(sql: Sql, query: str, *parameters: Any) -> Any:
    """The first column of the first row; None when there is none."""
    row = sql.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None


def values(sql: Sql, query: str, *parameters: Any) -> list[Any]:
    """The first column of every row."""
    return [row[0] for row in sql.execute(query.encode(), parameters or None)]


def rows(sql: Sql, query: str, *parameters: Any) -> list[Json]:
    """Every row, by column."""
    cursor = sql.execute(query.encode(), parameters or None)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def act_as(sql: Sql, user_id: UUID, email: str = "") -> None:
    """What is called on this connection from now on is called by this user."""
    claims = {"sub": str(user_id), "role": "authenticated", "email": email}
    sql.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps(claims),))


def new_user(sql: Sql, email: str | None = None) -> UUID:
    user_id = uuid4()
    sql.execute(
        "insert into auth.users (id, email) values (%s, %s)", (user_id, email or f"{user_id}@example.com")
    )
    return user_id


@dataclass(slots=True, eq=False)
class Organisation:
    """An organisation, as its owner sees it."""

    sql: Sql
    id: UUID
    owner: UUID

    @classmethod
    def make(
        cls, sql: Sql, credit: int = 1_000_000, country: str = "FR", language: str = "fr"
    ) -> Organisation:
        organisation = cls(sql, uuid4(), new_user(sql))
        organisation.call("create_organisation", "A school", country, language, "Europe/Paris")
        if credit:
            organisation.grant(credit)
        return organisation

    def on(self, sql: Sql) -> Organisation:
        """The same organisation over another connection."""
        return Organisation(sql, self.id, self.owner)

    def call(self, operation: str, *arguments: Any, caller: UUID | None = None) -> Any:
        """A member's operation, called by the owner or by `caller`; raises the database's refusal."""
        act_as(self.sql, caller or self.owner)
        given = [Jsonb(each) if isinstance(each, dict | list) else each for each in arguments]
        places = ", ".join(["%s"] * (len(given) + 1))
        return value(self.sql, f"select public.{operation}({places})", self.id, *given)

    def grant(self, credit: int) -> None:
        self.sql.execute("select public.grant_credits(%s, %s, 'test', %s)", (self.id, credit, str(uuid4())))

    def join(self, role: str) -> UUID:
        """A new member."""
        user_id = new_user(self.sql)
        self.sql.execute(
            "insert into public.memberships (organisation_id, user_id, role) values (%s, %s, %s)",
            (self.id, user_id, role),
        )
        return user_id

    def contact(
        self,
        *addresses: str,
        name: str = "Alice",
        language: str | None = "fr",
        external_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> UUID:
        """A person with these addresses in order of preference; what an address is shows in it."""
        contact_id: UUID = value(
            self.sql,
            "insert into public.contacts (organisation_id, name, language, external_id, attributes)"
            " values (%s, %s, %s, %s, %s) returning id",
            self.id, name, language, external_id, Jsonb(attributes or {}),
        )  # fmt: skip
        for position, address in enumerate(addresses, 1):
            self.address(contact_id, address, position)
        return contact_id

    def address(self, contact_id: UUID, address: str, position: int = 1) -> UUID:
        kind = "phone" if address.startswith("+") else "endpoint" if "://" in address else "email"
        address_id: UUID = value(
            self.sql,
            "insert into public.addresses (organisation_id, contact_id, kind, value, position)"
            " values (%s, %s, %s, %s, %s) returning id",
            self.id, contact_id, kind, address, position,
        )  # fmt: skip
        return address_id

    def people(self, number: int, **details: Any) -> list[UUID]:
        """So many people with a phone each."""
        return [self.contact(new_phone(), **details) for _ in range(number)]

    def group(self, contacts: Iterable[UUID]) -> UUID:
        group_id: UUID = value(
            self.sql,
            "insert into public.groups (organisation_id, name) values (%s, %s) returning id",
            self.id, f"group {uuid4()}",
        )  # fmt: skip
        self.sql.execute(
            "insert into public.group_members (organisation_id, group_id, contact_id) select %s, %s, unnest(%s::uuid[])",
            (self.id, group_id, list(contacts)),
        )
        return group_id

    def template(self, *, template_id: UUID | None = None, language: str = "fr", **bodies: str) -> UUID:
        """A template with one content for each channel that is named: `template(sms="Bonjour {{name}}")`."""
        contents = [
            {
                "channel": channel,
                "language": language,
                "body": body,
                "subject": "Alerte" if channel == "email" else None,
            }
            for channel, body in bodies.items()
        ]
        return self.save_template(contents, template_id)

    def save_template(self, contents: list[Json], template_id: UUID | None = None) -> UUID:
        template: Json = {"name": "Alerte", "contents": contents}
        if template_id:
            template["template_id"] = str(template_id)
        return UUID(self.call("save_template", template)["template_id"])

    def alert(
        self,
        contacts: Iterable[UUID] = (),
        *,
        groups: Iterable[UUID] = (),
        template: UUID | None = None,
        channels: Iterable[str] = ("sms",),
        severity: str = "urgent",
        **more: Any,
    ) -> Json:
        """What a caller asks to send; with a plain template of its own unless one is given."""
        channels = list(channels)
        template = template or self.save_template(
            [
                {
                    "channel": channel,
                    "language": "fr",
                    "body": "Fermeture du site demain.",
                    "subject": subject,
                }
                for channel in channels
                for subject in ["Alerte" if channel == "email" else None]
            ]
        )
        return {
            "alert_id": str(uuid7()),
            "title": "Fermeture",
            "severity": severity,
            "channels": channels,
            "template_id": str(template),
            "group_ids": [str(each) for each in groups],
            "contact_ids": [str(each) for each in contacts],
            **more,
        }

    def send(self, alert: Alert) -> Json:
        answer: Json = self.call("send_alert", dict(alert))
        return answer

    def quote(self, alert: Alert) -> Json:
        answer: Json = self.call("quote_alert", dict(alert))
        return answer

    def deliveries(self, alert: Alert) -> list[Json]:
        return rows(
            self.sql,
            "select * from public.deliveries where organisation_id = %s and alert_id = %s order by number",
            self.id, alert["alert_id"],
        )  # fmt: skip

    def by_contact(self, alert: Alert) -> dict[UUID, Json]:
        """The rows of an alert with one channel, by person."""
        return {each["contact_id"]: each for each in self.deliveries(alert)}

    def account(self) -> tuple[int, int]:
        """Credits available and reserved."""
        found = self.sql.execute(
            "select available, reserved from public.credit_accounts where organisation_id = %s", (self.id,)
        ).fetchone()
        return (found[0], found[1]) if found else (0, 0)

    def assert_ledger_holds(self) -> None:
        """The account is the sum of its ledger, and what is reserved is what reservations still hold."""
        ledger = self.sql.execute(
            "select coalesce(sum(available_delta), 0), coalesce(sum(reserved_delta), 0)"
            " from public.credit_ledger where organisation_id = %s",
            (self.id,),
        ).fetchone()
        assert ledger == self.account()
        held = value(
            self.sql,
            "select coalesce(sum(amount - settled - released), 0) from public.credit_reservations"
            " where organisation_id = %s",
            self.id,
        )  # fmt: skip
        assert held == self.account()[1]
