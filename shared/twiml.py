"""What a call says back to a key that was pressed: TwiML, by Twilio's own builder, which escapes."""

from __future__ import annotations

from functools import lru_cache

_WORDS = {
    "fr": (
        "fr-FR",
        "Merci. Votre réponse est enregistrée.",
        "Votre réponse n'a pas été comprise. Au revoir.",
    ),
    "en": ("en-US", "Thank you. Your answer is recorded.", "Your answer was not understood. Goodbye."),
}


@lru_cache(maxsize=8)
def _spoken(language: str, clear: bool) -> bytes:
    from twilio.twiml.voice_response import VoiceResponse

    locale, thanks, unclear = _WORDS[language]
    response = VoiceResponse()
    response.say(thanks if clear else unclear, language=locale)
    response.hangup()
    return str(response).encode()


def thanks(language: str, clear: bool) -> bytes:
    """A thank-you, or that the key was not understood, and the end of the call. `language`: BCP 47, else English."""
    known = language[:2].lower()
    return _spoken(known if known in _WORDS else "en", clear)
