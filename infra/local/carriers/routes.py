"""Which door a request knocks at."""

from __future__ import annotations

import re

from infra.local.carriers import resend, twilio
from infra.local.carriers.calls import Calls
from infra.local.carriers.control import BadRequestError, Control
from infra.local.carriers.emails import Emails
from infra.local.carriers.exchange import Answer, Handler, Request, problem
from infra.local.carriers.messages import Messages
from infra.local.carriers.simulate import Simulate
from infra.local.carriers.sink import PREFIX, Sink
from infra.local.carriers.world import World


class Routes:
    """All doors of one process. Call it with a request."""

    def __init__(self, world: World) -> None:
        self._messages, self._calls, self._emails = Messages(world), Calls(world), Emails(world)
        self._sink = Sink(world)
        self._twilio, self._resend = twilio.Credentials(world.settings), resend.Credentials(world)
        account = f"/{twilio.VERSION}/Accounts/{world.settings.account_sid}/"
        self._item = re.compile(re.escape(account) + r"(Messages|Calls)/([A-Za-z0-9]+)\.json")
        self._providers: dict[tuple[str, str], Handler] = {
            ("POST", account + "Messages.json"): self._messages.send,
            ("GET", account + "Messages.json"): self._messages.list,
            ("POST", account + "Calls.json"): self._calls.place,
            ("GET", account + "Calls.json"): self._calls.list,
        }
        self._control = _control_doors(Control(world), Simulate(world))

    def __call__(self, request: Request) -> Answer:
        """The answer, whatever was asked."""
        path = request.path
        if path.startswith("/2010-04-01/"):
            return self._at_twilio(request)
        if path.startswith(PREFIX):
            return self._sink.receive(request)
        if path.startswith("/emails"):
            return self._at_resend(request)
        return self._at_control(request)

    def _at_twilio(self, request: Request) -> Answer:
        refusal = self._twilio.refuse(request)
        if refusal is not None:
            return refusal
        handler = self._providers.get((request.method, request.path))
        if handler is not None:
            return handler(request)
        found = self._item.fullmatch(request.path)
        if found is None:
            return twilio.not_found(request.path)
        return self._one(request, self._messages if found[1] == "Messages" else self._calls, found[2])

    def _one(self, request: Request, resource: Messages | Calls, sid: str) -> Answer:
        if request.method == "GET":
            return resource.get(request, sid)
        if request.method == "DELETE":
            return resource.delete(request, sid)
        if request.method == "POST" and isinstance(resource, Messages):
            return resource.update(request, sid)
        return twilio.wrong_method()

    def _at_resend(self, request: Request) -> Answer:
        refusal = self._resend.refuse(request)
        if refusal is not None:
            return refusal
        match request.method, request.path:
            case "POST", "/emails":
                return self._emails.send(request)
            case "POST", "/emails/batch":
                return self._emails.send_batch(request)
            case "GET", path if path.count("/") == 2:
                return self._emails.get(path.rpartition("/")[2])
        return resend.error(404, "not_found", "The requested endpoint does not exist.")

    def _at_control(self, request: Request) -> Answer:
        handler = self._control.get((request.method, request.path))
        if handler is None:
            return problem(404, "no_such_door", f"There is no {request.method} {request.path} here.")
        try:
            return handler(request)
        except BadRequestError as error:
            return problem(400, "invalid_request", str(error))


def _control_doors(control: Control, simulate: Simulate) -> dict[tuple[str, str], Handler]:
    return {
        ("GET", "/healthz"): control.health,
        ("GET", "/journal"): control.journal,
        ("GET", "/journal/requests"): control.requests,
        ("GET", "/journal/counts"): control.counts,
        ("GET", "/knobs"): control.show_knobs,
        ("POST", "/knobs"): control.turn_knobs,
        ("POST", "/reset"): control.reset,
        ("POST", "/simulate/inbound"): simulate.inbound,
        ("POST", "/simulate/answer"): simulate.answer,
        ("POST", "/simulate/receipt"): simulate.receipt,
    }
