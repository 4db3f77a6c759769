"""E-mail through Resend: up to 100 in a request, named by an idempotency key.

Resend can't be asked for an e-mail by its recipient; instead the same key with the same bytes gets the
first answer again (24 hours), so an outcome in doubt is settled by sending the frozen batch once more.
Sources: https://resend.com/docs/api-reference/emails/send-batch-emails,
https://resend.com/docs/api-reference/errors
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from shared.channels import Accepted, Adapter, Message, Outcome
from shared.errors import SendError
from shared.values import Channel, FailureClass

if TYPE_CHECKING:
    from shared.outbound import Answer, Outbound
    from shared.settings import ChannelSettings

LONGEST_SUBJECT = 998  # RFC 5322, 2.1.1
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\x00-\x1f\x7f]+@[^\s@<>,;:\"()\x00-\x1f\x7f]+")
_ACCEPTED_BEFORE = "invalid_idempotent_request"
_CLASSES = {
    "application_error": FailureClass.UNKNOWN,
    "concurrent_idempotent_requests": FailureClass.UNKNOWN,  # the first try is under way: ask again, same key
    "daily_quota_exceeded": FailureClass.CONFIGURATION,
    "internal_server_error": FailureClass.UNKNOWN,
    "invalid_access": FailureClass.CONFIGURATION,
    "invalid_api_key": FailureClass.CONFIGURATION,
    "invalid_from_address": FailureClass.CONFIGURATION,
    "invalid_idempotency_key": FailureClass.CONFIGURATION,
    "invalid_region": FailureClass.CONFIGURATION,
    "method_not_allowed": FailureClass.CONFIGURATION,
    "missing_api_key": FailureClass.CONFIGURATION,
    "missing_required_field": FailureClass.PERMANENT,
    "monthly_quota_exceeded": FailureClass.CONFIGURATION,
    "not_found": FailureClass.CONFIGURATION,
    "rate_limit_exceeded": FailureClass.THROTTLE,
    "restricted_api_key": FailureClass.CONFIGURATION,
    "security_error": FailureClass.CONTENT,
}


def failure_class(name: str, status: int) -> FailureClass:
    """What an error means to a retry loop. A 5xx is unknown whatever its name; a 403 is ours to mend."""
    if status >= 500 or status == 408:
        return FailureClass.UNKNOWN
    if name in _CLASSES:
        return _CLASSES[name]
    if status == 429:
        return FailureClass.THROTTLE
    wrong_door = status in (401, 403, 404, 405) or 300 <= status < 400
    return FailureClass.CONFIGURATION if wrong_door else FailureClass.PERMANENT


class Email:
    """Resend's dialect."""

    channel = Channel.EMAIL
    batch_size = 100
    reconciles_by_resending = True

    def __init__(self, outbound: Outbound, settings: ChannelSettings) -> None:
        self._outbound = outbound
        self._url = outbound.target(f"{settings.resend_base_url}/emails/batch")
        self._from = settings.resend_from
        self._headers = {
            "Authorization": f"Bearer {settings.resend_api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "x-batch-validation": "permissive",
        }

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        """One request for all that are fit to send; the same messages and key make the same bytes."""
        outcomes: dict[int, Outcome] = {}
        fit: list[tuple[int, dict[str, Any]]] = []
        for index, message in enumerate(messages):
            try:
                fit.append((index, self._email(message)))
            except SendError as error:
                outcomes[index] = error
        if fit:
            sent = await self._post([email for _, email in fit], key)
            outcomes.update(zip((index for index, _ in fit), sent, strict=True))
        return [outcomes[index] for index in range(len(messages))]

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        """Never an answer: see `reconciles_by_resending`."""
        raise SendError(FailureClass.UNKNOWN, "send_again_to_know")

    def _email(self, message: Message) -> dict[str, Any]:
        subject = message.subject or ""
        if not subject.strip() or len(subject) > LONGEST_SUBJECT:
            raise SendError(FailureClass.CONTENT, "subject_length")
        if _CONTROL.search(subject):  # a line break would begin another header
            raise SendError(FailureClass.CONTENT, "subject_control_character")
        if _ADDRESS.fullmatch(message.to) is None:
            raise SendError(FailureClass.PERMANENT, "address_invalid")
        email: dict[str, Any] = {
            "from": self._from,
            "to": [message.to],
            "subject": subject,
            "text": message.body,
            "tags": [
                {"name": "delivery", "value": message.delivery_id},
                {"name": "attempt", "value": str(message.attempt)},
            ],
        }
        if message.html:
            email["html"] = message.html
        return email

    async def _post(self, emails: list[dict[str, Any]], key: str) -> list[Outcome]:
        try:
            body = orjson.dumps(emails)
            answer = await self._outbound.post(self._url, body, {**self._headers, "Idempotency-Key": key})
        except SendError as error:
            return [error] * len(emails)
        except TypeError:  # orjson: a text that is not Unicode
            return [SendError(FailureClass.CONTENT, "text_invalid")] * len(emails)
        document = _document(answer)
        if 200 <= answer.status < 300:
            return _outcomes(document, len(emails))
        if answer.status == 409 and document.get("name") == _ACCEPTED_BEFORE:
            return [Accepted("")] * len(emails)  # Resend keeps a key only for what it took
        return [_refusal(answer, document)] * len(emails)


def _document(answer: Answer) -> Mapping[str, Any]:
    try:
        document = orjson.loads(answer.body) if answer.complete else None
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {}


def _outcomes(document: Mapping[str, Any], count: int) -> list[Outcome]:
    """Permissive mode: `errors` names the refused by index, `data` has the ids of the others, in order."""
    listed, accepted = document.get("errors") or [], document.get("data")
    broken: list[Outcome] = [SendError(FailureClass.UNKNOWN, "answer_broken")] * count
    if not isinstance(listed, list) or not isinstance(accepted, list):
        return broken
    refused = {error.get("index") for error in listed if isinstance(error, dict)}
    taken = [index for index in range(count) if index not in refused]
    if len(accepted) != len(taken):
        return broken
    outcomes: list[Outcome] = [SendError(FailureClass.PERMANENT, "validation_error")] * count
    for index, row in zip(taken, accepted, strict=True):
        identifier = row.get("id") if isinstance(row, dict) else None
        outcomes[index] = (
            Accepted(identifier) if isinstance(identifier, str) and identifier else broken[index]
        )
    return outcomes


def _refusal(answer: Answer, document: Mapping[str, Any]) -> SendError:
    if not answer.complete and answer.status not in (401, 403, 429):  # the name that would tell is lost
        return SendError(FailureClass.UNKNOWN, "answer_broken")
    name = str(document.get("name") or f"http_{answer.status}")[:64]
    wait_seconds = answer.retry_after_seconds()
    reset = answer.headers.get("ratelimit-reset", "")
    if wait_seconds is None and answer.status == 429 and reset.isdigit():
        wait_seconds = min(float(reset), 3600.0)
    return SendError(failure_class(name, answer.status), name, retry_after_seconds=wait_seconds)


def connect(outbound: Outbound, settings: ChannelSettings) -> Adapter:
    """The adapter for e-mail."""
    return Email(outbound, settings)
