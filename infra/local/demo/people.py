"""Invented people: the rows of four import files, drawn from a seed, with the faults that real files have."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from infra.local.demo import names

Row = dict[str, Any]

# shares of the people; what is not listed is everyone
WITHOUT_PHONE = 0.03
FOUR_SPELLINGS = 0.02  # one number, written in four ways in one row
SHARING = 0.03  # on the phone of the person before, spelled in another way
WITH_EMAIL = 0.85
WITH_ENDPOINT = 0.25
ENDPOINT_SHARING = 0.10  # of those: on the endpoint of the one before
RESPONDERS = 0.10  # in a second group as well
OPTED_OUT = 0.01
BOUNCED = 0.01
INVALID = 0.01  # rows on top of the people that no import can take
EMAIL_DOMAINS = ("example.com", "example.net", "example.org")  # RFC 2606: nobody's
BUILDINGS = ("Halle A", "Halle B", "Atelier 3", "Bâtiment Curie", "Building 7", "Tower East")


@dataclass(slots=True, frozen=True)
class Site:
    """A site of the organisation: its country decides how phones, names and languages look."""

    name: str
    country: str
    time_zone: str
    share: float
    languages: tuple[str, ...]
    trunk: str  # what comes before a national number at home
    calling_code: str
    mobile: Callable[[Random], str]  # the national number without its trunk prefix


def _digits(chance: Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


# mobile ranges that libphonenumber knows as valid
SITES = (
    Site("Lyon", "FR", "Europe/Paris", 0.45, ("fr", "fr", "fr-FR", "en"), "0", "33",
         lambda chance: f"6{chance.choice('0124678')}{_digits(chance, 7)}"),
    Site("Liège", "BE", "Europe/Brussels", 0.20, ("fr-BE", "fr", "en"), "0", "32",
         lambda chance: f"47{chance.choice('0123456789')}{_digits(chance, 6)}"),
    Site("Genève", "CH", "Europe/Zurich", 0.15, ("fr-CH", "fr", "en"), "0", "41",
         lambda chance: f"7{chance.choice('689')}{_digits(chance, 7)}"),
    Site("Leeds", "GB", "Europe/London", 0.20, ("en-GB", "en", "en", "fr"), "0", "44",
         lambda chance: f"7{chance.choice('123')}{_digits(chance, 8)}"),
)  # fmt: skip


@dataclass(slots=True)
class Crowd:
    """What to import: rows by country, and destinations that must not be reached, and what was planted."""

    files: dict[str, list[Row]] = field(default_factory=dict)
    opted_out: list[str] = field(default_factory=list)  # phones, E.164
    bounced: list[str] = field(default_factory=list)  # e-mail addresses
    mix: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, by: int = 1) -> None:
        self.mix[what] = self.mix.get(what, 0) + by


def crowd(recipients: int, seed: int, *, sink: str, group_ids: Mapping[str, str]) -> Crowd:
    """`recipients` people and some rows that can't be imported; the same for the same seed.

    `sink` is the origin of their endpoints; `group_ids` the id of each site's group and of `responders`.
    """
    chance = Random(seed)  # noqa: S311 -- invented people, not secrets
    found = Crowd(files={site.country: [] for site in SITES})
    makers = {site.country: _Maker(site, chance, sink, group_ids, found) for site in SITES}
    for number, site in enumerate(_spread(recipients), start=1):
        found.files[site.country].append(makers[site.country].person(number))
    _plant_invalid(found, chance, recipients)
    return found


def _spread(recipients: int) -> list[Site]:
    """Each site's share of the people; the rounding goes to the first."""
    rest = [site for site in SITES[1:] for _ in range(int(recipients * site.share))]
    return [SITES[0]] * (recipients - len(rest)) + rest


class _Maker:
    """Draws the people of one site; who shares a phone or an endpoint shares that of the last one who had it."""

    def __init__(
        self, site: Site, chance: Random, sink: str, group_ids: Mapping[str, str], found: Crowd
    ) -> None:
        self._site = site
        self._chance = chance
        self._sink = sink
        self._group_ids = group_ids
        self._found = found
        self._taken: set[str] = set()
        self._last_phone = ""
        self._last_endpoint = ""

    def person(self, number: int) -> Row:
        chance, site = self._chance, self._site
        language = chance.choice(site.languages)
        name = names.draw(chance, language[:2])
        addresses = [*self._phones(), *self._emails(name, number), *self._endpoints(number)]
        groups = [self._group_ids[site.name]]
        if chance.random() < RESPONDERS:
            groups.append(self._group_ids["responders"])
            self._found.count("in_two_groups")
        attributes: Row = {"site": site.name}
        if chance.random() < 0.9:
            attributes["building"] = chance.choice(BUILDINGS)
        self._found.count("people")
        return {
            "external_id": f"{site.country}-{number:06d}",
            "name": name,
            "language": language,
            "time_zone": site.time_zone,
            "tags": chance.sample(("jour", "nuit", "visiteur", "first-aid"), k=chance.randint(0, 2)),
            "attributes": attributes,
            "group_ids": groups,
            "addresses": addresses,
        }

    def _phones(self) -> list[Row]:
        draw = self._chance.random()
        if draw < WITHOUT_PHONE:
            self._found.count("without_phone")
            return []
        if draw < WITHOUT_PHONE + SHARING and self._last_phone:
            self._found.count("sharing_a_phone")
            return [_address("phone", self._chance.choice(spellings(self._site, self._last_phone)[1:]))]
        self._last_phone = phone = self._new_phone()
        if self._chance.random() < OPTED_OUT:
            self._found.opted_out.append(f"+{self._site.calling_code}{phone}")
        if draw > 1 - FOUR_SPELLINGS:
            self._found.count("with_four_spellings")
            return [_address("phone", text) for text in spellings(self._site, phone)]
        return [_address("phone", self._chance.choice(spellings(self._site, phone)))]

    def _new_phone(self) -> str:
        while (phone := self._site.mobile(self._chance)) in self._taken:
            pass
        self._taken.add(phone)
        return phone

    def _emails(self, name: str, number: int) -> list[Row]:
        if self._chance.random() >= WITH_EMAIL:
            return []
        email = f"{_ascii(name)}.{number}@{self._chance.choice(EMAIL_DOMAINS)}"
        if self._chance.random() < BOUNCED:
            self._found.bounced.append(email)
        self._found.count("with_email")
        return [_address("email", email.title() if self._chance.random() < 0.1 else email)]

    def _endpoints(self, number: int) -> list[Row]:
        if self._chance.random() >= WITH_ENDPOINT:
            return []
        self._found.count("with_endpoint")
        if self._chance.random() < ENDPOINT_SHARING and self._last_endpoint:
            self._found.count("sharing_an_endpoint")
        else:
            self._last_endpoint = f"{self._sink}/sink/{self._site.country.lower()}/{number}"
        return [_address("endpoint", self._last_endpoint)]


def spellings(site: Site, phone: str) -> tuple[str, str, str, str]:
    """Four ways to write one number; the first is E.164."""
    pairs = [phone[at : at + 2] for at in range(1, len(phone), 2)]
    return (
        f"+{site.calling_code}{phone}",
        f"+{site.calling_code} {phone[0]} {' '.join(pairs)}",
        f"00{site.calling_code} {phone[:3]}-{phone[3:]}",
        f"{site.trunk}{phone[0]}.{'.'.join(pairs)}",
    )


def _address(kind: str, value: str) -> Row:
    return {"kind": kind, "value": value}


def _ascii(name: str) -> str:
    """The name as people write it in addresses, e.g. `zoe.lefevre`."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("œ", "oe")).encode("ascii", "ignore").decode()
    return ".".join("".join(letter for letter in word if letter.isalpha()) for word in plain.split())


# one fault each; the import reports the column
FAULTS: tuple[tuple[str, Row], ...] = (
    ("name", {"name": ""}),
    ("name", {"name": "Chloé\x1b[2JMartin"}),
    ("addresses", {"addresses": [_address("phone", "06 12 34")]}),
    ("addresses", {"addresses": [_address("phone", "+33 899 70 12 34")]}),  # premium rate
    ("addresses", {"addresses": [_address("email", "zoe.lefevre(at)example.com")]}),
    ("addresses", {"addresses": [_address("endpoint", "http://192.168.1.4/hook")]}),
    ("addresses", {"addresses": [_address("fax", "+33 4 72 00 00 00")]}),
    ("language", {"language": "français"}),
    ("time_zone", {"time_zone": "Europe/Lyonn"}),
    ("téléphone", {"téléphone": "06 12 34 56 78"}),
    ("group_ids", {"group_ids": [str(UUID(int=0))]}),  # a group of nobody: refused by the database itself
)


def _plant_invalid(found: Crowd, chance: Random, recipients: int) -> None:
    for number in range(max(len(FAULTS), int(recipients * INVALID))):
        column, fault = FAULTS[number % len(FAULTS)]
        file = chance.choice(list(found.files.values()))
        row = {"external_id": f"XX-{number:06d}", "name": "Personne Refusée", "language": "fr"} | fault
        file.insert(chance.randint(0, len(file)), row)
        found.count("invalid")
        found.count(f"invalid_{column}")
