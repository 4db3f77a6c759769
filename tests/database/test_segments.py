"""SMS segments: SQL counts as Python does, and the fan-out's short cut as the rendered text does."""

from __future__ import annotations

from uuid import UUID

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.segments import segments
from tests.database.builders import Organisation, Sql, new_phone, rows, value, values

GSM = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡AZÄÖÑÜ§¿azäöñüà"
EXTENSION = "\f^{}\\[~]|€"
DATABASE_TEXT = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])

gsm = st.text(st.sampled_from(GSM), max_size=320)
near_borders = st.builds(
    lambda left, middle, right: "a" * left + middle + "b" * right,
    st.sampled_from([*range(64, 72), *range(130, 136), *range(150, 162), *range(303, 309)]),
    st.text(st.sampled_from(EXTENSION + "é🚒ç`😀\u200d漢"), max_size=6),
    st.sampled_from([0, 1, 2, 60, 67, 134, 153]),
)
anything = st.one_of(
    gsm, near_borders, st.text(DATABASE_TEXT, max_size=300), st.text(st.sampled_from(GSM + EXTENSION))
)
relaxed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(st.lists(anything, min_size=1, max_size=60))
@example(
    [
        "a" * 159 + "€",
        "a" * 152 + "€" + "b",
        "a" * 66 + "😀",
        "é" * 160,
        "ç" * 70,
        "ç" * 71,
        "`" * 71,
        "",
        "🚒" * 36,
    ]
)
def test_database_counts_segments_as_python_does(sql: Sql, texts: list[str]) -> None:
    counted = values(
        sql,
        "select private.sms_segments(t) from unnest(%s::text[]) with ordinality as t (t, n) order by n",
        texts,
    )
    assert dict(zip(texts, counted, strict=True)) == {text: segments(text).count for text in texts}


words = st.text(st.sampled_from("abc XYZ 019"), max_size=70)
plain_values = st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=80)
attribute_values = st.one_of(
    words, words, plain_values, st.text(st.sampled_from(GSM + EXTENSION + "ç🚒"), max_size=80)
)
fixed_parts = st.one_of(
    st.sampled_from(["", "a" * 100, "é" * 150, "ç" * 60, "a" * 153, "[a]", "🚒", "`"]),
    st.text(st.sampled_from(GSM.replace("\r", "").replace("\n", "") + "çÇ€"), max_size=170),
)
names = st.text(st.sampled_from("Zoé Anaïs-Łukasz O'Neil"), min_size=1, max_size=40).filter(str.strip)
place = st.sampled_from(["{{name}}", "{{a|}}", "{{b|somebody}}", "{{c|ç}}", "{{d|}}", "{{external_id|}}"])


@relaxed
@given(
    st.lists(st.tuples(fixed_parts, place), min_size=1, max_size=6),
    fixed_parts,
    st.lists(
        st.tuples(names, st.dictionaries(st.sampled_from("abcd"), attribute_values, max_size=4)),
        min_size=1,
        max_size=12,
    ),
)
def test_fan_out_counts_what_the_rendered_text_takes(
    sql: Sql, parts: list[tuple[str, str]], end: str, people: list[tuple[str, dict[str, str]]]
) -> None:
    body = "".join(fixed + variable for fixed, variable in parts) + end
    organisation = Organisation.make(sql, credit=10_000_000)
    contacts = [
        organisation.contact(new_phone(), name=name, attributes=attributes) for name, attributes in people
    ]
    alert = organisation.alert(contacts, template=organisation.template(sms=body[:1600]))
    organisation.send(alert)
    counted = rows(
        sql,
        "select d.segments, private.render(t.body, c.name, c.external_id, c.attributes) as text"
        " from public.deliveries d join public.contacts c on c.organisation_id = d.organisation_id and c.id = d.contact_id"
        " join private.alert_contents t on t.organisation_id = d.organisation_id and t.alert_id = d.alert_id"
        " where d.organisation_id = %s and d.alert_id = %s",
        organisation.id, UUID(alert["alert_id"]),
    )  # fmt: skip
    assert len(counted) == len(people)
    for each in counted:
        assert each["segments"] == segments(each["text"]).count, each["text"]


def test_every_character_is_of_the_same_alphabet_on_both_sides(sql: Sql) -> None:
    wide = value(
        sql,
        "select string_agg(chr(n), '') from generate_series(1, 65533) as n"
        " where n not between 55296 and 57343 and private.sms_segments(repeat(chr(n), 71)) = 1",
    )
    assert set(wide) == {
        chr(n) for n in range(1, 65534) if not 0xD800 <= n < 0xE000 and segments(chr(n) * 71).count == 1
    }
