"""Channels: how an adapter is found. A new one is a file in this folder; the contract is in messages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from shared.messages import Accepted, Adapter, Message, Outcome
from shared.values import Channel

if TYPE_CHECKING:
    from shared.outbound import Outbound
    from shared.settings import ChannelSettings

__all__ = ["Accepted", "Adapter", "Message", "Outcome", "load"]


def load(channel: Channel, outbound: Outbound, settings: ChannelSettings) -> Adapter:
    """The adapter of a channel, imported on first use: `shared.channels.<channel>.connect(outbound, settings)`."""
    module = import_module(f"shared.channels.{channel.value}")
    adapter: Adapter = module.connect(outbound, settings)
    return adapter
