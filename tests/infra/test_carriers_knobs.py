"""Every knob is seen to act, is checked, and draws the same for the same seed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from infra.local.carriers import testing
from infra.local.carriers.chance import Chance
from infra.local.carriers.client import CarriersError
from infra.local.carriers.knobs import ChannelKnobs, Fate, KnobError, turned
from infra.local.carriers.presets import PRESETS, Board


@pytest.fixture(scope="module")
def process() -> Iterator[testing.Running]:
    with testing.running() as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running) -> testing.Running:
    process.control.preset("none")
    process.control.reset(seed=7)
    return process


def _post(
    carriers: testing.Running, path: str, body: bytes, timeout_seconds: float = 10.0, **headers: str
) -> Any:
    """Status, headers and body; None when the connection ended without an answer."""
    connection = http.client.HTTPConnection(urlsplit(carriers.url).netloc, timeout=timeout_seconds)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    except http.client.HTTPException:
        return None
    except ConnectionError:
        return None
    finally:
        connection.close()


def _text(carriers: testing.Running, to: str = "+33612345678", timeout_seconds: float = 10.0) -> Any:
    path = f"/2010-04-01/Accounts/{testing.ACCOUNT_SID}/Messages.json"
    form = urlencode({"To": to, "From": "+15005550006", "Body": "x"}).encode()
    return _post(carriers, path, form, timeout_seconds, Authorization=_BASIC)


def _call(carriers: testing.Running, timeout_seconds: float = 10.0) -> Any:
    path = f"/2010-04-01/Accounts/{testing.ACCOUNT_SID}/Calls.json"
    form = urlencode({"To": "+33612345678", "From": "+15005550006", "Twiml": "<Response/>"}).encode()
    return _post(carriers, path, form, timeout_seconds, Authorization=_BASIC)


def _mail(carriers: testing.Running, timeout_seconds: float = 10.0) -> Any:
    email = {"from": "us@example.org", "to": "alice@example.org", "subject": "s", "text": "x"}
    key = f"Bearer {testing.RESEND_API_KEY}"
    return _post(carriers, "/emails", json.dumps(email).encode(), timeout_seconds, Authorization=key)


def _hook(carriers: testing.Running, timeout_seconds: float = 10.0) -> Any:
    return _post(carriers, "/sink/org/1", b"{}", timeout_seconds, **{"webhook-id": "00ff-1"})


_BASIC = testing.basic_authorization()
_DOORS: dict[str, Callable[..., Any]] = {"sms": _text, "voice": _call, "email": _mail, "webhook": _hook}


@pytest.mark.parametrize("channel", _DOORS)
def test_429_is_never_accepted_and_says_when_to_come_again(carriers: testing.Running, channel: str) -> None:
    carriers.control.knobs(**{channel: {"rate_429": 1, "retry_after_seconds": 7}})
    status, headers, _ = _DOORS[channel](carriers)
    assert (status, headers["Retry-After"]) == (429, "7")
    carriers.control.knobs(**{channel: {"retry_after_seconds": 0}})
    assert "Retry-After" not in _DOORS[channel](carriers)[1]
    counts = carriers.control.counts()[channel]
    assert (counts["accepted"], counts["refused"]) == (0, {"429": 2})


@pytest.mark.parametrize("channel", _DOORS)
def test_5xx_may_be_a_refusal_or_an_acceptance(carriers: testing.Running, channel: str) -> None:
    carriers.control.knobs(**{channel: {"rate_5xx": 1}})
    assert {_DOORS[channel](carriers)[0] for _ in range(20)} == {500, 503}
    assert carriers.control.counts()[channel]["accepted"] == 0
    carriers.control.knobs(**{channel: {"rate_5xx": 0, "rate_5xx_accepted": 1}})
    assert _DOORS[channel](carriers)[0] in {500, 503}
    counts = carriers.control.counts()[channel]
    assert (counts["accepted"], counts["answers_lost"]) == (1, 1)


@pytest.mark.parametrize("channel", _DOORS)
def test_an_answer_can_be_lost(carriers: testing.Running, channel: str) -> None:
    carriers.control.knobs(**{channel: {"rate_answer_lost": 1}})
    assert _DOORS[channel](carriers) is None
    [row] = carriers.control.journal(channel)
    assert row.answer_lost
    assert carriers.control.counts()[channel]["refused"] == {"0": 1}


def test_a_request_can_hang_and_every_second_one_was_accepted(carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"rate_hang": 1})
    for number in range(12):
        with pytest.raises(TimeoutError):
            _text(carriers, f"+3361234567{number}", timeout_seconds=0.05)
    counts = carriers.control.counts()["sms"]
    assert counts["requests"] == 12
    assert 0 < counts["accepted"] < 12
    assert counts["answers_lost"] == counts["accepted"]


def test_garbage_with_200_is_accepted_only_by_a_webhook(carriers: testing.Running) -> None:
    carriers.control.knobs(all={"garbage_200": 1})
    for channel, door in _DOORS.items():
        status, headers, body = door(carriers)
        assert (status, headers["Content-Type"]) == (200, "text/html")
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(body)
        assert carriers.control.counts()[channel]["accepted"] == (channel == "webhook")


def test_latency_and_jitter_delay_the_answer(carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"latency_ms": 120})
    began = time.monotonic()
    assert _text(carriers)[0] == 201
    assert time.monotonic() - began >= 0.12
    carriers.control.knobs(sms={"latency_ms": 0, "jitter_ms": 200})
    took = []
    for number in range(6):
        began = time.monotonic()
        _text(carriers, f"+3361234567{number}")
        took.append(time.monotonic() - began)
    assert max(took) - min(took) > 0.02


def test_a_rate_a_second_is_kept(carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"requests_per_second": 3})
    statuses = [_text(carriers)[0] for _ in range(12)]
    assert statuses.count(429) >= 6
    assert statuses[0] == 201


def test_bodies_are_kept_only_on_request(carriers: testing.Running) -> None:
    _text(carriers)
    carriers.control.knobs(all={"keep_body": True})
    for door in _DOORS.values():
        door(carriers)
    assert [row.body for row in carriers.control.journal()] == [None, "x", "<Response/>", "s\0x\0", "{}"]


def test_fates_share_out_as_the_rates_say() -> None:
    knobs = turned(ChannelKnobs(), {"rate_429": 0.2, "rate_5xx": 0.1, "rate_answer_lost": 0.05})
    chance = Chance(7)
    fates = [knobs.fate(chance.draw("request", "sms", str(number))[0]) for number in range(20_000)]
    shares = {fate: fates.count(fate) / len(fates) for fate in Fate}
    assert shares[Fate.THROTTLED] == pytest.approx(0.2, abs=0.01)
    assert shares[Fate.BROKEN] == pytest.approx(0.1, abs=0.01)
    assert shares[Fate.LOST] == pytest.approx(0.05, abs=0.01)
    assert shares[Fate.HUNG] == 0


def test_draws_depend_on_who_and_how_often_not_on_the_order() -> None:
    there, back, other = Chance(7), Chance(7), Chance(8)
    names = [f"+336{number}" for number in range(50)]
    forward = {name: [there.draw("request", "sms", name) for _ in range(3)] for name in names}
    turns = [name for _ in range(3) for name in reversed(names)]
    backward: dict[str, list[tuple[float, ...]]] = {}
    for name in turns:
        backward.setdefault(name, []).append(back.draw("request", "sms", name))
    assert forward == backward
    assert forward[names[0]][0] != forward[names[0]][1]
    assert other.draw("request", "sms", names[0]) != forward[names[0]][0]


def test_the_same_seed_repeats_a_whole_run(carriers: testing.Running) -> None:
    def run(seed: int, numbers: range) -> dict[str, object]:
        carriers.control.reset(seed=seed)
        return {number: _outcome(_text(carriers, f"+33612345{number}")) for number in map(str, numbers)}

    carriers.control.knobs(sms={"rate_429": 0.2, "rate_5xx": 0.2, "rate_answer_lost": 0.2})
    first = run(1, range(100, 140))
    assert first == run(1, range(139, 99, -1))
    assert first != run(2, range(100, 140))
    assert set(first.values()) >= {201, 429, None}


def _outcome(answer: Any) -> int | None:
    return None if answer is None else int(answer[0])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_set(carriers: testing.Running, name: str) -> None:
    shown = carriers.control.preset(name)
    assert shown["preset"] == name
    assert (shown["sms"]["rate_429"] > 0) == (name != "none")
    assert carriers.control.knobs() == shown


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "mild"}, "the presets are none, standard, storm"),
        ({"fax": {}}, "nor a channel"),
        ({"sms": 3}, "must be an object"),
        ({"sms": {"rate_of_joy": 1}}, "the knobs are"),
        ({"sms": {"rate_429": 1.5}}, "from 0 to 1"),
        ({"sms": {"rate_429": True}}, "from 0 to 1"),
        ({"sms": {"rate_429": "1"}}, "from 0 to 1"),
        ({"sms": {"latency_ms": -1}}, "from 0 to"),
        ({"sms": {"press_digit": 10}}, "from 0 to 9"),
        ({"sms": {"receipts": "some"}}, "on, final, off"),
        ({"sms": {"keep_body": 1}}, "true or false"),
        ({"sms": {"rate_429": 0.6, "rate_5xx": 0.6}}, "add up to 1.2"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_wrong_knob_is_refused_and_changes_nothing(
    carriers: testing.Running, changes: dict[str, Any], complaint: str
) -> None:
    before = carriers.control.knobs()
    with pytest.raises(CarriersError, match=complaint) as refused:
        carriers.control.knobs(**{"webhook": {"latency_ms": 5}, **changes})
    assert refused.value.status == 400
    assert carriers.control.knobs() == before


def test_a_preset_that_does_not_exist_is_refused_at_start() -> None:
    with pytest.raises(KnobError):
        Board("mild")
    with pytest.raises(RuntimeError, match="exit status 2"), testing.running(CARRIERS_FAULTS="mild"):
        pass
