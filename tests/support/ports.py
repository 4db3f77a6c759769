"""Free ports for a stack of one's own."""

from __future__ import annotations

import os
import random

from infra.local import probe
from infra.local.settings import PORT_SPAN

LOWEST, HIGHEST = 24000, 31000  # below the ports that systems hand out by themselves


def free_port_base() -> int:
    """A port base whose ports are free now; the setting CREDOALERT_TEST_PORT_BASE wins."""
    if wanted := os.environ.get("CREDOALERT_TEST_PORT_BASE"):
        return int(wanted)
    bases = list(range(LOWEST, HIGHEST, PORT_SPAN))
    random.shuffle(bases)
    for base in bases:
        if not any(probe.is_taken(port) for port in range(base + 1, base + PORT_SPAN + 1)):
            return base
    raise RuntimeError(f"no {PORT_SPAN} free ports in a row between {LOWEST} and {HIGHEST}")
