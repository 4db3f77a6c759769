"""Contacts: imports report by row and column, never raise, never lift a suppression; what is derived stays derived."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.builders import Connect, Json, Organisation, Sql, new_phone, refused, rows, value


def load(organisation: Organisation, *contacts: Any) -> Json:
    answer: Json = organisation.call("import_contacts", list(contacts))
    return answer


def person(external_id: str | None, *phones: str, **more: Any) -> Json:
    return {
        "external_id": external_id, "name": "Alice",
        "addresses": [{"kind": "phone", "value": phone} for phone in phones], **more,
    }  # fmt: skip


def test_import_makes_and_updates_people_by_external_id(organisation: Organisation, sql: Sql) -> None:
    group = organisation.group([])
    first, second = new_phone(), new_phone()
    assert load(organisation, person("1", first, group_ids=[str(group)], tags=["a"]), person("2", second)) == {
        "created": 2, "updated": 0, "refused": [],
    }  # fmt: skip
    changed = person("1", first, second, name="Bob", attributes={"room": "3"})
    assert load(organisation, changed, person(None))["updated"] == 1
    [bob] = rows(
        sql, "select * from public.contacts where organisation_id = %s and external_id = '1'", organisation.id
    )
    assert (bob["name"], bob["attributes"], bob["tags"]) == ("Bob", {"room": "3"}, [])
    found = "select array_agg(value order by position) from public.addresses where contact_id = %s"
    assert value(sql, found, bob["id"]) == [first, second]
    assert value(sql, "select count(*) from public.group_members where contact_id = %s", bob["id"]) == 1


def test_unchanged_address_keeps_its_id(organisation: Organisation, sql: Sql) -> None:
    phone = new_phone()
    ids = "select id from public.addresses where organisation_id = %s and value = %s"
    load(organisation, person("1", phone))
    before = value(sql, ids, organisation.id, phone)
    load(organisation, person("1", new_phone(), phone))
    assert value(sql, ids, organisation.id, phone) == before


BAD: list[tuple[Any, str | None]] = [
    ("text", None),
    (7, None),
    (None, None),
    ({"name": ""}, "name"),
    ({"name": "a\u0007"}, "name"),
    ({"name": "a\u202eb"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"external_id": ""}, "external_id"),
    ({"language": "french"}, "language"),
    ({"time_zone": "x" * 65}, "time_zone"),
    ({"tags": "a"}, "tags"),
    ({"tags": ["a"] * 51}, "tags"),
    ({"attributes": []}, "attributes"),
    ({"attributes": {"a": "x" * 20_000}}, "attributes"),
    ({"group_ids": "a"}, "group_ids"),
    ({"group_ids": ["no uuid"]}, "group_ids"),
    ({"group_ids": [str(uuid4())]}, "group_ids"),
    ({"addresses": "a"}, "addresses"),
    ({"addresses": ["+33612345678"]}, "addresses"),
    ({"addresses": [{"kind": "phone", "value": "0612345678"}]}, "addresses"),
    ({"addresses": [{"kind": "fax", "value": "+33612345678"}]}, "addresses"),
    ({"addresses": [{"kind": "email", "value": "A@example.com"}]}, "addresses"),
    ({"addresses": [{"kind": "email", "value": "a b@example.com"}]}, "addresses"),
    ({"addresses": [{"kind": "endpoint", "value": "ftp://example.com"}]}, "addresses"),
    ({"addresses": [{"kind": "phone", "value": "+33612345678", "position": 101}]}, "addresses"),
    ({"addresses": [{"kind": "phone", "value": "+33612345678", "position": "first"}]}, "addresses"),
]


@pytest.mark.parametrize(("change", "column"), BAD, ids=[str(change)[:40] for change, _ in BAD])
def test_bad_row_is_reported_and_the_others_stay(
    organisation: Organisation, change: Any, column: str | None
) -> None:
    bad = person("bad", new_phone()) | change if isinstance(change, dict) else change
    answer = load(organisation, person("1", new_phone()), bad, person("2", new_phone()))
    assert answer["created"] == 2
    assert [(each["row"], each["column"]) for each in answer["refused"]] == [(2, column)]


def test_report_repeats_nothing_that_was_typed(organisation: Organisation) -> None:
    answer = load(organisation, person("Canary\u0001", "canary"))
    assert "anary" not in str(answer)


def test_same_external_id_twice_in_a_chunk_is_reported(organisation: Organisation, sql: Sql) -> None:
    answer = load(
        organisation, person("1", new_phone(), name="First"), person("1", new_phone(), name="Second")
    )
    assert (answer["created"], [each["row"] for each in answer["refused"]]) == (1, [2])
    assert (
        value(sql, "select name from public.contacts where organisation_id = %s", organisation.id) == "First"
    )


def test_two_imports_of_the_same_people_at_once(
    organisation: Organisation, sql: Sql, connect: Connect
) -> None:
    people = [person(str(number), new_phone()) for number in range(200)]
    members = [organisation.on(connect()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda own: load(own, *people), members))
    assert sum(each["created"] for each in answers) == 200
    assert (
        value(sql, "select count(*) from public.contacts where organisation_id = %s", organisation.id) == 200
    )


def test_group_of_another_organisation_is_no_group(organisation: Organisation, sql: Sql) -> None:
    theirs = Organisation.make(sql).group([])
    assert load(organisation, person("1", group_ids=[str(theirs)]))["refused"][0]["column"] == "group_ids"


def test_import_never_lifts_a_suppression(organisation: Organisation, sql: Sql) -> None:
    phone = new_phone()
    load(organisation, person("1", phone))
    organisation.call("suppress_address", phone, "sms", "opt_out")
    sql.execute("delete from public.contacts where organisation_id = %s", (organisation.id,))
    load(organisation, person("1", phone))
    contact = value(sql, "select id from public.contacts where organisation_id = %s", organisation.id)
    alert = organisation.alert([contact])
    assert organisation.send(alert)["skipped"] == {"opted_out": 1}


def test_suppression_keeps_its_first_reason_and_no_address(organisation: Organisation, sql: Sql) -> None:
    phone = new_phone()
    for reason in ("complaint", "manual"):
        organisation.call("suppress_address", phone, "sms", reason)
    [kept] = rows(sql, "select * from public.suppressions where organisation_id = %s", organisation.id)
    assert kept["reason"] == "complaint"
    assert phone not in str(kept)
    with refused(422, "address_invalid"):
        organisation.call("suppress_address", "", "sms", "manual")


def test_chunk_is_an_array_of_at_most_five_thousand(organisation: Organisation) -> None:
    chunks: list[Any] = [{"a": 1}, [{}] * 5001]
    for chunk in chunks:
        with refused(422, "import_chunk_invalid"):
            organisation.call("import_contacts", chunk)
    assert load(organisation) == {"created": 0, "updated": 0, "refused": []}


@pytest.mark.parametrize(
    ("phone", "country"),
    [
        ("+33612345678", "FR"), ("+14155550101", "US"), ("+15145550101", "CA"), ("+18765550101", "JM"), ("+447400123456", "GB"),
        ("+441534123456", "JE"), ("+79161234567", "RU"), ("+77011234567", "KZ"), ("+999123456789", "ZZ"), ("+262692123456", "RE"),
    ],
)  # fmt: skip
def test_longest_prefix_decides_the_country(sql: Sql, phone: str, country: str) -> None:
    assert value(sql, "select private.country_of(%s)", phone) == country


def test_derived_columns_follow_the_value(organisation: Organisation, sql: Sql) -> None:
    contact = organisation.contact("+33612345678")
    derived = "select country || encode(destination_hash, 'hex') from public.addresses where contact_id = %s"
    before = value(sql, derived, contact)
    sql.execute(
        "update public.addresses set country = 'US', destination_hash = '\\x00' where contact_id = %s",
        (contact,),
    )
    assert value(sql, derived, contact) == before
    sql.execute("update public.addresses set value = '+14155550101' where contact_id = %s", (contact,))
    assert value(sql, derived, contact)[:2] == "US"
    assert value(sql, derived, contact)[2:] != before[2:]


def test_person_can_not_be_written_into_two_organisations(organisation: Organisation, sql: Sql) -> None:
    theirs: UUID = Organisation.make(sql).contact()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        organisation.address(theirs, new_phone())
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        organisation.group([theirs])
