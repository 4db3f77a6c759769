"""Access tokens for local users: through the API with a password, or straight from the home's own key without."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

import psycopg
import urllib3
from psycopg.rows import dict_row

from infra.local.auth import users
from infra.local.auth.tokens import Issuer
from infra.local.settings import LocalStackError, Settings


def access_token(settings: Settings, email: str, password: str = "") -> str:
    """An access token for `email`, who is made when there is no such user yet. Raises LocalStackError."""
    user = _find(settings, email) or _create(settings, email, password or secrets.token_urlsafe(16))
    if not password:
        return Issuer.of(settings).sign(user, uuid4())
    status, session = _call(settings, "/token?grant_type=password", {"email": email, "password": password})
    if status != 200:
        raise LocalStackError(f"sign-in as {email} was refused: {session.get('msg', status)}")
    return str(session["access_token"])


def _find(settings: Settings, email: str) -> dict[str, Any] | None:
    query = f"select {users.COLUMNS} from auth.users where lower(email) = lower(%s)"
    with psycopg.connect(settings.db_url, row_factory=dict_row) as connection:
        row = connection.execute(query.encode(), (email,)).fetchone()
    return users.as_json(row) if row else None


def _create(settings: Settings, email: str, password: str) -> dict[str, Any]:
    status, user = _call(
        settings, "/admin/users", {"email": email, "password": password, "email_confirm": True}
    )
    if status != 200:
        raise LocalStackError(f"the user can't be made: {user.get('msg', status)}")
    return user


def _call(settings: Settings, path: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    url, headers = f"{settings.api_url}/auth/v1{path}", {"apikey": settings.secrets.secret_key}
    try:
        answer = urllib3.request("POST", url, json=body, headers=headers, timeout=10, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise LocalStackError(f"sign-in does not answer: {error}") from error
    return answer.status, answer.json()
