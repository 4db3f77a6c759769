"""A complete environment for any function, with nothing of a real project in it."""

from __future__ import annotations

COMPLETE = {
    "SUPABASE_URL": "https://project.example.com",
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_0123456789abcdef",
    "SUPABASE_SECRET_KEY": "sb_secret_0123456789abcdef0123456789",
    "TWILIO_ACCOUNT_SID": "AC0123456789abcdef0123456789abcdef",
    "TWILIO_AUTH_TOKEN": "9876543210abcdef9876543210abcdef",
    "TWILIO_MESSAGING_SERVICE_SID": "MG0123456789abcdef0123456789abcdef",
    "TWILIO_VOICE_FROM": "+15005550006",
    "RESEND_API_KEY": "re_0123456789abcdef0123",
    "RESEND_FROM": "CredoAlert <alerts@example.com>",
    "RESEND_WEBHOOK_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "LINK_SECRET": "link-0123456789abcdef0123456789abcdef",
    "WEBHOOK_SIGNING_KEY": "sign-0123456789abcdef0123456789abcdef",
    "DISPATCH_SECRET": "start-0123456789abcdef0123456789abcdef",
}


def changed(**changes: str | None) -> dict[str, str]:
    """The complete environment with settings replaced, or taken out where the value is None."""
    return {name: value for name, value in {**COMPLETE, **changes}.items() if value is not None}
