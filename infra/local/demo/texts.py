"""What the demo's alert says: four channels, French and English, with variables and fallbacks."""

from __future__ import annotations

from shared.templates import Content

TEMPLATE_NAME = "Évacuation / Evacuation"
TITLE = "Fuite de gaz: évacuation / Gas leak: evacuation"
VARIABLES = {"point": "P2", "hotline": "+33 4 72 00 00 00"}  # the same for everyone

_HTML = """<!doctype html>
<html lang="{language}"><body style="font-family:sans-serif;max-width:34em;margin:2em auto;color:#1b1f24">
<h1 style="color:#b42318">{heading}</h1>
<p>{greeting} <strong>{{{{name}}}}</strong>,</p>
<p>{order} <strong>{{{{building | {building}}}}}</strong> ({{{{site}}}}) {meet} <strong>{{{{point}}}}</strong>.</p>
<p>{call} {{{{hotline}}}}.</p>
</body></html>
"""

_FRENCH_HTML = _HTML.format(
    language="fr", heading="Fuite de gaz", greeting="Bonjour", order="Quittez immédiatement",
    building="votre bâtiment", meet="et rejoignez le point", call="Une question, quelqu'un qui manque:",
)  # fmt: skip
_ENGLISH_HTML = _HTML.format(
    language="en", heading="Gas leak", greeting="Hello", order="Leave at once",
    building="your building", meet="and go to point", call="A question, somebody missing:",
)  # fmt: skip


def _content(
    channel: str, language: str, body: str, subject: str | None = None, html: str | None = None
) -> Content:
    return {"channel": channel, "language": language, "subject": subject, "body": body, "html": html}


CONTENTS: tuple[Content, ...] = (
    _content("sms", "fr", "ALERTE {{site}}: fuite de gaz. {{name}}, quittez {{building | votre batiment}}, "
             "point {{point}}. Infos {{hotline}}"),
    _content("sms", "en", "ALERT {{site}}: gas leak. {{name}}, leave {{building | your building}} now, "
             "point {{point}}. Info {{hotline}}"),
    _content("voice", "fr", "Alerte pour le site de {{site}}. Fuite de gaz. {{name}}, quittez immédiatement "
             "{{building | votre bâtiment}} et rejoignez le point de rassemblement {{point}}."),
    _content("voice", "en", "Alert for the {{site}} site. Gas leak. {{name}}, leave {{building | your building}} "
             "at once and go to assembly point {{point}}."),
    _content("email", "fr", "Bonjour {{name}},\n\nfuite de gaz à {{site}}. Quittez {{building | votre bâtiment}} et "
             "rejoignez le point {{point}}.\nInfos: {{hotline}}\n", "Alerte {{site}}: évacuation", _FRENCH_HTML),
    _content("email", "en", "Hello {{name}},\n\ngas leak at {{site}}. Leave {{building | your building}} and go to "
             "point {{point}}.\nInfo: {{hotline}}\n", "Alert {{site}}: evacuate now", _ENGLISH_HTML),
    _content("webhook", "fr", "Fuite de gaz à {{site}}: évacuation, point {{point}}.", "Alerte {{site}}"),
    _content("webhook", "en", "Gas leak at {{site}}: evacuation, point {{point}}.", "Alert {{site}}"),
)  # fmt: skip
