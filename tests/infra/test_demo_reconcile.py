"""The demo's reconciliation: quiet when everything fits, and red for each thing that is planted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from infra.local.demo.evidence import Accepted, Delivery, Evidence, Ledger
from infra.local.demo.reconcile import Findings, reconcile
from shared.values import delivery_id

ALERT = UUID("0198c0de-0000-7000-8000-000000000001")
OTHER_ALERT = UUID("0198c0de-0000-7000-8000-000000000002")
ALICE, BOB = UUID(int=1), UUID(int=2)
# alice gets all four, bob's phone is hers and he has neither e-mail nor endpoint
ROWS = (
    Delivery(1, ALICE, "sms", "delivered", None, 1, 7, "SM1", 1, 1, 0.5, 1.0, None),
    Delivery(2, BOB, "sms", "skipped", "duplicate_path", 0, 0, None, 0, 0, None, None, None),
    Delivery(3, ALICE, "voice", "answered", None, 1, 12, "CA1", 1, 1, 0.6, 2.0, 2.0),
    Delivery(4, BOB, "voice", "skipped", "duplicate_path", 0, 0, None, 0, 0, None, None, None),
    Delivery(5, ALICE, "email", "undelivered", "bounced", 1, 1, "em1", 1, 1, 0.4, None, None),
    Delivery(6, BOB, "email", "skipped", "no_address", 0, 0, None, 0, 0, None, None, None),
    Delivery(7, ALICE, "webhook", "delivered", None, 1, 1, "any", 1, 1, 0.3, 0.3, None),
    Delivery(8, BOB, "webhook", "failed", "exhausted", 6, 1, None, 0, 0, None, None, None),
)
SKIPPED = {"duplicate_path": 2, "no_address": 1}


def reference(number: int, alert: UUID = ALERT) -> str:
    return delivery_id(alert, number)


JOURNAL = (
    Accepted("sms", reference(1), "SM1", 10.5),
    Accepted("voice", reference(3), "CA1", 10.6),
    Accepted("email", reference(5), "em1", 10.4),
    Accepted("webhook", reference(7), "", 10.3),
)
LEDGER = Ledger(
    available=979, reserved=0, ledger_available=979, ledger_reserved=0, reservation=22, settled=21, released=1,
    entries_reserved=22, entries_settled=21, entries_released=1,
)  # fmt: skip


def evidence(**changes: Any) -> Evidence:
    """A run in which everything fits, but for `changes`."""
    rows = changes.get("deliveries", ROWS)
    report = {
        "states": dict(Counter(row.state for row in rows)),
        "sent": sum(
            row.state in ("delivered", "answered", "undelivered", "sent", "handed_over") for row in rows
        ),
        "delivered": 3,
        "answered": 1,
        "seconds_to_accept": {"p50": 0.4, "p95": 0.6},
        "seconds_to_deliver": {"p50": 1.0, "p95": 2.0},
    }
    whole: dict[str, Any] = {
        "alert_id": ALERT,
        "deliveries": rows,
        "journal": JOURNAL,
        "other_alerts": frozenset(),
        "ledger": LEDGER,
        "report": report,
        "answer": {"alert_id": str(ALERT), "credits_reserved": 22, "skipped": SKIPPED},
        "receipts": {"lost": 0, "failed": 0, "pending": 0},
        "unplaced_receipts": 0,
    }
    return Evidence(**(whole | changes))


def judge(**changes: Any) -> Findings:
    return reconcile(evidence(**changes), people=2, planted=SKIPPED)


def with_row(number: int, **changes: Any) -> tuple[Delivery, ...]:
    return tuple(replace(row, **changes) if row.number == number else row for row in ROWS)


def test_a_run_in_which_everything_fits_has_no_failure() -> None:
    findings = judge()
    assert findings.failures == []
    assert {channel: tally.accepted_once for channel, tally in findings.tallies.items()} == dict.fromkeys(
        ("sms", "voice", "email", "webhook"), 1
    )


def test_a_row_that_no_carrier_accepted_is_missing() -> None:
    findings = judge(journal=JOURNAL[1:])
    assert findings.tallies["sms"].missing == [reference(1)]
    assert any("sms: 1 rows say sent" in sentence for sentence in findings.failures)


def test_an_accepted_message_that_no_row_claims_is_a_stranger() -> None:
    findings = judge(journal=(*JOURNAL, Accepted("webhook", reference(8), "", 11.0)))
    assert findings.tallies["webhook"].strangers == [reference(8)]
    assert any("webhook: 1 accepted by the carriers" in sentence for sentence in findings.failures)


@pytest.mark.parametrize("unknown", [None, "nonsense", reference(1, OTHER_ALERT), reference(99)])
def test_an_accepted_message_of_nobody_is_a_stranger(unknown: str | None) -> None:
    findings = judge(journal=(*JOURNAL, Accepted("sms", unknown, "SM9", 11.0)))
    assert len(findings.tallies["sms"].strangers) == 1
    assert findings.failures


def test_another_alert_of_ours_is_no_stranger() -> None:
    journal = (*JOURNAL, Accepted("sms", reference(1, OTHER_ALERT), "SM9", 11.0))
    assert judge(journal=journal, other_alerts=frozenset({OTHER_ALERT.hex})).failures == []


def test_a_duplicate_that_our_rows_do_not_show_is_a_failure() -> None:
    findings = judge(journal=(*JOURNAL, Accepted("sms", reference(1), "SM2", 11.0)))
    assert findings.tallies["sms"].duplicates == [reference(1)]
    assert findings.tallies["sms"].flagged == []
    assert any("none of our rows or events shows it" in sentence for sentence in findings.failures)


@pytest.mark.parametrize("known", [{"accepted_events": 2}, {"provider_ids": 2}])
def test_a_duplicate_that_our_rows_show_is_flagged(known: dict[str, int]) -> None:
    findings = judge(
        deliveries=with_row(1, **known), journal=(*JOURNAL, Accepted("sms", reference(1), "SM2", 11.0))
    )
    assert findings.tallies["sms"].flagged == [reference(1)]
    assert findings.failures == []


def test_a_second_attempt_alone_flags_nothing() -> None:
    findings = judge(
        deliveries=with_row(1, attempt=2), journal=(*JOURNAL, Accepted("sms", reference(1), "SM2", 11.0))
    )
    assert findings.tallies["sms"].flagged == []
    assert findings.failures


def test_a_duplicate_e_mail_is_a_failure_even_when_flagged() -> None:
    findings = judge(
        deliveries=with_row(5, provider_ids=2),
        journal=(*JOURNAL, Accepted("email", reference(5), "em2", 11.0)),
    )
    assert any("idempotency key" in sentence for sentence in findings.failures)


def test_a_webhook_again_under_its_id_is_a_repeat() -> None:
    findings = judge(journal=(*JOURNAL, Accepted("webhook", reference(7), "", 11.0)))
    assert findings.tallies["webhook"].repeated == [reference(7)]
    assert findings.tallies["webhook"].duplicates == []
    assert findings.failures == []


def test_a_provider_id_that_the_carrier_never_gave_is_a_failure() -> None:
    findings = judge(deliveries=with_row(1, provider_id="SM9"))
    assert findings.tallies["sms"].misnamed == [reference(1)]
    assert findings.failures


@pytest.mark.parametrize("state", ["planned", "held", "claimed", "outcome_unknown"])
def test_an_open_row_is_a_failure(state: str) -> None:
    assert any(
        "no row is open: 1 webhook" in each for each in judge(deliveries=with_row(8, state=state)).failures
    )


def test_a_failure_without_a_reason_is_a_failure() -> None:
    assert any("reason" in each for each in judge(deliveries=with_row(8, reason=None)).failures)


@pytest.mark.parametrize(
    "rows", [ROWS[:-1], (*ROWS, replace(ROWS[0], number=9)), with_row(8, contact_id=ALICE)],
    ids=["one less", "one twice", "another person"],
)  # fmt: skip
def test_each_person_has_one_row_a_channel(rows: tuple[Delivery, ...]) -> None:
    assert any("one row for each person" in each for each in judge(deliveries=rows).failures)


def test_rows_wait_for_no_more_receipts_than_were_lost() -> None:
    rows = with_row(1, state="sent")
    assert any("wait for a receipt" in each for each in judge(deliveries=rows).failures)
    assert judge(deliveries=rows, receipts={"lost": 1, "failed": 0, "pending": 0}).failures == []


def test_receipts_that_are_pending_or_unplaced_are_failures() -> None:
    assert any("pending" in each for each in judge(receipts={"lost": 0, "failed": 0, "pending": 1}).failures)
    assert any("inbox" in each for each in judge(unplaced_receipts=1).failures)


@pytest.mark.parametrize("field", list(Ledger.__dataclass_fields__))
def test_a_credit_too_many_anywhere_is_a_failure(field: str) -> None:
    assert judge(ledger=replace(LEDGER, **{field: getattr(LEDGER, field) + 1})).failures


def test_a_row_that_costs_otherwise_is_a_failure() -> None:
    assert any("settled is the cost" in each for each in judge(deliveries=with_row(1, cost=8)).failures)


def test_a_report_that_drifts_is_a_failure() -> None:
    report = evidence().report | {"sent": 5}
    assert any("sum of sent" in each for each in judge(report=report).failures)


def test_skips_that_were_not_planted_are_a_failure() -> None:
    findings = reconcile(evidence(), people=2, planted={"duplicate_path": 3})
    assert any("skipped as planted" in each for each in findings.failures)
