"""Doubt: a lease that ends, an answer that never came; asked about before any second send, and always settled."""

from __future__ import annotations

from uuid import UUID

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


def states(organisation: Organisation, alert: Json) -> list[str]:
    return [each["state"] for each in organisation.deliveries(alert)]


def test_lost_lease_becomes_a_question(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql)
    assert sweep(sql)["outcome_unknown"] == 0
    end_leases(sql)
    assert sweep(sql)["outcome_unknown"] == 3
    assert states(organisation, alert) == ["outcome_unknown"] * 3
    assert claim(sql)["deliveries"] == []
    asked = ask(sql)
    assert [each["id"] for each in asked["deliveries"]] == [each["id"] for each in claimed["deliveries"]]
    assert {name: asked["deliveries"][0][name] for name in ("to", "body", "attempt")} == {
        name: claimed["deliveries"][0][name] for name in ("to", "body", "attempt")
    }
    assert asked["key"] == claimed["lease"]
    assert asked["since"] == pytest.approx(claimed["now"])


def test_question_is_put_to_one_worker_at_a_time(sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql), "unknown")
    end_leases(sql)
    assert len(ask(sql)["deliveries"]) == 3
    assert ask(sql)["deliveries"] == []
    end_leases(sql)
    assert len(ask(sql)["deliveries"]) == 3
    assert alert


def test_answers_settle_each_row(organisation: Organisation, sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql), "unknown")
    assert organisation.account() == (1_000_000 - 21, 21)
    end_leases(sql)
    asked = ask(sql)
    answers = zip(asked["deliveries"], ("found", "absent", "unclear"), strict=True)
    assert record(sql, asked["lease"], [result(each, answer) for each, answer in answers])["recorded"] == 3
    assert states(organisation, alert) == ["handed_over", "planned", "outcome_unknown"]
    assert organisation.account() == (1_000_000 - 21, 14)
    claimed = claim(sql)
    assert [(each["id"], each["attempt"]) for each in claimed["deliveries"]] == [
        (asked["deliveries"][1]["id"], 2)
    ]
    end_leases(sql)
    assert [each["id"] for each in ask(sql)["deliveries"]] == [asked["deliveries"][2]["id"]]


def test_frozen_batch_keeps_its_name_through_every_question(sql: Sql, alert: Json) -> None:
    claimed = claim(sql)
    record_all(sql, claimed, "unknown")
    keys = []
    for _ in range(3):
        end_leases(sql)
        asked = ask(sql)
        keys.append(asked["key"])
        record_all(sql, asked, "unclear")
    assert set(keys) == {claimed["lease"]}
    assert alert


def test_questions_come_at_growing_intervals_and_end(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    record_all(sql, claim(sql), "unknown")
    waits = []
    for _ in range(20):
        wait = (
            "select extract(epoch from due_at - clock_timestamp()) from private.leases where kind = 'unknown'"
        )
        waits.append(value(sql, wait))
        end_leases(sql)
        asked = ask(sql)
        if not asked["deliveries"]:
            break
        record_all(sql, asked, "unclear")
    found = [round(float(wait)) for wait in waits if wait is not None]
    assert found == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert states(organisation, alert) == ["dead_letter"] * 3
    assert organisation.account() == (1_000_000, 0)
    assert value(sql, "select count(*) from private.leases") == 0
    assert sweep(sql)["completed"] >= 1
    organisation.assert_ledger_holds()


def test_row_in_doubt_is_in_one_lease_only(organisation: Organisation, sql: Sql, alert: Json) -> None:
    # one row comes back unknown; then the worker dies with the other two
    claimed = claim(sql)
    record(sql, claimed["lease"], [result(claimed["deliveries"][0], "unknown")])
    end_leases(sql)
    sweep(sql)
    end_leases(sql)
    first, second = ask(sql), ask(sql)
    asked = [each["id"] for batch in (first, second) for each in batch["deliveries"]]
    assert sorted(asked) == sorted(each["id"] for each in claimed["deliveries"])
    assert record_all(sql, first, "found")["fenced"] == 0
    assert record_all(sql, second, "found")["fenced"] == 0
    assert states(organisation, alert) == ["handed_over"] * 3
    assert value(sql, "select count(*) from private.leases") == 0


def test_receipt_answers_the_question(organisation: Organisation, sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql), "unknown")
    receive(sql, *[receipt(id_of(row), "sent") for row in organisation.deliveries(alert)])
    assert states(organisation, alert) == ["sent"] * 3
    assert organisation.account() == (1_000_000 - 21, 0)
    end_leases(sql)
    assert ask(sql)["deliveries"] == []
    assert value(sql, "select count(*) from private.leases") == 0
    organisation.assert_ledger_holds()


def test_receipt_of_an_abandoned_attempt_stops_the_second(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    record_all(sql, claim(sql), "unknown")
    end_leases(sql)
    record_all(sql, ask(sql), "absent")
    receive(sql, *[receipt(id_of(row), "delivered") for row in organisation.deliveries(alert)])
    assert states(organisation, alert) == ["delivered"] * 3
    pass_time(sql)
    assert claim(sql)["deliveries"] == []
    assert organisation.account() == (1_000_000 - 21, 0)


def test_erased_person_in_doubt_can_only_be_settled_by_a_receipt(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    record_all(sql, claim(sql), "unknown")
    sql.execute("delete from public.contacts where organisation_id = %s", (organisation.id,))
    end_leases(sql)
    assert [each["to"] for each in ask(sql)["deliveries"]] == [None] * 3
    receive(sql, receipt(id_of(organisation.deliveries(alert)[0]), "delivered"))
    assert states(organisation, alert)[0] == "delivered"


def test_doubt_outlives_the_expiry_and_then_ends(organisation: Organisation, sql: Sql, alert: Json) -> None:
    claimed = claim(sql, batch=2)
    record(sql, claimed["lease"], [result(claimed["deliveries"][0])])
    sql.execute(
        "update public.alerts set expires_at = now() - interval '1 second' where id = %s",
        (UUID(alert["alert_id"]),),
    )
    assert sweep(sql)["expired"] >= 1
    assert states(organisation, alert) == ["handed_over", "claimed", "expired"]
    assert organisation.account() == (1_000_000 - 14, 7)
    end_leases(sql)
    sweep(sql)
    record_all(sql, ask(sql), "absent")
    pass_time(sql)
    assert claim(sql)["deliveries"] == []
    assert states(organisation, alert) == ["handed_over", "expired", "expired"]
    sweep(sql)
    assert (
        value(sql, "select state::text from public.alerts where id = %s", UUID(alert["alert_id"]))
        == "completed"
    )
    assert organisation.account() == (1_000_000 - 7, 0)
    organisation.assert_ledger_holds()


def test_silence_after_three_days_says_so(organisation: Organisation, sql: Sql, alert: Json) -> None:
    record_all(sql, claim(sql))
    row = organisation.deliveries(alert)[0]
    receive(sql, receipt(id_of(row), "delivered"))
    sweep(sql)
    sql.execute(
        "update public.alerts set expires_at = now() - interval '73 hours' where id = %s",
        (UUID(alert["alert_id"]),),
    )
    assert sweep(sql)["no_receipt"] == 2
    assert states(organisation, alert) == ["delivered", "no_receipt", "no_receipt"]
    assert sweep(sql)["no_receipt"] == 0
    receive(sql, receipt(id_of(organisation.deliveries(alert)[1]), "delivered"))
    assert states(organisation, alert)[1] == "delivered"


def test_sweeps_do_not_wait_for_one_another(sql: Sql, connect: object) -> None:
    sql.execute("begin")
    sweep(sql)
    own = connect()  # type: ignore[operator]
    own.execute("set lock_timeout = '1s'")
    assert sweep(own)["completed"] == 0
    sql.execute("commit")


@pytest.mark.parametrize("outcome", ["returned", "throttle", "transient", "configuration"])
def test_question_that_was_not_put_leaves_the_doubt_and_its_key(
    organisation: Organisation, sql: Sql, alert: Json, outcome: str
) -> None:
    """Planned again, it would be claimed under another key, and the provider would take it twice."""
    claimed = claim(sql)
    record_all(sql, claimed, "unknown")
    end_leases(sql)
    asked = ask(sql)
    tries = "select max(tries) from private.leases where kind = 'unknown'"
    before = value(sql, tries)
    record_all(sql, asked, outcome, code="x")
    sql.execute("update private.senders set halted_until = '-infinity'")
    assert states(organisation, alert) == ["outcome_unknown"] * 3
    assert claim(sql)["deliveries"] == []
    assert value(sql, tries) == before, "a question that was not put does not count"
    end_leases(sql)
    again = ask(sql)
    assert again["key"] == claimed["lease"]
    record_all(sql, again, "found")
    assert states(organisation, alert) == ["handed_over"] * 3


def test_age_of_a_doubt_counts_from_the_last_possible_attempt(sql: Sql, alert: Json) -> None:
    """An attempt may begin long after its claim: `absent` must not be believed by the age of the claim."""
    claimed = claim(sql)
    sql.execute("update private.leases set claimed_at = now() - interval '1 hour'")
    record_all(sql, claimed, "unknown")
    end_leases(sql)
    asked = ask(sql)
    assert asked["doubted_seconds"] < 5
    assert claimed["now"] - asked["since"] > 3000
    record_all(sql, asked, "unclear")
    sql.execute("update private.leases set doubted_at = doubted_at - interval '1 minute'")
    end_leases(sql)
    assert ask(sql)["doubted_seconds"] >= 60
    assert alert


def test_look_up_that_names_another_deliverys_message_is_no_answer(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    """Two alerts to one number look alike at the provider; one message can't be both."""
    record_all(sql, claim(sql), "unknown")
    other = organisation.alert(organisation.people(1))
    organisation.send(other)
    record_all(sql, claim(sql), "accepted", provider_id="SM-of-the-other")
    end_leases(sql)
    asked = ask(sql)
    first, *rest = asked["deliveries"]
    results = [result(first, "accepted", provider_id="SM-of-the-other")]
    results += [result(each, "accepted", provider_id=f"SM-{number}") for number, each in enumerate(rest)]
    record(sql, asked["lease"], results)
    assert sorted(states(organisation, alert)) == ["handed_over", "handed_over", "planned"]
    assert [row["provider_id"] for row in organisation.deliveries(other)] == ["SM-of-the-other"]


def test_person_who_opted_out_meanwhile_is_not_sent_the_same_again(
    organisation: Organisation, sql: Sql, alert: Json
) -> None:
    record_all(sql, claim(sql), "unknown")
    sql.execute(
        "select private.suppress(organisation_id, destination_hash, null, 'opt_out', 'test')"
        " from public.deliveries where alert_id = %s and number = 1",
        (alert["alert_id"],),
    )
    end_leases(sql)
    assert [each["to"] is None for each in ask(sql)["deliveries"]] == [True, False, False]


def test_large_expiry_is_swept_in_portions(organisation: Organisation, sql: Sql, alert: Json) -> None:
    sql.execute("update public.alerts set expires_at = now() where id = %s", (alert["alert_id"],))
    assert value(sql, "select private.sweep_alerts(clock_timestamp(), 2)") == 2
    assert value(sql, "select private.sweep_alerts(clock_timestamp(), 2)") == 1
    assert states(organisation, alert) == ["expired"] * 3
    assert organisation.account() == (1_000_000, 0)
