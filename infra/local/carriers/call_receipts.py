"""What becomes of a call: who picks up, what they press, and the callbacks that tell of it.

Sources: https://www.twilio.com/docs/voice/api/call-resource#statuscallback and https://www.twilio.com/docs/voice/twiml/gather
"""

from __future__ import annotations

from infra.local.carriers import twilio_callbacks, twiml
from infra.local.carriers.callbacks import Job
from infra.local.carriers.poster import Outcome
from infra.local.carriers.receipts import spread
from infra.local.carriers.records import Call
from infra.local.carriers.twilio import VERSION, date
from infra.local.carriers.world import World

_LINE, _MACHINE, _PRESS = range(3)


def foresee(world: World, call: Call) -> None:
    """Decide when this call rings, is picked up and ends, by whom, and what is pressed."""
    knobs = world.board.of["voice"]
    step_seconds = knobs.receipt_delay_ms / 1000
    call.ringing_at = call.created_at + step_seconds
    call.answered_at = call.created_at + 2 * step_seconds
    call.ended_at = call.created_at + 4 * step_seconds
    draws = world.chance.draw("outcome", "voice", call.to)
    if draws[_LINE] < knobs.rate_busy:
        call.final_status = "busy"
    elif draws[_LINE] < knobs.rate_busy + knobs.rate_no_answer:
        call.final_status = "no-answer"
    else:
        call.machine = draws[_MACHINE] < knobs.rate_machine
        if not call.machine and draws[_PRESS] < knobs.rate_press:
            call.digits = str(int(knobs.press_digit))


def tell(world: World, call: Call) -> None:
    """Schedule the status callbacks that were asked for, and the key press."""
    if call.callback is not None:
        told = [
            (at - call.created_at, receipt(world, call, call.callback, status))
            for event, at, status in _course(call)
            if event in call.events
        ]
        spread(world, "voice", call.to, told)
    if call.final_status == "completed":
        _talk(world, call)


def _course(call: Call) -> list[tuple[str, float, str]]:
    """The events of a call as they may be subscribed to, when each happens, and the CallStatus it tells."""
    course = [("initiated", call.created_at, "initiated"), ("ringing", call.ringing_at, "ringing")]
    if call.final_status == "completed":
        course.append(("answered", call.answered_at, "in-progress"))
    return [*course, ("completed", call.ended_at, call.final_status)]


def _talk(world: World, call: Call) -> None:
    answered_after = call.answered_at - call.created_at
    if call.machine_callback is not None and call.detects_machines:
        job = twilio_callbacks.job(
            world, "machine", call.machine_callback, lambda: _machine_fields(world, call)
        )
        world.callbacks.schedule(job, answered_after)
    if call.action is not None and (call.digits or call.act_on_silence):
        pressed_after = (answered_after + call.ended_at - call.created_at) / 2
        world.callbacks.schedule(gathered(world, call, call.action, call.digits), pressed_after)


def gathered(world: World, call: Call, action: str, digits: str) -> Job:
    """The request that <Gather> makes to its action; an answer that is no TwiML counts as `bad_twiml`."""

    def fields() -> twilio_callbacks.Fields:
        form = {
            **_common(world, call, "in-progress"),
            "Digits": digits,
            "FinishedOnKey": "",
            "msg": "Gather End",
        }
        if call.answered_by is not None:
            form["AnsweredBy"] = call.answered_by
        return form

    job = twilio_callbacks.job(world, "gather", action, fields)
    job.done = lambda outcome: _check_answer(world, outcome)
    return job


def _check_answer(world: World, outcome: Outcome) -> None:
    if outcome.reason:
        return
    try:
        twiml.read(outcome.body.decode("utf-8", "replace"))
    except twiml.TwimlError:
        world.callbacks.note("bad_twiml")


def receipt(world: World, call: Call, url: str, status: str) -> Job:
    """One status callback; its SequenceNumber is its place in the call's true order."""
    number = call.sequence
    call.sequence += 1

    def fields() -> twilio_callbacks.Fields:
        form = {
            **_common(world, call, status), "CallbackSource": "call-progress-events",
            "SequenceNumber": str(number), "Timestamp": date(int(world.clock())),
        }  # fmt: skip
        if status in ("completed", "busy", "no-answer", "failed"):
            form["CallDuration"] = str(call.duration_seconds)
            form["Duration"] = str(-(-call.duration_seconds // 60))
            if call.answered_by is not None:
                form["AnsweredBy"] = call.answered_by
        return form

    return twilio_callbacks.job(world, "voice", url, fields)


def _machine_fields(world: World, call: Call) -> twilio_callbacks.Fields:
    return {
        "AccountSid": world.settings.account_sid, "CallSid": call.sid,
        "AnsweredBy": call.answered_by or "unknown", "MachineDetectionDuration": "2500",
    }  # fmt: skip


def _common(world: World, call: Call, status: str) -> twilio_callbacks.Fields:
    return {
        "AccountSid": world.settings.account_sid, "ApiVersion": VERSION, "CallSid": call.sid,
        "CallStatus": status, "Called": call.to, "Caller": call.sender, "Direction": "outbound-api",
        "From": call.sender, "To": call.to,
    }  # fmt: skip
