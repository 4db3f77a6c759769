"""S3-compatible storage: the moto server (in memory; it checks neither signatures nor the expiry of links)."""

from __future__ import annotations

import os
import sys

from infra.local import probe
from infra.local.process import Component
from infra.local.settings import Settings


def component(settings: Settings) -> Component:
    port = settings.ports.storage
    return Component(
        name="storage",
        command=[sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        port=port,
        is_healthy=lambda: probe.answers(port, "/moto-api/data.json"),
        environment={"PATH": os.environ["PATH"], "HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
        directory=settings.home,
    )
