"""Sending: the quote is the reservation, credits are exact, repeats change nothing, and texts are pinned."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

from tests.database.builders import Connect, Json, Organisation, Sql, new_phone, refused, rows, uuid7, value


def test_quote_is_the_reservation(organisation: Organisation) -> None:
    phone = new_phone()
    people = [
        *organisation.people(4),
        organisation.contact(phone),
        organisation.contact(phone),
        organisation.contact(),
    ]
    people.append(organisation.contact("+447400123456", "uk@example.com"))
    template = organisation.template(sms="ç" * 71 + "{{name}}", email="Bonjour", voice="Allô")
    alert = organisation.alert(people, template=template, channels=["sms", "voice", "email"])
    quote = organisation.quote(alert)
    answer = organisation.send(alert)
    assert {name: quote[name] for name in ("recipients", "planned", "segments", "skipped")} == {
        name: answer[name] for name in ("recipients", "planned", "segments", "skipped")
    }
    assert (
        quote["credits"]
        == answer["credits_reserved"]
        == sum(each["cost"] for each in organisation.deliveries(alert))
    )
    assert quote["credits"] == sum(each["credits"] for each in quote["by_channel_and_country"])
    assert quote["have"] == 1_000_000
    assert organisation.account() == (1_000_000 - quote["credits"], quote["credits"])
    organisation.assert_ledger_holds()


def test_quote_changes_nothing(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert(organisation.people(3))
    for _ in range(2):
        assert organisation.quote(alert)["planned"] == 3
    assert value(sql, "select count(*) from public.alerts where organisation_id = %s", organisation.id) == 0
    assert (
        value(sql, "select count(*) from private.alert_contents where organisation_id = %s", organisation.id)
        == 0
    )
    assert organisation.account() == (1_000_000, 0)


def test_too_few_credits_say_what_is_needed_and_leave_nothing(sql: Sql) -> None:
    organisation = Organisation.make(sql, credit=20)
    alert = organisation.alert(organisation.people(3))
    assert organisation.quote(alert)["credits"] == 21
    with refused(402, "credits_insufficient") as told:
        organisation.send(alert)
    assert told.detail == {"need": 21, "have": 20}
    for table in (
        "public.alerts",
        "public.deliveries",
        "private.alert_contents",
        "private.queues",
        "public.credit_reservations",
    ):
        assert value(sql, f"select count(*) from {table} where organisation_id = %s", organisation.id) == 0, (
            table
        )
    assert organisation.account() == (20, 0)
    organisation.grant(1)
    assert organisation.send(alert)["planned"] == 3
    assert organisation.account() == (0, 21)


def test_organisation_that_never_bought_has_nothing(sql: Sql) -> None:
    organisation = Organisation.make(sql, credit=0)
    alert = organisation.alert([organisation.contact(new_phone())])
    assert organisation.quote(alert)["have"] == 0
    with refused(402, "credits_insufficient") as told:
        organisation.send(alert)
    assert told.detail == {"need": 7, "have": 0}


def test_repeat_returns_the_first_answer(organisation: Organisation) -> None:
    alert = organisation.alert(organisation.people(2))
    first = organisation.send(alert)
    again = organisation.send(dict(reversed(alert.items())))
    assert again == first | {"repeated": True}
    assert organisation.account() == (1_000_000 - 14, 14)


def test_same_id_with_another_body_is_refused(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert(organisation.people(1))
    organisation.send(alert)
    with refused(409, "alert_id_taken"):
        organisation.send(alert | {"title": "Other"})
    other = Organisation.make(sql)
    with refused(409, "alert_id_taken"):
        other.send(other.alert([other.contact(new_phone())]) | {"alert_id": alert["alert_id"]})


def test_alert_to_nobody_reachable_is_complete_at_once(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert([organisation.contact()])
    assert organisation.send(alert)["skipped"] == {"no_address": 1}
    assert (
        value(sql, "select state::text from public.alerts where id = %s", UUID(alert["alert_id"]))
        == "completed"
    )
    assert organisation.account() == (1_000_000, 0)


def at_once(
    organisation: Organisation, connect: Connect, alerts: list[Json], connections: int
) -> list[Json | str]:
    """Sends all alerts over so many connections; answers or codes of refusals."""
    gate = threading.Barrier(connections)
    shares = [alerts[start::connections] for start in range(connections)]

    def send(share: list[Json]) -> list[Json | str]:
        own = organisation.on(connect())
        gate.wait()
        found: list[Json | str] = []
        for alert in share:
            try:
                found.append(own.send(alert))
            except psycopg.Error as error:
                found.append(str(error.diag.message_primary))
        return found

    with ThreadPoolExecutor(connections) as pool:
        return [answer for answers in pool.map(send, shares) for answer in answers]


def test_two_clicks_make_one_alert(organisation: Organisation, connect: Connect) -> None:
    for _ in range(5):
        alert = organisation.alert(organisation.people(3))
        answers = at_once(organisation, connect, [alert] * 4, 4)
        first = [answer for answer in answers if isinstance(answer, dict) and "repeated" not in answer]
        assert len(first) == 1, answers
        assert all(
            isinstance(answer, dict) and answer["alert_id"] == alert["alert_id"] for answer in answers
        ), answers
        assert len(organisation.deliveries(alert)) == 3
    organisation.assert_ledger_holds()


def test_sixty_four_senders_spend_exactly_what_there_is(sql: Sql, connect: Connect) -> None:
    organisation = Organisation.make(sql, credit=32 * 7)
    contact, template = organisation.contact(new_phone()), organisation.template(sms="x")
    lanes = [
        "critical",
        "urgent",
        "normal",
        "urgent",
    ] * 16  # a lane's queue makes its senders wait for one another
    alerts = [organisation.alert([contact], template=template, severity=each) for each in lanes]
    answers = at_once(organisation, connect, alerts, 64)
    assert sum(isinstance(answer, dict) for answer in answers) == 32
    assert answers.count("credits_insufficient") == 32
    assert organisation.account() == (0, 32 * 7)
    assert (
        value(sql, "select count(*) from public.deliveries where organisation_id = %s", organisation.id) == 32
    )
    organisation.assert_ledger_holds()


def test_sixty_four_reservations_take_exactly_what_there_is(sql: Sql, connect: Connect) -> None:
    organisation = Organisation.make(sql, credit=1000)
    gate = threading.Barrier(32)

    def reserve(own: Sql) -> list[str | None]:
        gate.wait()
        codes: list[str | None] = []
        for _ in range(10):
            try:
                own.execute("select private.reserve_credits(%s, %s, 7)", (organisation.id, uuid7()))
                codes.append(None)
            except psycopg.Error as error:
                codes.append(error.diag.message_primary)
        return codes

    with ThreadPoolExecutor(32) as pool:
        codes = [code for own in pool.map(reserve, [connect() for _ in range(32)]) for code in own]
    assert (codes.count(None), codes.count("credits_insufficient")) == (142, 320 - 142)
    assert organisation.account() == (1000 - 142 * 7, 142 * 7)
    organisation.assert_ledger_holds()


def test_audience_is_frozen(organisation: Organisation, sql: Sql) -> None:
    people = organisation.people(3)
    group = organisation.group(people)
    alert = organisation.alert(groups=[group])
    organisation.send(alert)
    sql.execute(
        "delete from public.group_members where organisation_id = %s and contact_id = %s",
        (organisation.id, people[0]),
    )
    sql.execute(
        "insert into public.group_members (organisation_id, group_id, contact_id) values (%s, %s, %s)",
        (organisation.id, group, organisation.contact(new_phone())),
    )
    sql.execute("delete from public.groups where organisation_id = %s and id = %s", (organisation.id, group))
    assert set(organisation.by_contact(alert)) == set(people)


def test_quote_and_send_refuse_a_viewer(organisation: Organisation) -> None:
    alert = organisation.alert([organisation.contact(new_phone())])
    viewer = organisation.join("viewer")
    for operation in ("quote_alert", "send_alert"):
        with refused(403, "permission_missing") as told:
            organisation.call(operation, alert, caller=viewer)
        assert told.detail == {"role": "viewer", "permission": "alerts.send"}


def test_pinned_text_survives_a_new_version(organisation: Organisation, sql: Sql) -> None:
    template = organisation.template(sms="old {{name}}")
    alert = organisation.alert([organisation.contact(new_phone())], template=template)
    organisation.send(alert)
    organisation.template(template_id=template, sms="new {{name}}")
    pinned = rows(
        sql, "select (body).literals from private.alert_contents where alert_id = %s", UUID(alert["alert_id"])
    )
    assert pinned == [{"literals": ["old ", ""]}]
    assert value(sql, "select version from public.templates where id = %s", template) == 2


@pytest.mark.parametrize("amount", [0, -5, None, 10**13])
def test_grant_is_a_positive_amount(organisation: Organisation, sql: Sql, amount: int | None) -> None:
    with refused(422, "amount_invalid"):
        sql.execute("select public.grant_credits(%s, %s, 'test', 'x')", (organisation.id, amount))


def test_grant_counts_once_a_source(organisation: Organisation, sql: Sql, connect: Connect) -> None:
    grant = b"select public.grant_credits(%s, 50, 'stripe', 'invoice-1')"
    connections = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: each.execute(grant, (organisation.id,)), connections))
    assert organisation.account() == (1_000_050, 0)
    with refused(404, "organisation_not_found"):
        sql.execute(grant, (uuid7(),))
    organisation.assert_ledger_holds()


def test_ledger_is_append_only(organisation: Organisation, sql: Sql) -> None:
    for statement in ("update public.credit_ledger set available_delta = 1", "truncate public.credit_ledger"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            sql.execute(statement.encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute(
            "update public.credit_accounts set available = -1 where organisation_id = %s", (organisation.id,)
        )
