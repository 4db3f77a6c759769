"""A dispatcher that leaves work behind starts the next, up to a limit; one that sees a backlog calls for help."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Empty, Queue
from typing import Any

import pytest

from functions.dispatch_deliveries.endpoints import LAST_HOP, create
from infra.local import functions
from infra.local.settings import Settings
from shared.dispatcher import STOCK_PER_PLACE
from shared.web import Request
from tests.support.scene import make_scene

Kicks = Queue[dict[str, Any]]


@pytest.fixture
def kicked() -> Iterator[tuple[str, Kicks]]:
    """A dispatch-deliveries that only writes down who kicks it: its functions URL and the kicks."""
    kicks: Kicks = Queue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kicks.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kicks
    server.shutdown()
    thread.join()
    server.server_close()


def run(settings: Settings, functions_url: str, hop: int) -> dict[str, Any]:
    """One request to the function, in this process, with a budget of one second."""
    environment = functions.environment(settings) | {
        "FUNCTIONS_URL": functions_url, "DISPATCH_BUDGET_SECONDS": "1", "DISPATCH_IN_FLIGHT": "2",
    }  # fmt: skip
    headers = {
        "authorization": f"Bearer {settings.secrets.dispatch_secret}", "content-type": "application/json",
    }  # fmt: skip
    request = Request("POST", "/", "", headers, json.dumps({"hop": hop}).encode())
    response = asyncio.run(create(environment).respond_async(request))
    assert response.status == 200, response.body
    answer: dict[str, Any] = json.loads(response.body)
    return answer


def planned(settings: Settings, sql: Any, contacts: int) -> None:
    """An alert that nobody was kicked for."""
    scene = make_scene(settings, sql, contacts)
    reply = scene.owner.rpc("send_alert", p_organisation_id=scene.organisation_id, p_alert=scene.alert())
    assert reply.status == 200


@pytest.mark.parametrize(("hop", "next_hops"), [(3, [4]), (LAST_HOP, [])])
def test_work_that_is_left_starts_the_next_up_to_the_limit(
    settings: Settings, sql: Any, kicked: tuple[str, Kicks], hop: int, next_hops: list[int]
) -> None:
    functions_url, kicks = kicked
    planned(settings, sql, 15)
    try:
        sql.execute(
            "update private.senders set segments_per_second = 4, burst = 4, tokens = 0 where channel = 'sms'"
        )
        assert run(settings, functions_url, hop)["leaves_work"] is True
    finally:
        sql.execute(
            "update private.senders set segments_per_second = 1000000, burst = 1000000, tokens = 1000000"
        )
    assert heard(kicks) == next_hops
    assert run(settings, functions_url, 0)["leaves_work"] is False  # the rest


def test_a_full_batch_calls_for_help(settings: Settings, sql: Any, kicked: tuple[str, Kicks]) -> None:
    functions_url, kicks = kicked
    planned(settings, sql, 2 * STOCK_PER_PLACE + 10)  # more than one batch of 2 places
    assert run(settings, functions_url, 7)["leaves_work"] is False
    assert heard(kicks) == [8]


def heard(kicks: Kicks) -> list[int]:
    """The hops of the kicks that come within a second."""
    hops = []
    try:
        while True:
            hops.append(kicks.get(timeout=1)["hop"])
    except Empty:
        return hops
