"""delivery-webhook through the gateway: what providers tell is stored once, what others invent is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
import urllib3
from twilio.request_validator import RequestValidator

from infra.local.settings import Settings
from infra.local.stack import Stack
from shared.signatures import LinkSigner
from shared.values import delivery_id
from tests.support.scene import make_scene
from tests.support.waiting import until

PHONE = "+33612345678"


def _new_delivery() -> str:
    return delivery_id(uuid4(), 17)


@dataclass(frozen=True)
class Callback:
    """One callback of Twilio, to be changed by a test before or after it is signed."""

    settings: Settings
    path: str
    fields: dict[str, str]
    delivery: str = field(default_factory=_new_delivery)
    attempt: int = 1
    more: str = ""

    @property
    def target(self) -> str:
        mac = LinkSigner(self.settings.secrets.link_secret).sign_link("delivery", self.delivery, self.attempt)
        return f"{self.path}?d={self.delivery}&a={self.attempt}&m={mac}{self.more}"

    def signature(self, target: str, token: str | None = None) -> str:
        validator = RequestValidator(token or self.settings.secrets.twilio_auth_token)
        url = f"{self.settings.functions_url}/delivery-webhook{target}"
        signature: str = validator.compute_signature(url, self.fields)
        return signature

    def post(self, target: str | None = None, signature: str | None = None, **headers: str) -> Any:
        target = self.target if target is None else target
        signed = self.signature(target) if signature is None else signature
        given = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": signed}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return _post(self.settings, target, urlencode(self.fields).encode(), given | names)


POOL = urllib3.PoolManager(maxsize=50, retries=False, timeout=30)


def _post(settings: Settings, target: str, body: bytes, headers: dict[str, str]) -> Any:
    return POOL.request(
        "POST", f"{settings.functions_url}/delivery-webhook{target}", body=body, headers=headers
    )


def _message(settings: Settings, status: str = "delivered", **changes: Any) -> Callback:
    fields = {"MessageSid": f"SM{uuid4().hex}", "MessageStatus": status, "To": PHONE, "From": "+15005550006"}
    return Callback(settings, "/twilio/message", fields, **changes)


def _stored(sql: Any, provider_id: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = sql.execute(
        "select kind, status, code, attempt, alert_id is not null from private.receipts where provider_id = %s"
        " order by received_at",
        (provider_id,),
    ).fetchall()
    return rows


def test_a_message_status_is_stored_once(stack: Stack, settings: Settings, sql: Any) -> None:
    callback = _message(settings)
    for _ in range(3):
        assert callback.post().status == 204
    assert _stored(sql, callback.fields["MessageSid"]) == [("message", "delivered", None, 1, True)]


def test_each_status_of_a_message_is_an_event_of_its_own(stack: Stack, settings: Settings, sql: Any) -> None:
    callback = _message(settings, "sent")
    callback.post()
    failed = replace(
        callback, fields=callback.fields | {"MessageStatus": "undelivered", "ErrorCode": "30003"}
    )
    assert failed.post().status == 204
    statuses = {(row[1], row[2]) for row in _stored(sql, callback.fields["MessageSid"])}
    assert statuses == {("sent", None), ("undelivered", "30003")}


def test_an_unknown_status_is_kept_as_it_came(stack: Stack, settings: Settings, sql: Any) -> None:
    callback = _message(settings, "beamed\x00up" + "x" * 100)
    assert callback.post().status == 204
    ((_, status, *_),) = _stored(sql, callback.fields["MessageSid"])
    assert status.startswith("beamed\ufffdup")


def test_a_call_status_keeps_its_time_and_its_machine(stack: Stack, settings: Settings, sql: Any) -> None:
    sid = f"CA{uuid4().hex}"
    fields = {
        "CallSid": sid,
        "CallStatus": "completed",
        "Timestamp": "Mon, 23 Nov 2020 12:00:00 +0000",
        "AnsweredBy": "machine_end_beep",
    }
    assert Callback(settings, "/twilio/call", fields).post().status == 204
    assert _stored(sql, sid) == [("call", "completed", "machine_end_beep", 1, True)]
    (at,) = sql.execute(
        "select occurred_at::text from private.receipts where provider_id = %s", (sid,)
    ).fetchone()
    assert at.startswith("2020-11-23 12:00:00")


def test_a_receipt_moves_its_delivery_and_a_replay_changes_nothing(
    stack: Stack, settings: Settings, sql: Any
) -> None:
    scene = make_scene(settings, sql, 1)
    alert = scene.alert(channels=["voice"])
    assert scene.owner.function("send-alert", alert).status == 202
    until(lambda: scene.report(alert["alert_id"])["answered"] == 1, seconds=30, what="the answer")
    sid, number = sql.execute(
        "select provider_id, number from public.deliveries where alert_id = %s", (alert["alert_id"],)
    ).fetchone()
    before = scene.report(alert["alert_id"])
    reference = delivery_id(UUID(alert["alert_id"]), number)
    for status in ("queued", "busy", "completed"):
        replayed = Callback(settings, "/twilio/call", {"CallSid": sid, "CallStatus": status}, reference)
        assert replayed.post().status == 204
    after = scene.report(alert["alert_id"])
    assert after["by_channel"] == before["by_channel"]
    assert after["credits"] == before["credits"]


def test_concurrent_callbacks_are_all_stored(stack: Stack, settings: Settings, sql: Any) -> None:
    callbacks = [_message(settings) for _ in range(150)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda callback: callback.post().status, callbacks))
    assert set(answers) == {204}
    sids = [callback.fields["MessageSid"] for callback in callbacks]
    count = sql.execute(
        "select count(*) from private.receipts where provider_id = any(%s)", (sids,)
    ).fetchone()
    assert count == (150,)


FORGED: dict[str, Callable[[Callback], Any]] = {
    "no signature": lambda c: c.post(signature=""),
    "a signature of something else": lambda c: c.post(signature=c.signature("/twilio/call?x=1")),
    "signed with another token": lambda c: c.post(signature=c.signature(c.target, "x" * 32)),
    "signed with an empty token": lambda c: c.post(signature=_empty_key_signature(c)),
    "a changed status": lambda c: replace(c, fields=c.fields | {"MessageStatus": "read"}).post(
        c.target, c.signature(c.target)
    ),
    "an added field": lambda c: replace(c, fields=c.fields | {"ErrorCode": "21610"}).post(
        c.target, c.signature(c.target)
    ),
    "another delivery in the url": lambda c: c.post(
        c.target.replace(c.delivery, _new_delivery()), c.signature(c.target)
    ),
    "another path": lambda c: c.post(c.target.replace("message", "call"), c.signature(c.target)),
    "an added query": lambda c: c.post(c.target + "&x=1", c.signature(c.target)),
    "a forged host": lambda c: c.post(
        signature=_signed_for_host(c, "evil.example"), x_forwarded_host="evil.example"
    ),
}


def _empty_key_signature(callback: Callback) -> str:
    url = f"{callback.settings.functions_url}/delivery-webhook{callback.target}"
    text = url + "".join(name + callback.fields[name] for name in sorted(callback.fields))
    return base64.b64encode(hmac.new(b"", text.encode(), hashlib.sha1).digest()).decode()


def _signed_for_host(callback: Callback, host: str) -> str:
    validator = RequestValidator(callback.settings.secrets.twilio_auth_token)
    url = f"https://{host}/functions/v1/delivery-webhook{callback.target}"
    signature: str = validator.compute_signature(url, callback.fields)
    return signature


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_callback_is_refused_and_leaves_nothing(
    stack: Stack, settings: Settings, sql: Any, name: str
) -> None:
    callback = _message(settings)
    answer = FORGED[name](callback)
    assert answer.status == 401
    assert json.loads(answer.data)["code"] == "signature_invalid"
    assert PHONE not in answer.data.decode()
    assert _stored(sql, callback.fields["MessageSid"]) == []


@pytest.mark.parametrize("change", ["no mac", "another attempt", "another delivery", "expired form"])
def test_a_url_that_we_did_not_make_is_refused_though_twilio_signed_it(
    stack: Stack, settings: Settings, sql: Any, change: str
) -> None:
    callback = _message(settings)
    mac = callback.target.rpartition("m=")[2]
    target = {
        "no mac": f"/twilio/message?d={callback.delivery}&a=1",
        "another attempt": f"/twilio/message?d={callback.delivery}&a=2&m={mac}",
        "another delivery": f"/twilio/message?d={_new_delivery()}&a=1&m={mac}",
        "expired form": f"/twilio/message?d={callback.delivery}&a=1&m=1.{mac}",
    }[change]
    answer = callback.post(target)
    assert (answer.status, json.loads(answer.data)["code"]) == (403, "link_invalid")
    assert _stored(sql, callback.fields["MessageSid"]) == []


@pytest.mark.parametrize("missing", ["MessageSid", "MessageStatus"])
def test_a_callback_without_its_fields_is_malformed(stack: Stack, settings: Settings, missing: str) -> None:
    callback = _message(settings)
    answer = replace(callback, fields={k: v for k, v in callback.fields.items() if k != missing}).post()
    assert (answer.status, json.loads(answer.data)["code"]) == (400, "callback_malformed")


def test_another_media_type_and_a_large_body_are_refused(stack: Stack, settings: Settings) -> None:
    callback = _message(settings)
    assert callback.post(content_type="application/json").status == 415
    large = replace(callback, fields=callback.fields | {"Body": "x" * 1024 * 1024})
    assert large.post().status == 413


def _sent(settings: Settings, sql: Any) -> str:
    """The reference of a real delivery."""
    scene = make_scene(settings, sql, 1)
    alert = scene.alert()
    assert scene.owner.function("send-alert", alert).status == 202
    (number,) = sql.execute(
        "select number from public.deliveries where alert_id = %s", (alert["alert_id"],)
    ).fetchone()
    return delivery_id(UUID(alert["alert_id"]), number)


@pytest.mark.parametrize(
    ("digits", "language", "said", "is_clear"),
    [
        ("1", "fr", "Merci", True),
        ("1", "xx", "Thank you", True),
        ("5", "fr", "pas été comprise", False),
        ("", "en", "not understood", False),
    ],
)
def test_a_key_press_is_kept_once_and_answered_in_the_language_of_the_call(
    stack: Stack, settings: Settings, sql: Any, digits: str, language: str, said: str, is_clear: bool
) -> None:
    reference = _sent(settings, sql)
    fields = {"CallSid": f"CA{uuid4().hex}", "Digits": digits}
    callback = Callback(settings, "/twilio/gather", fields, reference, more=f"&l={language}")
    for _ in range(2):
        answer = callback.post()
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/xml; charset=utf-8"
        twiml = answer.data.decode()
        assert said in twiml
        assert twiml.endswith("<Hangup /></Response>")
    kept = sql.execute(
        "select source, option, is_clear from public.responses where source_id = %s", (fields["CallSid"],)
    ).fetchall()
    assert kept == [("key_press", digits or "none", is_clear)]


def test_a_key_press_in_a_call_that_nobody_knows_is_answered_all_the_same(
    stack: Stack, settings: Settings
) -> None:
    fields = {"CallSid": f"CA{uuid4().hex}", "Digits": "1"}
    assert Callback(settings, "/twilio/gather", fields).post().status == 200


def test_an_inbound_message_is_kept_once(stack: Stack, settings: Settings, sql: Any) -> None:
    sid = f"SM{uuid4().hex}"
    fields = {
        "MessageSid": sid,
        "From": PHONE,
        "To": "+15005550006",
        "Body": "ARRET\x00 \U0001f6a8",
        "OptOutType": "STOP",
    }
    callback = Callback(settings, "/twilio/inbound", fields)
    for _ in range(2):
        assert callback.post("/twilio/inbound").status == 204
    kept = sql.execute(
        "select sender, body, opt_out_type from private.inbound_messages where provider_id = %s", (sid,)
    ).fetchall()
    assert kept == [(PHONE, "ARRET\ufffd \U0001f6a8", "STOP")]
    assert callback.post("/twilio/inbound", signature="x" * 28).status == 401
    assert PHONE not in (settings.logs / "delivery-webhook.log").read_text()


def _event(kind: str = "email.delivered", **data: Any) -> dict[str, Any]:
    tags = {"delivery": _new_delivery(), "attempt": "2"}
    made = {"email_id": str(uuid4()), "to": ["a@example.com"], "tags": tags} | data
    return {"type": kind, "created_at": "2026-01-02T03:04:05.000Z", "data": made}


def _svix(
    settings: Settings, body: bytes, *, at: float | None = None, secret: str | None = None
) -> dict[str, str]:
    secret = secret or settings.secrets.resend_webhook_secret
    key = base64.b64decode(secret.removeprefix("whsec_"))
    identifier, timestamp = f"msg_{uuid4().hex}", str(int(time.time() if at is None else at))
    signed = b".".join([identifier.encode(), timestamp.encode(), body])
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "svix-id": identifier,
        "svix-timestamp": timestamp,
        "svix-signature": f"v1,{signature}",
    }


def _resend(settings: Settings, event: Any, **how: Any) -> tuple[int, dict[str, str]]:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    headers = _svix(settings, body, **how)
    return _post(settings, "/resend", body, headers).status, headers


@pytest.mark.parametrize(
    ("kind", "data", "status", "code"),
    [
        ("email.delivered", {}, "delivered", None),
        (
            "email.bounced",
            {"bounce": {"type": "Permanent", "message": "no a@example.com"}},
            "bounced",
            "Permanent",
        ),
        ("email.failed", {"failed": {"reason": "reached_daily_quota"}}, "failed", "reached_daily_quota"),
        ("email.teleported", {}, "teleported", None),
    ],
)
def test_an_event_of_resend_is_stored(
    stack: Stack, settings: Settings, sql: Any, kind: str, data: dict[str, Any], status: str, code: str | None
) -> None:
    event = _event(kind, **data)
    assert _resend(settings, event)[0] == 204
    assert _stored(sql, event["data"]["email_id"]) == [("email", status, code, 2, True)]


def test_a_repeated_event_of_resend_has_one_effect(stack: Stack, settings: Settings, sql: Any) -> None:
    event = _event()
    body = json.dumps(event).encode()
    headers = _svix(settings, body)
    assert [_post(settings, "/resend", body, headers).status for _ in range(3)] == [204, 204, 204]
    assert len(_stored(sql, event["data"]["email_id"])) == 1


@pytest.mark.parametrize("tags", [None, [], {}, {"delivery": "x"}, {"delivery": 7, "attempt": "-1"}])
def test_an_event_without_our_reference_waits_in_the_inbox(
    stack: Stack, settings: Settings, sql: Any, tags: Any
) -> None:
    event = _event(tags=tags)
    assert _resend(settings, event)[0] == 204
    ((_, _, _, attempt, placed),) = _stored(sql, event["data"]["email_id"])
    assert (attempt, placed) == (None, False)


def test_tags_may_come_as_they_were_sent(stack: Stack, settings: Settings, sql: Any) -> None:
    tags = [{"name": "delivery", "value": _new_delivery()}, {"name": "attempt", "value": "3"}]
    event = _event(tags=tags)
    assert _resend(settings, event)[0] == 204
    assert _stored(sql, event["data"]["email_id"]) == [("email", "delivered", None, 3, True)]


@pytest.mark.parametrize("kind", ["contact.created", "domain.updated", "email.received"])
def test_events_about_other_things_are_answered_and_not_stored(
    stack: Stack, settings: Settings, sql: Any, kind: str
) -> None:
    event = _event(kind)
    assert _resend(settings, event)[0] == 204
    assert _stored(sql, event["data"]["email_id"]) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type":"email.sent"}',
        b'{"type":"email.sent","data":[]}',
        b'{"type":7,"data":{}}',
    ],
)
def test_a_signed_event_of_another_shape_is_malformed_or_ignored(
    stack: Stack, settings: Settings, body: bytes
) -> None:
    assert _resend(settings, body)[0] == (204 if b"7" in body else 400)


@pytest.mark.parametrize("seconds", [-301, 301, -86400])
def test_a_stale_event_is_refused(stack: Stack, settings: Settings, sql: Any, seconds: int) -> None:
    event = _event()
    assert _resend(settings, event, at=time.time() + seconds)[0] == 401
    assert _stored(sql, event["data"]["email_id"]) == []


def test_a_forged_event_is_refused(stack: Stack, settings: Settings, sql: Any) -> None:
    event = _event()
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert _resend(settings, event, secret=other)[0] == 401
    body = json.dumps(event).encode()
    headers = _svix(settings, body)
    assert _post(settings, "/resend", body.replace(b"delivered", b"complained"), headers).status == 401
    assert _post(settings, "/resend", body, headers | {"svix-id": "msg_other"}).status == 401
    assert _post(settings, "/resend", body, {"content-type": "application/json"}).status == 401
    assert _stored(sql, event["data"]["email_id"]) == []


def test_while_the_database_is_away_the_provider_is_asked_to_repeat(
    stack: Stack, settings: Settings, sql: Any
) -> None:
    callback = _message(settings)
    stack.stop("postgrest")
    try:
        answer = callback.post()
        assert answer.status == 503
        assert answer.headers["content-type"] == "application/problem+json"
    finally:
        stack.up(["postgrest"])
    until(lambda: callback.post().status == 204, seconds=15, what="the database's return")
    assert len(_stored(sql, callback.fields["MessageSid"])) == 1
