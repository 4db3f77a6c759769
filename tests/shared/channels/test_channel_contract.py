"""What every adapter promises, whatever its provider."""

from __future__ import annotations

import asyncio

import pytest

from shared import channels
from shared.channels import Outcome
from shared.errors import SendError
from shared.outbound import Outbound
from shared.settings import ChannelSettings
from shared.values import Channel
from tests.shared.channels.support import channel_settings, exchange, message
from tests.shared.raw_server import answer, close_after_reading

EXPECTED = {
    Channel.SMS: (1, False),
    Channel.VOICE: (1, False),
    Channel.EMAIL: (100, True),
    Channel.WEBHOOK: (1, True),
}


@pytest.mark.parametrize("channel", list(Channel))
def test_a_channel_is_found_by_its_name_and_says_what_it_is(channel: Channel) -> None:
    adapter = channels.load(channel, Outbound(), channel_settings("http://127.0.0.1:1"))
    assert adapter.channel is channel
    assert (adapter.batch_size, adapter.reconciles_by_resending) == EXPECTED[channel]


@pytest.mark.parametrize("channel", list(Channel))
def test_there_is_one_outcome_a_message_in_order_also_when_all_is_lost(channel: Channel) -> None:
    def connect(outbound: Outbound, settings: ChannelSettings) -> channels.Adapter:
        return channels.load(channel, outbound, settings)

    to = {"email": "alice@example.com", "webhook": "https://10.0.0.1/"}.get(channel, "+33612345678")
    batch = [message(number, to) for number in range(1, 4)]
    for behaviour in (answer(500), close_after_reading):
        outcomes: list[Outcome] = exchange(connect, behaviour, batch).outcomes
        assert len(outcomes) == 3
        assert all(isinstance(outcome, SendError) for outcome in outcomes)


@pytest.mark.parametrize("channel", list(Channel))
def test_no_messages_make_no_request(channel: Channel) -> None:
    async def run() -> list[Outcome]:
        async with Outbound() as outbound:
            adapter = channels.load(channel, outbound, channel_settings("http://127.0.0.1:1"))
            return await adapter.send([], "key")

    assert asyncio.run(run()) == []
