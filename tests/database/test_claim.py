"""Claiming: urgent first, organisations in turns, at the sender's pace, once each, with the data of that moment."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from tests.database.builders import Connect, Json, Organisation, Sql, new_phone, value
from tests.database.dispatching import (
    ask,
    claim,
    end_leases,
    id_of,
    pass_time,
    receipt,
    receive,
    record_all,
    sweep,
)

pytestmark = pytest.mark.usefixtures("fresh_queues")


def sent(organisation: Organisation, number: int = 1, **more: object) -> Json:
    """An alert to so many people."""
    alert = organisation.alert(organisation.people(number), **more)  # type: ignore[arg-type]
    organisation.send(alert)
    return alert


def set_pace(sql: Sql, segments_per_second: float, burst: float, tokens: float | None = None) -> None:
    sql.execute(
        "update private.senders set segments_per_second = %s, burst = %s, tokens = %s, filled_at = clock_timestamp()",
        (segments_per_second, burst, burst if tokens is None else tokens),
    )


def test_message_has_all_that_a_channel_needs(organisation: Organisation, sql: Sql) -> None:
    phone = new_phone()
    template = organisation.template(sms="Bonjour {{name}}, salle {{room}}")
    contact = organisation.contact(phone, name="Zoé", attributes={"room": "12"})
    alert = organisation.alert([contact], template=template)
    organisation.send(alert)
    claimed = claim(sql)
    [message] = claimed["deliveries"]
    assert message["id"] == f"{UUID(alert['alert_id']).hex}-1"
    assert (message["to"], message["body"], message["attempt"]) == (phone, "Bonjour Zoé, salle 12", 1)
    assert (message["organisation_id"], message["language"], message["segments"]) == (
        str(organisation.id),
        "fr",
        1,
    )
    assert (message["subject"], message["html"]) == (None, None)
    assert claimed["lease_until"] == pytest.approx(claimed["now"] + 60)
    assert 86_000 < message["expires_at"] - claimed["now"] <= 86_400
    [row] = organisation.deliveries(alert)
    assert (row["state"], row["attempt"], str(row["lease"])) == ("claimed", 1, claimed["lease"])


def test_row_that_never_was_in_the_database_keeps_no_address_and_no_text(
    organisation: Organisation, sql: Sql
) -> None:
    phone = new_phone()
    alert = organisation.alert([organisation.contact(phone, name="Canary")])
    organisation.send(alert)
    record_all(sql, claim(sql))
    kept = value(
        sql, "select string_agg(d::text, '') from public.deliveries d where alert_id = %s", alert["alert_id"]
    )
    assert phone not in kept
    assert "Canary" not in kept


def test_urgent_lane_goes_first(organisation: Organisation, sql: Sql) -> None:
    bulk = sent(organisation, 30, severity="normal")
    urgent = sent(Organisation.make(sql), 5, severity="urgent")
    critical = sent(Organisation.make(sql), 5, severity="critical")
    order = [each["id"][:32] for _ in range(4) for each in claim(sql, batch=10)["deliveries"]]
    assert set(order[:5]) == {UUID(critical["alert_id"]).hex} or set(order[:10]) == {
        UUID(critical["alert_id"]).hex, UUID(urgent["alert_id"]).hex,
    }  # fmt: skip
    assert set(order[10:]) == {UUID(bulk["alert_id"]).hex}
    assert len(order) == 40


@pytest.mark.parametrize(("batch", "burst"), [(10, 1000), (50, 10), (50, 3), (1, 1000), (50, 1)])
def test_organisations_take_turns(sql: Sql, batch: int, burst: int) -> None:
    sizes = {Organisation.make(sql): size for size in (150, 20, 20, 20)}
    for organisation, size in sizes.items():
        sent(organisation, size)
    served: Counter[str] = Counter()
    while sum(served.values()) < 60:
        set_pace(sql, 1, burst)
        got = claim(sql, batch=batch)["deliveries"]
        assert got, f"nothing to claim after {served}"
        served.update(each["organisation_id"] for each in got)
    shares = [served[str(organisation.id)] for organisation in sizes]
    assert max(shares) - min(shares) <= max(1, -(-batch // 4)), shares


def test_newcomer_need_not_wait_for_a_big_job(sql: Sql) -> None:
    big, small = Organisation.make(sql), Organisation.make(sql)
    sent(big, 200)
    for _ in range(3):
        claim(sql, batch=10)
    sent(small, 3)
    assert str(small.id) in {each["organisation_id"] for each in claim(sql, batch=10)["deliveries"]}


def test_pace_is_counted_in_segments(organisation: Organisation, sql: Sql) -> None:
    sent(organisation, 30, template=organisation.template(sms="a" * 400))
    set_pace(sql, 0.001, 10)
    claimed = claim(sql)
    assert sum(each["segments"] for each in claimed["deliveries"]) == 12  # a message is never cut: 4 of 3
    empty = claim(sql)
    assert (empty["lease"], empty["deliveries"]) == (None, [])
    assert empty["wait_seconds"] == pytest.approx(3000, rel=0.01)  # from -2 to 1


def test_bucket_fills_again_up_to_its_burst(organisation: Organisation, sql: Sql) -> None:
    sent(organisation, 60)
    set_pace(sql, 10, 20, tokens=0)
    assert claim(sql)["wait_seconds"] <= 0.1
    sql.execute(
        "update private.senders set tokens = 0, filled_at = clock_timestamp() - interval '1.05 seconds'"
    )
    assert len(claim(sql)["deliveries"]) == 10
    sql.execute("update private.senders set tokens = 0, filled_at = clock_timestamp() - interval '1 hour'")
    assert len(claim(sql)["deliveries"]) == 20


def test_message_longer_than_the_burst_is_sent(organisation: Organisation, sql: Sql) -> None:
    sent(organisation, 2, template=organisation.template(sms="a" * 1000))
    set_pace(sql, 1, 2)
    assert len(claim(sql)["deliveries"]) == 1
    assert value(sql, "select tokens from private.senders where channel = 'sms'") < -4


def test_nothing_is_claimed_twice_by_eight_at_once(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    for _ in range(2):
        sent(organisation, 150)
    connections = [connect() for _ in range(8)]

    def work(own: Sql) -> list[str]:
        got: list[str] = []
        while batch := claim(own, batch=7)["deliveries"]:
            got += [each["id"] for each in batch]
        return got

    with ThreadPoolExecutor(8) as pool:
        claimed = [each for got in pool.map(work, connections) for each in got]
    claimed += [each["id"] for each in claim(sql)["deliveries"]]
    assert len(claimed) == len(set(claimed)) == 300


def test_claimers_of_different_channels_do_not_meet(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    sent(organisation, 5, channels=["sms", "voice"])
    sql.execute("begin")
    assert len(claim(sql, "sms")["deliveries"]) == 5
    other = connect()
    other.execute("set lock_timeout = '2s'")
    assert len(claim(other, "voice")["deliveries"]) == 5
    sql.execute("rollback")


def test_row_that_a_receipt_holds_is_left_alone(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    alert = sent(organisation, 2)
    record_all(sql, claim(sql), "unknown")
    end_leases(sql)
    record_all(sql, ask(sql), "absent")
    sql.execute("begin")
    receive(sql, receipt(id_of(organisation.deliveries(alert)[0]), "delivered"))
    other = connect()
    other.execute("set lock_timeout = '2s'")
    [message] = claim(other)["deliveries"]
    sql.execute("commit")
    assert [each["state"] for each in organisation.deliveries(alert)] == ["delivered", "claimed"]
    assert message["id"] == id_of(organisation.deliveries(alert)[1])


def test_what_changed_since_the_send_takes_effect(organisation: Organisation, sql: Sql) -> None:
    names = [
        "erased",
        "restricted",
        "opted_out",
        "suppressed",
        "no_address",
        "changed",
        "replaced",
        "moved_on",
    ]
    phones = {name: new_phone() for name in names}
    people = {name: organisation.contact(phone) for name, phone in phones.items()}
    alert = organisation.alert(people.values())
    organisation.send(alert)
    changed, replaced = new_phone(), new_phone()
    sql.execute("delete from public.contacts where id = %s", (people["erased"],))
    sql.execute("update public.contacts set restricted_at = now() where id = %s", (people["restricted"],))
    organisation.call("suppress_address", phones["opted_out"], "sms", "opt_out")
    organisation.call("suppress_address", phones["suppressed"], None, "bounce")
    sql.execute("delete from public.addresses where contact_id = %s", (people["no_address"],))
    sql.execute("update public.addresses set value = %s where contact_id = %s", (changed, people["changed"]))
    sql.execute("delete from public.addresses where contact_id = %s", (people["replaced"],))
    organisation.address(people["replaced"], replaced)
    organisation.address(
        people["moved_on"], new_phone()
    )  # a later first address does not move what is planned
    claimed = claim(sql)
    assert {each["to"] for each in claimed["deliveries"]} == {changed, replaced, phones["moved_on"]}
    rows = organisation.by_contact(alert)
    for name in ("erased", "restricted", "opted_out", "suppressed", "no_address"):
        assert (rows[people[name]]["state"], rows[people[name]]["reason"]) == ("skipped", name)
        assert rows[people[name]]["claimable_at"] is None
    assert rows[people["changed"]]["destination_tail"] == changed[-4:]
    assert organisation.account() == (1_000_000 - 3 * 7, 3 * 7)
    organisation.assert_ledger_holds()
    record_all(sql, claimed)
    assert sweep(sql)["completed"] >= 1
    assert organisation.account() == (1_000_000 - 3 * 7, 0)


def test_expired_alert_is_never_sent(organisation: Organisation, sql: Sql) -> None:
    alert = sent(organisation, 3)
    sql.execute(
        "update public.alerts set expires_at = now() - interval '1 second' where id = %s",
        (UUID(alert["alert_id"]),),
    )
    assert claim(sql)["deliveries"] == []
    assert {(each["state"], each["reason"]) for each in organisation.deliveries(alert)} == {
        ("expired", "expired")
    }
    assert organisation.account() == (1_000_000, 0)


def test_queue_is_put_away_when_empty_and_comes_back(organisation: Organisation, sql: Sql) -> None:
    queues = "select count(*) from private.queues where organisation_id = %s"
    sent(organisation, 2)
    claimed = claim(sql)
    assert value(sql, queues, organisation.id) == 0
    record_all(sql, claimed, "transient")
    assert value(sql, queues, organisation.id) == 1
    assert claim(sql)["wait_seconds"] > 0
    pass_time(sql)
    assert len(claim(sql)["deliveries"]) == 2


def test_send_that_races_with_an_emptying_queue_is_never_stranded(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    sends = 150
    contact, template = organisation.contact(new_phone()), organisation.template(sms="x")
    alerts = [organisation.alert([contact], template=template) for _ in range(sends)]
    claimed: list[str] = []

    def send(share: list[Json]) -> None:
        own = organisation.on(connect())
        for alert in share:
            own.send(alert)

    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send, alerts[start::2]) for start in range(2)]
        while not all(each.done() for each in senders):
            claimed += [each["id"] for each in claim(sql, batch=3)["deliveries"]]
        for each in senders:
            each.result()
    while batch := claim(sql)["deliveries"]:
        claimed += [each["id"] for each in batch]
    assert len(set(claimed)) == len(claimed) == sends


def test_emptied_queue_waits_for_a_send_under_way(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    sent(organisation, 1)
    sql.execute("begin")
    sent(organisation, 1)
    other, waits = connect(), "select count(*) from pg_locks where not granted and pid = %s"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, other)
        while not value(connect(), waits, other.info.backend_pid):
            assert not waiting.done()
        sql.execute("commit")
        assert len(waiting.result()["deliveries"]) == 1
    assert len(claim(sql)["deliveries"]) == 1


def test_organisations_of_equal_turn_do_not_block_one_another(sql: Sql) -> None:
    for _ in range(3):
        sent(Organisation.make(sql), 2)
    sql.execute("update private.queues set served_at = now()")
    set_pace(sql, 1, 1)
    assert len(claim(sql)["deliveries"]) == 1


def test_backlog_names_channels_with_something_to_do(organisation: Organisation, sql: Sql) -> None:
    backlog = "select public.dispatch_backlog()"
    assert value(sql, backlog) == {"due": [], "next_seconds": None, "dispatchers": 0}
    sent(organisation, 1)
    assert value(sql, backlog)["due"] == ["sms"]
    record_all(sql, claim(sql), "transient")
    after = value(sql, backlog)
    assert after["due"] == []
    assert 0 < after["next_seconds"] <= 2


def test_dispatchers_are_at_most_as_many_as_allowed(sql: Sql) -> None:
    def begin(worker: str) -> bool:
        return bool(value(sql, "select public.begin_dispatch(%s, 2, 60)", worker)["admitted"])

    assert [begin("a"), begin("b"), begin("c"), begin("a")] == [True, True, False, True]
    assert value(sql, "select public.end_dispatch('b')") == {"ended": True}
    assert begin("c")
    sql.execute("update private.dispatchers set alive_until = now() - interval '1 second'")
    assert begin("d")
