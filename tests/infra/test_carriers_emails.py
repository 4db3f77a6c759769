"""Resend e-mails, as the official SDK sees them; idempotency keys; batches."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import resend
from resend.exceptions import ResendError

from infra.local.carriers import testing
from infra.local.carriers.idempotency import KEPT_SECONDS, Conflict, Idempotency


@pytest.fixture(scope="module")
def process() -> Iterator[testing.Running]:
    with testing.running() as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running) -> testing.Running:
    process.control.preset("none")
    process.control.reset()
    resend.api_url, resend.api_key = process.url, testing.RESEND_API_KEY
    return process


def _email(to: str = "alice@example.org", **more: Any) -> Any:
    tags = [{"name": "delivery", "value": "00ff-3"}, {"name": "attempt", "value": "1"}]
    return {"from": "Us <us@example.org>", "to": [to], "subject": "Now", "text": "x", "tags": tags, **more}


def _batch(emails: list[Any], **options: Any) -> Any:
    return resend.Batch.send(emails, options)  # type: ignore[arg-type]


def test_sends_an_email_that_the_journal_knows(carriers: testing.Running) -> None:
    sent = resend.Emails.send(_email())
    [row] = carriers.control.journal("email")
    assert (row.provider_id, row.destination) == (sent["id"], "alice@example.org")
    assert (row.reference, row.attempt) == ("00ff-3", "1")
    shown = resend.Emails.get(sent["id"])
    assert (shown["to"], shown["subject"]) == (["alice@example.org"], "Now")


def test_the_last_event_follows(carriers: testing.Running) -> None:
    carriers.control.knobs(email={"receipt_delay_ms": 0})
    assert resend.Emails.get(resend.Emails.send(_email())["id"])["last_event"] == "delivered"
    carriers.control.knobs(email={"rate_bounce": 1})
    assert resend.Emails.get(resend.Emails.send(_email())["id"])["last_event"] == "bounced"
    carriers.control.knobs(email={"rate_bounce": 0, "rate_complaint": 1})
    assert resend.Emails.get(resend.Emails.send(_email())["id"])["last_event"] == "complained"


def test_a_key_gets_the_first_answer_again(carriers: testing.Running) -> None:
    emails = [_email(f"{number}@example.org") for number in range(100)]
    first = _batch(emails, idempotency_key="chunk-1")
    again = _batch(emails, idempotency_key="chunk-1")
    assert first["data"] == again["data"]
    counts = carriers.control.counts()["email"]
    assert (counts["accepted"], counts["requests"], counts["replayed"]) == (100, 2, 1)
    assert {row.idempotency_key for row in carriers.control.journal()} == {"chunk-1"}


def test_a_key_with_another_payload_conflicts(carriers: testing.Running) -> None:
    _batch([_email()], idempotency_key="chunk-1")
    with pytest.raises(ResendError) as conflict:
        _batch([_email("bob@example.org")], idempotency_key="chunk-1")
    assert (conflict.value.code, conflict.value.error_type) == (409, "invalid_idempotent_request")
    assert carriers.control.counts()["email"]["accepted"] == 1


def test_a_key_in_progress_conflicts_and_then_answers(carriers: testing.Running) -> None:
    carriers.control.knobs(email={"latency_ms": 1500})
    body = json.dumps(_email()).encode()
    with pytest.raises(TimeoutError):
        _post(carriers, "/emails", body, {"Idempotency-Key": "k"}, timeout_seconds=0.3)
    carriers.control.knobs(email={"latency_ms": 0})
    status, answer, _ = _post(carriers, "/emails", body, {"Idempotency-Key": "k"})
    assert (status, answer["name"]) == (409, "concurrent_idempotent_requests")
    for _ in range(200):
        status, answer, _ = _post(carriers, "/emails", body, {"Idempotency-Key": "k"})
        if status == 200:
            break
        time.sleep(0.02)
    [row] = carriers.control.journal()
    assert (status, answer["id"], row.answer_lost) == (200, row.provider_id, True)


def test_keys_are_kept_for_a_day() -> None:
    keys = Idempotency()
    keys.keep("k", b"payload", b"answer", now=0.0, answers_at=1.0)
    assert keys.find("k", b"payload", 0.5) is Conflict.IN_PROGRESS
    assert keys.find("k", b"payload", KEPT_SECONDS - 1) == b"answer"
    assert keys.find("k", b"other", KEPT_SECONDS - 1) is Conflict.OTHER_PAYLOAD
    assert keys.find("k", b"other", KEPT_SECONDS) is None


def test_a_strict_batch_sends_all_or_nothing(carriers: testing.Running) -> None:
    with pytest.raises(ResendError) as refused:
        _batch([_email(), _email(subject="")])
    assert (refused.value.code, refused.value.error_type) == (422, "missing_required_field")
    assert carriers.control.counts()["email"]["accepted"] == 0


def test_a_permissive_batch_sends_the_good_ones(carriers: testing.Running) -> None:
    answer = _batch([_email(), _email("nonsense"), _email("bob@example.org")], batch_validation="permissive")
    assert len(answer["data"]) == 2
    assert [error["index"] for error in answer["errors"]] == [1]
    assert "`to`" in answer["errors"][0]["message"]
    assert [row.destination for row in carriers.control.journal()] == ["alice@example.org", "bob@example.org"]


@pytest.mark.parametrize(
    ("path", "document", "status", "name"),
    [
        ("/emails", b"{", 400, "validation_error"),
        ("/emails", [], 422, "validation_error"),
        ("/emails", _email() | {"from": ""}, 422, "missing_required_field"),
        ("/emails", _email() | {"text": None}, 422, "missing_required_field"),
        ("/emails", _email() | {"from": "nobody"}, 422, "validation_error"),
        ("/emails", _email() | {"to": ["a@example.org"] * 51}, 422, "validation_error"),
        ("/emails", _email() | {"to": 7}, 422, "validation_error"),
        ("/emails", _email() | {"subject": "a\nb"}, 422, "validation_error"),
        ("/emails", _email() | {"tags": [{"name": "a b", "value": "c"}]}, 422, "validation_error"),
        ("/emails/batch", [], 422, "validation_error"),
        ("/emails/batch", [_email()] * 101, 422, "validation_error"),
        ("/emails/batch", _email(), 422, "validation_error"),
        ("/emails/batch", [_email() | {"attachments": [{}]}], 422, "validation_error"),
        ("/emails/none", [], 404, "not_found"),
    ],
)
def test_refuses_with_resends_name(
    carriers: testing.Running, path: str, document: object, status: int, name: str
) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    got, answer, _ = _post(carriers, path, body)
    assert (got, answer["statusCode"], answer["name"]) == (status, status, name)
    assert answer["message"]
    assert carriers.control.counts()["email"]["accepted"] == 0


def test_the_key_of_the_account_is_asked_for(carriers: testing.Running) -> None:
    assert _post(carriers, "/emails", b"{}", {"Authorization": ""})[1]["name"] == "missing_api_key"
    assert _post(carriers, "/emails", b"{}", {"Authorization": "Bearer no"})[1]["name"] == "invalid_api_key"
    got, answer, _ = _post(carriers, "/emails", b"{}", {"Idempotency-Key": "k" * 257})
    assert (got, answer["name"]) == (400, "invalid_idempotency_key")


def test_a_rate_is_kept_and_its_headers_tell(carriers: testing.Running) -> None:
    carriers.control.knobs(email={"requests_per_second": 2, "retry_after_seconds": 1})
    body = json.dumps(_email()).encode()
    answers = [_post(carriers, "/emails", body) for _ in range(8)]
    refused = [headers for status, answer, headers in answers if status == 429]
    assert len(refused) >= 4
    assert (refused[0]["ratelimit-limit"], refused[0]["ratelimit-remaining"]) == ("2", "0")
    assert refused[0]["retry-after"] == "1"


def _post(
    carriers: testing.Running,
    path: str,
    body: bytes,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 10.0,
) -> tuple[int, Any, Any]:
    every = {"Authorization": f"Bearer {testing.RESEND_API_KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(carriers.url + path, body, every | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            return response.status, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), error.headers
