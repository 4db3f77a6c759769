"""A small organisation that can send: an owner, contacts with every kind of address, a template, credits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from infra.local.settings import Settings
from shared import clock
from tests.support.api import Member, Reply, make_member

CHANNELS = ("sms", "voice", "email", "webhook")


@dataclass(slots=True, frozen=True)
class Scene:
    """What a test needs to send: who, from which organisation, with which template to which group."""

    owner: Member
    organisation_id: str
    group_id: str
    template_id: str

    def alert(self, **changes: Any) -> dict[str, Any]:
        """The body of a send to the whole group by SMS."""
        return {
            "organisation_id": self.organisation_id,
            "alert_id": str(clock.system.uuid7()),
            "title": "Crue de la rivière",
            "severity": "urgent",
            "channels": ["sms"],
            "template_id": self.template_id,
            "group_ids": [self.group_id],
        } | changes

    def send(self, **changes: Any) -> Reply:
        """Send through the deployed function."""
        return self.owner.function("send-alert", self.alert(**changes))

    def report(self, alert_id: str) -> dict[str, Any]:
        """The alert's report, as its owner sees it."""
        reply = self.owner.rpc("alert_report", p_organisation_id=self.organisation_id, p_alert_id=alert_id)
        assert reply.status == 200, reply.json
        report: dict[str, Any] = reply.json
        return report


def make_scene(settings: Settings, sql: Any, contacts: int, *, credits: int = 1_000_000) -> Scene:  # noqa: A002
    """`contacts` people named by number; everyone has all three kinds of address. Senders are at full pace."""
    owner = make_member(settings, sql)
    organisation_id, group_id = str(uuid4()), str(uuid4())
    reply = owner.rpc(
        "create_organisation", p_organisation_id=organisation_id, p_name="Mairie", p_country="FR", p_language="fr",
        p_time_zone="Europe/Paris",
    )  # fmt: skip
    assert reply.status == 200, reply.json
    sql.execute(
        "insert into public.groups (organisation_id, id, name) values (%s, %s, 'tous')",
        (organisation_id, group_id),
    )
    sql.execute("update private.senders set segments_per_second = 1000000, burst = 1000000, tokens = 1000000")
    if credits:
        sql.execute("select private.grant_credits(%s, %s, 'test', '1')", (organisation_id, credits))
    first = clock.system.bits(26)  # no two scenes share a number: the carriers' journal outlives a test
    people = [_person(number, first, group_id, settings.carriers_url) for number in range(1, contacts + 1)]
    reply = owner.rpc("import_contacts", p_organisation_id=organisation_id, p_contacts=people)
    assert reply.status == 200, reply.json
    assert reply.json["refused"] == []
    contents = [
        {"channel": channel, "language": language, "subject": "Alerte", "body": body}
        for channel in CHANNELS
        for language, body in (
            ("fr", "Alerte {{name}}: quittez les lieux."),
            ("en", "Alert {{name}}: leave now."),
        )
    ]
    reply = owner.rpc(
        "save_template", p_organisation_id=organisation_id, p_template={"name": "Crue", "contents": contents}
    )
    assert reply.status == 200, reply.json
    return Scene(owner, organisation_id, group_id, reply.json["template_id"])


def _person(number: int, first: int, group_id: str, sink: str) -> dict[str, Any]:
    return {
        "external_id": f"p-{number}",
        "name": f"Personne {number}",
        "language": "en" if number % 3 == 0 else "fr",
        "group_ids": [group_id],
        "addresses": [
            {"kind": "phone", "value": f"+336{first + number:08d}"},
            {"kind": "email", "value": f"p{first + number}@example.com"},
            {"kind": "endpoint", "value": f"{sink}/sink/p{first + number}"},
        ],
    }
