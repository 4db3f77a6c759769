"""What the stack offers to clients: keys, roles, sign-in, storage and functions, as a hosted project would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import boto3
import jwt
import psycopg
import pytest
from botocore.config import Config

from infra.local.settings import Settings
from infra.local.stack import Stack
from supabase import Client, create_client
from tests.support.api import Caller, Member

Sql = psycopg.Connection[Any]
PASSWORD = "correct horse battery"


@pytest.fixture
def echo(sql: Sql, service: Caller) -> Iterator[None]:
    """A function that says who calls, open to everybody; it is gone after the test."""
    sql.execute(
        """
        create function public.test_caller() returns jsonb language sql stable security invoker as $$
          select jsonb_build_object(
            'role', current_user, 'uid', auth.uid(), 'email', auth.email(),
            'timeout', current_setting('statement_timeout')
          )
        $$;
        grant execute on function public.test_caller() to anon, authenticated, service_role;
        notify pgrst, 'reload schema'
        """
    )
    deadline = time.monotonic() + 10
    while service.rpc("test_caller").status == 404 and time.monotonic() < deadline:
        time.sleep(0.05)  # PostgREST reads the schema anew
    yield
    sql.execute("drop function public.test_caller(); notify pgrst, 'reload schema'")


def test_keys_stand_for_roles(
    echo: None, service: Caller, stranger: Caller, new_member: Callable[..., Member]
) -> None:
    member = new_member()
    replies = [caller.rpc("test_caller") for caller in (stranger, member, service)]
    assert [reply.status for reply in replies] == [200, 200, 200], replies
    assert [reply.json["role"] for reply in replies] == ["anon", "authenticated", "service_role"]
    assert [reply.json["timeout"] for reply in replies] == ["3s", "8s", "8s"]
    assert replies[1].json["uid"] == str(member.id)
    assert replies[1].json["email"] == member.email


def test_key_may_be_sent_as_bearer_too(echo: None, service: Caller, settings: Settings) -> None:
    caller = Caller(settings, service.key, service.key)
    assert caller.rpc("test_caller").json["role"] == "service_role"


@pytest.mark.parametrize("key", ["", "sb_secret_forged", "sb_publishable_forged"])
@pytest.mark.parametrize("path", ["/rest/v1/organisations", "/auth/v1/admin/users"])
def test_without_a_known_key_nothing_answers(settings: Settings, key: str, path: str) -> None:
    assert Caller(settings, key).request("GET", settings.api_url + path).status == 401


@pytest.mark.parametrize("fault", ["expired", "alg none", "another key", "role postgres"])
def test_bad_tokens_are_refused(echo: None, settings: Settings, fault: str) -> None:
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": str(uuid4()),
        "role": "authenticated",
        "aud": "authenticated",
        "exp": now + 60,
    }
    match fault:
        case "expired":
            token = jwt.encode(
                claims | {"exp": now - 60}, settings.secrets.jwt_private_key, algorithm="ES256"
            )
        case "alg none":
            token = jwt.encode(claims, "", algorithm="none")
        case "role postgres":
            token = jwt.encode(
                claims | {"role": "postgres"}, settings.secrets.jwt_private_key, algorithm="ES256"
            )
        case _:
            token = jwt.encode(claims, "x" * 48, algorithm="HS256")
    reply = Caller(settings, settings.secrets.publishable_key, token).rpc("test_caller")
    assert reply.status in {401, 403}, reply


def test_anonymous_strangers_reach_no_table(sql: Sql, stranger: Caller) -> None:
    tables = sql.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    assert tables
    assert {stranger.get(table, limit="1").status for (table,) in tables} == {401}


def test_official_client_signs_up_signs_in_refreshes_and_signs_out(settings: Settings) -> None:
    client = _client(settings, settings.secrets.publishable_key)
    email = f"{uuid4().hex}@example.com"
    client.auth.sign_up({"email": email, "password": PASSWORD})
    session = client.auth.sign_in_with_password({"email": email, "password": PASSWORD}).session
    assert session is not None
    claims = jwt.decode(
        session.access_token,
        jwt.PyJWKClient(f"{settings.jwt_issuer}/.well-known/jwks.json").get_signing_key_from_jwt(
            session.access_token
        ),
        algorithms=["ES256"],
        audience="authenticated",
        issuer=settings.jwt_issuer,
    )
    assert (claims["email"], claims["role"], claims["exp"] - claims["iat"]) == (email, "authenticated", 3600)
    user = client.auth.get_user()
    assert user is not None
    assert user.user.email == email
    refreshed = client.auth.refresh_session().session
    assert refreshed is not None
    assert refreshed.refresh_token != session.refresh_token
    with pytest.raises(Exception, match="Refresh Token"):
        _client(settings, settings.secrets.publishable_key).auth.refresh_session(session.refresh_token)
    client.auth.sign_out()


def test_official_client_manages_users_with_the_secret_key_only(settings: Settings) -> None:
    admin = _client(settings, settings.secrets.secret_key).auth.admin
    email = f"{uuid4().hex}@example.com"
    made = admin.create_user({"email": email, "password": PASSWORD, "email_confirm": True}).user
    assert admin.get_user_by_id(made.id).user.email == email
    with pytest.raises(Exception, match="already been registered"):
        admin.create_user({"email": email.upper(), "password": PASSWORD})
    assert made.id in {user.id for user in admin.list_users(per_page=1000)}
    admin.delete_user(made.id)
    with pytest.raises(Exception, match="not found"):
        admin.get_user_by_id(made.id)
    with pytest.raises(Exception, match="JWT"):
        _client(settings, settings.secrets.publishable_key).auth.admin.list_users()


def test_wrong_password_is_refused(settings: Settings) -> None:
    client = _client(settings, settings.secrets.publishable_key)
    with pytest.raises(Exception, match="Invalid login credentials"):
        client.auth.sign_in_with_password({"email": "nobody@example.com", "password": PASSWORD})


def test_storage_keeps_an_object_and_gives_a_link(settings: Settings, stranger: Caller) -> None:
    storage = boto3.client(
        "s3",
        endpoint_url=settings.s3_url,
        region_name="us-east-1",
        aws_access_key_id=settings.secrets.s3_access_key,
        aws_secret_access_key=settings.secrets.s3_secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    storage.create_bucket(Bucket="exports")
    storage.put_object(Bucket="exports", Key="a/b.json", Body=b"[1, 2]")
    link = storage.generate_presigned_url("get_object", Params={"Bucket": "exports", "Key": "a/b.json"})
    assert stranger.request("GET", link).json == [1, 2]


def test_functions_answer_behind_the_gateway(stack: Stack, stranger: Caller) -> None:
    deployed = {name.removesuffix("-1").removesuffix("-2") for name in stack.running} & {
        *("send-alert", "delivery-webhook", "dispatch-deliveries")
    }
    assert deployed
    for name in deployed:
        assert stranger.request("GET", f"{stack.settings.functions_url}/{name}/healthz").status == 204


def test_body_over_one_mebibyte_is_a_problem_document(stranger: Caller) -> None:
    reply = stranger.function("send-alert", {"text": "x" * 1024 * 1024})
    assert reply.status == 413
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["code"] == "body_too_large"


def test_migrations_are_recorded_as_supabase_does(sql: Sql) -> None:
    found = sql.execute("select count(*), min(name) from supabase_migrations.schema_migrations").fetchone()
    assert found is not None
    assert found[0] >= 5
    assert found[1]


def test_migration_role_is_no_superuser(sql: Sql) -> None:
    row = sql.execute("select rolsuper, rolbypassrls from pg_roles where rolname = current_user").fetchone()
    assert row == (False, True)


def test_database_is_durable(sql: Sql) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert sql.execute("select current_setting(%s)", (name,)).fetchone() == ("on",)


def _client(settings: Settings, key: str) -> Client:
    return create_client(settings.api_url, key)
