"""Twilio Messages: send, list, look up, redact, delete.

Source: https://www.twilio.com/docs/messaging/api/message-resource. Media, templates and Twilio's own
scheduling are not played. Twilio's test numbers answer as they do there:
https://www.twilio.com/docs/iam/test-credentials.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.local.carriers import faults, twilio, twilio_lists
from infra.local.carriers.exchange import Reply, Request
from infra.local.carriers.journal import Row
from infra.local.carriers.message_receipts import foresee, tell
from infra.local.carriers.records import Message
from infra.local.carriers.segments import count_segments
from infra.local.carriers.world import World, new_identifier

MAXIMUM_BODY_CHARACTERS = 1600
_DIALECT = twilio.Dialect()
_NO_SENDER = "The 'From' number {} is not a valid phone number, shortcode, or alphanumeric sender ID."
_MAGIC_TO = {
    "+15005550001": (21211, "The 'To' number {} is not a valid phone number."),
    "+15005550002": (21612, "The 'To' phone number {} is not currently reachable via SMS."),
    "+15005550003": (21408, "Permission to send an SMS has not been enabled for the region of 'To': {}."),
    "+15005550004": (21610, "Attempt to send to unsubscribed recipient"),
    "+15005550009": (21614, "'To' number is not a valid mobile number"),
}  # fmt: skip
_MAGIC_FROM = {
    "+15005550001": (21212, _NO_SENDER),
    "+15005550007": (21606, "The 'From' phone number provided ({}) is no message-capable Twilio number."),
    "+15005550008": (21611, "This 'From' number has exceeded the maximum number of queued messages"),
}  # fmt: skip


class Messages:
    """The resource `/Messages.json` of one account."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._base = f"/{twilio.VERSION}/Accounts/{world.settings.account_sid}/Messages"

    def send(self, request: Request) -> Reply:
        """POST the list: a new message."""
        form = {name: values[0] for name, values in request.form().items()}
        to = form.get("To", "")
        callback = form.get("StatusCallback") or None
        reference, attempt = twilio.reference_of(callback)

        def accept(unheard: bool, delay_seconds: float) -> Reply:
            refusal = _refusal(form) or self._unsubscribed(to)
            return refusal or self._accept(request, form, unheard, reference, attempt, callback)

        references = (reference,) if reference else ()
        return faults.carry(self._world, "sms", request, to, references, _DIALECT, accept)

    def _unsubscribed(self, to: str) -> Reply | None:
        if to in self._world.opted_out:
            return twilio.error(21610, "Attempt to send to unsubscribed recipient")
        return None

    def _accept(
        self,
        request: Request,
        form: dict[str, str],
        unheard: bool,
        reference: str | None,
        attempt: str | None,
        callback: str | None,
    ) -> Reply:
        world = self._world
        now = world.clock()
        sid, to, body = new_identifier("SM"), form["To"], form.get("Body", "")
        row = Row(
            time=now, begun_at=request.begun_at, channel="sms", provider_id=sid, destination=to,
            body=body.encode("utf-8", "surrogatepass"), keep_body=world.board.of["sms"].keep_body,
            reference=reference, attempt=attempt, request_id=request.header(b"x-request-id"),
            answer_lost=unheard,
        )  # fmt: skip
        sequence = world.journal.accept(row)
        service = form.get("MessagingServiceSid") or None
        message = Message(sid, to, form.get("From") or None, service, body, now, callback, sequence)
        foresee(world, message)
        world.messages.put(sid, to, message)
        tell(world, message)
        return twilio.sent(201, self.show(message, first=True), (sequence, sequence + 1))

    def list(self, request: Request) -> Reply:
        """GET the list, by To, From and DateSent (until it is sent: of its creation)."""
        query = request.query()
        try:
            span = twilio_lists.span_of(query, "DateSent")
        except ValueError:
            return twilio.error(20001, "DateSent must be a date (YYYY-MM-DD) or a date-time")
        return twilio_lists.page(request, query, "messages", self._found(query, span), self.show)

    def _found(self, query: twilio_lists.Query, span: twilio_lists.Span) -> Iterator[Message]:
        now = self._world.clock()
        visible_until = now - self._world.board.of["sms"].list_lag_ms / 1000
        sender = query.get("From", [None])[0]
        for message in self._world.messages.newest(query.get("To", [None])[0]):
            sent_at = message.sent_at if message.sent_at <= now else message.created_at
            if not (span[0] <= sent_at < span[1] and message.created_at <= visible_until):
                continue
            if sender in (None, message.sender):
                yield message

    def get(self, request: Request, sid: str) -> Reply:
        """GET one."""
        message = self._world.messages.get(sid)
        return twilio.not_found(request.path) if message is None else twilio.sent(200, self.show(message))

    def update(self, request: Request, sid: str) -> Reply:
        """POST one: `Body=` (empty) redacts. A message that was sent cannot be cancelled."""
        message = self._world.messages.get(sid)
        if message is None:
            return twilio.not_found(request.path)
        form = request.form()
        if "Status" in form:
            return twilio.error(30409, "Message is not in a cancelable state", 409)
        if form.get("Body") != [""]:
            return twilio.error(20001, "Only an empty Body, which redacts the message, can be given")
        message.body = ""
        row = self._world.journal.row(message.row)
        if row is not None:
            row.body = None
        return twilio.sent(200, self.show(message))

    def delete(self, request: Request, sid: str) -> Reply:
        """DELETE one: 204, or 409 while its delivery is under way."""
        message = self._world.messages.get(sid)
        if message is None:
            return twilio.not_found(request.path)
        if self._world.clock() < message.final_at:
            text = "Cannot delete message because delivery of message is not complete."
            return twilio.error(20009, text, 409)
        self._world.messages.remove(sid, message.to)
        row = self._world.journal.row(message.row)
        if row is not None:
            row.erase()
        return Reply(204, b"")

    def show(self, message: Message, first: bool = False) -> dict[str, object]:
        """The resource. At first a message of a messaging service has no sender and no segments yet."""
        now = self._world.clock()
        status = message.status(now)
        pooled = first and message.service is not None
        error_code = message.error_code if status == message.final_status else None
        uri = f"{self._base}/{message.sid}"
        return {
            "account_sid": self._world.settings.account_sid, "api_version": twilio.VERSION,
            "body": message.body,
            "date_created": twilio.date(int(message.created_at)),
            "date_sent": twilio.date(int(message.sent_at)) if message.sent_at <= now else None,
            "date_updated": twilio.date(int(now if first else min(now, message.final_at))),
            "direction": "outbound-api", "error_code": error_code,
            "error_message": None if error_code is None else f"Twilio error {error_code}",
            "from": message.sender, "messaging_service_sid": message.service, "num_media": "0",
            "num_segments": "0" if pooled else str(count_segments(message.body)),
            "price": None, "price_unit": None, "sid": message.sid, "status": status,
            "subresource_uris": {"media": uri + "/Media.json"}, "to": message.to, "uri": uri + ".json",
        }  # fmt: skip


def _refusal(form: dict[str, str]) -> Reply | None:
    to, sender, service = form.get("To", ""), form.get("From", ""), form.get("MessagingServiceSid", "")
    if not to:
        return twilio.error(21604, "A 'To' phone number is required.")
    if not twilio.PHONE.fullmatch(to):
        return twilio.error(21211, f"The 'To' number {to} is not a valid phone number.")
    if to in _MAGIC_TO:
        code, text = _MAGIC_TO[to]
        return twilio.error(code, text.format(to))
    return _sender_refusal(sender, service) or _content_refusal(form)


def _sender_refusal(sender: str, service: str) -> Reply | None:
    if not sender and not service:
        return twilio.error(21603, "A 'From' phone number is required.")
    if service and not twilio.SERVICE.fullmatch(service):
        return twilio.error(21701, "The Messaging Service does not exist.")
    if sender in _MAGIC_FROM:
        code, text = _MAGIC_FROM[sender]
        return twilio.error(code, text.format(sender))
    if sender and not twilio.SENDER.fullmatch(sender):
        return twilio.error(21212, _NO_SENDER.format(sender))
    return None


def _content_refusal(form: dict[str, str]) -> Reply | None:
    body, callback = form.get("Body", ""), form.get("StatusCallback", "")
    if not body:
        return twilio.error(21602, "Message body is required.")
    if len(body) > MAXIMUM_BODY_CHARACTERS:
        return twilio.error(21617, "The concatenated message body exceeds the 1600 character limit")
    if callback and not callback.startswith(("http://", "https://")):
        return twilio.error(21609, f"The 'StatusCallback' URL {callback} is not a valid URL.")
    validity = form.get("ValidityPeriod")
    if validity is not None and not (validity.isdecimal() and 1 <= int(validity) <= 36_000):
        return twilio.error(20001, "ValidityPeriod must be a whole number from 1 to 36000")
    return None
