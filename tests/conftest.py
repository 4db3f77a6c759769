"""Fixtures of all tests: one stack for the session, a connection, and callers of the API."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.local import process
from infra.local.compose import PARTS
from infra.local.settings import Settings
from infra.local.stack import Stack
from tests.support.api import Caller, Member, make_member
from tests.support.ports import free_port_base

Sql = psycopg.Connection[Any]
# short times, so that a test of a timeout or of a lease that ends takes seconds
BRISK = {"PROVIDER_TIMEOUT_SECONDS": "2", "DISPATCH_LEASE_SECONDS": "6", "DISPATCH_MAX_WORKERS": "2"}
LOG_TAILS = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The whole stack in a home of its own, but for the timer: tests say themselves when something is dispatched."""
    for name, value in BRISK.items():
        os.environ.setdefault(name, value)
    home = Path(tempfile.mkdtemp(prefix="credoalert-tests-"))
    stack = Stack.of(home, free_port_base())
    try:
        stack.up([part for part in PARTS if part != "timer"])
        yield stack
    finally:
        request.config.stash[LOG_TAILS] = {
            file.stem: process.last_words(file) for file in sorted(stack.settings.logs.glob("*.log"))
        }
        stack.down()
        shutil.rmtree(home)


@pytest.fixture
def timer(stack: Stack) -> Iterator[None]:
    """The timer runs during this test."""
    stack.up(["timer"])
    yield
    stack.stop("timer")


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    return stack.settings


@pytest.fixture(scope="session")
def _connection(settings: Settings) -> Iterator[list[Sql]]:
    connections: list[Sql] = []
    yield connections
    for connection in connections:
        connection.close()


@pytest.fixture
def sql(settings: Settings, _connection: list[Sql]) -> Iterator[Sql]:
    """The database as role postgres, every statement its own transaction; session settings end with the test."""
    if not _connection or _connection[0].closed:
        _connection[:] = [psycopg.connect(settings.db_url, autocommit=True, prepare_threshold=None)]
    yield _connection[0]
    if not _connection[0].closed:
        _connection[0].rollback()
        _connection[0].execute("discard all")


@pytest.fixture
def new_member(settings: Settings, sql: Sql) -> Callable[..., Member]:
    """Makes signed-in users: `new_member()` or `new_member("alice@example.com")`."""

    def make(email: str | None = None) -> Member:
        return make_member(settings, sql, email)

    return make


@pytest.fixture(scope="session")
def service(settings: Settings) -> Caller:
    """The platform itself: the secret key."""
    return Caller(settings, settings.secrets.secret_key)


@pytest.fixture(scope="session")
def stranger(settings: Settings) -> Caller:
    """Anybody: the publishable key and no token."""
    return Caller(settings, settings.secrets.publishable_key)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED and (tails := config.stash.get(LOG_TAILS, None)):
        terminalreporter.section("ends of the stack's logs")
        for tail in tails.values():
            terminalreporter.write_line(tail)
