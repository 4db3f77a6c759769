"""Settings refuse to start a function with what is missing, empty, short or unsafe, and never show a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings import (
    AuthSettings,
    CallbackSettings,
    ChannelSettings,
    DatabaseSettings,
    DispatchSettings,
    WebSettings,
)
from tests.functions.environment import COMPLETE, changed

Reader = Callable[[dict[str, str]], Any]


def _member(environment: dict[str, str]) -> DatabaseSettings:
    return DatabaseSettings.read("member", environment)


def _service(environment: dict[str, str]) -> DatabaseSettings:
    return DatabaseSettings.read("service", environment)


SECRETS: list[tuple[str, Reader]] = [
    ("SUPABASE_PUBLISHABLE_KEY", _member),
    ("SUPABASE_SECRET_KEY", _service),
    ("TWILIO_AUTH_TOKEN", CallbackSettings.read),
    ("TWILIO_AUTH_TOKEN", ChannelSettings.read),
    ("RESEND_API_KEY", ChannelSettings.read),
    ("RESEND_WEBHOOK_SECRET", CallbackSettings.read),
    ("LINK_SECRET", CallbackSettings.read),
    ("LINK_SECRET", ChannelSettings.read),
    ("WEBHOOK_SIGNING_KEY", ChannelSettings.read),
    ("DISPATCH_SECRET", DispatchSettings.read),
]
URLS: list[tuple[str, Reader]] = [
    ("SUPABASE_URL", _member),
    ("SUPABASE_JWKS_URL", AuthSettings.read),
    ("SUPABASE_JWT_ISSUER", AuthSettings.read),
    ("FUNCTIONS_URL", CallbackSettings.read),
    ("TWILIO_BASE_URL", ChannelSettings.read),
    ("RESEND_BASE_URL", ChannelSettings.read),
]


def test_a_complete_environment_is_read() -> None:
    assert _member(COMPLETE).rest_url == "https://project.example.com/rest/v1"
    assert _member(COMPLETE).api_key == COMPLETE["SUPABASE_PUBLISHABLE_KEY"]
    assert _service(COMPLETE).api_key == COMPLETE["SUPABASE_SECRET_KEY"]
    auth = AuthSettings.read(COMPLETE)
    assert auth.jwks_url == "https://project.example.com/auth/v1/.well-known/jwks.json"
    assert auth.issuer == "https://project.example.com/auth/v1"
    assert auth.jwt_secret is None
    channels = ChannelSettings.read(COMPLETE)
    assert channels.twilio_base_url == "https://api.twilio.com"
    assert channels.resend_base_url == "https://api.resend.com"
    assert channels.provider_timeout_seconds == 10
    assert channels.webhook_local_sink is None
    dispatch = DispatchSettings.read(COMPLETE)
    assert dispatch.dispatch_url == "https://project.example.com/functions/v1/dispatch-deliveries"
    assert (dispatch.budget_seconds, dispatch.max_workers, dispatch.in_flight) == (50, 4, 50)
    assert WebSettings.read(COMPLETE).cors_origins == frozenset()


@pytest.mark.parametrize(("name", "read"), SECRETS)
@pytest.mark.parametrize(
    "value", [None, "", "   ", "short", "x" * 40, " leading-0123456789abcdef0123456789abcdef"]
)
def test_a_missing_empty_or_short_secret_stops_the_start(name: str, read: Reader, value: str | None) -> None:
    with pytest.raises(SettingsError, match=name):
        read(changed(**{name: value}))


@pytest.mark.parametrize(("name", "read"), URLS)
@pytest.mark.parametrize(
    "value",
    [
        "",
        "http://project.example.com",
        "http://192.168.1.7",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "ftp://project.example.com",
        "project.example.com",
        "https://",
        "https://user:secret@project.example.com",
        "https://project.example.com?key=1",
        "https://project.example.com#x",
        "https://project.example.com:99999",
        "https://project.example.com\r\nX: y",
    ],
)
def test_an_unsafe_url_stops_the_start(name: str, read: Reader, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read(changed(**{name: value}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_plain_http_is_for_loopback(host: str) -> None:
    assert _member(changed(SUPABASE_URL=f"http://{host}:54321/")).rest_url == f"http://{host}:54321/rest/v1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TWILIO_ACCOUNT_SID", "AC123"),
        ("TWILIO_MESSAGING_SERVICE_SID", "SM0123456789abcdef0123456789abcdef"),
        ("TWILIO_VOICE_FROM", "0612345678"),
        ("RESEND_FROM", "nobody"),
        ("RESEND_FROM", "a@example.com\r\nBcc: b@example.com"),
        ("PROVIDER_TIMEOUT_SECONDS", "0"),
        ("PROVIDER_TIMEOUT_SECONDS", "ten"),
        ("PROVIDER_TIMEOUT_SECONDS", "1e9"),
    ],
)
def test_a_malformed_channel_setting_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        ChannelSettings.read(changed(**{name: value}))


@pytest.mark.parametrize(
    "value",
    [
        "whsec_",
        "whsec_c2hvcnQ=",
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "whsec_!!notbase64!!notbase64!!",
    ],
)
def test_a_signing_secret_without_a_long_key_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="RESEND_WEBHOOK_SECRET"):
        CallbackSettings.read(changed(RESEND_WEBHOOK_SECRET=value))


def test_two_secrets_are_in_force_while_one_rotates() -> None:
    old = "0123456789abcdef0123456789abcdef"
    settings = CallbackSettings.read(changed(TWILIO_AUTH_TOKEN_PREVIOUS=old, LINK_SECRET_PREVIOUS=old))
    assert settings.twilio_auth_tokens == (COMPLETE["TWILIO_AUTH_TOKEN"], old)
    assert settings.link_secrets == (COMPLETE["LINK_SECRET"], old)
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN_PREVIOUS"):
        CallbackSettings.read(changed(TWILIO_AUTH_TOKEN_PREVIOUS=""))


def test_an_empty_secret_of_an_older_project_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="SUPABASE_JWT_SECRET"):
        AuthSettings.read(changed(SUPABASE_JWT_SECRET=""))


def test_the_local_sink_is_for_local_stacks() -> None:
    local = changed(SUPABASE_URL="http://127.0.0.1:54321", WEBHOOK_LOCAL_SINK="http://127.0.0.1:9000")
    assert ChannelSettings.read(local).webhook_local_sink == "http://127.0.0.1:9000"
    with pytest.raises(SettingsError, match="WEBHOOK_LOCAL_SINK"):
        ChannelSettings.read(changed(WEBHOOK_LOCAL_SINK="http://127.0.0.1:9000"))
    with pytest.raises(SettingsError, match="WEBHOOK_LOCAL_SINK"):
        ChannelSettings.read({**local, "WEBHOOK_LOCAL_SINK": "http://10.0.0.1:9000"})


def test_origins_are_origins() -> None:
    settings = WebSettings.read({"CORS_ORIGINS": "https://console.example.com http://localhost:5173/"})
    assert settings.cors_origins == {"https://console.example.com", "http://localhost:5173"}
    for wrong in ("*", "https://example.com/console", "http://example.com"):
        with pytest.raises(SettingsError, match="CORS_ORIGINS"):
            WebSettings.read({"CORS_ORIGINS": wrong})


def test_no_secret_is_shown() -> None:
    readers: list[Reader] = [_service, CallbackSettings.read, ChannelSettings.read, DispatchSettings.read]
    shown = "".join(repr(read(COMPLETE)) for read in readers)
    for name, _ in SECRETS:
        assert COMPLETE[name] not in shown
    with pytest.raises(SettingsError) as caught:
        DispatchSettings.read(changed(DISPATCH_SECRET="tooshortbutsecret"))
    assert "tooshortbutsecret" not in str(caught.value)


def test_a_function_does_not_need_the_settings_of_others() -> None:
    few = {name: COMPLETE[name] for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY")}
    assert _member(few).rest_url
    assert AuthSettings.read(few).issuer
