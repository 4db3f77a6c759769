"""The dispatcher against a database and providers in memory: it sends once, records all, and knows when not to send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.dispatcher import Dispatcher, Limits
from shared.errors import SendError
from shared.messages import Accepted, Message, Outcome
from shared.values import Channel, FailureClass
from tests.shared.dispatch_fakes import FakeAdapter, FakeDatabase, failing, row

LIMITS = Limits(budget_seconds=5, lease_seconds=30, in_flight=8, call_seconds=2)


def dispatch(
    database: FakeDatabase, adapter: FakeAdapter, limits: Limits = LIMITS, **options: Any
) -> tuple[dict[str, dict[str, int]], bool]:
    async def run() -> tuple[dict[str, dict[str, int]], bool]:
        dispatcher = Dispatcher(
            database, lambda _channel: adapter, limits, worker="w", channels=[Channel.SMS], **options
        )
        return await dispatcher.run()

    return asyncio.run(run())


def test_everything_that_can_be_claimed_is_sent_once_and_recorded() -> None:
    database, adapter = FakeDatabase(300), FakeAdapter()
    tally, leaves_work = dispatch(database, adapter)
    sent = [each for _key, chunk in adapter.begun for each in chunk]
    assert len(sent) == len(set(sent)) == 300
    assert database.outcomes() == ["accepted"] * 300
    assert tally == {"sms": {"accepted": 300, "recorded": 300, "fenced": 0}}
    assert leaves_work is False


def test_no_more_calls_are_in_flight_than_the_limit() -> None:
    database, adapter = FakeDatabase(60), FakeAdapter(seconds=0.01)
    dispatch(database, adapter)
    assert adapter.most_in_flight == LIMITS.in_flight


def test_a_chunk_of_a_batch_provider_is_one_lease_with_its_key() -> None:
    database, adapter = FakeDatabase(250), FakeAdapter(batch_size=100)
    dispatch(database, adapter)
    assert sorted(len(chunk) for _key, chunk in adapter.begun) == [50, 100, 100]
    assert {key: list(chunk) for key, chunk in adapter.begun} == database.leases


def test_an_adapter_that_breaks_leaves_its_messages_in_doubt() -> None:
    def broken(_message: Message) -> Outcome:
        raise RuntimeError("a fault of ours")

    database = FakeDatabase(3)
    dispatch(database, FakeAdapter(broken))
    assert database.outcomes() == ["unknown"] * 3


def test_a_configuration_failure_stops_the_channel_and_gives_the_rest_back() -> None:
    database, adapter = (
        FakeDatabase(200),
        FakeAdapter(failing(FailureClass.CONFIGURATION, "20003"), seconds=0.001),
    )
    dispatch(database, adapter)
    assert len(adapter.begun) <= 2 * LIMITS.in_flight
    returned = database.outcomes().count("returned")
    assert returned == len(database.recorded) - len(adapter.begun)
    assert returned > 0


def test_nothing_is_begun_when_the_lease_is_nearly_over() -> None:
    database, adapter = FakeDatabase(5), FakeAdapter()
    late = Limits(budget_seconds=1, lease_seconds=2, in_flight=8, call_seconds=2)
    dispatch(database, adapter, late)
    assert adapter.begun == []
    assert database.outcomes() == ["returned"] * 5


def test_a_retry_after_reaches_the_record() -> None:
    throttled = SendError(FailureClass.THROTTLE, "20429", retry_after_seconds=7.0)
    database = FakeDatabase(1)
    dispatch(database, FakeAdapter(lambda _message: throttled))
    assert database.recorded[0] == {
        "id": f"{1:032x}-1", "attempt": 1, "outcome": "throttle", "code": "20429", "retry_after_seconds": 7.0,
    }  # fmt: skip


def test_a_database_that_fails_for_a_moment_loses_nothing() -> None:
    database, adapter = FakeDatabase(20), FakeAdapter(seconds=0.01)
    database.failures_left = 2
    dispatch(database, adapter)
    assert database.outcomes() == ["accepted"] * 20


@pytest.mark.parametrize(
    ("known", "age_seconds", "outcome"),
    [
        (Accepted("SM1"), 0.0, "accepted"),
        (None, 60.0, "absent"),
        (None, 0.0, "unclear"),  # the provider may not list it yet
    ],
)
def test_what_is_in_doubt_is_asked_about_and_never_sent(
    known: Accepted | None, age_seconds: float, outcome: str
) -> None:
    database, adapter = FakeDatabase(0), FakeAdapter(known=lambda _message: known)
    database.doubted_seconds = age_seconds
    database.doubts.append([row("a" * 32 + "-1")])
    dispatch(database, adapter)
    assert adapter.begun == []
    assert database.outcomes() == [outcome]


def test_a_receiver_that_drops_repeats_is_sent_the_frozen_batch_again() -> None:
    database, adapter = FakeDatabase(0), FakeAdapter(batch_size=100, reconciles_by_resending=True)
    ids = [f"{'b' * 32}-{number}" for number in (1, 2, 3)]
    database.doubts.append([row(each) for each in ids])
    dispatch(database, adapter)
    assert adapter.begun == [("frozen", tuple(ids))]
    assert database.outcomes() == ["accepted"] * 3


def test_a_stale_message_in_doubt_is_not_sent_again_and_a_contact_that_is_gone_stays_in_doubt() -> None:
    database, adapter = FakeDatabase(0), FakeAdapter(batch_size=100, reconciles_by_resending=True)
    database.doubts.append([row("c" * 32 + "-1", expires_at=1.0), row("c" * 32 + "-2", to=None)])
    dispatch(database, adapter)
    assert adapter.begun == []
    assert database.outcomes() == ["unclear"] * 2


def test_doubts_that_arise_during_a_run_are_settled_by_the_same_run() -> None:
    database, adapter = FakeDatabase(40), FakeAdapter(seconds=0.3)

    async def run() -> None:
        dispatcher = Dispatcher(database, lambda _c: adapter, LIMITS, worker="w", channels=[Channel.SMS])
        task = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0.1)
        database.doubts.append([row("d" * 32 + "-1")])
        await task

    asyncio.run(run())
    assert adapter.looked_up == ["d" * 32 + "-1"]


def test_a_full_batch_calls_for_help_once_and_an_end_of_budget_says_that_work_is_left() -> None:
    called: list[bool] = []
    database, adapter = FakeDatabase(10_000), FakeAdapter(seconds=0.05)
    short = Limits(budget_seconds=0.4, lease_seconds=30, in_flight=8, call_seconds=2)
    _tally, leaves_work = dispatch(database, adapter, short, on_backlog=lambda: called.append(True))
    assert called == [True]
    assert leaves_work is True
    assert len(database.recorded) == sum(len(ids) for ids in database.leases.values())


def test_a_run_waits_for_what_comes_soon_and_ends_when_nothing_comes() -> None:
    database = FakeDatabase(0, wait_seconds=600.0)
    dispatch(database, FakeAdapter())
    assert database.calls.count("claim_deliveries") == 1


def test_a_process_that_is_to_end_gives_back_what_it_has_not_begun() -> None:
    database, adapter = FakeDatabase(10_000), FakeAdapter(seconds=0.05)
    dispatch(database, adapter, is_stopping=lambda: len(adapter.begun) >= 20)
    assert len(adapter.begun) < 20 + LIMITS.in_flight
    assert database.outcomes().count("returned") == len(database.recorded) - len(adapter.begun) > 0
    assert len(database.recorded) == sum(len(ids) for ids in database.leases.values())


def test_a_look_up_that_is_refused_is_asked_again_until_it_is_answered() -> None:
    refusals = [SendError(FailureClass.THROTTLE, "20429", retry_after_seconds=0.01)] * 3

    def known(_message: Message) -> Accepted:
        if refusals:
            raise refusals.pop()
        return Accepted("SM1")

    database, adapter = FakeDatabase(0), FakeAdapter(known=known)
    database.doubts.append([row("e" * 32 + "-1")])
    dispatch(database, adapter)
    assert len(adapter.looked_up) == 4
    assert database.outcomes() == ["accepted"]


def test_one_channel_that_breaks_stops_no_other() -> None:
    class Broken(FakeDatabase):
        async def rpc(self, name: str, **arguments: Any) -> Any:
            if name == "claim_deliveries" and arguments["p_channel"] is Channel.EMAIL:
                return {}
            return await super().rpc(name, **arguments)

    database = Broken(20)
    adapters = {channel: FakeAdapter() for channel in (Channel.EMAIL, Channel.SMS)}
    adapters[Channel.EMAIL].channel = Channel.EMAIL
    dispatcher = Dispatcher(
        database, lambda each: adapters[each], LIMITS, worker="w", channels=list(adapters)
    )
    asyncio.run(dispatcher.run())
    assert database.outcomes() == ["accepted"] * 20


def test_an_adapter_that_answers_for_too_few_leaves_all_in_doubt() -> None:
    class Short(FakeAdapter):
        async def send(self, messages: Any, key: str) -> list[Outcome]:
            return (await super().send(messages, key))[1:]

    database = FakeDatabase(3)
    dispatch(database, Short(batch_size=3))
    assert database.outcomes() == ["unknown"] * 3
