"""The carriers' traffic against the providers' OpenAPI documents.

The documents are the providers' and not part of this project: their folder comes from the setting
CREDOALERT_SPECS (`../shared/specs` beside the checkout unless set); without them these tests say that they
were skipped.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from jsonschema import Draft202012Validator

from infra.local.carriers import testing

SPECS = Path(os.environ.get("CREDOALERT_SPECS", Path(__file__).parents[3] / "shared" / "specs"))
TWILIO, RESEND = SPECS / "twilio_api_v2010.json", SPECS / "resend.json"
pytestmark = pytest.mark.skipif(
    not (TWILIO.is_file() and RESEND.is_file()),
    reason="the providers' OpenAPI documents are not here (set CREDOALERT_SPECS to their folder)",
)
BASE = "/2010-04-01/Accounts/{AccountSid}/"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def receiver() -> Iterator[testing.Receiver]:
    opened = testing.Receiver()
    opened.answer = b"<Response/>"
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def carriers(receiver: testing.Receiver) -> Iterator[testing.Running]:
    with testing.running(RESEND_WEBHOOK_URL=receiver.url + "/resend") as started:
        started.control.knobs(all={"receipt_delay_ms": 10})
        yield started


@pytest.fixture(autouse=True)
def fresh(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.reset()
    receiver.received.clear()


class Specification:
    """One OpenAPI document, its schemas made plain JSON Schema (`nullable` becomes a type)."""

    def __init__(self, path: Path) -> None:
        self.document: dict[str, Any] = _plain(json.loads(path.read_text()))

    def check(self, schema: dict[str, Any], instance: object) -> None:
        """Validate; local references are resolved within the document."""
        Draft202012Validator({**schema, "components": self.document["components"]}).validate(instance)

    def operation(self, path: str, method: str) -> dict[str, Any]:
        operation: dict[str, Any] = self.document["paths"][path][method]
        return operation

    def answer_schema(self, path: str, method: str, status: int) -> dict[str, Any]:
        answer = self.operation(path, method)["responses"][str(status)]
        schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
        return schema


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if key not in ("example", "examples")}
    if plain.pop("nullable", False) and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain


@pytest.fixture(scope="module")
def twilio() -> Specification:
    return Specification(TWILIO)


@pytest.fixture(scope="module")
def resend() -> Specification:
    return Specification(RESEND)


def _ask(
    carriers: testing.Running, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, Any]:
    request = urllib.request.Request(carriers.url + path, body, headers, method=method)
    with urllib.request.urlopen(request) as response:
        content = response.read()
    return response.status, json.loads(content) if content else None


def _ask_twilio(
    carriers: testing.Running,
    spec: Specification,
    method: str,
    template: str,
    fields: Any = (),
    sid: str = "",
) -> Any:
    """Ask; the request's fields and the answer's shape must be those of the document."""
    pairs = list(fields)
    operation = spec.operation(BASE + template, method.lower())
    path = BASE.format(AccountSid=testing.ACCOUNT_SID) + template.replace("{Sid}", sid)
    if method == "POST":
        allowed = operation["requestBody"]["content"][FORM]["schema"]
        assert {name for name, _ in pairs} <= set(allowed["properties"])
        assert set(allowed.get("required", ())) <= {name for name, _ in pairs}
        body = urlencode(pairs).encode()
    else:
        assert {name for name, _ in pairs} <= {each["name"] for each in operation.get("parameters", ())}
        path, body = path + "?" + urlencode(pairs), None
    headers = {"Authorization": testing.basic_authorization(), "Content-Type": FORM}
    status, answer = _ask(carriers, method, path, body, headers)
    assert str(status) in operation["responses"]
    if answer is not None:
        schema = spec.answer_schema(BASE + template, method.lower(), status)
        spec.check(schema, answer)
        assert set(answer) == _names(spec, schema)
    return answer


def _names(spec: Specification, schema: dict[str, Any]) -> set[str]:
    if "$ref" in schema:
        schema = spec.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return set(schema["properties"])


def test_messages_keep_to_twilios_document(
    carriers: testing.Running, twilio: Specification, receiver: testing.Receiver
) -> None:
    fields = {
        "To": "+33612345678", "MessagingServiceSid": "MG" + "0" * 32, "Body": "x", "ValidityPeriod": "600",
        "StatusCallback": receiver.url + "/sms#rc=5&rp=all", "SmartEncoded": "true",
    }  # fmt: skip
    sent = _ask_twilio(carriers, twilio, "POST", "Messages.json", fields.items())
    sid = sent["sid"]
    listed = _ask_twilio(
        carriers, twilio, "GET", "Messages.json",
        [("To", "+33612345678"), ("DateSent>", "2020-01-01"), ("PageSize", "1"), ("Page", "0")],
    )  # fmt: skip
    assert listed["messages"][0]["sid"] == sid
    carriers.control.wait_receipts(10)
    _ask_twilio(carriers, twilio, "GET", "Messages/{Sid}.json", sid=sid)
    _ask_twilio(carriers, twilio, "POST", "Messages/{Sid}.json", [("Body", "")], sid=sid)
    _ask_twilio(carriers, twilio, "DELETE", "Messages/{Sid}.json", sid=sid)
    statuses = twilio.document["components"]["schemas"]["message_enum_status"]["enum"]
    told = [dict(parse_qsl(callback.body.decode())) for callback in receiver.wait(3)]
    assert {form["MessageStatus"] for form in told} <= set(statuses)


def test_calls_keep_to_twilios_document(
    carriers: testing.Running, twilio: Specification, receiver: testing.Receiver
) -> None:
    fields = [
        ("To", "+33612345678"), ("From", "+15005550006"), ("StatusCallback", receiver.url + "/call"),
        ("Twiml", f'<Response><Gather action="{receiver.url}/gather"/></Response>'),
        ("MachineDetection", "DetectMessageEnd"), ("AsyncAmd", "true"),
        *(("StatusCallbackEvent", event) for event in ("initiated", "ringing", "answered", "completed")),
    ]  # fmt: skip
    sid = _ask_twilio(carriers, twilio, "POST", "Calls.json", fields)["sid"]
    carriers.control.wait_receipts(10)
    _ask_twilio(carriers, twilio, "GET", "Calls.json", [("To", "+33612345678"), ("StartTime>", "2020-01-01")])
    _ask_twilio(carriers, twilio, "GET", "Calls/{Sid}.json", sid=sid)
    _ask_twilio(carriers, twilio, "DELETE", "Calls/{Sid}.json", sid=sid)
    statuses = twilio.document["components"]["schemas"]["call_enum_status"]["enum"]
    told = [dict(parse_qsl(callback.body.decode())) for callback in receiver.wait(5)]
    # The callbacks' first status is in Twilio's guide, not in the document of the REST resources.
    assert {form["CallStatus"] for form in told} <= {*statuses, "initiated"}


def test_emails_keep_to_resends_document(
    carriers: testing.Running, resend: Specification, receiver: testing.Receiver
) -> None:
    headers = {"Authorization": f"Bearer {testing.RESEND_API_KEY}", "Content-Type": "application/json"}
    email = {
        "from": "Us <us@example.org>", "to": ["alice@example.org"], "subject": "s", "text": "t",
        "html": "<p>t", "headers": {"X-Ours": "1"}, "tags": [{"name": "delivery", "value": "00ff-1"}],
    }  # fmt: skip
    for path, document in (("/emails", email), ("/emails/batch", [email, email])):
        request = resend.operation(path, "post")["requestBody"]["content"]["application/json"]["schema"]
        resend.check(request, document)
        status, answer = _ask(carriers, "POST", path, json.dumps(document).encode(), headers)
        schema = resend.answer_schema(path, "post", status)
        resend.check(schema, answer)
        assert set(answer) == _names(resend, schema)
    identifier = answer["data"][0]["id"]
    status, shown = _ask(carriers, "GET", f"/emails/{identifier}", None, headers)
    schema = resend.answer_schema("/emails/{email_id}", "get", status)
    resend.check(schema, shown)
    assert set(shown) == _names(resend, schema)


def test_events_keep_to_resends_document(
    carriers: testing.Running, resend: Specification, receiver: testing.Receiver
) -> None:
    headers = {"Authorization": f"Bearer {testing.RESEND_API_KEY}", "Content-Type": "application/json"}
    for knobs in ({"rate_bounce": 1}, {"rate_bounce": 0, "rate_complaint": 1}):
        carriers.control.knobs(email=knobs)
        email = {"from": "us@example.org", "to": "alice@example.org", "subject": "s", "text": "t"}
        _, answer = _ask(carriers, "POST", "/emails", json.dumps(email).encode(), headers)
    carriers.control.wait_receipts(10)
    for status in ("delivery_delayed", "failed", "opened", "suppressed"):
        carriers.control.receipt(answer["id"], status)
    events = [json.loads(callback.body) for callback in receiver.received]
    assert len({event["type"] for event in events}) == 8
    for event in events:
        operation = resend.document["webhooks"][event["type"]]["post"]
        resend.check(operation["requestBody"]["content"]["application/json"]["schema"], event)
