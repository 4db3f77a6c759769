"""send-alert through the gateway: quotes, sends, and a clear problem for every kind of bad input."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local.auth.tokens import Issuer
from infra.local.settings import KEY_ID, Settings
from infra.local.stack import Stack
from shared import clock
from tests.support.api import Member, make_member
from tests.support.scene import Scene, make_scene

CANARY = "canary-7f3a"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def scene(settings: Settings) -> Scene:
    import psycopg

    with psycopg.connect(settings.db_url, autocommit=True) as sql:
        return make_scene(settings, sql, 3)


def _post(settings: Settings, body: bytes, path: str = "/", **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request(
        "POST",
        f"{settings.functions_url}/send-alert{path}",
        body=body,
        headers=names,
        retries=False,
        timeout=30,
    )


def _problem(answer: Any, settings: Settings) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.data)
    assert problem["status"] == answer.status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.data.decode()
    assert CANARY not in _log(settings)
    return problem


def _log(settings: Settings) -> str:
    return (settings.logs / "send-alert.log").read_text()


def _send(scene: Scene, body: bytes, **headers: str) -> Any:
    given = {"content_type": "application/json", "authorization": f"Bearer {scene.owner.token}"} | headers
    return _post(scene.owner.settings, body, **given)


def test_a_quote_is_what_a_send_reserves(scene: Scene) -> None:
    alert = scene.alert()
    quote = scene.owner.function("send-alert", alert, "/quote")
    assert quote.status == 200
    assert (quote.json["recipients"], quote.json["planned"]) == (3, 3)
    sent = scene.owner.function("send-alert", alert)
    assert sent.status == 202
    assert sent.json["credits_reserved"] == quote.json["credits"] > 0


def test_a_repeat_gets_the_first_answer_and_another_request_under_its_id_is_refused(scene: Scene) -> None:
    alert = scene.alert()
    first, again = scene.owner.function("send-alert", alert), scene.owner.function("send-alert", alert)
    assert (first.status, again.status) == (202, 202)
    assert again.json == first.json | {"repeated": True}
    other = scene.owner.function("send-alert", alert | {"title": "Autre"})
    assert (other.status, other.json["code"]) == (409, "alert_id_taken")


def test_a_send_is_answered_although_no_dispatcher_is_there(scene: Scene, stack: Stack) -> None:
    for name in ("dispatch-deliveries-1", "dispatch-deliveries-2"):
        stack.stop(name)
    try:
        started = time.monotonic()
        assert scene.send().status == 202
        assert time.monotonic() - started < 5
    finally:
        stack.up(["functions"])


BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "json_malformed"),
    "malformed JSON": (b'{"title": "' + CANARY.encode(), 400, "json_malformed"),
    "not UTF-8": (b'{"title": "\xff"}', 400, "json_malformed"),
    "an array": (b"[]", 422, "body_invalid"),
    "nested too deep": (b'{"title":' * 50_000, 400, "json_malformed"),
    "over 1 MiB": (b'{"title": "' + b"x" * MIB + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_can_not_be_read_is_refused(scene: Scene, name: str) -> None:
    body, status, code = BAD_BODIES[name]
    answer = _send(scene, body)
    assert (answer.status, _problem(answer, scene.owner.settings)["code"]) == (status, code)


def test_a_body_over_the_limit_is_refused_though_it_tells_no_length(scene: Scene) -> None:
    settings = scene.owner.settings
    answer = urllib3.request(
        "POST",
        f"{settings.functions_url}/send-alert/",
        body=(b"x" * 65536 for _ in range(20)),
        headers={"content-type": "application/json", "authorization": f"Bearer {scene.owner.token}"},
        retries=False,
    )
    assert answer.status == 413


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({CANARY: 1}, f"/{CANARY}"),
    "a wrong type": ({"title": 7}, "/title"),
    "control characters": ({"title": f"{CANARY}\r\nBcc: x"}, "/title"),
    "a NUL": ({"title": f"{CANARY}\x00"}, "/title"),
    "an unknown channel": ({"channels": ["fax"]}, "/channels/0"),
    "no channel": ({"channels": []}, "/channels"),
    "a channel twice": ({"channels": ["sms", "sms"]}, "/channels"),
    "an unknown severity": ({"severity": CANARY}, "/severity"),
    "no audience": ({"group_ids": [], "contact_ids": []}, ""),
    "too many groups": ({"group_ids": [str(uuid4()) for _ in range(101)]}, "/group_ids"),
    "an instant without offset": ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
    "an id of another version": ({"alert_id": str(uuid4())}, "/alert_id"),
    "a server's field": ({"state": "approved"}, "/state"),
}


@pytest.mark.parametrize("path", ["/", "/quote"])
@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_body_of_the_wrong_shape_is_refused_by_its_place(scene: Scene, name: str, path: str) -> None:
    changes, pointer = BAD_VALUES[name]
    reply = scene.owner.function("send-alert", scene.alert(**changes), path)
    assert (reply.status, reply.json["code"]) == (422, "body_invalid")
    assert [error["pointer"] for error in reply.json["errors"]] == [pointer]


def _foreign(scene: Scene, sql: Any) -> Scene:
    return make_scene(scene.owner.settings, sql, 1)


Changes = Callable[[Scene, Scene], dict[str, Any]]
REFUSALS: dict[str, tuple[Changes, int, str]] = {
    "another organisation's group": (
        lambda _, other: {"group_ids": [other.group_id]},
        404,
        "group_not_found",
    ),
    "another organisation's template": (
        lambda _, other: {"template_id": other.template_id},
        404,
        "template_not_found",
    ),
    "nobody's contact": (
        lambda *_: {"group_ids": [], "contact_ids": [str(uuid4())]},
        404,
        "contact_not_found",
    ),
    "a time in the past": (lambda *_: {"expires_at": "2020-01-01T00:00:00Z"}, 422, "expiry_past"),
    "an id from another day": (
        lambda *_: {"alert_id": "0198c0de-0000-7000-8000-000000000001"},
        422,
        "alert_id_invalid",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_database_refuses_is_told_with_its_status(scene: Scene, sql: Any, name: str) -> None:
    changes, status, code = REFUSALS[name]
    reply = scene.owner.function("send-alert", scene.alert(**changes(scene, _foreign(scene, sql))))
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_an_empty_group_is_no_audience(scene: Scene, sql: Any) -> None:
    group = str(uuid4())
    sql.execute("insert into public.groups values (%s, %s, 'vide')", (scene.organisation_id, group))
    reply = scene.send(group_ids=[group])
    assert (reply.status, reply.json["code"]) == (422, "audience_empty")


def test_too_few_credits_tell_need_and_have(settings: Settings, sql: Any) -> None:
    poor = make_scene(settings, sql, 2, credits=0)
    reply = poor.send()
    assert (reply.status, reply.json["code"]) == (402, "credits_insufficient")
    assert reply.json["need"] > reply.json["have"] == 0
    count = sql.execute(
        "select count(*) from public.deliveries where organisation_id = %s", (poor.organisation_id,)
    )
    assert count.fetchone() == (0,)  # nothing half-done


def test_a_variable_that_is_missing_names_the_contacts(scene: Scene) -> None:
    content = {"channel": "sms", "language": "fr", "subject": None, "body": "Étage {{floor}}", "html": None}
    saved = scene.owner.rpc(
        "save_template",
        p_organisation_id=scene.organisation_id,
        p_template={"name": "Étage", "contents": [content]},
    )
    reply = scene.send(template_id=saved.json["template_id"])
    assert (reply.status, reply.json["code"]) == (422, "variable_missing")
    contacts = scene.owner.get("contacts", select="id", organisation_id=f"eq.{scene.organisation_id}").json
    assert {named["contact_id"] for named in reply.json["contacts"]} == {
        contact["id"] for contact in contacts
    }
    assert scene.send(template_id=saved.json["template_id"], variables={"floor": "3"}).status == 202


def test_a_country_without_a_price_is_named(scene: Scene) -> None:
    person = {
        "name": "Loin",
        "external_id": "loin",
        "addresses": [{"kind": "phone", "value": "+85512345678"}],
    }
    scene.owner.rpc("import_contacts", p_organisation_id=scene.organisation_id, p_contacts=[person])
    found = scene.owner.get(
        "contacts", select="id", organisation_id=f"eq.{scene.organisation_id}", external_id="eq.loin"
    )
    reply = scene.send(group_ids=[], contact_ids=[found.json[0]["id"]])
    assert (reply.status, reply.json["code"]) == (422, "price_missing")


@pytest.mark.parametrize(
    ("role", "status"), [("viewer", 403), ("billing", 403), ("privacy", 403), ("sender", 202)]
)
def test_a_role_decides_who_sends(scene: Scene, settings: Settings, sql: Any, role: str, status: int) -> None:
    member = make_member(settings, sql)
    sql.execute(
        "insert into public.memberships (organisation_id, user_id, role) values (%s, %s, %s)",
        (scene.organisation_id, member.id, role),
    )
    assert member.function("send-alert", scene.alert()).status == status


def test_a_stranger_to_the_organisation_learns_nothing(scene: Scene, settings: Settings, sql: Any) -> None:
    stranger = make_member(settings, sql)
    reply = stranger.function("send-alert", scene.alert())
    unknown = stranger.function("send-alert", scene.alert(organisation_id=str(uuid4())))
    assert reply.status == unknown.status in (403, 404)
    assert reply.json["code"] == unknown.json["code"]


def _claims(member: Member, settings: Settings, **changes: Any) -> dict[str, Any]:
    claims = {
        "sub": str(member.id),
        "aud": "authenticated",
        "role": "authenticated",
        "iss": settings.jwt_issuer,
        "exp": int(time.time()) + 600,
    }
    return claims | changes


def _signed(member: Member, settings: Settings, **changes: Any) -> str:
    key = Issuer.of(settings).private_key
    return jwt.encode(_claims(member, settings, **changes), key, "ES256", headers={"kid": KEY_ID})


def _unsigned(member: Member, settings: Settings) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": KEY_ID}).encode()).rstrip(b"=")
    return f"{header.decode()}.{_signed(member, settings).split('.')[1]}."


def _self_signed(member: Member, settings: Settings) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(_claims(member, settings), key, "ES256", headers={"kid": KEY_ID})


TOKENS: dict[str, Callable[[Member, Settings], str]] = {
    "none": lambda *_: "",
    "garbage": lambda *_: "Bearer garbage",
    "another scheme": lambda member, _: f"Basic {member.token}",
    "expired": lambda m, s: f"Bearer {_signed(m, s, exp=int(time.time()) - 60)}",
    "another audience": lambda m, s: f"Bearer {_signed(m, s, aud='anon')}",
    "another issuer": lambda m, s: f"Bearer {_signed(m, s, iss='https://evil.example')}",
    "the service's role": lambda m, s: f"Bearer {_signed(m, s, role='service_role')}",
    "alg none": lambda m, s: f"Bearer {_unsigned(m, s)}",
    "self-signed": lambda m, s: f"Bearer {_self_signed(m, s)}",
    "the publishable key": lambda _, s: f"Bearer {s.secrets.publishable_key}",
    "the secret key": lambda _, s: f"Bearer {s.secrets.secret_key}",
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_not_ours_is_refused(scene: Scene, settings: Settings, name: str) -> None:
    authorization = TOKENS[name](scene.owner, settings)
    answer = _send(scene, json.dumps(scene.alert()).encode(), authorization=authorization)
    assert (answer.status, _problem(answer, settings)["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_an_older_projects_token_still_works(scene: Scene, settings: Settings) -> None:
    token = jwt.encode(_claims(scene.owner, settings), settings.secrets.jwt_secret, "HS256")
    assert _send(scene, json.dumps(scene.alert()).encode(), authorization=f"Bearer {token}").status == 202


def test_paths_methods_and_media_types(scene: Scene, settings: Settings) -> None:
    assert _post(settings, b"{}", "/nowhere").status == 404
    got = urllib3.request("GET", f"{settings.functions_url}/send-alert/quote", retries=False)
    assert (got.status, got.headers["allow"]) == (405, "POST")
    assert _send(scene, b"{}", content_type="text/plain").status == 415


def test_the_request_id_goes_from_the_edge_to_the_log(scene: Scene, settings: Settings) -> None:
    request_id = f"req-{clock.system.uuid4().hex}"
    reply = scene.owner.function("send-alert", scene.alert(), **{"X-Request-Id": request_id})
    assert reply.headers["X-Request-Id"] == request_id
    lines = [json.loads(line) for line in _log(settings).splitlines() if request_id in line]
    requests = [line for line in lines if line["event"] == "request"]  # the kick may have said something too
    assert [(line["route"], line["status"]) for line in requests] == [("POST /", 202)]
