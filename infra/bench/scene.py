"""Where a bench takes place: a stack of its own in a temporary home, durable as in production, and its owner."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import urllib3

from infra.bench.audience import Audience, Sql
from infra.local.carriers.client import Carriers
from infra.local.postgres import SUPERUSER
from infra.local.settings import Settings
from infra.local.sign_in import access_token
from infra.local.stack import Stack
from shared import clock

PARTS = (
    "postgres",
    "postgrest",
    "auth",
    "carriers",
    "functions",
    "gateway",
)  # no timer: nothing starts by itself
OWNER = "owner@example.com"

Report = Callable[[str], None]


@dataclass(slots=True)
class Scene:
    """One running stack. `report` shows what is being done."""

    stack: Stack
    sql: Sql
    owner_id: UUID
    token: str
    carriers: Carriers
    report: Report

    @property
    def settings(self) -> Settings:
        return self.stack.settings

    def rpc(self, name: str, **arguments: Any) -> Any:
        """Call a function of the database as the owner, through gateway and PostgREST."""
        answer = self.post(f"{self.settings.api_url}/rest/v1/rpc/{name}", arguments, self.headers())
        if answer.status != 200:
            raise RuntimeError(
                f"{name} answered {answer.status}: {answer.data.decode(errors='replace')[:500]}"
            )
        return answer.json()

    def headers(self) -> dict[str, str]:
        """A signed-in owner's."""
        key = self.settings.secrets.publishable_key
        return {"apikey": key, "Authorization": f"Bearer {self.token}"}

    def post(self, url: str, body: object, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """POST a JSON document and read the whole answer, however long it takes."""
        content = json.dumps(body).encode()
        full = {"Content-Type": "application/json", **headers}
        return urllib3.request("POST", url, body=content, headers=full, timeout=600, retries=False)

    def alert(self, audience: Audience, **changes: object) -> dict[str, object]:
        """A new SMS alert to everybody of an audience, as `send_alert` takes it."""
        return {
            "alert_id": str(clock.system.uuid7()),
            "title": "Flood",
            "severity": "urgent",
            "channels": ["sms"],
            "template_id": str(audience.template_id),
            "group_ids": [str(audience.group_id)],
            **changes,
        }

    def send(self, audience: Audience, **changes: object) -> tuple[str, dict[str, Any]]:
        """Send through the real operation: the alert's id and the answer."""
        alert = self.alert(audience, **changes)
        answer = self.rpc("send_alert", p_organisation_id=str(audience.organisation_id), p_alert=alert)
        return str(alert["alert_id"]), answer

    def forget_deliveries(self) -> None:
        """Empty what fan-outs and dispatchers filled, so that every run starts from the same tables."""
        self.sql.execute("truncate public.deliveries, public.delivery_events, private.queues, private.leases")
        self.sql.execute("checkpoint")

    def process_ids(self) -> dict[str, int]:
        return {name: each.pid for name, each in self.stack.running.items()}


@contextmanager
def raised(port_base: int, report: Report, environment: Mapping[str, str]) -> Iterator[Scene]:
    """A scene, gone without a trace afterwards. `environment`: settings for the functions of its stack."""
    home = Path(tempfile.mkdtemp(prefix="credoalert-bench-"))
    before = dict(os.environ)
    os.environ.update(environment)
    stack = Stack.of(home, port_base)
    try:
        report("starting a stack")
        stack.up(PARTS)
        token = access_token(stack.settings, OWNER)
        url = stack.settings.database_url(SUPERUSER, stack.settings.secrets.superuser_password)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as sql:
            _open_wide(sql)
            owner = sql.execute("select id from auth.users where email = %s", (OWNER,)).fetchone()
            assert owner is not None
            yield Scene(stack, sql, owner[0], token, Carriers(stack.settings.carriers_url), report)
    finally:
        report("stopping the stack")
        stack.down()
        shutil.rmtree(home)
        os.environ.clear()
        os.environ.update(before)


def _open_wide(sql: Sql) -> None:
    """No provider's pace: what is measured is ours."""
    sql.execute("update private.senders set segments_per_second = 1000000, burst = 1000000, tokens = 1000000")
