"""Credits through any life of an alert: a model beside the database, compared after every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.database.builders import Json, Organisation, Sql, new_phone, value
from tests.database.dispatching import (
    ask,
    claim,
    end_leases,
    id_of,
    pass_time,
    receipt,
    receive,
    record,
    result,
    sweep,
)

PRICE = 7
RANK = {
    "planned": 0,
    "claimed": 1,
    "outcome_unknown": 1,
    "handed_over": 3,
    "sent": 4,
    "undelivered": 5,
    "delivered": 6,
}
TOLD = {"queued": "handed_over", "sent": "sent", "delivered": "delivered", "failed": "undelivered"}
OPEN = {"planned", "claimed", "outcome_unknown"}
REFUNDED = {"failed", "expired"}
ANSWERS = ["accepted", "transient", "throttle", "permanent", "unknown", "returned"]


@dataclass
class Row:
    """What the model knows of a delivery."""

    state: str = "planned"
    lease: str | None = None
    attempt: int = 0
    failures: int = 0
    is_late: bool = False  # its alert has expired


@dataclass
class Batch:
    """What a worker holds, perhaps for too long."""

    lease: str
    deliveries: list[Json]


@dataclass
class Model:
    """All rows by delivery id, and all batches that were ever given out."""

    rows: dict[str, Row] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    alerts: list[Json] = field(default_factory=list)

    def record(self, lease: str, delivery: Json, outcome: str) -> bool:
        """Whether the result counts."""
        row = self.rows[delivery["id"]]
        if (row.lease, row.attempt) != (lease, delivery["attempt"]) or row.state not in {
            "claimed",
            "outcome_unknown",
        }:
            return False
        if outcome in {"accepted", "found"}:
            row.state = "handed_over"
        elif outcome in {"unknown", "unclear"}:
            row.state, row.lease = "outcome_unknown", "doubt"
        else:
            limit = {"transient": 6, "absent": 12, "permanent": 0}.get(outcome)
            row.failures += limit is not None
            row.state = "planned" if limit is None or row.failures < limit else "failed"
        return True

    def receive(self, delivery: str, status: str) -> None:
        row, told = self.rows[delivery], TOLD[status]
        if row.state not in REFUNDED and RANK[told] > RANK[row.state]:
            row.state = told


class Life(RuleBasedStateMachine):
    """Sends, claims, answers, doubts, receipts and expiries in any order."""

    sql: Sql

    @initialize()
    def begin(self) -> None:
        for table in ("queues", "leases", "receipts"):
            self.sql.execute(f"delete from private.{table}".encode())
        self.sql.execute("update private.senders set tokens = burst, halted_until = '-infinity'")
        self.organisation = Organisation.make(self.sql, credit=1000)
        self.template = self.organisation.template(sms="x")
        self.model = Model()

    @rule(people=st.integers(1, 4))
    @precondition(lambda self: len(self.model.alerts) < 5)
    def send(self, people: int) -> None:
        contacts = [self.organisation.contact(new_phone()) for _ in range(people)]
        alert = self.organisation.alert(contacts, template=self.template)
        self.organisation.send(alert)
        self.model.alerts.append(alert)
        self.model.rows |= {id_of(row): Row() for row in self.organisation.deliveries(alert)}

    @rule(batch=st.integers(1, 6))
    def claim(self, batch: int) -> None:
        pass_time(self.sql)
        claimed = claim(self.sql, batch=batch)
        waiting = {id_: row for id_, row in self.model.rows.items() if row.state == "planned"}
        late = [id_ for id_, row in waiting.items() if row.is_late]
        got = {each["id"] for each in claimed["deliveries"]}
        assert got <= waiting.keys() - set(late)
        ended = [id_ for id_, state in self.states().items() if id_ in late and state == "expired"]
        assert len(got) + len(ended) == min(batch, len(waiting))
        for id_ in ended:
            self.model.rows[id_].state = "expired"
        self._hold(claimed, "claimed")

    @rule()
    def ask(self) -> None:
        self.sql.execute(
            "update private.leases set due_at = now() - interval '1 second' where kind = 'unknown'"
        )
        asked = ask(self.sql)
        assert all(self.model.rows[each["id"]].state == "outcome_unknown" for each in asked["deliveries"])
        self._hold(asked, "outcome_unknown")

    def _hold(self, given: Json, state: str) -> None:
        for each in given["deliveries"]:
            row = self.model.rows[each["id"]]
            row.state, row.lease = state, given["lease"]
            row.attempt += state == "claimed"
            assert row.attempt == each["attempt"]
        if given["lease"]:
            self.model.batches.append(Batch(given["lease"], given["deliveries"]))

    @rule(data=st.data())
    @precondition(lambda self: self.model.batches)
    def answer(self, data: st.DataObject) -> None:
        """A worker records some of what it holds; perhaps long after somebody else got it."""
        batch = data.draw(st.sampled_from(self.model.batches))
        some = data.draw(
            st.lists(st.sampled_from(batch.deliveries), min_size=1, unique_by=lambda each: each["id"])
        )
        known = self.model.rows[some[0]["id"]].state == "outcome_unknown"
        words = ["found", "absent", "unclear"] if known else ANSWERS
        told = [(each, data.draw(st.sampled_from(words))) for each in some]
        found = record(self.sql, batch.lease, [result(each, outcome) for each, outcome in told])
        assert found["recorded"] == sum(
            self.model.record(batch.lease, each, outcome) for each, outcome in told
        )

    @rule(data=st.data(), status=st.sampled_from(sorted(TOLD)))
    @precondition(lambda self: any(row.attempt for row in self.model.rows.values()))
    def receive(self, data: st.DataObject, status: str) -> None:
        tried = sorted(id_ for id_, row in self.model.rows.items() if row.attempt)
        delivery = data.draw(st.sampled_from(tried))
        receive(self.sql, receipt(delivery, status))
        self.model.receive(delivery, status)

    @rule()
    def lose_every_lease(self) -> None:
        end_leases(self.sql)
        sweep(self.sql)
        for row in self.model.rows.values():
            if row.state == "claimed":
                row.state = "outcome_unknown"

    @rule(data=st.data())
    @precondition(lambda self: self.model.alerts)
    def expire(self, data: st.DataObject) -> None:
        """The sweep expires what waits once; what comes back later expires when it is claimed."""
        alert = data.draw(st.sampled_from(self.model.alerts))
        alert_id = UUID(alert["alert_id"])
        self.sql.execute(
            "update public.alerts set expires_at = now() - interval '1 second' where id = %s", (alert_id,)
        )
        sweep(self.sql)
        for id_, row in self.model.rows.items():
            if id_.startswith(alert_id.hex) and not row.is_late:
                row.is_late = True
                row.state = "expired" if row.state == "planned" else row.state

    def states(self) -> dict[str, str]:
        return {
            id_of(row): row["state"]
            for alert in self.model.alerts
            for row in self.organisation.deliveries(alert)
        }

    @invariant()
    def model_is_the_database(self) -> None:
        if hasattr(self, "organisation"):
            assert self.states() == {id_: row.state for id_, row in self.model.rows.items()}

    @invariant()
    def every_credit_is_somewhere(self) -> None:
        if not hasattr(self, "organisation"):
            return
        self.organisation.assert_ledger_holds()
        per_alert: list[Any] = self.sql.execute(
            "select r.amount, r.settled, r.released, r.amount - r.settled - r.released,"
            " coalesce(sum(d.cost) filter (where d.state in ('planned', 'claimed', 'outcome_unknown')), 0)"
            " from public.credit_reservations r join public.deliveries d using (organisation_id, alert_id)"
            " where r.organisation_id = %s group by r.alert_id, r.amount, r.settled, r.released",
            (self.organisation.id,),
        ).fetchall()
        for amount, settled, released, held, still_open in per_alert:
            assert held == still_open, (amount, settled, released)
        spent = sum(settled for _, settled, _, _, _ in per_alert)
        assert sum(self.organisation.account()) == 1000 - spent

    def teardown(self) -> None:
        """Let everything come to its end: nothing stays reserved."""
        if not hasattr(self, "organisation"):
            return
        self.sql.execute(
            "update public.alerts set expires_at = now() - interval '1 second' where organisation_id = %s",
            (self.organisation.id,),
        )
        for _ in range(3):
            end_leases(self.sql)
            sweep(self.sql)
            while (asked := ask(self.sql))["deliveries"]:
                record(self.sql, asked["lease"], [result(each, "found") for each in asked["deliveries"]])
            pass_time(self.sql)
            claim(self.sql)
        sweep(self.sql)
        assert self.organisation.account()[1] == 0
        unfinished = "select count(*) from public.alerts where organisation_id = %s and state <> 'completed'"
        assert value(self.sql, unfinished, self.organisation.id) == 0
        self.organisation.assert_ledger_holds()


@pytest.mark.timeout(600)  # a failing example takes time to be made small
@pytest.mark.usefixtures("fresh_queues")
def test_any_life_of_alerts_keeps_model_and_database_equal(sql: Sql) -> None:
    class LifeHere(Life):
        pass

    LifeHere.sql = sql
    run_state_machine_as_test(
        LifeHere,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )  # fmt: skip
