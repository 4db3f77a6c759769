"""The demo's invented people: the same for a seed, in the stated mix, and every planted fault is refused."""

from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random
from typing import Any

import pytest

from infra.local.demo import people
from shared import contacts
from shared.contacts import RowError

SINK = "http://127.0.0.1:9"
GROUPS = {name: f"00000000-0000-7000-8000-{place:012d}" for place, name in enumerate(
    [*(site.name for site in people.SITES), "responders"], start=1
)}  # fmt: skip


@cache
def crowd(recipients: int = 2000, seed: int = 7) -> people.Crowd:
    return people.crowd(recipients, seed, sink=SINK, group_ids=GROUPS)


def normalised() -> tuple[list[dict[str, Any]], Counter[str]]:
    good: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    for country, rows in crowd().files.items():
        for row in rows:
            try:
                good.append(contacts.normalise(row, country=country, local_sink=SINK))
            except RowError as error:
                refused[error.column] += 1
    return good, refused


def values(rows: list[dict[str, Any]], kind: str) -> list[list[str]]:
    return [[each["value"] for each in row["addresses"] if each["kind"] == kind] for row in rows]


def test_a_seed_always_makes_the_same_people() -> None:
    assert people.crowd(300, 7, sink=SINK, group_ids=GROUPS) == people.crowd(
        300, 7, sink=SINK, group_ids=GROUPS
    )


def test_another_seed_makes_others() -> None:
    assert crowd(300, 7).files != crowd(300, 8).files


@pytest.mark.parametrize("recipients", [1, 13, 300])
def test_exactly_so_many_people_are_made(recipients: int) -> None:
    found = crowd(recipients)
    rows = sum(len(file) for file in found.files.values())
    assert found.mix["people"] == recipients
    assert rows == recipients + found.mix["invalid"]


def test_four_countries_have_their_share() -> None:
    sizes = {country: len(rows) for country, rows in crowd().files.items()}
    assert list(sizes) == ["FR", "BE", "CH", "GB"]
    assert all(abs(sizes[site.country] - 2000 * site.share) <= 30 for site in people.SITES)


def test_every_good_row_can_be_imported_and_every_planted_fault_is_refused() -> None:
    good, refused = normalised()
    mix = crowd().mix
    by_the_database = mix["invalid_group_ids"]  # a group of nobody has the right shape
    assert len(good) == mix["people"] + by_the_database
    assert sum(refused.values()) == mix["invalid"] - by_the_database
    assert all(refused[column] == mix[f"invalid_{column}"] for column in refused)


def test_four_spellings_of_a_number_are_one_address() -> None:
    rows = [row for file in crowd().files.values() for row in file]
    spelt = [row for row in rows if sum(each["kind"] == "phone" for each in row.get("addresses", [])) == 4]
    good, _ = normalised()
    assert len(spelt) == crowd().mix["with_four_spellings"] > 10
    assert max(len(phones) for phones in values(good, "phone")) == 1


@pytest.mark.parametrize("site", people.SITES, ids=lambda site: site.country)
def test_the_spellings_of_a_number_are_four_and_mean_the_same(site: people.Site) -> None:
    phone = site.mobile(Random(1))
    texts = people.spellings(site, phone)
    rows = [
        contacts.normalise(
            {"name": "a", "addresses": [{"kind": "phone", "value": text}]}, country=site.country
        )
        for text in texts
    ]
    assert len(set(texts)) == 4
    assert {row["addresses"][0]["value"] for row in rows} == {f"+{site.calling_code}{phone}"}


def test_phones_and_endpoints_are_shared_as_often_as_the_mix_says() -> None:
    good, _ = normalised()
    mix = crowd().mix
    for kind, shared in (("phone", "sharing_a_phone"), ("endpoint", "sharing_an_endpoint")):
        found = [value for row in values(good, kind) for value in row]
        assert len(found) - len(set(found)) == mix[shared] > 0
    assert sum(not row for row in values(good, "phone")) == mix["without_phone"] + mix["invalid_group_ids"]
    emails = [value for row in values(good, "email") for value in row]
    assert len(set(emails)) == len(emails) == mix["with_email"]


def test_who_opted_out_is_among_the_people() -> None:
    good, _ = normalised()
    phones = {value for row in values(good, "phone") for value in row}
    emails = {value for row in values(good, "email") for value in row}
    assert crowd().opted_out
    assert set(crowd().opted_out) <= phones
    assert crowd().bounced
    assert set(crowd().bounced) <= emails


def test_names_have_accents_and_e_mail_addresses_have_none() -> None:
    good, _ = normalised()
    assert any("é" in row["name"] for row in good)
    assert all(value.isascii() for row in values(good, "email") for value in row)
