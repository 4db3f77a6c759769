"""Fixtures of the database tests: connections, organisations, and queues that nobody else has filled."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from infra.local.settings import Settings
from tests.database.builders import Connect, Organisation, Sql


@pytest.fixture
def connect(settings: Settings) -> Iterator[Connect]:
    """Opens connections as role postgres, closed when the test ends: for what happens at the same time."""
    opened: list[Sql] = []

    def open_one() -> Sql:
        opened.append(psycopg.connect(settings.db_url, autocommit=True))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def organisation(sql: Sql) -> Organisation:
    """An organisation with a million credits."""
    return Organisation.make(sql)


@pytest.fixture
def fresh_queues(sql: Sql) -> None:
    """Nothing of an earlier test is left to be claimed, and every sender is fast and running."""
    for table in ("queues", "leases", "dispatchers", "receipts"):
        sql.execute(f"delete from private.{table}".encode())
    sql.execute(
        "update private.senders set segments_per_second = 100000, burst = 100000, tokens = 100000,"
        " halted_until = '-infinity', halt_code = null"
    )
