"""The service's side of a delivery: claim, record, ask, receive, sweep, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from shared.values import delivery_id
from tests.database.builders import Json, Sql, value

_events = count(1)
ALL_WAITING = """
  with moved as (
    update public.deliveries set claimable_at = now() - interval '1 second' where claimable_at > now()
  )
  update private.queues set due_at = now() - interval '1 second' where due_at > now()
"""


def claim(sql: Sql, channel: str = "sms", batch: int = 100, lease_seconds: int = 60) -> Json:
    answer: Json = value(
        sql, "select public.claim_deliveries(%s, %s, %s, 'worker')", channel, batch, lease_seconds
    )
    return answer


def ask(sql: Sql, channel: str = "sms", lease_seconds: int = 60) -> Json:
    """Lease one batch whose outcome is unknown."""
    answer: Json = value(sql, "select public.claim_unknown(%s, %s, 'asker')", channel, lease_seconds)
    return answer


def result(delivery: Json, outcome: str = "accepted", **more: Any) -> Json:
    given = {"id": delivery["id"], "attempt": delivery["attempt"], "outcome": outcome, **more}
    if outcome in {"accepted", "found"}:
        given.setdefault("provider_id", f"SM-{delivery['id']}-{delivery['attempt']}")
    return given


def record(sql: Sql, lease: str | None, results: Iterable[Json]) -> Json:
    answer: Json = value(sql, "select public.record_results(%s, %s)", lease, Jsonb(list(results)))
    return answer


def record_all(sql: Sql, claimed: Json, outcome: str = "accepted", **more: Any) -> Json:
    """The same outcome for everything that was claimed."""
    return record(sql, claimed["lease"], [result(each, outcome, **more) for each in claimed["deliveries"]])


def receipt(
    delivery: str | None,
    status: str,
    *,
    kind: str = "message",
    provider_id: str | None = None,
    occurred_at: str | None = None,
    code: str | None = None,
    event_key: str | None = None,
    attempt: int = 1,
) -> Json:
    return {
        "provider": "resend" if kind == "email" else "twilio",
        "event_key": event_key or f"event-{next(_events)}",
        "kind": kind,
        "delivery_id": delivery,
        "attempt": attempt,
        "provider_id": provider_id or (f"SM-{delivery}-{attempt}" if delivery else None),
        "status": status,
        "code": code,
        "occurred_at": occurred_at,
    }


def receive(sql: Sql, *receipts: Json) -> Json:
    answer: Json = value(sql, "select public.record_receipts(%s)", Jsonb(list(receipts)))
    return answer


def sweep(sql: Sql) -> Json:
    answer: Json = value(sql, "select public.sweep_deliveries()")
    return answer


def pass_time(sql: Sql) -> None:
    """Everything that waits for an instant may be claimed now."""
    sql.execute(ALL_WAITING.encode())


def end_leases(sql: Sql) -> None:
    """Every lease is over, and every question is due."""
    sql.execute("update private.leases set due_at = now() - interval '1 second'")


def id_of(row: Json) -> str:
    """The delivery id of a row."""
    return delivery_id(UUID(str(row["alert_id"])), row["number"])
