"""Templates: places are parsed or refused, values are rendered once and escaped, versions never change."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from tests.database.builders import Json, Organisation, Sql, new_phone, refused, value


def render(sql: Sql, text: str, attributes: Json, *, html: bool = False, given: Json | None = None) -> str:
    rendered: str = value(
        sql,
        "select private.render(private.fill(private.parse_text(%s), %s, %s), 'Zoé', 'E-7', %s, %s)",
        text, Jsonb(given or {}), html, Jsonb(attributes), html,
    )  # fmt: skip
    return rendered


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("{{name}}", "Zoé"),
        ("{{ name }} {{external_id}}", "Zoé E-7"),
        ("a{{room}}b", "a12b"),
        ("{{missing | friend }}!", "friend!"),
        ("{{missing|}}!", "!"),
        ("{{empty | none}}", "none"),
        ("{{ missing |  two words  }}", "two words"),
        ("{{missing | dear}} {{missing | you}}", "dear you"),
        ("{{inner}}", "{{name}}"),
        ("{name} { {name} }", "{name} { {name} }"),
        ("{{site}}", "Lyon {{room}}"),
        ("{{number}} {{yes}}", "7 true"),
    ],
)
def test_places_are_filled_once(sql: Sql, text: str, rendered: str) -> None:
    attributes = {"room": "12", "empty": "", "inner": "{{name}}", "number": 7, "yes": True}
    assert render(sql, text, attributes, given={"site": "Lyon {{room}}"}) == rendered


def test_html_escapes_what_people_typed(sql: Sql) -> None:
    text = "<b>{{name}} {{note}} {{site}}</b>"
    rendered = render(sql, text, {"note": "<script>'&\""}, html=True, given={"site": "<a>"})
    assert rendered == "<b>Zoé &lt;script&gt;&#39;&amp;&quot; &lt;a&gt;</b>"


@pytest.mark.parametrize(
    "text", ["{{Name}}", "{{na me}}", "{{name", "name}}", "{{a{{b}}}}", "{{}}", "{{1}}", "{{name | {x} }}"]
)
def test_misspelt_place_is_refused_with_its_position(organisation: Organisation, text: str) -> None:
    with refused(422, "template_malformed") as told:
        organisation.template(sms="ab " + text)
    assert told.detail["near_position"] >= 4


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"channel": "fax"}, "channel_unknown"),
        ({"language": "french"}, "language_invalid"),
        ({"body": ""}, "body_invalid"),
        ({"body": None}, "body_invalid"),
        ({"body": "x" * 1601}, "body_invalid"),
        ({"body": "a\x07"}, "control_characters"),
        ({"html": "<p>"}, "html_invalid"),
        ({"channel": "email"}, "subject_missing"),
        ({"channel": "email", "subject": "a\r\nBcc: b@example.com"}, "subject_invalid"),
    ],
)
def test_bad_content_is_refused(organisation: Organisation, content: Json, code: str) -> None:
    with refused(422, code):
        organisation.save_template([{"channel": "sms", "language": "fr", "body": "x", **content}])
    assert (
        value(
            organisation.sql,
            "select count(*) from public.templates where organisation_id = %s",
            organisation.id,
        )
        == 0
    )


def test_channel_and_language_are_given_once(organisation: Organisation) -> None:
    content = {"channel": "sms", "language": "fr", "body": "x"}
    with refused(422, "content_repeated"):
        organisation.save_template([content, content])


def test_values_reach_every_channel_of_the_alert(organisation: Organisation, sql: Sql) -> None:
    template = organisation.save_template(
        [
            {
                "channel": "email",
                "language": "fr",
                "subject": "{{site}}",
                "body": "{{site}} {{name}}",
                "html": "<p>{{site}}</p>",
            }
        ]
    )
    contact = organisation.contact("a@example.com")
    alert = organisation.alert([contact], template=template, channels=["email"], variables={"site": "A&B"})
    organisation.send(alert)
    pinned = "select ((subject).literals, (body).literals, (html).literals)::text from private.alert_contents where alert_id = %s"
    assert value(sql, pinned, alert["alert_id"]) == '({A&B},"{""A&B "",""""}",{<p>A&amp;B</p>})'


def test_save_is_for_who_may_send(organisation: Organisation) -> None:
    with refused(403, "permission_missing"):
        organisation.call("save_template", {}, caller=organisation.join("viewer"))


def test_saving_again_makes_a_version(organisation: Organisation, sql: Sql) -> None:
    template = organisation.template(sms="one")
    organisation.template(template_id=template, sms="two")
    bodies = "select string_agg(version || body, ',' order by version) from public.template_contents where template_id = %s"
    assert value(sql, bodies, template) == "1one,2two"
    assert (
        organisation.send(organisation.alert([organisation.contact(new_phone())], template=template))[
            "planned"
        ]
        == 1
    )
