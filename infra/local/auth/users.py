"""Users and sessions in the database: auth.users (bcrypt, as Supabase Auth has it) and auth.refresh_tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

Connection = AsyncConnection[DictRow]

COLUMNS = """
  id, aud, role, email, phone, email_confirmed_at, last_sign_in_at, raw_app_meta_data, raw_user_meta_data,
  created_at, updated_at, is_anonymous
"""


async def create(connection: Connection, wanted: Mapping[str, Any]) -> DictRow:
    """Make a user from {id?, email, password?, user_metadata?, app_metadata?}. Raises UniqueViolation."""
    return await _one(
        connection,
        f"""
        insert into auth.users (
          id, email, encrypted_password, email_confirmed_at, raw_user_meta_data, raw_app_meta_data
        )
        values (
          coalesce(%(id)s::uuid, gen_random_uuid()),
          lower(%(email)s::text),
          extensions.crypt(%(password)s::text, extensions.gen_salt('bf')),
          now(),
          coalesce(%(user_metadata)s::jsonb, '{{}}'),
          '{{"provider": "email", "providers": ["email"]}}'::jsonb || coalesce(%(app_metadata)s::jsonb, '{{}}')
        )
        returning {COLUMNS}
        """,
        _values(wanted),
    )


async def change(connection: Connection, user_id: UUID, wanted: Mapping[str, Any]) -> DictRow | None:
    """Change what `wanted` names, of the same members as `create`; metadata is merged. None: there is no such user."""
    return await _one_or_none(
        connection,
        f"""
        update auth.users
        set email = coalesce(lower(%(email)s::text), email),
          encrypted_password =
            coalesce(extensions.crypt(%(password)s::text, extensions.gen_salt('bf')), encrypted_password),
          raw_user_meta_data = raw_user_meta_data || coalesce(%(user_metadata)s::jsonb, '{{}}'),
          raw_app_meta_data = raw_app_meta_data || coalesce(%(app_metadata)s::jsonb, '{{}}'),
          updated_at = now()
        where id = %(user_id)s
        returning {COLUMNS}
        """,
        {**_values(wanted), "user_id": user_id},
    )


async def check_password(connection: Connection, email: str, password: str) -> DictRow | None:
    """The user with this e-mail address and password, signed in now; None when either is wrong."""
    return await _one_or_none(
        connection,
        f"""
        update auth.users
        set last_sign_in_at = now()
        where lower(email) = lower(%(email)s::text)
          and encrypted_password = extensions.crypt(%(password)s::text, encrypted_password)
          and coalesce(banned_until, now()) <= now()
        returning {COLUMNS}
        """,
        {"email": email, "password": password},
    )


async def find(connection: Connection, user_id: UUID) -> DictRow | None:
    return await _one_or_none(
        connection, f"select {COLUMNS} from auth.users where id = %(id)s", {"id": user_id}
    )


async def page(connection: Connection, number: int, size: int) -> list[DictRow]:
    """One page of all users, the newest first; pages count from 1."""
    cursor = await connection.execute(
        f"select {COLUMNS} from auth.users order by created_at desc, id limit %(size)s offset %(skip)s",
        {"size": size, "skip": (number - 1) * size},
    )
    return await cursor.fetchall()


async def remove(connection: Connection, user_id: UUID) -> bool:
    """Delete a user and everything that cascades from it; False: there is no such user."""
    cursor = await connection.execute("delete from auth.users where id = %(id)s", {"id": user_id})
    return cursor.rowcount == 1


async def begin_session(connection: Connection, user_id: UUID, session_id: UUID, refresh_token: str) -> None:
    await connection.execute(
        "insert into auth.refresh_tokens (token_hash, user_id, session_id) values (%s, %s, %s)",
        (_hash(refresh_token), user_id, session_id),
    )


async def use_refresh_token(connection: Connection, refresh_token: str) -> tuple[UUID, UUID] | None:
    """The user and session of a refresh token, used up by this call; None when it is unknown or was used before."""
    row = await _one_or_none(
        connection,
        """
        update auth.refresh_tokens
        set used_at = now()
        where token_hash = %(hash)s and used_at is null
        returning user_id, session_id
        """,
        {"hash": _hash(refresh_token)},
    )
    return (row["user_id"], row["session_id"]) if row else None


async def end_sessions(connection: Connection, user_id: UUID) -> None:
    await connection.execute("delete from auth.refresh_tokens where user_id = %s", (user_id,))


def as_json(row: DictRow) -> dict[str, Any]:
    """A user as Supabase Auth shows it."""
    moments = ("email_confirmed_at", "last_sign_in_at", "created_at", "updated_at")
    return {
        "id": str(row["id"]),
        "aud": row["aud"],
        "role": row["role"],
        "email": row["email"] or "",
        "phone": row["phone"] or "",
        "app_metadata": row["raw_app_meta_data"] or {},
        "user_metadata": row["raw_user_meta_data"] or {},
        "identities": [],
        "is_anonymous": row["is_anonymous"],
        **{name: row[name].isoformat() if row[name] else None for name in moments},
    }


def _values(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": wanted.get("id"),
        "email": wanted.get("email"),
        "password": wanted.get("password"),
        "user_metadata": _document(wanted.get("user_metadata") or wanted.get("data")),
        "app_metadata": _document(wanted.get("app_metadata")),
    }


def _document(value: object) -> Jsonb | None:
    return Jsonb(value) if isinstance(value, dict) else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def _one(connection: Connection, query: str, values: Mapping[str, Any]) -> DictRow:
    row = await _one_or_none(connection, query, values)
    assert row is not None
    return row


async def _one_or_none(connection: Connection, query: str, values: Mapping[str, Any]) -> DictRow | None:
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchone()
