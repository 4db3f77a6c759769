"""Resend e-mails: send one, send a batch under an idempotency key, look one up.

Sources: https://resend.com/docs/api-reference/emails/send-email (and its neighbours),
https://resend.com/changelog/batch-validation-modes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from infra.local.carriers import faults, resend
from infra.local.carriers.email_checks import Complaint, addresses, complaint
from infra.local.carriers.email_receipts import foresee, tell
from infra.local.carriers.exchange import Reply, Request, encode
from infra.local.carriers.idempotency import Conflict
from infra.local.carriers.journal import JournalFullError, Row
from infra.local.carriers.records import Email
from infra.local.carriers.world import World

MAXIMUM_BATCH = 100
MAXIMUM_KEY_CHARACTERS = 256


_CONFLICTS = {
    Conflict.OTHER_PAYLOAD: (
        "invalid_idempotent_request", "Same idempotency key used with a different request payload.",
    ),
    Conflict.IN_PROGRESS: (
        "concurrent_idempotent_requests",
        "Same idempotency key used while original request is still in progress.",
    ),
}  # fmt: skip


class Emails:
    """The endpoints `/emails`, `/emails/batch` and `/emails/{id}`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dialect = resend.Dialect(world)

    def send(self, request: Request) -> Reply:
        """POST /emails."""
        return self._carry(request, batch=False)

    def send_batch(self, request: Request) -> Reply:
        """POST /emails/batch."""
        return self._carry(request, batch=True)

    def _carry(self, request: Request, *, batch: bool) -> Reply:
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError):
            return self._refuse(request, 400, "validation_error", "The request body is not valid JSON.")
        emails = document if isinstance(document, list) else [document]
        key = request.header(b"idempotency-key")

        def accept(unheard: bool, delay_seconds: float) -> Reply:
            return self._accept(request, document, key, unheard, delay_seconds, batch)

        references = tuple(filter(None, (_tags(email).get("delivery") for email in emails)))
        destination = _first_recipient(emails)
        return faults.carry(self._world, "email", request, destination, references, self._dialect, accept)

    def _accept(
        self,
        request: Request,
        document: Any,
        key: str | None,
        unheard: bool,
        delay_seconds: float,
        batch: bool,
    ) -> Reply:
        world, now = self._world, self._world.clock()
        if key is not None:
            if not 1 <= len(key) <= MAXIMUM_KEY_CHARACTERS:
                return resend.error(400, "invalid_idempotency_key", "The key must be between 1-256 chars.")
            earlier = world.idempotency.find(key, _payload(request), now)
            if earlier is not None:
                return self._again(earlier)
        checked = _check_batch(request, document) if batch else _check_one(document)
        if isinstance(checked, Reply):
            return checked
        good, errors = checked
        if not world.journal.has_room(len(good)):
            raise JournalFullError
        kept = [self._keep(request, email, key, unheard, now) for email in good]
        body = _answer(kept, errors, batch)
        if key is not None:
            world.idempotency.keep(key, _payload(request), body, now, now + delay_seconds)
        rows = (kept[0].row, kept[-1].row + 1) if kept else None
        return resend.answer(world, 200, body, rows)

    def _again(self, earlier: bytes | Conflict) -> Reply:
        if isinstance(earlier, Conflict):
            return resend.error(409, *_CONFLICTS[earlier])
        self._world.journal.counts["email"].replayed += 1
        return resend.answer(self._world, 200, earlier)

    def _keep(
        self, request: Request, source: Mapping[str, Any], key: str | None, unheard: bool, now: float
    ) -> Email:
        world, tags = self._world, _tags(source)
        to = addresses(source["to"]) or ()
        identifier = str(uuid.uuid4())
        content = "\0".join(str(source.get(part) or "") for part in ("subject", "text", "html"))
        row = Row(
            time=now, begun_at=request.begun_at, channel="email", provider_id=identifier, destination=to[0],
            body=content.encode("utf-8", "surrogatepass"), keep_body=world.board.of["email"].keep_body,
            reference=tags.get("delivery"), attempt=tags.get("attempt"), idempotency_key=key,
            request_id=request.header(b"x-request-id"), answer_lost=unheard,
        )  # fmt: skip
        sequence = world.journal.accept(row)
        email = Email(
            id=identifier, to=to, sender=source["from"], subject=source["subject"], html=source.get("html"),
            text=source.get("text"), created_at=now, row=sequence, tags=tags,
            headers={str(name): str(value) for name, value in (source.get("headers") or {}).items()},
            cc=addresses(source.get("cc")) or (), bcc=addresses(source.get("bcc")) or (),
            reply_to=addresses(source.get("reply_to")) or (),
        )  # fmt: skip
        foresee(world, email)
        world.emails.put(identifier, to[0], email)
        tell(world, email)
        return email

    def get(self, identifier: str) -> Reply:
        """GET /emails/{id}."""
        email = self._world.emails.get(identifier)
        if email is None:
            return resend.error(404, "not_found", "Email not found")
        return resend.answer(self._world, 200, encode(_show(email, self._world.clock())))

    def _refuse(self, request: Request, status: int, name: str, message: str) -> Reply:
        self._world.journal.note_request("email", request.begun_at, (), status)
        return resend.error(status, name, message)


def _payload(request: Request) -> bytes:
    return request.path.encode() + b"\0" + request.body


def _check_one(document: Any) -> Reply | tuple[list[Mapping[str, Any]], list[dict[str, object]]]:
    wrong = complaint(document, batch=False)
    return ([document], []) if wrong is None else resend.error(422, *wrong)


def _check_batch(
    request: Request, document: Any
) -> Reply | tuple[list[Mapping[str, Any]], list[dict[str, object]]]:
    if not isinstance(document, list) or not 1 <= len(document) <= MAXIMUM_BATCH:
        text = f"The batch must be an array of 1 to {MAXIMUM_BATCH} emails."
        return resend.error(422, "validation_error", text)
    mode = request.header(b"x-batch-validation") or "strict"
    if mode not in ("strict", "permissive"):
        return resend.error(422, "validation_error", "x-batch-validation must be `strict` or `permissive`.")
    wrong: list[tuple[int, Complaint]] = []
    for index, email in enumerate(document):
        found = complaint(email, batch=True)
        if found is not None:
            wrong.append((index, found))
    if wrong and mode == "strict":
        return resend.error(422, *wrong[0][1])
    bad = {index for index, _ in wrong}
    good = [email for index, email in enumerate(document) if index not in bad]
    return good, [{"index": index, "message": found[1]} for index, found in wrong]


def _answer(kept: Sequence[Email], errors: list[dict[str, object]], batch: bool) -> bytes:
    if not batch:
        return encode({"id": kept[0].id})
    document: dict[str, object] = {"data": [{"id": email.id} for email in kept]}
    if errors:
        document["errors"] = errors
    return encode(document)


def _tags(email: Any) -> dict[str, str]:
    tags = email.get("tags") if isinstance(email, Mapping) else None
    if not isinstance(tags, list):
        return {}
    return {
        str(tag.get("name")): str(tag.get("value"))
        for tag in tags
        if isinstance(tag, Mapping) and tag.get("name")
    }


def _first_recipient(emails: Sequence[Any]) -> str:
    first = emails[0] if emails else None
    found = addresses(first.get("to")) if isinstance(first, Mapping) else None
    return found[0] if found else ""


def _show(email: Email, now: float) -> dict[str, object]:
    created = datetime.fromtimestamp(email.created_at, UTC)
    return {
        "object": "email", "id": email.id, "message_id": f"<{email.id}@email.resend.test>",
        "to": list(email.to), "from": email.sender, "subject": email.subject,
        "created_at": created.strftime("%Y-%m-%d %H:%M:%S.%f+00"),
        "html": email.html or "", "text": email.text or "", "bcc": list(email.bcc), "cc": list(email.cc),
        "reply_to": list(email.reply_to), "last_event": email.last_event(now),
    }  # fmt: skip
