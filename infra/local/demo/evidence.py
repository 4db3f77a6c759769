"""The evidence: our rows, our ledger and the carriers' journal of one alert, read when everything is quiet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, dict_row

from infra.local.carriers.client import Carriers


@dataclass(slots=True, frozen=True)
class Delivery:
    """One row of ours; times in seconds since the send. Two of the counts are what its events know."""

    number: int
    contact_id: UUID
    channel: str
    state: str
    reason: str | None
    attempt: int
    cost: int
    provider_id: str | None
    accepted_events: int
    provider_ids: int
    handed_over: float | None
    delivered: float | None
    answered: float | None


@dataclass(slots=True, frozen=True)
class Accepted:
    """One row of the journal: a carrier took this. `reference` is the delivery id that came with it."""

    channel: str
    reference: str | None
    provider_id: str
    time: float  # epoch seconds


@dataclass(slots=True, frozen=True)
class Ledger:
    """The account, what its ledger adds up to, and the alert's reservation beside its ledger entries."""

    available: int
    reserved: int
    ledger_available: int
    ledger_reserved: int
    reservation: int
    settled: int
    released: int
    entries_reserved: int
    entries_settled: int
    entries_released: int


@dataclass(slots=True, frozen=True)
class Evidence:
    """Everything that the reconciliation judges."""

    alert_id: UUID
    deliveries: tuple[Delivery, ...]
    journal: tuple[Accepted, ...]
    other_alerts: frozenset[str]  # ids (hex) of alerts that the journal may speak of as well
    ledger: Ledger
    report: dict[str, Any]  # alert_report
    answer: dict[str, Any]  # what the send answered
    receipts: dict[str, Any]  # the carriers' counts of their callbacks
    unplaced_receipts: int


_DELIVERIES = """
select
  d.number, d.contact_id, d.channel::text, d.state::text, d.reason, d.attempt, d.cost, d.provider_id,
  coalesce(e.accepted_events, 0) as accepted_events, coalesce(e.provider_ids, 0) as provider_ids,
  extract(epoch from d.handed_over_at - a.created_at)::float8 as handed_over,
  extract(epoch from d.delivered_at - a.created_at)::float8 as delivered,
  extract(epoch from d.answered_at - a.created_at)::float8 as answered
from public.deliveries d
join public.alerts a on a.organisation_id = d.organisation_id and a.id = d.alert_id
left join (
  select
    number, count(*) filter (where kind = 'accepted') as accepted_events, count(distinct provider_id) as provider_ids
  from public.delivery_events
  where organisation_id = %(organisation)s and alert_id = %(alert)s
  group by number
) as e on e.number = d.number
where d.organisation_id = %(organisation)s and d.alert_id = %(alert)s
order by d.number
"""

_LEDGER = """
select
  a.available, a.reserved,
  l.available::bigint as ledger_available, l.reserved::bigint as ledger_reserved,
  coalesce(r.amount, 0) as reservation, coalesce(r.settled, 0) as settled, coalesce(r.released, 0) as released,
  l.entries_reserved::bigint, l.entries_settled::bigint, l.entries_released::bigint
from public.credit_accounts a
left join public.credit_reservations r on r.organisation_id = a.organisation_id and r.alert_id = %(alert)s
cross join (
  select
    coalesce(sum(available_delta), 0) as available, coalesce(sum(reserved_delta), 0) as reserved,
    coalesce(sum(reserved_delta) filter (where kind = 'reserve' and alert_id = %(alert)s), 0) as entries_reserved,
    coalesce(-sum(reserved_delta) filter (where kind = 'settle' and alert_id = %(alert)s), 0) as entries_settled,
    coalesce(sum(available_delta) filter (where kind = 'release' and alert_id = %(alert)s), 0) as entries_released
  from public.credit_ledger
  where organisation_id = %(organisation)s
) as l
where a.organisation_id = %(organisation)s
"""

_UNPLACED = """
select count(*) from private.receipts r
where r.applied_at is null and (
  r.alert_id = %(alert)s or r.provider_id in (
    select d.provider_id from public.deliveries d
    where d.organisation_id = %(organisation)s and d.alert_id = %(alert)s and d.provider_id is not null
  )
)
"""

Connection = psycopg.Connection[Any]


def gather(
    sql: Connection,
    carriers: Carriers,
    organisation_id: UUID,
    *,
    answer: dict[str, Any],
    report: dict[str, Any],
    journal_after: int,
) -> Evidence:
    """Read everything about the alert of `answer`; the journal past a sequence."""
    key = {"organisation": organisation_id, "alert": UUID(answer["alert_id"])}
    with sql.transaction(), sql.cursor(row_factory=class_row(Delivery)) as deliveries:
        # the tables may be too fresh for statistics, and a loop over the events for each row would take minutes
        deliveries.execute("set local enable_nestloop = off")
        rows = tuple(deliveries.execute(_DELIVERIES, key))
    with sql.cursor(row_factory=class_row(Ledger)) as ledgers:
        ledger = ledgers.execute(_LEDGER, key).fetchone()
    assert ledger is not None
    journal = tuple(
        Accepted(row.channel, row.reference, row.provider_id, row.time)
        for row in carriers.journal(after=journal_after)
    )
    return Evidence(
        alert_id=key["alert"],
        deliveries=rows,
        journal=journal,
        other_alerts=_other_alerts(sql, key["alert"], journal),
        ledger=ledger,
        report=report,
        answer=answer,
        receipts=carriers.counts()["receipts"],
        unplaced_receipts=unplaced_receipts(sql, organisation_id, key["alert"]),
    )


def unplaced_receipts(sql: Connection, organisation_id: UUID, alert_id: UUID) -> int:
    """Receipts of this alert that wait in the inbox."""
    row = sql.execute(_UNPLACED, {"organisation": organisation_id, "alert": alert_id}).fetchone()
    return int(row[0]) if row else 0


def states(sql: Connection, organisation_id: UUID, alert_id: UUID) -> dict[str, dict[str, int]]:
    """Rows now, by channel and state."""
    found: dict[str, dict[str, int]] = {}
    with sql.cursor(row_factory=dict_row) as cursor:
        query = (
            "select channel::text, state::text, count(*) as rows from public.deliveries "
            "where organisation_id = %s and alert_id = %s group by channel, state"
        )
        for row in cursor.execute(query, (organisation_id, alert_id)):
            found.setdefault(row["channel"], {})[row["state"]] = row["rows"]
    return found


def _other_alerts(sql: Connection, alert_id: UUID, journal: Iterable[Accepted]) -> frozenset[str]:
    """Alerts of ours that the journal names beside this one: a stack may be in use by others."""
    named = {row.reference.partition("-")[0] for row in journal if row.reference} - {alert_id.hex}
    found = sql.execute("select replace(id::text, '-', '') from public.alerts").fetchall() if named else []
    return frozenset(row[0] for row in found) & named
