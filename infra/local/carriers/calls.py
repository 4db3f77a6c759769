"""Twilio Calls: place a call with inline TwiML, list, look up.

Source: https://www.twilio.com/docs/voice/api/call-resource. A real account takes bad TwiML and fails the
call with 12100 later; here it is refused at once with that code, so that a mistake is seen where it is
made. The code for TwiML that is too long could not be confirmed (?).
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.local.carriers import faults, twilio, twilio_lists, twiml
from infra.local.carriers.call_receipts import foresee, tell
from infra.local.carriers.exchange import Reply, Request
from infra.local.carriers.journal import Row
from infra.local.carriers.records import Call
from infra.local.carriers.world import World, new_identifier

MAXIMUM_TWIML_CHARACTERS = 4000
_DIALECT = twilio.Dialect()
_MAGIC_TO = {
    "+15005550001": (21217, "Phone number does not appear to be valid: {}"),
    "+15005550002": (21214, "'To' phone number cannot be reached: {}"),
    "+15005550003": (21215, "Account not authorized to call {}. Perhaps you need international permissions."),
    "+15005550004": (21216, "Account not allowed to call {}"),
}  # fmt: skip

Form = dict[str, list[str]]


def _first(form: Form, name: str) -> str:
    return form.get(name, [""])[0]


class Calls:
    """The resource `/Calls.json` of one account."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._base = f"/{twilio.VERSION}/Accounts/{world.settings.account_sid}/Calls"

    def place(self, request: Request) -> Reply:
        """POST the list: a new call."""
        form = request.form()
        reference, attempt = twilio.reference_of(_first(form, "StatusCallback"))

        def accept(unheard: bool, delay_seconds: float) -> Reply:
            refusal = _refusal(form)
            if refusal is not None:
                return refusal
            try:
                script = twiml.read(_first(form, "Twiml")) if _first(form, "Twiml") else twiml.Script()
            except twiml.TwimlError as error:
                return twilio.error(12100, f"Document parse failure: {error}")
            return self._accept(request, form, script, unheard, reference, attempt)

        references = (reference,) if reference else ()
        to = _first(form, "To")
        return faults.carry(self._world, "voice", request, to, references, _DIALECT, accept)

    def _accept(
        self,
        request: Request,
        form: Form,
        script: twiml.Script,
        unheard: bool,
        reference: str | None,
        attempt: str | None,
    ) -> Reply:
        world = self._world
        now, sid, to = world.clock(), new_identifier("CA"), _first(form, "To")
        spoken = _first(form, "Twiml") or _first(form, "Url")
        row = Row(
            time=now, begun_at=request.begun_at, channel="voice", provider_id=sid, destination=to,
            body=spoken.encode("utf-8", "surrogatepass"), keep_body=world.board.of["voice"].keep_body,
            reference=reference, attempt=attempt, request_id=request.header(b"x-request-id"),
            answer_lost=unheard,
        )  # fmt: skip
        sequence = world.journal.accept(row)
        events = frozenset(name for value in form.get("StatusCallbackEvent", ()) for name in value.split())
        call = Call(
            sid=sid, to=to, sender=_first(form, "From"), created_at=now, row=sequence,
            callback=_first(form, "StatusCallback") or None, events=events or frozenset({"completed"}),
            action=script.action, act_on_silence=script.act_on_silence,
            detects_machines=_first(form, "MachineDetection") in ("Enable", "DetectMessageEnd"),
            machine_callback=_first(form, "AsyncAmdStatusCallback") or None,
        )  # fmt: skip
        foresee(world, call)
        world.calls.put(sid, to, call)
        tell(world, call)
        return twilio.sent(201, self.show(call, now), (sequence, sequence + 1))

    def list(self, request: Request) -> Reply:
        """GET the list, by To, From, Status and StartTime (here: of its creation)."""
        query = request.query()
        try:
            span = twilio_lists.span_of(query, "StartTime")
        except ValueError:
            return twilio.error(20001, "StartTime must be a date (YYYY-MM-DD) or a date-time")
        return twilio_lists.page(request, query, "calls", self._found(query, span), self.show)

    def _found(self, query: twilio_lists.Query, span: twilio_lists.Span) -> Iterator[Call]:
        now = self._world.clock()
        visible_until = now - self._world.board.of["voice"].list_lag_ms / 1000
        sender, status = query.get("From", [None])[0], query.get("Status", [None])[0]
        for call in self._world.calls.newest(query.get("To", [None])[0]):
            if not (span[0] <= call.created_at < span[1] and call.created_at <= visible_until):
                continue
            if sender in (None, call.sender) and status in (None, call.status(now)):
                yield call

    def get(self, request: Request, sid: str) -> Reply:
        """GET one."""
        call = self._world.calls.get(sid)
        return twilio.not_found(request.path) if call is None else twilio.sent(200, self.show(call))

    def delete(self, request: Request, sid: str) -> Reply:
        """DELETE one: 204, or 409 while it is under way."""
        call = self._world.calls.get(sid)
        if call is None:
            return twilio.not_found(request.path)
        if self._world.clock() < call.ended_at:
            return twilio.error(20009, "Cannot delete call because it is still in progress.", 409)
        self._world.calls.remove(sid, call.to)
        row = self._world.journal.row(call.row)
        if row is not None:
            row.erase()
        return Reply(204, b"")

    def show(self, call: Call, now: float | None = None) -> dict[str, object]:
        """The resource."""
        now = self._world.clock() if now is None else now
        status, ended = call.status(now), now >= call.ended_at
        started = call.final_status == "completed" and now >= call.answered_at
        uri = f"{self._base}/{call.sid}"
        return {
            "account_sid": self._world.settings.account_sid,
            "answered_by": call.answered_by if ended else None, "api_version": twilio.VERSION,
            "caller_name": None, "date_created": twilio.date(int(call.created_at)),
            "date_updated": twilio.date(int(min(now, call.ended_at))), "direction": "outbound-api",
            "duration": str(call.duration_seconds) if ended else None,
            "end_time": twilio.date(int(call.ended_at)) if ended else None, "forwarded_from": None,
            "from": call.sender, "from_formatted": call.sender, "group_sid": None, "parent_call_sid": None,
            "phone_number_sid": "PN" + call.sid[2:], "price": None, "price_unit": "USD", "queue_time": "0",
            "sid": call.sid, "start_time": twilio.date(int(call.answered_at)) if started else None,
            "status": status, "subresource_uris": {
                name: f"{uri}/{name.title()}.json" for name in ("notifications", "recordings", "events")
            }, "to": call.to, "to_formatted": call.to, "trunk_sid": None, "uri": uri + ".json",
        }  # fmt: skip


def _refusal(form: Form) -> Reply | None:
    to, sender, spoken = _first(form, "To"), _first(form, "From"), _first(form, "Twiml")
    if not to or not sender:
        code, name = (21213, "From") if to else (21201, "To")
        return twilio.error(code, f"No '{name}' number is specified")
    if to in _MAGIC_TO:
        code, text = _MAGIC_TO[to]
        return twilio.error(code, text.format(to))
    if not twilio.PHONE.fullmatch(to):
        return twilio.error(21211, f"The phone number you are attempting to call, {to}, is not valid.")
    if not twilio.PHONE.fullmatch(sender) or sender == "+15005550001":
        return twilio.error(21212, f"The source phone number provided, {sender}, is not valid.")
    return _script_refusal(form, spoken) or _callback_refusal(form)


def _script_refusal(form: Form, spoken: str) -> Reply | None:
    if not spoken and not _first(form, "Url") and not _first(form, "ApplicationSid"):
        return twilio.error(21205, "Url parameter is required.")
    if len(spoken) > MAXIMUM_TWIML_CHARACTERS:
        return twilio.error(20001, f"Twiml may have {MAXIMUM_TWIML_CHARACTERS} characters at most")
    return None


def _callback_refusal(form: Form) -> Reply | None:
    for name in ("StatusCallback", "AsyncAmdStatusCallback"):
        url = _first(form, name)
        if url and not url.startswith(("http://", "https://")):
            return twilio.error(21609, f"The '{name}' URL {url} is not a valid URL.")
    return None
