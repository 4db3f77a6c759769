"""The stand-in carriers as a process of the stack (their own code lives in carriers/ and knows nothing of it)."""

from __future__ import annotations

import os
import sys

from infra.local import functions, probe
from infra.local.process import Component
from infra.local.settings import CHECKOUT, Settings

SETTINGS = (
    "TWILIO_AUTH_TOKEN",
    "TWILIO_ACCOUNT_SID",
    "RESEND_API_KEY",
    "RESEND_WEBHOOK_SECRET",
    "FUNCTIONS_URL",
)


def component(settings: Settings) -> Component:
    port = settings.ports.carriers
    every = functions.environment(settings)
    tuning = {name: value for name, value in os.environ.items() if name.startswith("CARRIERS_")}
    return Component(
        name="carriers",
        command=[sys.executable, "-m", "infra.local.carriers", "--port", str(port)],
        port=port,
        is_healthy=lambda: probe.answers(port, "/healthz", at_most_status=204),
        environment={
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            **tuning,
            **{name: every[name] for name in SETTINGS},
            "RESEND_WEBHOOK_URL": f"{settings.functions_url}/delivery-webhook/resend",
            "TWILIO_INBOUND_URL": f"{settings.functions_url}/delivery-webhook/twilio/inbound",
        },
        directory=CHECKOUT,
    )
