"""A stack of its own for one part of the bench, and functions of it that run by themselves."""

from __future__ import annotations

import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import psycopg

from infra.bench.audience import Sql
from infra.local import functions, postgres, probe, process
from infra.local.process import Component, Running
from infra.local.settings import CHECKOUT, PORT_SPAN, Settings
from infra.local.stack import Stack

LOWEST_PORT, HIGHEST_PORT = 28000, 28900
POLL_SECONDS = 0.002

Progress = Callable[[str], None]


@contextmanager
def stack(*parts: str) -> Iterator[Settings]:
    """These parts of an embedded stack in a temporary home; nothing is left of it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="credoalert-bench-"))
    one = Stack.of(home, free_port_base())
    try:
        one.up(parts)
        yield one.settings
    finally:
        one.down()  # also ends what `started` left in this home
        shutil.rmtree(home, ignore_errors=True)


def free_port_base() -> int:
    bases = list(range(LOWEST_PORT, HIGHEST_PORT, PORT_SPAN))
    random.shuffle(bases)
    for base in bases:
        if not any(probe.is_taken(port) for port in range(base + 1, base + PORT_SPAN + 1)):
            return base
    raise RuntimeError(f"no {PORT_SPAN} free ports in a row between {LOWEST_PORT} and {HIGHEST_PORT}")


@contextmanager
def database(settings: Settings) -> Iterator[Sql]:
    """The stack's database as its superuser (people are made without triggers), each statement its own transaction."""
    url = settings.database_url(postgres.SUPERUSER, settings.secrets.superuser_password)
    with psycopg.connect(url, autocommit=True) as sql:
        yield sql


def new_user(sql: Sql) -> UUID:
    """Somebody who may own an organisation."""
    user_id = uuid4()
    sql.execute("insert into auth.users (id, email) values (%s, %s)", (user_id, f"{user_id}@example.com"))
    return user_id


def function(settings: Settings, name: str, copy: int = 0, **environment: str) -> Component:
    """One process of a deployed function ("send_alert") as the stack would start it, with some settings changed."""
    one = next(each for each in functions.components(settings) if _is_copy(each, name, copy))
    return replace(one, environment={**one.environment, **environment})


def bare_function(settings: Settings, like: Component, target: str) -> Component:
    """The same server and threads around a function of hello.py, on a port of its own."""
    port, source = settings.ports.function(9), CHECKOUT / "infra" / "bench" / "hello.py"
    command = [sys.executable, "-m", "functions_framework", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--target", target, "--source", str(source)]
    return replace(like, name=f"bare-{target}", port=port, command=command, is_healthy=lambda: listens(port))


def _is_copy(component: Component, name: str, copy: int) -> bool:
    deployed = name.replace("_", "-")
    return component.name in (deployed if copy == 0 else "", f"{deployed}-{copy + 1}")


def user_of(sql: Sql, email: str) -> UUID:
    """The user with this address."""
    row = sql.execute("select id from auth.users where email = %s", (email,)).fetchone()
    if row is None:
        raise LookupError(email)
    return UUID(str(row[0]))


@contextmanager
def started(settings: Settings, *components: Component) -> Iterator[list[Running]]:
    """Processes that answer, stopped again afterwards."""
    running: list[Running] = []
    try:
        for component in components:
            running.append(start(settings, component))
        for component, one in zip(components, running, strict=True):
            process.wait_until_healthy(component, one, log_of(settings, component))
        yield running
    finally:
        for one in running:
            process.stop(one)


def start(settings: Settings, component: Component) -> Running:
    """Start a process of this stack's home without waiting for it."""
    component.prepare()
    return process.start(component, log_of(settings, component), str(settings.home))


def log_of(settings: Settings, component: Component) -> Path:
    return settings.logs / f"{component.name}.log"


def median(values: Sequence[float]) -> float:
    """The middle one of an odd number of values, the lower of the two middle ones otherwise."""
    return sorted(values)[(len(values) - 1) // 2]


def until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when it is so. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def listens(port: int) -> bool:
    """Whether a server takes connections on the port; it is asked nothing."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
