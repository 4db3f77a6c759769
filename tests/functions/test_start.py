"""A function with a setting that is missing, empty or short refuses to start and does not show the value."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.functions.environment import COMPLETE, changed
from tests.house.imports import ROOT

SHORT = "tooshort"
CASES = [
    ("send_alert", "DISPATCH_SECRET", SHORT),
    ("send_alert", "SUPABASE_PUBLISHABLE_KEY", None),
    ("delivery_webhook", "TWILIO_AUTH_TOKEN", ""),
    ("delivery_webhook", "RESEND_WEBHOOK_SECRET", SHORT),
    ("delivery_webhook", "LINK_SECRET", SHORT),
    ("dispatch_deliveries", "WEBHOOK_SIGNING_KEY", SHORT),
    ("dispatch_deliveries", "SUPABASE_URL", "http://project.example.com"),
]


@pytest.mark.parametrize(("function", "name", "value"), CASES)
def test_a_bad_setting_stops_the_start(function: str, name: str, value: str | None) -> None:
    environment = changed(**{name: value}) | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PORT": "0",
    }
    command = [sys.executable, "-m", "functions_framework", "--target", function]
    ran = subprocess.run(
        [*command, "--source", f"functions/{function}/main.py", "--host", "127.0.0.1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode != 0
    assert f"SettingsError: {name}" in ran.stderr
    assert not value or value not in ran.stderr
    for secret in ("TWILIO_AUTH_TOKEN", "LINK_SECRET", "DISPATCH_SECRET", "SUPABASE_SECRET_KEY"):
        assert COMPLETE[secret] not in ran.stderr
