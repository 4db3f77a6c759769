"""Receipts: any order, doubled, late or early give the same row; unknown ones wait; each has one effect."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.database.builders import Connect, Json, Organisation, Sql, new_phone, rows, value
from tests.database.dispatching import claim, id_of, receipt, receive, record, record_all, result, sweep

pytestmark = pytest.mark.usefixtures("fresh_queues")

FINAL = (
    "state",
    "reason",
    "failure_code",
    "handed_over_at",
    "sent_at",
    "delivered_at",
    "provider_id",
    "claimable_at",
)
CASES: dict[str, tuple[str, list[tuple[str, str | None]]]] = {
    "message": ("sms", [("queued", None), ("sent", None), ("delivered", None)]),
    "message-bounced": ("sms", [("queued", None), ("sent", None), ("undelivered", "30005")]),
    "message-unheard-of": ("sms", [("sent", None), ("teleported", "7"), ("queued", None)]),
    "message-contradicted": ("sms", [("delivered", None), ("undelivered", "30005"), ("sent", None)]),
    "message-failed-twice": ("sms", [("failed", "30008"), ("undelivered", "30005"), ("sent", None)]),
    "call": ("voice", [("initiated", None), ("ringing", None), ("in-progress", None), ("completed", None)]),
    "call-without-answer": (
        "voice",
        [("ringing", None), ("busy", None), ("no-answer", None), ("failed", "13224")],
    ),
    "email": ("email", [("sent", None), ("delivery_delayed", None), ("delivered", None), ("opened", None)]),
    "email-bounced-late": ("email", [("sent", None), ("delivered", None), ("bounced", "Permanent")]),
    "email-bounced": (
        "email",
        [("sent", None), ("bounced", "Transient"), ("suppressed", "OnAccountSuppressionList")],
    ),
}


def addressed(organisation: Organisation, channel: str, number: int = 1) -> Json:
    """An alert to so many people over one channel, sent."""
    addresses = [f"{uuid4().hex}@example.com" if channel == "email" else new_phone() for _ in range(number)]
    alert = organisation.alert([organisation.contact(each) for each in addresses], channels=[channel])
    organisation.send(alert)
    return alert


def story(case: str, delivery: str) -> list[Json]:
    channel, told = CASES[case]
    kind = {"sms": "message", "voice": "call", "email": "email"}[channel]
    return [
        receipt(delivery, status, kind=kind, code=code, occurred_at=f"2026-01-01T00:00:0{second}Z",
                event_key=f"{delivery}-{status}")
        for second, (status, code) in enumerate(told)
    ]  # fmt: skip


def outcome(organisation: Organisation, alert: Json) -> dict[str, Any]:
    [row] = organisation.deliveries(alert)
    found = {name: row[name] for name in FINAL}
    found["provider_id"] = found["provider_id"] is not None
    query = "select amount, settled, released from public.credit_reservations where alert_id = %s"
    return found | rows(organisation.sql, query, row["alert_id"])[0]


@pytest.mark.parametrize("case", CASES)
def test_every_order_ends_the_same(organisation: Organisation, sql: Sql, case: str) -> None:
    channel, told = CASES[case]
    ends = []
    for order in itertools.permutations(range(len(told))):
        alert = addressed(organisation, channel)
        record_all(sql, claim(sql, channel))
        receipts = story(case, id_of(organisation.deliveries(alert)[0]))
        for index in order:
            receive(sql, receipts[index])
        ends.append(outcome(organisation, alert))
    organisation.assert_ledger_holds()
    assert all(end == ends[0] for end in ends), [end for end in ends if end != ends[0]][:1] + ends[:1]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(CASES)), st.data())
@example("message", None)
def test_shuffled_doubled_and_early_receipts_end_the_same(
    sql: Sql, case: str, data: st.DataObject | None
) -> None:
    channel, told = CASES[case]
    steps: list[int | None] = [*range(len(told)), *range(len(told)), None]  # None: the answer is recorded
    if data is not None:
        steps = data.draw(st.permutations(steps))
    together = data.draw(st.booleans()) if data else True
    organisation = Organisation.make(sql)

    def play(order: list[int | None], together: bool) -> dict[str, Any]:
        alert = addressed(organisation, channel)
        claimed = claim(sql, channel)
        delivery = id_of(organisation.deliveries(alert)[0])
        receipts = story(case, delivery)
        answered = order.index(None)
        for part, is_early in ((order[:answered], True), (order[answered + 1 :], False)):
            told = [receipts[index] for index in part if index is not None]
            for batch in [told] if together else [[each] for each in told]:
                receive(sql, *batch)
            if is_early:
                record_all(sql, claimed, provider_id=f"SM-{delivery}-1")
        organisation.assert_ledger_holds()
        return outcome(organisation, alert)

    assert play(steps, together) == play([None, *range(len(told))], together=False)


def test_receipt_has_one_effect_however_often_it_comes(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    alert = addressed(organisation, "sms")
    record_all(sql, claim(sql))
    told = receipt(id_of(organisation.deliveries(alert)[0]), "delivered")
    answers = [receive(sql, told, told)]
    with ThreadPoolExecutor(4) as pool:
        answers += pool.map(lambda own: receive(own, told), [connect() for _ in range(4)])
    assert sum(each["stored"] for each in answers) == 1
    assert sum(each["repeated"] for each in answers) == 5
    events = "select count(*) from public.delivery_events where alert_id = %s and kind = 'receipt'"
    assert value(sql, events, UUID(alert["alert_id"])) == 1


def test_unknown_status_is_kept_raw_and_changes_nothing(organisation: Organisation, sql: Sql) -> None:
    alert = addressed(organisation, "sms")
    record_all(sql, claim(sql))
    before = organisation.deliveries(alert)
    assert receive(sql, receipt(id_of(before[0]), "teleported", code="99999"))["applied"] == 1
    assert organisation.deliveries(alert) == before
    kept = rows(sql, "select status, code, state::text from public.delivery_events where alert_id = %s and kind = 'receipt'",
                UUID(alert["alert_id"]))  # fmt: skip
    assert kept == [{"status": "teleported", "code": "99999", "state": "handed_over"}]


def test_receipt_for_an_unknown_delivery_waits(sql: Sql) -> None:
    answer = receive(
        sql, receipt(f"{uuid4().hex}-1", "delivered"), receipt(None, "delivered", provider_id="SM-none")
    )
    assert answer == {"stored": 2, "repeated": 0, "applied": 0, "waiting": 2}
    assert sweep(sql)["replayed"] in {0, None}


@pytest.mark.parametrize("known_by", ["reference", "provider id"])
def test_receipt_before_the_row_knows_its_provider_id_is_replayed(
    organisation: Organisation, sql: Sql, known_by: str
) -> None:
    alert = addressed(organisation, "sms")
    claimed = claim(sql)
    delivery, name = claimed["deliveries"][0]["id"], f"SM-{uuid4()}"
    early = receipt(delivery if known_by == "reference" else None, "delivered", provider_id=name)
    assert receive(sql, early)["waiting"] == int(known_by == "provider id")
    record_all(sql, claimed, provider_id=name)
    [row] = organisation.deliveries(alert)
    assert (row["state"], row["provider_id"]) == ("delivered", name)
    organisation.assert_ledger_holds()
    assert receive(sql, receipt(None, "read", provider_id=name))["applied"] == 1


def test_receipt_that_crosses_its_row_is_brought_to_it_by_the_sweep(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    alert = addressed(organisation, "sms")
    claimed, name = claim(sql), f"SM-{uuid4()}"
    other = connect()
    sql.execute("begin")
    other.execute("begin")
    record_all(sql, claimed, provider_id=name)
    receive(other, receipt(None, "delivered", provider_id=name))
    sql.execute("commit")
    other.execute("commit")
    assert organisation.deliveries(alert)[0]["state"] == "handed_over"
    assert sweep(sql)["replayed"] == 1
    assert organisation.deliveries(alert)[0]["state"] == "delivered"


def test_receipt_that_waits_for_a_row_is_not_lost(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    # the row changes while the receipt waits for its lock: what it read before is old
    alert = addressed(organisation, "sms")
    claimed = claim(sql)
    other = connect()
    sql.execute("begin")
    record_all(sql, claimed)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, other, receipt(claimed["deliveries"][0]["id"], "delivered"))
        while not value(
            connect(), "select count(*) from pg_locks where not granted and pid = %s", other.info.backend_pid
        ):
            assert not waiting.done()
        sql.execute("commit")
        assert waiting.result()["applied"] == 1
    [row] = organisation.deliveries(alert)
    assert row["state"] == "delivered"
    assert organisation.account() == (1_000_000 - 7, 0)
    organisation.assert_ledger_holds()


def test_bounce_after_delivery_is_kept_as_an_event(organisation: Organisation, sql: Sql) -> None:
    alert = addressed(organisation, "email")
    record_all(sql, claim(sql, "email"))
    delivery = id_of(organisation.deliveries(alert)[0])
    receive(sql, receipt(delivery, "delivered", kind="email"))
    receive(sql, receipt(delivery, "bounced", kind="email", code="Permanent"))
    assert organisation.deliveries(alert)[0]["state"] == "delivered"
    events = "select array_agg(status order by id) from public.delivery_events where alert_id = %s and kind = 'receipt'"
    assert value(sql, events, UUID(alert["alert_id"])) == ["delivered", "bounced"]


@pytest.mark.parametrize(
    ("channel", "status", "code", "reason"),
    [
        ("email", "bounced", "Permanent", "bounce"),
        ("email", "bounced", "Transient", None),
        ("email", "complained", None, "complaint"),
        ("sms", "undelivered", "21610", "opt_out"),
        ("sms", "undelivered", "30005", None),
    ],
)
def test_what_suppresses_a_destination(
    organisation: Organisation, sql: Sql, channel: str, status: str, code: str | None, reason: str | None
) -> None:
    alert = addressed(organisation, channel)
    record_all(sql, claim(sql, channel))
    kind = "email" if channel == "email" else "message"
    receive(sql, receipt(id_of(organisation.deliveries(alert)[0]), status, kind=kind, code=code))
    found = rows(
        sql,
        "select channel::text, reason::text, source from public.suppressions where organisation_id = %s",
        organisation.id,
    )
    assert found == ([{"channel": channel, "reason": reason, "source": "receipt"}] if reason else [])


def test_clock_of_a_provider_never_runs_ahead(organisation: Organisation, sql: Sql) -> None:
    alert = addressed(organisation, "sms")
    record_all(sql, claim(sql))
    receive(
        sql,
        receipt(id_of(organisation.deliveries(alert)[0]), "delivered", occurred_at="2999-01-01T00:00:00Z"),
    )
    assert value(
        sql,
        "select delivered_at <= now() from public.deliveries where alert_id = %s",
        UUID(alert["alert_id"]),
    )


def test_row_that_ended_without_a_send_stays(organisation: Organisation, sql: Sql) -> None:
    alert = addressed(organisation, "sms")
    record_all(sql, claim(sql), "permanent")
    assert receive(sql, receipt(id_of(organisation.deliveries(alert)[0]), "delivered"))["applied"] == 1
    assert organisation.deliveries(alert)[0]["state"] == "failed"
    assert organisation.account() == (1_000_000, 0)


def test_receipts_and_results_in_opposite_orders_never_deadlock(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    for _ in range(4):
        alert = addressed(organisation, "sms", 60)
        claimed = claim(sql)
        ids = [each["id"] for each in claimed["deliveries"]]
        works: list[Any] = [
            lambda own, claimed=claimed: record(
                own, claimed["lease"], [result(each) for each in reversed(claimed["deliveries"])]
            )
        ]
        for start, status in ((0, "delivered"), (7, "sent"), (31, "queued"), (45, "undelivered")):
            turned = ids[start:] + ids[:start]
            for order in (turned, turned[::-1]):
                batch = [receipt(each, status) for each in order]
                works.append(lambda own, batch=batch: receive(own, *batch))
        with ThreadPoolExecutor(len(works)) as pool:
            list(pool.map(lambda work: work(connect()), works))
        assert {each["state"] for each in organisation.deliveries(alert)} == {"delivered"}
        organisation.assert_ledger_holds()
    assert organisation.account()[1] == 0


def test_throttled_results_and_claims_never_deadlock(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    # a claim holds the sender and then the queues: so must a result that halts the sender and feeds the queue
    addressed(organisation, "sms", 40)

    def work(own: Sql) -> None:
        for _ in range(25):
            own.execute("update private.senders set halted_until = '-infinity' where channel = 'sms'")
            record_all(own, claim(own, batch=3), "throttle", retry_after_seconds=0.01)
            own.execute(b"update public.deliveries set claimable_at = now() where alert_id in"
                        b" (select id from public.alerts where organisation_id = %s) and claimable_at > now()"
                        b" and state = 'planned' and number %% 5 = 0", (organisation.id,))  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [connect() for _ in range(4)]))


def test_key_press_answers_once(organisation: Organisation, sql: Sql) -> None:
    alert = addressed(organisation, "voice")
    claimed = claim(sql, "voice")
    answer = {
        "delivery_id": claimed["deliveries"][0]["id"],
        "attempt": 1,
        "source": "key_press",
        "option": "1",
        "provider_id": "CA1",
    }
    press = "select public.record_answer(%s)"
    clear, unclear = Jsonb(answer), Jsonb(answer | {"option": "5"})
    assert value(sql, press, unclear) == {"recorded": True, "clear": False}
    assert organisation.deliveries(alert)[0]["state"] == "claimed"
    assert value(sql, press, clear) == {"recorded": True, "clear": True}
    assert value(sql, press, clear)["recorded"] is False
    assert organisation.deliveries(alert)[0]["state"] == "answered"
    assert record_all(sql, claimed)["fenced"] == 0
    receive(sql, receipt(claimed["deliveries"][0]["id"], "completed", kind="call"))
    assert organisation.deliveries(alert)[0]["state"] == "answered"
    assert organisation.account() == (1_000_000 - 12, 0)
    organisation.assert_ledger_holds()


def test_inbound_message_is_kept_once(sql: Sql) -> None:
    message = {
        "provider": "twilio",
        "provider_id": str(uuid4()),
        "channel": "sms",
        "sender": "+33612345678",
        "recipient": "+33700000000",
        "body": "STOP",
        "opt_out_type": "STOP",
    }
    inbound = "select public.record_inbound(%s)"
    assert value(sql, inbound, Jsonb([message])) == {"stored": 1, "repeated": 0}
    assert value(sql, inbound, Jsonb([message])) == {"stored": 0, "repeated": 1}
