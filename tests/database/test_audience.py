"""Who gets an alert: each person once, each destination once, the first usable address, and a reason for everybody else."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

import pytest

from tests.database.builders import Json, Organisation, Sql, new_phone, refused, uuid7, value


def planned(deliveries: list[Json]) -> list[Json]:
    return [each for each in deliveries if each["state"] == "planned"]


def test_person_in_five_groups_gets_one_message(organisation: Organisation) -> None:
    people = organisation.people(10)
    groups = [organisation.group(people[start : start + 6]) for start in range(5)]
    alert = organisation.alert(people[:3], groups=groups)
    assert organisation.send(alert)["recipients"] == 10
    deliveries = organisation.deliveries(alert)
    assert {each["contact_id"] for each in deliveries} == set(people)
    assert len(planned(deliveries)) == 10
    assert sorted(each["number"] for each in deliveries) == list(range(1, 11))


def test_two_people_on_one_phone_get_one_sms(organisation: Organisation) -> None:
    phone = new_phone()
    people = [organisation.contact(phone) for _ in range(3)]
    alert = organisation.alert(people)
    assert organisation.send(alert)["skipped"] == {"duplicate_path": 2}
    assert Counter((each["state"], each["reason"]) for each in organisation.deliveries(alert)) == {
        ("planned", None): 1, ("skipped", "duplicate_path"): 2,
    }  # fmt: skip


def test_same_phone_is_one_destination_a_channel(organisation: Organisation) -> None:
    phone = new_phone()
    alert = organisation.alert(
        [organisation.contact(phone), organisation.contact(phone)], channels=["sms", "voice"]
    )
    organisation.send(alert)
    assert Counter(each["channel"] for each in planned(organisation.deliveries(alert))) == {
        "sms": 1,
        "voice": 1,
    }


def test_email_spelled_in_capitals_is_the_same_destination(organisation: Organisation) -> None:
    people = [organisation.contact("family@example.com"), organisation.contact("Family@Example.COM")]
    alert = organisation.alert(people, channels=["email"])
    assert organisation.send(alert)["skipped"] == {"duplicate_path": 1}


def test_same_destination_in_two_organisations_is_reached_by_both(
    organisation: Organisation, sql: Sql
) -> None:
    phone = new_phone()
    alerts = []
    for each in (organisation, Organisation.make(sql)):
        alerts.append((each, each.alert([each.contact(phone)])))
        each.send(alerts[-1][1])
    hashes = {each.deliveries(alert)[0]["destination_hash"] for each, alert in alerts}
    assert len(hashes) == 2


def test_first_usable_address_is_used(organisation: Organisation) -> None:
    first, second, third = new_phone(), new_phone(), new_phone()
    contact = organisation.contact(first, second, third)
    plain = organisation.alert([contact])
    organisation.send(plain)
    assert organisation.deliveries(plain)[0]["destination_tail"] == first[-4:]
    organisation.call("suppress_address", first, "sms", "manual")
    after = organisation.alert([contact])
    organisation.send(after)
    assert organisation.deliveries(after)[0]["destination_tail"] == second[-4:]


def test_suppression_of_one_channel_leaves_the_others(organisation: Organisation) -> None:
    phone = new_phone()
    contact = organisation.contact(phone)
    organisation.call("suppress_address", phone, "sms", "opt_out")
    alert = organisation.alert([contact], channels=["sms", "voice"])
    organisation.send(alert)
    found = {each["channel"]: (each["state"], each["reason"]) for each in organisation.deliveries(alert)}
    assert found == {"sms": ("skipped", "opted_out"), "voice": ("planned", None)}
    organisation.call("suppress_address", phone, None, "manual")
    alert = organisation.alert([contact], channels=["voice"])
    assert organisation.send(alert)["skipped"] == {"suppressed": 1}


def test_suppressed_endpoint_is_not_called(organisation: Organisation) -> None:
    endpoint = "https://example.com/Hook?Key=A"
    organisation.call("suppress_address", endpoint, "webhook", "manual")
    alert = organisation.alert([organisation.contact(endpoint)], channels=["webhook"])
    assert organisation.send(alert)["skipped"] == {"suppressed": 1}


def test_everybody_who_is_skipped_has_a_reason(organisation: Organisation, sql: Sql) -> None:
    opted_out, bounced = new_phone(), new_phone()
    organisation.call("suppress_address", opted_out, "sms", "opt_out")
    organisation.call("suppress_address", bounced, None, "bounce")
    people = {
        "no_address": organisation.contact("mail@example.com"),
        "opted_out": organisation.contact(opted_out),
        "suppressed": organisation.contact(bounced),
        "restricted": organisation.contact(new_phone()),
        None: organisation.contact(new_phone()),
    }
    sql.execute("update public.contacts set restricted_at = now() where id = %s", (people["restricted"],))
    alert = organisation.alert(people.values())
    answer = organisation.send(alert)
    rows = organisation.by_contact(alert)
    assert {reason: rows[contact]["reason"] for reason, contact in people.items()} == {
        reason: reason for reason in people
    }
    assert answer["skipped"] == {reason: 1 for reason in people if reason}
    assert all(each["cost"] == 0 for each in rows.values() if each["state"] == "skipped")


def test_restricted_person_does_not_take_the_place_of_another_on_their_phone(
    organisation: Organisation, sql: Sql
) -> None:
    phone = new_phone()
    people = [organisation.contact(phone), organisation.contact(phone)]
    sql.execute("update public.contacts set restricted_at = now() where id = %s", (min(people),))
    alert = organisation.alert(people)
    organisation.send(alert)
    assert organisation.by_contact(alert)[max(people)]["state"] == "planned"


def test_each_person_is_spoken_to_in_their_language(organisation: Organisation) -> None:
    template = organisation.save_template(
        [
            {"channel": "sms", "language": language, "body": f"text {language}"}
            for language in ("de", "en", "fr", "fr-CA")
        ]
    )
    spoken = {"fr-CA": "fr-CA", "fr-BE": "fr", "en-GB": "en", "es": "fr", None: "fr", "de": "de"}
    people = {
        organisation.contact(new_phone(), language=language): wanted for language, wanted in spoken.items()
    }
    alert = organisation.alert(people, template=template)
    organisation.send(alert)
    found = {contact: row["language"] for contact, row in organisation.by_contact(alert).items()}
    assert found == people


def test_price_is_that_of_the_destination(organisation: Organisation) -> None:
    phones = {"+33612345601": 7, "+447400123456": 5, "+14155550101": 2, "+15145550101": 2, "+41791234567": 8}
    alert = organisation.alert([organisation.contact(phone) for phone in phones])
    organisation.send(alert)
    costs = {each["destination_tail"]: each["cost"] for each in organisation.deliveries(alert)}
    assert costs == {phone[-4:]: cost for phone, cost in phones.items() if phone != "+15145550101"} | {
        "0101": 2
    }


@pytest.mark.parametrize("audience", [{"groups": []}, {"contacts": []}])
def test_empty_audience_is_refused(organisation: Organisation, audience: Json) -> None:
    with refused(422, "audience_empty"):
        organisation.send(organisation.alert(**audience))
    with refused(422, "audience_empty"):
        organisation.send(organisation.alert(groups=[organisation.group([])]))


def test_audience_above_the_limit_is_refused_with_figures(organisation: Organisation, sql: Sql) -> None:
    people = organisation.people(5)
    groups = [organisation.group(people), organisation.group(people)]
    sql.execute("update public.organisations set max_recipients = 5 where id = %s", (organisation.id,))
    assert organisation.quote(organisation.alert(groups=groups))["recipients"] == 5
    with refused(422, "audience_too_large") as told:
        organisation.send(organisation.alert([organisation.contact(new_phone())], groups=groups))
    assert told.detail == {"recipients": 6, "limit": 5}


def test_foreign_group_contact_and_template_are_not_found(organisation: Organisation, sql: Sql) -> None:
    other = Organisation.make(sql)
    contact = organisation.contact(new_phone())
    theirs = other.contact(new_phone())
    cases = {
        "group_not_found": organisation.alert(groups=[other.group([theirs])]),
        "contact_not_found": organisation.alert([contact, theirs]),
        "template_not_found": organisation.alert([contact], template=other.template(sms="x")),
    }
    for code, alert in cases.items():
        for operation in (organisation.quote, organisation.send):
            with refused(404, code):
                operation(alert)
        assert (
            value(sql, "select count(*) from public.alerts where organisation_id = %s", organisation.id) == 0
        )


BAD: list[tuple[Json, str]] = [
    ({"alert_id": str(uuid4())}, "alert_id_invalid"),
    ({"alert_id": None}, "alert_id_invalid"),
    ({"alert_id": str(uuid7(1_600_000_000))}, "alert_id_invalid"),
    ({"title": ""}, "title_invalid"),
    ({"title": "a\r\nBcc: b"}, "title_invalid"),
    ({"title": "x" * 201}, "title_invalid"),
    ({"severity": "loud"}, "severity_unknown"),
    ({"severity": None}, "severity_unknown"),
    ({"channels": []}, "channels_invalid"),
    ({"channels": ["sms", "sms"]}, "channels_invalid"),
    ({"channels": ["fax"]}, "channel_unknown"),
    ({"channels": "sms"}, "channel_unknown"),
    ({"channels": ["email"]}, "content_missing"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expiry_past"),
    ({"expires_at": "infinity"}, "expiry_too_late"),
    ({"expires_at": "-infinity"}, "expiry_past"),
]


@pytest.mark.parametrize(
    ("change", "code"), BAD, ids=[f"{code}-{next(iter(change))}" for change, code in BAD]
)
def test_bad_alert_is_refused_and_leaves_nothing(
    organisation: Organisation, sql: Sql, change: Json, code: str
) -> None:
    alert = organisation.alert([organisation.contact(new_phone())]) | change
    for operation in (organisation.quote, organisation.send):
        with refused(422, code):
            operation(alert)
    assert value(sql, "select count(*) from public.alerts where organisation_id = %s", organisation.id) == 0
    assert organisation.account() == (1_000_000, 0)


def test_missing_value_names_contacts_and_changes_nothing(organisation: Organisation, sql: Sql) -> None:
    complete = organisation.contact(new_phone(), attributes={"room": "12", "floor": "1"})
    lacking = organisation.contact(
        new_phone(), external_id="E-7", attributes={"room": ""}, name="Secret Name"
    )
    template = organisation.template(sms="{{name}}: {{room}}, {{floor}}, {{note | none}}, {{site}}")
    alert = organisation.alert([complete, lacking], template=template, variables={"site": "Lyon"})
    for operation in (organisation.quote, organisation.send):
        with refused(422, "variable_missing") as told:
            operation(alert)
        named = {(each["contact_id"], each["variable"]) for each in told.detail["contacts"]}
        assert named == {(str(lacking), "room"), (str(lacking), "floor")}
        assert told.detail["more"] is False
        assert "Secret" not in str(told)
        assert "E-7" not in str(told)  # an external id is often an e-mail address
    assert value(sql, "select count(*) from public.alerts where organisation_id = %s", organisation.id) == 0
    assert organisation.account() == (1_000_000, 0)


def test_many_missing_values_are_cut_at_twenty(organisation: Organisation) -> None:
    alert = organisation.alert(organisation.people(30), template=organisation.template(sms="{{room}}"))
    with refused(422, "variable_missing") as told:
        organisation.send(alert)
    assert (len(told.detail["contacts"]), told.detail["more"]) == (20, True)


def test_missing_price_names_countries_and_changes_nothing(organisation: Organisation, sql: Sql) -> None:
    people = [organisation.contact(phone) for phone in ("+81312345678", "+81312345679", new_phone())]
    alert = organisation.alert(people)
    for operation in (organisation.quote, organisation.send):
        with refused(422, "price_missing") as told:
            operation(alert)
        assert told.detail == {"prices": [{"channel": "sms", "country": "JP", "recipients": 2}]}
    assert (
        value(sql, "select count(*) from public.deliveries where organisation_id = %s", organisation.id) == 0
    )
    assert organisation.account() == (1_000_000, 0)


def test_later_price_list_does_not_change_an_alert(organisation: Organisation, sql: Sql) -> None:
    alert = organisation.alert([organisation.contact(new_phone())])
    organisation.send(alert)
    version = "select price_version from public.alerts where id = %s"
    assert value(sql, version, UUID(alert["alert_id"])) == 1
