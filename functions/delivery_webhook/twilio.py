"""Twilio's callbacks: proved by Twilio's signature and by ours, then told as receipts, answers and messages.

Sources: https://www.twilio.com/docs/messaging/guides/track-outbound-message-status,
https://www.twilio.com/docs/voice/api/call-resource#statuscallback,
https://www.twilio.com/docs/voice/twiml/gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl

from shared import receipts, twiml, web
from shared.database import Database
from shared.errors import Refusal
from shared.receipts import Receipt
from shared.signatures import LinkSigner, TwilioVerifier
from shared.values import parse_delivery_id


@dataclass(frozen=True, slots=True)
class Signed:
    """A form that Twilio signed, and the delivery that our own signature in its URL names."""

    fields: dict[str, str]
    delivery_id: str
    attempt: int
    language: str

    def required(self, name: str) -> str:
        return _required(self.fields, name)


def _required(fields: dict[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value:
        raise Refusal("callback_malformed", f"The callback has no {name}.", status=400)
    return value


class Door:
    """Lets through what Twilio signed, and where a URL names a delivery, only the names that we gave out."""

    def __init__(self, verifier: TwilioVerifier, links: LinkSigner) -> None:
        self._verifier = verifier
        self._links = links

    def signed(self, request: web.Request) -> dict[str, str]:
        """The form's fields. Raises Refusal 401 unless Twilio signed them."""
        form = request.form()
        target = f"{request.path}?{request.query}" if request.query else request.path
        signature = request.headers.get("x-twilio-signature", "")
        scheme = request.headers.get("x-twilio-webhooks-signature-settings", "")
        if not self._verifier.verify(target, form, signature, scheme):
            raise Refusal("signature_invalid", "Twilio's signature is missing or wrong.", status=401)
        return dict(form)

    def checked(self, request: web.Request) -> Signed:
        """The signed form with its delivery. Raises Refusal 401 or 403."""
        fields = self.signed(request)
        query = dict(parse_qsl(request.query, max_num_fields=10))
        delivery_id, attempt = query.get("d", ""), query.get("a", "")
        if not self._links.verify_link(query.get("m", ""), "delivery", delivery_id, attempt):
            raise Refusal("link_invalid", "This callback URL was not made by us.", status=403)
        parse_delivery_id(delivery_id)
        return Signed(fields, delivery_id, int(attempt), query.get("l", "en"))


def message_receipt(signed: Signed) -> Receipt:
    provider_id, status = signed.required("MessageSid"), signed.required("MessageStatus")
    return Receipt(
        provider="twilio",
        kind="message",
        event_key=f"{provider_id}:{status}",
        provider_id=provider_id,
        status=status,
        delivery_id=signed.delivery_id,
        attempt=signed.attempt,
        code=_code(signed.fields),
    )


def call_receipt(signed: Signed) -> Receipt:
    provider_id, status = signed.required("CallSid"), signed.required("CallStatus")
    return Receipt(
        provider="twilio",
        kind="call",
        event_key=f"{provider_id}:{status}",
        provider_id=provider_id,
        status=status,
        delivery_id=signed.delivery_id,
        attempt=signed.attempt,
        code=_code(signed.fields) or _machine(signed.fields),
        occurred_at=_instant(signed.fields.get("Timestamp")),
    )


def _code(fields: dict[str, str]) -> str | None:
    code = fields.get("ErrorCode", "")
    return code if code not in ("", "0") else None


def _machine(fields: dict[str, str]) -> str | None:
    """A machine that picked up is a voicemail, never a person."""
    answered_by = fields.get("AnsweredBy", "")
    return answered_by if answered_by.startswith(("machine", "fax")) else None


def _instant(text: str | None) -> datetime | None:
    try:
        instant = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return instant if instant.tzinfo else None


def answer(signed: Signed, db: Database) -> web.Response:
    """Records the key that was pressed and says thank you. A key other than 1 is kept as unclear."""
    option, call = signed.fields.get("Digits", ""), signed.required("CallSid")
    clear = receipts.record_answer(db, signed.delivery_id, signed.attempt, option, call)
    return web.Response(200, twiml.thanks(signed.language, clear), "text/xml; charset=utf-8")


def keep_inbound(fields: dict[str, str], db: Database) -> None:
    receipts.record_inbound(
        db,
        provider_id=_required(fields, "MessageSid"),
        sender=_required(fields, "From"),
        recipient=_required(fields, "To"),
        body=fields.get("Body", ""),
        opt_out_type=fields.get("OptOutType"),
    )
