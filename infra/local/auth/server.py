"""The HTTP side of the stand-in: sign up, sign in, refresh, the own user, and all users by the secret key."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from aiohttp import web
from psycopg.errors import UniqueViolation
from psycopg.rows import dict_row

from infra.local.auth import users
from infra.local.auth.tokens import LIFETIME_SECONDS, Issuer, NotAuthorised, new_refresh_token
from infra.local.settings import Settings

log = logging.getLogger("auth")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MINIMUM_PASSWORD_CHARACTERS = 6


class Refusal(Exception):
    """An error in the form that Supabase Auth gives it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class AuthServer:
    """The routes, over one issuer and one database."""

    def __init__(self, settings: Settings) -> None:
        self._issuer = Issuer.of(settings)
        self._keys = settings.public_keys()
        self._url = settings.socket_url("supabase_auth_admin", settings.secrets.auth_password)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_errors_as_json], client_max_size=64 * 1024)
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/.well-known/jwks.json", self.keys),
                web.post("/signup", self.sign_up),
                web.post("/token", self.token),
                web.post("/logout", self.sign_out),
                web.get("/user", self.show_self),
                web.put("/user", self.change_self),
                web.get("/admin/users", self.list_users),
                web.post("/admin/users", self.create_user),
                web.get("/admin/users/{id}", self.show_user),
                web.put("/admin/users/{id}", self.change_user),
                web.delete("/admin/users/{id}", self.delete_user),
            ]
        )
        return application

    async def health(self, _: web.Request) -> web.Response:
        async with self._database() as connection:
            await connection.execute("select 1 from auth.users limit 1")
        return web.json_response(
            {"name": "GoTrue", "version": "local", "description": "stand-in of CredoAlert"}
        )

    async def keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": self._keys}, headers={"Cache-Control": "public, max-age=600"})

    async def sign_up(self, request: web.Request) -> web.Response:
        wanted = _credentials(await _body(request))
        async with self._database() as connection:
            return await self._session(connection, await _create(connection, wanted))

    async def token(self, request: web.Request) -> web.Response:
        body = await _body(request)
        async with self._database() as connection:
            match request.query.get("grant_type"):
                case "password":
                    email, password = str(body.get("email", "")), str(body.get("password", ""))
                    user = await users.check_password(connection, email, password)
                    if user is None:
                        raise Refusal(400, "invalid_credentials", "Invalid login credentials")
                    return await self._session(connection, user)
                case "refresh_token":
                    return await self._refresh(connection, str(body.get("refresh_token", "")))
        raise Refusal(400, "validation_failed", "unsupported_grant_type")

    async def sign_out(self, request: web.Request) -> web.Response:
        async with self._database() as connection:
            await users.end_sessions(connection, self._caller(request))
        return web.Response(status=204)

    async def show_self(self, request: web.Request) -> web.Response:
        async with self._database() as connection:
            return _shown(await users.find(connection, self._caller(request)))

    async def change_self(self, request: web.Request) -> web.Response:
        wanted = await _body(request)
        allowed: dict[str, Any] = {name: wanted.get(name) for name in ("email", "password", "data")}
        async with self._database() as connection:
            return _shown(await users.change(connection, self._caller(request), allowed))

    async def list_users(self, request: web.Request) -> web.Response:
        self._require_service(request)
        number, size = _number(request, "page", 1), _number(request, "per_page", 50)
        async with self._database() as connection:
            found = await users.page(connection, number, min(size, 1000))
        return web.json_response({"users": [users.as_json(row) for row in found], "aud": "authenticated"})

    async def create_user(self, request: web.Request) -> web.Response:
        self._require_service(request)
        wanted = await _body(request)
        if not wanted.get("email"):
            raise Refusal(400, "validation_failed", "Cannot create a user without either an email or phone")
        async with self._database() as connection:
            return _shown(await _create(connection, wanted))

    async def show_user(self, request: web.Request) -> web.Response:
        self._require_service(request)
        async with self._database() as connection:
            return _shown(await users.find(connection, _user_id(request)))

    async def change_user(self, request: web.Request) -> web.Response:
        self._require_service(request)
        wanted = await _body(request)
        async with self._database() as connection:
            return _shown(await users.change(connection, _user_id(request), wanted))

    async def delete_user(self, request: web.Request) -> web.Response:
        self._require_service(request)
        async with self._database() as connection:
            if not await users.remove(connection, _user_id(request)):
                raise Refusal(404, "user_not_found", "User not found")
        return web.json_response({})

    async def _session(
        self, connection: users.Connection, row: dict[str, Any], session_id: UUID | None = None
    ) -> web.Response:
        session_id = session_id or uuid4()
        user, refresh_token = users.as_json(row), new_refresh_token()
        await users.begin_session(connection, row["id"], session_id, refresh_token)
        token = self._issuer.sign(user, session_id)
        return web.json_response(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": LIFETIME_SECONDS,
                "refresh_token": refresh_token,
                "user": user,
            }
        )

    async def _refresh(self, connection: users.Connection, refresh_token: str) -> web.Response:
        used = await users.use_refresh_token(connection, refresh_token)
        user = await users.find(connection, used[0]) if used else None
        if used is None or user is None:
            raise Refusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        return await self._session(connection, user, used[1])

    def _caller(self, request: web.Request) -> UUID:
        return UUID(self._issuer.user_claims(request.headers.get("Authorization", ""))["sub"])

    def _require_service(self, request: web.Request) -> None:
        self._issuer.require_service(request.headers.get("Authorization", ""))

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[users.Connection]:
        """One transaction on a connection of its own: slow enough to matter in no local use, and nothing to mend."""
        async with await psycopg.AsyncConnection.connect(self._url, row_factory=dict_row) as connection:
            yield connection


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as error:
        return _error(error.status, error.code, error.message)
    except NotAuthorised:
        return _error(401, "bad_jwt", "invalid JWT: unable to parse or verify signature")
    except psycopg.Error as error:
        log.error("%s %s: %s", request.method, request.path, error)
        return _error(500, "unexpected_failure", "Database error")


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": status, "error_code": code, "msg": message}, status=status)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "bad_json", "Could not parse request body as JSON")
    return body


def _credentials(body: dict[str, Any]) -> dict[str, Any]:
    email, password = str(body.get("email", "")), str(body.get("password", ""))
    if "@" not in email:
        raise Refusal(400, "validation_failed", "Unable to validate email address: invalid format")
    if len(password) < MINIMUM_PASSWORD_CHARACTERS:
        raise Refusal(422, "weak_password", "Password should be at least 6 characters.")
    return {"email": email, "password": password, "data": body.get("data")}


async def _create(connection: users.Connection, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        return await users.create(connection, wanted)
    except UniqueViolation as error:
        raise Refusal(
            422, "email_exists", "A user with this email address has already been registered"
        ) from error


def _user_id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError as error:
        raise Refusal(404, "validation_failed", "user_id must be an UUID") from error


def _number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, "")
    return max(int(value), 1) if value.isdecimal() else default


def _shown(row: dict[str, Any] | None) -> web.Response:
    if row is None:
        raise Refusal(404, "user_not_found", "User not found")
    return web.json_response(users.as_json(row))
