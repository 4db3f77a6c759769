"""Customers' endpoints: nothing inside is ever connected to, however spelled, resolved or redirected."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from shared.errors import SendError
from shared.outbound import Outbound
from shared.values import FailureClass
from tests.shared.raw_server import answer, answering, serve
from tests.shared.test_guard import REFUSED_ADDRESSES, REFUSED_URLS

HEADERS = {"Content-Type": "application/json"}


class Resolver(AbstractResolver):
    """Says what it is told, in turn: a name that rebinds."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return [
            {
                "hostname": host, "host": address, "port": port, "proto": 0, "flags": 0,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
            }
            for address in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        pass


class Sockets:
    """Counts the sockets that the guard lets through, and opens none."""

    def __init__(self) -> None:
        self.opened = 0
        self.families: set[int] = set()

    def __call__(self, *, family: int, **_: int) -> socket.socket:
        self.opened += 1
        self.families.add(family)
        raise OSError("no sockets in this test")


def post(
    url: str, resolver: AbstractResolver | None = None, local_sink: str | None = None
) -> tuple[SendError, int]:
    """The failure of one call, and how many sockets were let through on its way."""
    sockets = Sockets()

    async def run() -> SendError:
        async with Outbound(resolver=resolver, local_sink=local_sink, open_socket=sockets) as outbound:
            with pytest.raises(SendError) as raised:
                await outbound.post_guarded(url, b"{}", HEADERS)
            return raised.value

    return asyncio.run(run()), sockets.opened


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_refused_url_opens_no_socket(url: str) -> None:
    error, opened = post(url)
    assert (error.failure_class, opened) == (FailureClass.PERMANENT, 0)
    assert not url or url not in str(error)


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_a_name_that_resolves_inwards_opens_no_socket(address: str) -> None:
    error, opened = post("https://hooks.example.com/x", Resolver([address]))
    assert (error.failure_class, error.code, opened) == (FailureClass.PERMANENT, "address_refused", 0)


def test_every_address_of_a_name_is_vetted() -> None:
    error, opened = post("https://hooks.example.com/x", Resolver(["10.0.0.1", "127.0.0.1", "::1", "fd00::1"]))
    assert (error.code, opened) == ("address_refused", 0)


def test_among_mixed_addresses_only_the_public_one_is_tried() -> None:
    sockets = Sockets()

    async def run() -> None:
        resolver = Resolver(["fd00::1", "93.184.216.34"])
        async with Outbound(resolver=resolver, open_socket=sockets) as outbound:
            with pytest.raises(SendError) as raised:
                await outbound.post_guarded("https://hooks.example.com/x", b"{}", HEADERS)
            assert raised.value.failure_class is FailureClass.TRANSIENT

    asyncio.run(run())
    assert sockets.families == {socket.AF_INET}


def test_a_name_that_rebinds_after_it_was_vetted_gains_nothing() -> None:
    sockets = Sockets()

    async def run() -> list[str]:
        resolver = Resolver(["93.184.216.34"], ["127.0.0.1"], ["169.254.169.254"])
        codes = []
        for _ in range(3):  # a new client each time, or its cache of names would hide the change
            async with Outbound(resolver=resolver, open_socket=sockets) as outbound:
                with pytest.raises(SendError) as raised:
                    await outbound.post_guarded("https://hooks.example.com/x", b"{}", HEADERS)
                codes.append(raised.value.code)
        return codes

    assert asyncio.run(run()) == ["connect_failed", "address_refused", "address_refused"]


def test_the_local_sink_is_let_through_by_its_exact_origin_and_does_not_lead_elsewhere() -> None:
    async def run() -> None:
        async with serve(answering(answer(200, b"trap"))) as trap:
            hop = answer(302, b"", Location=f"{trap.url}/x")
            async with serve(answering(answer(200), hop)) as sink, Outbound(local_sink=sink.url) as outbound:
                assert (await outbound.post_guarded(f"{sink.url}/sink/a", b"{}", HEADERS)).status == 200
                assert (await outbound.post_guarded(f"{sink.url}/sink/b", b"{}", HEADERS)).status == 302
                for near in (
                    f"{trap.url}/x",
                    sink.url.replace("127.0.0.1", "localhost") + "/x",
                    sink.url.replace("127.0.0.1", "127.1") + "/x",
                    sink.url + "@evil.example.com/x",
                    sink.url + "0/x",
                    sink.url,
                    sink.url.replace("http:", "https:") + "/x",
                ):
                    with pytest.raises(SendError) as raised:
                        await outbound.post_guarded(near, b"{}", HEADERS)
                    assert raised.value.failure_class is FailureClass.PERMANENT
                assert sink.connections == 1
            assert trap.connections == 0

    asyncio.run(run())
