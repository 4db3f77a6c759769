"""Callers of the API: plain HTTP to the gateway, so that a test sees exactly what a stranger or a member sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import psycopg
import urllib3
from psycopg.rows import dict_row

from infra.local.auth import users
from infra.local.auth.tokens import Issuer
from infra.local.settings import Settings

TIMEOUT_SECONDS = 60.0


@dataclass(slots=True, frozen=True)
class Reply:
    """What came back: the status, the JSON document (or the text when it is none) and the headers."""

    status: int
    json: Any
    headers: Mapping[str, str]


class Caller:
    """Somebody who calls with an API key and perhaps a token."""

    def __init__(self, settings: Settings, key: str, token: str | None = None) -> None:
        self.settings = settings
        self.key = key
        self.token = token
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, timeout=TIMEOUT_SECONDS)

    def rpc(self, name: str, **arguments: Any) -> Reply:
        """Call a function of the database, e.g. `rpc("quote_alert", p_organisation_id=..., p_alert=...)`."""
        return self.request("POST", f"{self.settings.api_url}/rest/v1/rpc/{name}", arguments)

    def get(self, table: str, **query: str) -> Reply:
        """Rows, e.g. `get("contacts", select="id,name", organisation_id="eq.<id>")`."""
        return self.request("GET", self._table(table), fields=query)

    def post(self, table: str, rows: Any, **query: str) -> Reply:
        return self.request("POST", self._table(table, query), rows)

    def patch(self, table: str, changes: Mapping[str, Any], **query: str) -> Reply:
        return self.request("PATCH", self._table(table, query), changes)

    def delete(self, table: str, **query: str) -> Reply:
        return self.request("DELETE", self._table(table, query))

    def function(self, name: str, body: Any, path: str = "/", **headers: str) -> Reply:
        """POST to a deployed function, e.g. `function("send-alert", {...}, "/quote")`."""
        return self.request("POST", f"{self.settings.functions_url}/{name}{path}", body, headers=headers)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Any request with this caller's key and token; inserted and changed rows come back."""
        own = {"apikey": self.key, "Prefer": "return=representation"}
        if self.token:
            own["Authorization"] = f"Bearer {self.token}"
        extra: dict[str, Any] = {} if body is None else {"json": body}
        if fields:
            extra["fields"] = dict(fields)
        answer = self._pool.request(method, url, headers={**own, **(headers or {})}, **extra)
        try:
            document = answer.json() if answer.data else None
        except ValueError:
            document = answer.data.decode(errors="replace")
        return Reply(answer.status, document, dict(answer.headers))

    def _table(self, name: str, query: Mapping[str, str] | None = None) -> str:
        url = f"{self.settings.api_url}/rest/v1/{name}"
        return f"{url}?{urlencode(query)}" if query else url


class Member(Caller):
    """A person who signed in."""

    def __init__(self, settings: Settings, user_id: UUID, email: str, token: str) -> None:
        super().__init__(settings, settings.secrets.publishable_key, token)
        self.id = user_id
        self.email = email


def make_member(settings: Settings, sql: psycopg.Connection[Any], email: str | None = None) -> Member:
    """A new user with a valid token: straight into auth.users and from the home's key, for speed."""
    user_id = uuid4()
    email = email or f"member-{user_id.hex[:12]}@example.com"
    insert = "insert into auth.users (id, email, email_confirmed_at) values (%s, %s, now()) returning "
    with sql.cursor(row_factory=dict_row) as cursor:
        user = cursor.execute((insert + users.COLUMNS).encode(), (user_id, email)).fetchone()
    assert user is not None
    return Member(settings, user_id, email, Issuer.of(settings).sign(users.as_json(user), uuid4()))
