"""Calls through Twilio: the message spoken twice, and a key press where an acknowledgement is asked for.

Source: https://www.twilio.com/docs/voice/api/call-resource, https://www.twilio.com/docs/voice/twiml/gather
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from shared.channels import Accepted, Adapter, Message, Outcome
from shared.errors import SendError
from shared.twilio_rest import FORM_TABLE, Callbacks, TwilioRest
from shared.values import Channel, FailureClass

if TYPE_CHECKING:
    from shared.outbound import Outbound
    from shared.settings import ChannelSettings

LONGEST_TWIML = 4000
REPEATS = 2
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROMPTS = {  # language: the voice's locale and what asks for the key press
    "ca": ("ca-ES", "Premeu 1 per confirmar."),
    "da": ("da-DK", "Tryk 1 for at bekræfte."),
    "de": ("de-DE", "Drücken Sie die 1, um zu bestätigen."),
    "en": ("en-US", "Press 1 to confirm."),
    "es": ("es-ES", "Pulse 1 para confirmar."),
    "fi": ("fi-FI", "Vahvista painamalla 1."),
    "fr": ("fr-FR", "Appuyez sur 1 pour confirmer."),
    "it": ("it-IT", "Prema 1 per confermare."),
    "nb": ("nb-NO", "Trykk 1 for å bekrefte."),
    "nl": ("nl-NL", "Druk op 1 om te bevestigen."),
    "pl": ("pl-PL", "Naciśnij 1, aby potwierdzić."),
    "pt": ("pt-PT", "Prima 1 para confirmar."),
    "sv": ("sv-SE", "Tryck 1 för att bekräfta."),
}
_REGIONAL = frozenset({"en-AU", "en-CA", "en-GB", "en-IN", "es-MX", "fr-CA", "pt-BR"})


def speech_of(language: str) -> tuple[str, str]:
    """The voice's locale and the prompt for a BCP 47 language; English where we have no words."""
    primary, _, region = language.replace("_", "-").partition("-")
    locale, prompt = _PROMPTS.get(primary.lower(), _PROMPTS["en"])
    regional = f"{primary.lower()}-{region.upper()}"
    return (regional if regional in _REGIONAL else locale), prompt


class Voice:
    """Twilio's dialect for calls."""

    channel = Channel.VOICE
    batch_size = 1
    reconciles_by_resending = False

    def __init__(self, outbound: Outbound, settings: ChannelSettings) -> None:
        from twilio.twiml import voice_response  # 10 ms that only calls pay

        self._response = voice_response.VoiceResponse
        self._rest = TwilioRest(outbound, settings, "Calls", "CA")
        self._receipts = Callbacks(settings, "call")
        self._presses = Callbacks(settings, "gather")
        self._sender = settings.twilio_voice_from
        self._prefix = urlencode(
            [
                ("From", settings.twilio_voice_from),
                ("MachineDetection", "DetectMessageEnd"),
                ("AsyncAmd", "true"),
                *(
                    ("StatusCallbackEvent", event)
                    for event in ("initiated", "ringing", "answered", "completed")
                ),
            ]
        )

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        """One request a call. Twilio has no idempotency key, so `key` is not used."""
        return [await self._send_one(message) for message in messages]

    async def _send_one(self, message: Message) -> Outcome:
        try:
            return Accepted(await self._rest.create(self._form(message)))
        except SendError as error:
            return error

    def _form(self, message: Message) -> bytes:
        script = self.script(message)
        if len(script) > LONGEST_TWIML:
            raise SendError(FailureClass.CONTENT, "speech_too_long")
        to, spoken = message.to.translate(FORM_TABLE), script.translate(FORM_TABLE)
        callback = self._receipts.encoded(message.delivery_id, message.attempt)
        return f"{self._prefix}&To={to}&Twiml={spoken}&StatusCallback={callback}".encode()

    def script(self, message: Message) -> str:
        """What the call says, as TwiML. Raises SendError when nothing is left to say."""
        text = _NOT_XML.sub("", message.body).strip()
        if not text:
            raise SendError(FailureClass.CONTENT, "body_empty")
        locale, prompt = speech_of(message.language)
        response = self._response()
        if not message.acknowledge:
            response.say(text, language=locale, loop=REPEATS)
            return str(response)
        gather = response.gather(
            input="dtmf",
            num_digits=1,
            timeout=8,
            action_on_empty_result=True,
            action=self._presses.url(message.delivery_id, message.attempt, locale[:2]),
        )
        gather.say(f"{text}\n{prompt}", language=locale, loop=REPEATS)
        return str(response)

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        """The newest call of ours to that number (a call does not keep what it said)."""

        def fits(row: Mapping[str, Any]) -> bool:
            ours = str(row.get("direction", "")).startswith("outbound")
            return ours and row.get("from") == self._sender

        found = await self._rest.newest(message.to, since, "StartTime", fits)
        return Accepted(found) if found else None


def connect(outbound: Outbound, settings: ChannelSettings) -> Adapter:
    """The adapter for calls."""
    return Voice(outbound, settings)
