"""What the stack is made of: every process of it, in no particular order (stack.py knows the order)."""

from __future__ import annotations

import os
import sys

from infra.local import carriers_process, functions, gateway, postgres, postgrest, probe, storage
from infra.local.process import Component
from infra.local.settings import CHECKOUT, Settings

PARTS = ("postgres", "postgrest", "auth", "storage", "carriers", "functions", "gateway", "timer")
NEED_DATABASE = frozenset({"postgrest", "auth"})


def part_of(name: str) -> str:
    """The part of the stack (one of PARTS) that a component belongs to."""
    return name if name in PARTS else "functions"


def components(settings: Settings) -> dict[str, Component]:
    """Every component by its name; a function that is not written yet is left out."""
    found = [
        carriers_process.component(settings),
        storage.component(settings),
        *functions.components(settings),
        gateway.component(settings, functions.ports(settings)),
        postgres.component(settings),
        postgrest.component(settings),
        _auth(settings),
        _timer(settings),
    ]
    return {component.name: component for component in found}


def _auth(settings: Settings) -> Component:
    port = settings.ports.auth
    return Component(
        name="auth",
        command=[sys.executable, "-m", "infra.local.auth", str(settings.home), str(settings.ports.base)],
        port=port,
        is_healthy=lambda: probe.answers(port, "/health", at_most_status=200),
        environment={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
        directory=CHECKOUT,
    )


def _timer(settings: Settings) -> Component:
    every = functions.environment(settings)
    names = ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "FUNCTIONS_URL", "DISPATCH_SECRET")
    return Component(
        name="timer",
        command=[sys.executable, "-m", "infra.local.timer"],
        port=None,
        is_healthy=lambda: True,
        environment={
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            **{name: every[name] for name in names},
        },
        directory=CHECKOUT,
        stop_seconds=1,  # it may wait for a dispatcher, and has nothing to lose
    )
