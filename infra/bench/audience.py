"""People by the hundred thousand, made in sets: realistic spellings, two languages, shared, blocked and barred ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

Sql = psycopg.Connection[Any]

BODIES = {
    "fr": "Alerte crue {{name}}: quittez la salle {{room|B}} et montez au deuxième étage. Restez au calme.",
    "en": "Flood warning {{name}}: leave room {{room|B}} and go up to the second floor. Please stay calm.",
}

# every tenth name has an accent, one in a hundred needs UCS-2; 80 % French
_CONTACTS = """
insert into public.contacts (organisation_id, id, external_id, name, language, attributes, restricted_at)
select
  %(organisation)s, (lpad(to_hex(1764000000000 + i), 12, '0') || '7' || substr(md5(i::text), 14))::uuid, 'e' || i,
  case when i %% 100 = 7 then 'Zoë Šimůnková ' when i %% 10 = 1 then 'Hélène Lefèvre ' else 'Jean Dupont ' end || i,
  case when i %% 5 = 0 then 'en' else 'fr' end,
  jsonb_build_object('room', 'B' || i %% 100, 'floor', i %% 7),
  case when i %% 200 = 3 then now() end
from generate_series(1, %(people)s) as i
"""
# one in 33 shares the phone of the person before. Hash and country as the trigger derives them, see `_check`
_PHONES = """
insert into public.addresses (organisation_id, id, contact_id, kind, value, position, country, destination_hash)
select
  w.organisation_id, (lpad(to_hex(1764000000000 + w.i), 12, '0') || '7' || substr(md5(w.id::text), 14))::uuid,
  w.id, 'phone',
  w.value, 1, w.country,
  substr(extensions.hmac(convert_to(w.value, 'UTF8'), k.destination_key, 'sha256'), 1, 16)
from (
  select
    n.organisation_id, n.id, n.i,
    case n.i %% 10 when 1 then 'BE' when 2 then 'DE' when 3 then 'GB' else 'FR' end as country,
    case n.i %% 10 when 1 then '+3247' when 2 then '+49151' when 3 then '+4477' else '+336' end
      || lpad(n.i::text, 8, '0') as value
  from (
    select
      c.organisation_id, c.id,
      substr(c.external_id, 2)::integer - case when substr(c.external_id, 2)::integer %% 33 = 0 then 1 else 0 end as i
    from public.contacts c
    where c.organisation_id = %(organisation)s
  ) as n
) as w
join private.organisation_keys k on k.organisation_id = w.organisation_id
"""
_MEMBERS = """
insert into public.group_members (organisation_id, group_id, contact_id)
select c.organisation_id, %(group)s, c.id
from public.contacts c
where c.organisation_id = %(organisation)s
"""
_BLOCKED = """
insert into public.suppressions (organisation_id, destination_hash, channel, reason, source)
select distinct
  a.organisation_id, a.destination_hash, null::public.channel, 'opt_out'::public.suppression_reason, 'bench'
from public.addresses a
join public.contacts c on c.organisation_id = a.organisation_id and c.id = a.contact_id
where a.organisation_id = %(organisation)s and substr(c.external_id, 2)::integer %% 100 = 9
"""
_WRONG = """
select count(*)
from (select * from public.addresses where organisation_id = %(organisation)s limit 500) as a
where a.destination_hash <> private.destination_hash(a.organisation_id, a.value)
  or a.country <> private.country_of(a.value)
"""


@dataclass(slots=True, frozen=True)
class Audience:
    """An organisation of its own with one group of `people`, each with a phone."""

    organisation_id: UUID
    group_id: UUID
    template_id: UUID
    people: int


def make(sql: Sql, user_id: UUID, people: int, *, plain: bool = False) -> Audience:
    """An owner's organisation with its audience. `plain`: nobody shares a phone, is blocked or barred.

    Rows are made in sets without triggers: the trigger's hash of one address at a time costs a minute for a million.
    """
    made = Audience(uuid4(), uuid4(), uuid4(), people)
    values = {"organisation": made.organisation_id, "group": made.group_id, "people": people}
    _found(sql, made, user_id)
    with sql.transaction():
        sql.execute("set local session_replication_role = replica")
        sql.execute("set local work_mem = '256MB'")
        sql.execute("set local enable_nestloop = off")  # nothing is known of the new rows yet
        for statement in (_CONTACTS, _PHONES, _MEMBERS, _BLOCKED):
            sql.execute(statement.encode(), values)
        if plain:
            _smooth(sql, made)
    _check(sql, values)
    for table in ("contacts", "addresses", "group_members", "suppressions"):
        sql.execute(f"vacuum (analyze) public.{table}".encode())
    return made


def _found(sql: Sql, made: Audience, user_id: UUID) -> None:
    """The organisation, its credits, its group and its template, by the operations that everybody uses."""
    organisation = made.organisation_id
    contents = [{"channel": "sms", "language": name, "body": body} for name, body in BODIES.items()]
    template = {"template_id": str(made.template_id), "name": "Flood", "contents": contents}
    with sql.transaction():
        claims = f'{{"sub":"{user_id}","role":"authenticated"}}'
        sql.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        sql.execute(
            "select private.create_organisation(%s, 'Bench', 'FR', 'fr', 'Europe/Paris')", (organisation,)
        )
        sql.execute("select private.save_template(%s, %s)", (organisation, Jsonb(template)))
    sql.execute("update public.organisations set max_recipients = 1000000 where id = %s", (organisation,))
    sql.execute("select private.grant_credits(%s, 1000000000000, 'bench', '1')", (organisation,))
    sql.execute(
        "insert into public.groups (organisation_id, id, name) values (%s, %s, 'Everybody')",
        (organisation, made.group_id),
    )


def _smooth(sql: Sql, made: Audience) -> None:
    sql.execute("delete from public.suppressions where organisation_id = %s", (made.organisation_id,))
    sql.execute(
        "update public.contacts set restricted_at = null where organisation_id = %s", (made.organisation_id,)
    )
    sql.execute(
        "delete from public.addresses a using public.contacts c where c.id = a.contact_id and"
        " a.organisation_id = %s and c.organisation_id = %s and substr(c.external_id, 2)::integer %% 33 = 0",
        (made.organisation_id, made.organisation_id),
    )


def _check(sql: Sql, values: dict[str, Any]) -> None:
    """What was made in sets is what the trigger would have made."""
    row = sql.execute(_WRONG.encode(), values).fetchone()
    if row is None or row[0] != 0:
        raise AssertionError("the bench derives addresses differently from the trigger derive_address")


def forget(sql: Sql, made: Audience) -> None:
    """Take the people away again, so that the next audience meets small tables."""
    with sql.transaction():
        sql.execute("set local session_replication_role = replica")
        for table in ("group_members", "addresses", "suppressions", "contacts"):
            sql.execute(
                f"delete from public.{table} where organisation_id = %s".encode(), (made.organisation_id,)
            )
    for table in ("group_members", "addresses", "suppressions", "contacts"):
        sql.execute(f"vacuum (full, analyze) public.{table}".encode())
