"""What people and providers do of their own accord: a text comes in, a key is pressed, a receipt is told.

Inbound keywords: https://help.twilio.com/articles/223134027. Twilio then refuses to send to that number
(21610).
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import Any

from infra.local.carriers import call_receipts, email_receipts, message_receipts, twilio_callbacks
from infra.local.carriers.callbacks import Job
from infra.local.carriers.control import BadRequestError, document_of
from infra.local.carriers.exchange import Reply, Request, problem, reply_json
from infra.local.carriers.poster import Outcome
from infra.local.carriers.records import Call, Message
from infra.local.carriers.twilio import VERSION
from infra.local.carriers.world import World, new_identifier

STOP_WORDS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
START_WORDS = frozenset({"START", "YES", "UNSTOP"})
EMAIL_EVENTS = (
    "sent", "delivered", "delivery_delayed", "bounced", "complained", "opened", "failed", "suppressed",
)  # fmt: skip


class Simulate:
    """Handlers of /simulate/...; each posts one signed callback at once and answers what came of it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def inbound(self, request: Request) -> Reply | Future[Reply]:
        """POST /simulate/inbound {"from", "to", "body", "opt_out_type"?}: an SMS to one of our numbers."""
        document = document_of(request)
        sender, to, body = (_text(document, name) for name in ("from", "to", "body"))
        if not self._world.settings.inbound_url:
            return problem(409, "no_inbound_url", "TWILIO_INBOUND_URL is not set: nobody to tell.")
        self._note_keyword(sender, body)
        sid = new_identifier("SM")
        fields = {
            "AccountSid": self._world.settings.account_sid, "ApiVersion": VERSION, "Body": body,
            "From": sender, "MessageSid": sid, "NumMedia": "0", "NumSegments": "1",
            "SmsMessageSid": sid, "SmsSid": sid,
            "SmsStatus": "received", "To": to,
        }  # fmt: skip
        if document.get("opt_out_type"):
            fields["OptOutType"] = _text(document, "opt_out_type")
        url = self._world.settings.inbound_url
        return self._post(twilio_callbacks.job(self._world, "inbound", url, lambda: fields), sid)

    def _note_keyword(self, sender: str, body: str) -> None:
        word = body.strip().upper()
        if word in STOP_WORDS:
            self._world.opted_out.add(sender)
        elif word in START_WORDS:
            self._world.opted_out.discard(sender)

    def answer(self, request: Request) -> Reply | Future[Reply]:
        """POST /simulate/answer {"sid" or "to", "digits"}: a key pressed, told to the <Gather>'s action."""
        document = document_of(request)
        digits = _text(document, "digits")
        call = self._call(document)
        if call is None or call.action is None:
            return problem(404, "no_such_call", "There is no such call, or it asks for no key.")
        return self._post(call_receipts.gathered(self._world, call, call.action, digits), call.sid)

    def receipt(self, request: Request) -> Reply | Future[Reply]:
        """POST /simulate/receipt {"sid", "status", "error_code"?}: one more status of what was accepted."""
        document = document_of(request)
        sid, status = _text(document, "sid"), _text(document, "status")
        job = self._receipt(sid, status, document.get("error_code"))
        if job is None:
            return problem(404, "no_such_record", "There is no such message, call or e-mail with a callback.")
        return self._post(job, sid)

    def _receipt(self, sid: str, status: str, error_code: object) -> Job | None:
        world = self._world
        record: Message | Call | None = world.messages.get(sid) or world.calls.get(sid)
        if isinstance(record, Message) and record.callback is not None:
            code = error_code if isinstance(error_code, int) else None
            return message_receipts.receipt(world, record, record.callback, status, code)
        if isinstance(record, Call) and record.callback is not None:
            return call_receipts.receipt(world, record, record.callback, status)
        email = world.emails.get(sid)
        if email is None or not world.settings.resend_webhook_url:
            return None
        if status not in EMAIL_EVENTS:
            raise BadRequestError(f"status of an e-mail must be one of {', '.join(EMAIL_EVENTS)}")
        return email_receipts.event(world, email, status, world.clock())

    def _call(self, document: dict[str, Any]) -> Call | None:
        if "sid" in document:
            return self._world.calls.get(_text(document, "sid"))
        return next(self._world.calls.newest(_text(document, "to")), None)

    def _post(self, job: Job, sid: str) -> Future[Reply]:
        told: Future[Reply] = asyncio.get_running_loop().create_future()
        inner = job.done

        def done(outcome: Outcome) -> None:
            if inner is not None:
                inner(outcome)
            answer = {"sid": sid, "status": outcome.status, "reason": outcome.reason}
            if not told.done():
                told.set_result(reply_json(200, {**answer, "body": outcome.body.decode("utf-8", "replace")}))

        job.done = done
        self._world.callbacks.schedule(job, 0.0)
        return told


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise BadRequestError(f"{name} must be a text")
    return value
