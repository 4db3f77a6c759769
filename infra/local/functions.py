"""The deployed functions: each a process of functions-framework with the settings it needs and no others."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.local import probe
from infra.local.process import Component
from infra.local.settings import CHECKOUT, Settings


@dataclass(slots=True, frozen=True)
class Function:
    """One folder of functions/: its settings are all that it is trusted with."""

    folder: str
    settings: tuple[str, ...]
    copies: int = 1
    asgi: bool = False

    @property
    def deployed_name(self) -> str:
        return self.folder.replace("_", "-")

    @property
    def source(self) -> Path:
        return CHECKOUT / "functions" / self.folder / "main.py"


CALLERS = ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWKS_URL", "SUPABASE_JWT_ISSUER", "SUPABASE_JWT_SECRET")
TWILIO = (
    "TWILIO_BASE_URL",
    "TWILIO_ACCOUNT_SID",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_MESSAGING_SERVICE_SID",
    "TWILIO_VOICE_FROM",
)
RESEND = ("RESEND_BASE_URL", "RESEND_API_KEY", "RESEND_FROM")

FUNCTIONS = (
    Function(
        "send_alert", ("SUPABASE_URL", *CALLERS, "FUNCTIONS_URL", "DISPATCH_SECRET", "WEBHOOK_SIGNING_KEY")
    ),
    Function(
        "delivery_webhook",
        (
            *("SUPABASE_URL", "SUPABASE_SECRET_KEY", "FUNCTIONS_URL", "LINK_SECRET"),
            *("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "RESEND_WEBHOOK_SECRET"),
        ),
    ),
    Function(
        "dispatch_deliveries",
        (
            *("SUPABASE_URL", "SUPABASE_SECRET_KEY", "FUNCTIONS_URL", "LINK_SECRET", *TWILIO, *RESEND),
            *("WEBHOOK_SIGNING_KEY", "WEBHOOK_LOCAL_SINK", "DISPATCH_SECRET"),
        ),
        copies=2,
        asgi=True,
    ),
)


def written() -> tuple[Function, ...]:
    """The functions that have a main.py."""
    return tuple(function for function in FUNCTIONS if function.source.exists())


def ports(settings: Settings) -> dict[str, list[int]]:
    """The ports behind each deployed name, whether the function is written yet or not."""
    found: dict[str, list[int]] = {}
    for function in FUNCTIONS:
        first = sum(len(each) for each in found.values())
        found[function.deployed_name] = [
            settings.ports.function(first + copy) for copy in range(function.copies)
        ]
    return found


def components(settings: Settings) -> list[Component]:
    """One component for each copy of each written function, e.g. `dispatch-deliveries-2`."""
    taken = ports(settings)
    return [
        _component(settings, function, copy, port)
        for function in written()
        for copy, port in enumerate(taken[function.deployed_name], start=1)
    ]


def environment(settings: Settings) -> dict[str, str]:
    """Every setting that any function knows, for this stack."""
    secrets = settings.secrets
    return {
        "SUPABASE_URL": settings.api_url,
        "SUPABASE_PUBLISHABLE_KEY": secrets.publishable_key,
        "SUPABASE_SECRET_KEY": secrets.secret_key,
        "SUPABASE_JWKS_URL": f"{settings.jwt_issuer}/.well-known/jwks.json",
        "SUPABASE_JWT_ISSUER": settings.jwt_issuer,
        "SUPABASE_JWT_SECRET": secrets.jwt_secret,
        "FUNCTIONS_URL": settings.functions_url,
        "TWILIO_BASE_URL": settings.carriers_url,
        "TWILIO_ACCOUNT_SID": secrets.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": secrets.twilio_auth_token,
        "TWILIO_MESSAGING_SERVICE_SID": f"MG{secrets.twilio_account_sid[2:]}",
        "TWILIO_VOICE_FROM": "+15005550006",
        "RESEND_BASE_URL": settings.carriers_url,
        "RESEND_API_KEY": secrets.resend_api_key,
        "RESEND_FROM": "CredoAlert <alerts@credoalert.example>",
        "RESEND_WEBHOOK_SECRET": secrets.resend_webhook_secret,
        "LINK_SECRET": secrets.link_secret,
        "WEBHOOK_SIGNING_KEY": secrets.webhook_signing_key,
        "WEBHOOK_LOCAL_SINK": settings.carriers_url,
        "DISPATCH_SECRET": secrets.dispatch_secret,
    }


def function_environment(settings: Settings, function: Function) -> dict[str, str]:
    """The environment of one function: its own settings, and those of its server."""
    every = environment(settings)
    mine = {name: every[name] for name in function.settings}
    tuning = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("DISPATCH_", "PROVIDER_TIMEOUT"))
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(settings.home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(CHECKOUT),
        "GUNICORN_LOG_LEVEL": "warning",
        "THREADS": "64",  # as deployed: a callback waits for its commit, and those that wait share one
        **tuning,
        **mine,
    }


def _component(settings: Settings, function: Function, copy: int, port: int) -> Component:
    name = function.deployed_name if function.copies == 1 else f"{function.deployed_name}-{copy}"
    directory = settings.home / "run" / name
    command = [sys.executable, "-m", "functions_framework", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--target", function.folder, "--source", str(function.source)]
    return Component(
        name=name,
        command=[*command, "--asgi"] if function.asgi else command,
        port=port,
        is_healthy=lambda: probe.answers(port, "/healthz", at_most_status=204),
        environment={**function_environment(settings, function), "XDG_RUNTIME_DIR": str(directory)},
        directory=CHECKOUT,
        prepare=lambda: directory.mkdir(parents=True, exist_ok=True),
        stop_seconds=15,
    )
