"""Alerts to many people for the bench: planned by the real send, and what the dispatcher would post for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from infra.bench.audience import Audience, Sql
from infra.local import functions
from infra.local.settings import Settings
from shared import channels, clock, deliveries
from shared.outbound import Answer
from shared.settings import ChannelSettings
from shared.values import Channel

_FULL_PACE = "update private.senders set segments_per_second = 1e6, burst = 1e6, tokens = 1e6, filled_at = now()"


def plan(sql: Sql, owner: UUID, audience: Audience) -> UUID:
    """Send one alert by SMS to everybody; its deliveries wait to be claimed, at full pace. Its id."""
    alert = {
        "alert_id": str(clock.system.uuid7()),
        "title": "Crue de la rivière",
        "severity": "urgent",
        "channels": ["sms"],
        "template_id": str(audience.template_id),
        "group_ids": [str(audience.group_id)],
    }
    claims = json.dumps({"sub": str(owner), "role": "authenticated"})
    with sql.transaction():
        sql.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        sql.execute("select public.send_alert(%s, %s)", (audience.organisation_id, Jsonb(alert)))
        sql.execute(_FULL_PACE)
    return UUID(alert["alert_id"])


def hand_over(sql: Sql) -> list[tuple[str, str, str]]:
    """Claim and record everything that waits as accepted, without a provider: (delivery id, provider id, phone)."""
    done: list[tuple[str, str, str]] = []
    while True:
        claimed = _value(sql, "select public.claim_deliveries('sms', 500, 60, 'bench')")
        if claimed["lease"] is None:
            return done
        batch = [(each["id"], f"SM{clock.system.uuid4().hex}", each["to"]) for each in claimed["deliveries"]]
        results = [
            {"id": each, "attempt": 1, "outcome": "accepted", "provider_id": provider_id}
            for each, provider_id, _ in batch
        ]
        _value(sql, "select public.record_results(%s, %s)", claimed["lease"], Jsonb(results))
        done += batch


def states(sql: Sql, alert_id: UUID) -> dict[str, int]:
    """How many deliveries of an alert are in each state."""
    rows = sql.execute(
        "select state::text, count(*) from public.deliveries where alert_id = %s group by state", (alert_id,)
    )
    return {str(state): int(count) for state, count in rows}


def requests(sql: Sql, settings: Settings) -> tuple[str, Mapping[str, str], list[bytes]]:
    """What the dispatcher would post for everything that waits: URL, headers and bodies. Nothing is claimed for good."""
    posted = _Posted()
    messages: list[Any] = []
    with sql.transaction(force_rollback=True):
        while lease := asyncio.run(_claim(sql)):
            messages += lease.messages
    adapter = channels.load(Channel.SMS, posted, ChannelSettings.read(functions.environment(settings)))  # type: ignore[arg-type]
    for message in messages:
        asyncio.run(adapter.send([message], ""))
    return posted.url, posted.headers, posted.bodies


class _Posted:
    """In place of Outbound: keeps what is posted and answers as Twilio does."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self.bodies: list[bytes] = []

    def target(self, url: str) -> str:
        return url

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.url, self.headers = url, headers
        self.bodies.append(body)
        return Answer(201, {}, b'{"sid":"SM%032d"}' % len(self.bodies))


class _Door:
    """The service's database door over SQL."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def rpc(self, name: str, **arguments: Any) -> Any:
        given = ", ".join(f"{each} => %({each})s" for each in arguments)
        row = self._sql.execute(f"select public.{name}({given})".encode(), arguments).fetchone()
        return row[0] if row else None


async def _claim(sql: Sql) -> deliveries.Lease | None:
    claim = await deliveries.claim(_Door(sql), Channel.SMS, batch=500, lease_seconds=60, worker="bench")
    return claim.lease


def _value(sql: Sql, query: str, *parameters: Any) -> Any:
    row = sql.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None
