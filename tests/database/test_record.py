"""Recording: fenced by lease and attempt, settled once, retried by class, and stopped when the provider says so."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.database.builders import Json, Organisation, Sql, value
from tests.database.dispatching import (
    ask,
    claim,
    end_leases,
    id_of,
    pass_time,
    receipt,
    receive,
    record,
    record_all,
    result,
    sweep,
)

pytestmark = pytest.mark.usefixtures("fresh_queues")


@pytest.fixture
def alert(organisation: Organisation) -> Json:
    """An alert to three people, sent."""
    alert = organisation.alert(organisation.people(3))
    organisation.send(alert)
    return alert


def states(organisation: Organisation, alert: Json) -> set[tuple[str, str | None]]:
    return {(each["state"], each["reason"]) for each in organisation.deliveries(alert)}


def test_accepted_is_settled_in_the_same_breath(organisation: Organisation, sql: Sql, alert: Json) -> None:
    assert record_all(sql, claim(sql)) == {"recorded": 3, "fenced": 0}
    assert states(organisation, alert) == {("handed_over", None)}
    assert organisation.account() == (1_000_000 - 21, 0)
    organisation.assert_ledger_holds()
    assert value(sql, "select count(*) from private.leases") == 0
    assert sweep(sql)["completed"] >= 1
    assert (
        value(sql, "select state::text from public.alerts where id = %s", UUID(alert["alert_id"]))
        == "completed"
    )


def test_accepted_webhook_is_delivered(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert([organisation.contact("https://example.com/a")], channels=["webhook"])
    organisation.send(alert)
    record_all(sql, claim(sql, "webhook"))
    [row] = organisation.deliveries(alert)
    assert row["state"] == "delivered"
    assert None not in (row["handed_over_at"], row["sent_at"], row["delivered_at"])


def test_repeated_record_changes_nothing(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql)
    record_all(sql, claimed)
    events = "select count(*) from public.delivery_events where alert_id = %s"
    before = organisation.deliveries(alert), value(sql, events, UUID(alert["alert_id"]))
    assert record_all(sql, claimed) == {"recorded": 0, "fenced": 0}
    assert (organisation.deliveries(alert), value(sql, events, UUID(alert["alert_id"]))) == before
    assert organisation.account() == (1_000_000 - 21, 0)


@pytest.mark.parametrize("outcome", ["accepted", "transient", "permanent", "unknown"])
def test_worker_that_lost_its_lease_records_nothing(
    organisation: Organisation, sql: Sql, alert: Json, outcome: str
) -> None:
    late = claim(sql)
    end_leases(sql)
    sweep(sql)
    asked = ask(sql)
    assert record_all(sql, late, outcome) == {"recorded": 0, "fenced": 3}
    record_all(sql, asked, "absent")
    current = claim(sql)
    assert [each["attempt"] for each in current["deliveries"]] == [2, 2, 2]
    assert record_all(sql, late, outcome)["recorded"] == 0
    assert states(organisation, alert) == {("claimed", None)}
    assert record_all(sql, current)["recorded"] == 3


def test_wrong_lease_or_attempt_is_fenced(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql)
    [first, second, third] = claimed["deliveries"]
    assert record(sql, str(uuid4()), [result(first)]) == {"recorded": 0, "fenced": 1}
    assert record(sql, None, [result(first)])["recorded"] == 0
    assert record(sql, claimed["lease"], [result(second | {"attempt": 2})])["recorded"] == 0
    assert record(sql, claimed["lease"], [result(third | {"id": f"{uuid4().hex}-1"})])["recorded"] == 0
    assert states(organisation, alert) == {("claimed", None)}
    assert organisation.account() == (1_000_000 - 21, 21)


def test_late_answer_settles_a_row_that_nobody_asks_about_yet(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    claimed = claim(sql)
    end_leases(sql)
    sweep(sql)
    assert states(organisation, alert) == {("outcome_unknown", None)}
    assert record_all(sql, claimed) == {"recorded": 3, "fenced": 0}
    assert states(organisation, alert) == {("handed_over", None)}
    assert ask(sql)["deliveries"] == []


def test_transient_failures_back_off_and_end(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert(organisation.people(1))
    organisation.send(alert)
    most, longest = sql.execute(
        "select max_failures, max_seconds from private.failure_policies where outcome = 'transient'"
    ).fetchone()  # type: ignore[misc]
    for failures in range(most):
        claimed = claim(sql)
        record_all(sql, claimed, "transient", code="http_503")
        [row] = organisation.deliveries(alert)
        if failures < most - 1:
            wait = row["claimable_at"].timestamp() - claimed["now"]
            full = min(2 * 2**failures, float(longest))
            assert full / 2 <= wait + 0.1
            assert wait <= full + 0.5
            pass_time(sql)
    assert (row["state"], row["reason"], row["failure_code"], row["attempt"]) == (
        "failed",
        "exhausted",
        "http_503",
        most,
    )
    assert organisation.account() == (1_000_000, 0)
    organisation.assert_ledger_holds()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("permanent", "permanent"),
        ("content", "permanent"),
        ("destination", "permanent"),
        ("configuration", "configuration"),
    ],
)
def test_final_failures_are_refunded(
    organisation: Organisation, sql: Sql, alert: Json, outcome: str, reason: str
) -> None:
    record_all(sql, claim(sql), outcome, code="21211")
    assert states(organisation, alert) == {("failed", reason)}
    assert organisation.account() == (1_000_000, 0)


def test_carrier_opt_out_suppresses_the_destination(organisation: Organisation, sql: Sql) -> None:
    people = organisation.people(2)
    alert = organisation.alert(people)
    organisation.send(alert)
    claimed = claim(sql)
    record(
        sql,
        claimed["lease"],
        [result(claimed["deliveries"][0], "opted_out"), result(claimed["deliveries"][1])],
    )
    again = organisation.alert(people)
    assert organisation.send(again)["skipped"] == {"opted_out": 1}


@pytest.mark.parametrize(
    ("outcome", "counts"), [("throttle", False), ("returned", False), ("transient", True)]
)
def test_throttle_does_not_count_as_failure(
    organisation: Organisation, sql: Sql, alert: Json, outcome: str, counts: bool
) -> None:
    record_all(sql, claim(sql), outcome)
    assert {each["failures"] for each in organisation.deliveries(alert)} == {int(counts)}
    assert {each["state"] for each in organisation.deliveries(alert)} == {"planned"}


def test_retry_after_stops_the_channel_for_so_long(organisation: Organisation, sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql), "throttle", retry_after_seconds=7)
    waiting = claim(sql)
    assert (waiting["lease"], waiting["deliveries"]) == (None, [])
    assert 6 < waiting["wait_seconds"] <= 7
    assert all(
        each["claimable_at"].timestamp() >= waiting["wait_seconds"] for each in organisation.deliveries(alert)
    )
    other = organisation.alert([organisation.contact("a@example.com")], channels=["email"])
    organisation.send(other)
    assert len(claim(sql, "email")["deliveries"]) == 1


def test_retry_after_is_believed_for_an_hour_at_most(sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql), "throttle", retry_after_seconds=1e9)
    assert claim(sql)["wait_seconds"] <= 3600
    assert alert


def test_configuration_stops_the_channel(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql, batch=1)
    record_all(sql, claimed, "configuration", code="20003")
    assert 25 < claim(sql)["wait_seconds"] <= 30
    assert value(sql, "select halt_code from private.senders where channel = 'sms'") == "20003"
    assert len(organisation.deliveries(alert)) == 3


@pytest.mark.parametrize("outcome", ["throttle", "configuration"])
def test_endpoint_of_one_organisation_stops_nobody_else(
    organisation: Organisation, sql: Sql, outcome: str
) -> None:
    other = Organisation.make(sql)
    for each in (organisation, other):
        alert = each.alert([each.contact("https://example.com/hook")], channels=["webhook"])
        each.send(alert)
        claimed = claim(sql, "webhook")
        assert len(claimed["deliveries"]) == 1
        record_all(sql, claimed, outcome, retry_after_seconds=600)


def test_word_that_nobody_knows_is_asked_about_not_sent_again(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    record_all(sql, claim(sql), "splendid")
    assert states(organisation, alert) == {("outcome_unknown", None)}
    assert claim(sql)["deliveries"] == []


def test_receipt_faster_than_the_answer_wins(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql)
    receive(sql, *[receipt(each["id"], "delivered") for each in claimed["deliveries"]])
    assert organisation.account() == (1_000_000 - 21, 0)
    assert record_all(sql, claimed) == {"recorded": 0, "fenced": 0}
    assert states(organisation, alert) == {("delivered", None)}
    assert organisation.account() == (1_000_000 - 21, 0)
    organisation.assert_ledger_holds()


def test_answer_after_a_receipt_still_tells_the_provider_id(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    claimed = claim(sql)
    [row, *_] = organisation.deliveries(alert)
    receive(sql, receipt(id_of(row), "queued", provider_id=f"SM-{id_of(row)}-1"))
    waiting = receipt(None, "delivered", provider_id=f"SM-{id_of(row)}-1")
    assert receive(sql, waiting)["waiting"] == 1
    record_all(sql, claimed)
    assert organisation.deliveries(alert)[0]["state"] == "delivered"


def test_every_attempt_leaves_an_event(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert(organisation.people(1))
    organisation.send(alert)
    for outcome in ("transient", "unknown"):
        record_all(sql, claim(sql), outcome, code=f"code_{outcome}")
        pass_time(sql)
    end_leases(sql)
    record_all(sql, ask(sql), "absent")
    record_all(sql, claim(sql), "accepted")
    events = sql.execute(
        "select kind, attempt, state::text, code from public.delivery_events where alert_id = %s order by id",
        (UUID(alert["alert_id"]),),
    ).fetchall()
    assert events == [
        ("failed", 1, "planned", "code_transient"),
        ("unknown", 2, "outcome_unknown", "code_unknown"),
        ("absent", 2, "planned", "absent"),
        ("accepted", 3, "handed_over", "accepted"),
    ]
