"""Receipts that come at once share calls, and a row that spoils a call fails alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.database import Database
from shared.errors import AppError, Unavailable
from shared.receipts import LARGEST_BATCH, Gatherer, Receipt
from shared.settings import DatabaseSettings

DELIVERY = "0198c0de000070008000000000000001-17"


class Nobody:
    def call(self, name: str, arguments: Any, headers: Any) -> Any:
        raise AssertionError("not called")


DB = Database(Nobody(), DatabaseSettings("https://x.example", "k", 1))


class Store:
    """Keeps rows; refuses a whole batch that holds a poisoned one, as one SQL statement does."""

    def __init__(self, *, poison: frozenset[int] = frozenset(), seconds: float = 0.0) -> None:
        self.kept: list[int] = []
        self.sizes: list[int] = []
        self.down = False
        self._poison = poison
        self._seconds = seconds
        self._inside = threading.Lock()

    def __call__(self, db: Database, rows: Sequence[dict[str, Any]]) -> None:
        assert self._inside.acquire(blocking=False), "two calls at once"
        try:
            time.sleep(self._seconds)
            if self.down:
                raise Unavailable("database_unavailable", "no")
            self.sizes.append(len(rows))
            if any(row["n"] in self._poison for row in rows):
                raise AppError("internal_error", "no")
            self.kept += [row["n"] for row in rows]
        finally:
            self._inside.release()


def _submit_all(gatherer: Gatherer, count: int, threads: int) -> dict[int, str]:
    def submit(number: int) -> str:
        try:
            gatherer.submit(DB, {"n": number})
        except AppError as error:
            return error.code
        return "stored"

    with ThreadPoolExecutor(threads) as pool:
        return dict(enumerate(pool.map(submit, range(count))))


def test_rows_that_come_at_once_share_calls_and_each_is_stored_once() -> None:
    store = Store(seconds=0.01)
    answers = _submit_all(Gatherer(store), 400, threads=40)
    assert set(answers.values()) == {"stored"}
    assert sorted(store.kept) == list(range(400))
    assert len(store.sizes) < 80
    assert max(store.sizes) > 10


def test_a_lone_row_goes_at_once() -> None:
    store = Store()
    for number in range(3):
        Gatherer(store).submit(DB, {"n": number})
    assert store.sizes == [1, 1, 1]


def test_a_row_is_answered_only_when_it_is_stored() -> None:
    store = Store(seconds=0.02)
    gatherer = Gatherer(store)

    def submit(number: int) -> bool:
        gatherer.submit(DB, {"n": number})
        return number in store.kept

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(submit, range(60)))


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.frozensets(st.integers(0, 39), max_size=6), st.integers(1, 16))
def test_a_poisoned_row_fails_alone(poison: frozenset[int], threads: int) -> None:
    store = Store(poison=poison, seconds=0.001)
    answers = _submit_all(Gatherer(store), 40, threads)
    assert {number for number, answer in answers.items() if answer != "stored"} == poison
    assert sorted(store.kept) == sorted(set(range(40)) - poison)


def test_when_the_database_is_away_everybody_is_told_and_the_next_try_goes_through() -> None:
    store = Store(seconds=0.005)
    store.down = True
    gatherer = Gatherer(store)
    assert set(_submit_all(gatherer, 20, threads=10).values()) == {"database_unavailable"}
    store.down = False
    assert set(_submit_all(gatherer, 20, threads=10).values()) == {"stored"}


def test_a_leader_that_fails_unexpectedly_does_not_leave_the_others_waiting() -> None:
    calls = []

    def store(db: Database, rows: Sequence[dict[str, Any]]) -> None:
        calls.append(len(rows))
        time.sleep(0.02)
        if len(calls) == 1:
            raise RuntimeError("unexpected")

    gatherer = Gatherer(store)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(gatherer.submit, DB, {"n": number}) for number in range(8)]
        failures = [one.exception(timeout=5) for one in results]
    assert [type(one) for one in failures].count(RuntimeError) == 1


def test_a_batch_has_a_limit() -> None:
    store = Store(seconds=0.05)
    _submit_all(Gatherer(store), LARGEST_BATCH + 100, threads=LARGEST_BATCH + 100)
    assert max(store.sizes) <= LARGEST_BATCH


def test_a_receipt_is_a_row_that_the_database_can_keep() -> None:
    receipt = Receipt(
        provider="twilio", kind="message", event_key="SM1:deliv\x00ered", provider_id="SM1", status="x" * 99,
        delivery_id=DELIVERY, attempt=2, code="30003", occurred_at=datetime(2026, 11, 23, tzinfo=UTC),
    )  # fmt: skip
    row = receipt.row()
    assert row["event_key"] == "SM1:deliv\ufffdered"
    assert len(row["status"]) == 40
    assert (row["delivery_id"], row["attempt"], row["code"]) == (DELIVERY, 2, "30003")
    assert row["occurred_at"] == "2026-11-23T00:00:00+00:00"


@pytest.mark.parametrize("reference", [None, "", "17", "x-1", DELIVERY + "x"])
def test_a_reference_that_is_none_leaves_the_receipt_to_the_inbox(reference: str | None) -> None:
    receipt = Receipt("resend", "email", "msg_1", "e-1", "delivered", delivery_id=reference)
    assert receipt.row()["delivery_id"] is None
