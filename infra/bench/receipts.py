"""Receipts: callbacks verified, stored and projected a second, beside the same server answering 204 and doing nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from infra.bench import audience, flood, rig, usage
from infra.bench.audience import Audience, Sql
from infra.bench.caller import pack
from infra.bench.figures import Figure
from infra.bench.rig import Progress
from infra.local import functions
from infra.local.carriers.signing import sign_twilio
from infra.local.process import Component, Running
from infra.local.settings import CHECKOUT, Settings
from infra.local.stack import Stack
from shared.settings import ChannelSettings
from shared.twilio_rest import Callbacks

PARTS = ("postgres", "postgrest", "auth", "gateway")
LEAST_RATIO = 0.4
CONNECTIONS = 64
PEOPLE, QUICK_PEOPLE = 5_000, 1_000
ROUNDS, QUICK_ROUNDS = 5, 1
APART = 200  # messages whose `sent` comes before the first one's `delivered`
LATEST_SECONDS = 14  # Twilio hangs up after 15


@dataclass(slots=True, frozen=True)
class Run:
    """So many callbacks answered by one server process."""

    callbacks: int
    seconds: float
    slowest_seconds: float
    cpu_seconds: float  # of the server
    database_cpu_seconds: float

    @property
    def pace(self) -> float:
        """Callbacks a second."""
        return self.callbacks / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        """A callback."""
        return self.cpu_seconds / self.callbacks * 1e6


def measure(progress: Progress, quick: bool) -> list[Figure]:
    """The pace of delivery-webhook under as many callbacks at once as it has threads."""
    with rig.stack(*PARTS) as settings, rig.database(settings) as sql:
        return Bench(settings, sql, progress).figures(quick)


class Bench:
    """Alerts of one organisation whose messages were handed over; now their receipts come."""

    def __init__(self, settings: Settings, sql: Sql, progress: Progress) -> None:
        self._settings = settings
        self._sql = sql
        self._progress = progress
        self._owner = rig.new_user(sql)
        self._database_pid = Stack.of(settings.home).running["postgres"].pid

    def figures(self, quick: bool) -> list[Figure]:
        """The bare server and ours by turns, so that both see the same machine."""
        people = audience.make(self._sql, self._owner, QUICK_PEOPLE if quick else PEOPLE, plain=True)
        webhook = rig.function(self._settings, "delivery_webhook")
        bare_server = _bare(self._settings, webhook)
        bare, ours = [], []
        with rig.started(self._settings, webhook, bare_server) as (webhook_runs, bare_runs):
            for number in range(1 + (QUICK_ROUNDS if quick else ROUNDS)):
                self._progress(f"receipts: round {number} (bare, ours)")
                runs = self._round(people, (bare_server, bare_runs), (webhook, webhook_runs))
                if number > 0:  # the first one warms everything up
                    bare.append(runs[0])
                    ours.append(runs[1])
        return [_figure(ours, bare)]

    def _round(
        self, people: Audience, bare: tuple[Component, Running], ours: tuple[Component, Running]
    ) -> tuple[Run, Run]:
        """The callbacks of a new alert to the one that does nothing, then to ours."""
        alert_id = flood.plan(self._sql, self._owner, people)
        handed_over = flood.hand_over(self._sql)
        callbacks = list(_callbacks(self._settings, handed_over))
        runs = self._call(callbacks, *bare), self._call(callbacks, *ours)
        states = flood.states(self._sql, alert_id)
        waiting = self._sql.execute("select count(*) from private.receipts where applied_at is null").fetchone()
        if states.get("delivered") != len(handed_over) or waiting != (0,):
            raise AssertionError(f"{len(handed_over)} receipts left {states} and {waiting} unapplied")
        return runs

    def _call(self, callbacks: list[bytes], server: Component, running: Running) -> Run:
        with tempfile.NamedTemporaryFile(dir=self._settings.home, suffix=".requests") as file:
            file.write(pack(callbacks))
            file.flush()
            command = [sys.executable, "-m", "infra.bench.caller", file.name, str(server.port), str(CONNECTIONS)]
            began = usage.cpu_seconds(running.pid), usage.cpu_seconds(self._database_pid)
            done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        if answer["answers"] != {"204": len(callbacks)}:
            raise AssertionError(f"{server.name} answered {answer['answers']}")
        return Run(
            len(callbacks), answer["seconds"], answer["slowest_seconds"],
            usage.cpu_seconds(running.pid) - began[0], usage.cpu_seconds(self._database_pid) - began[1],
        )  # fmt: skip


def _bare(settings: Settings, like: Component) -> Component:
    """The same server with the same threads around a function that does nothing."""
    port, source = settings.ports.function(9), CHECKOUT / "infra" / "bench" / "hello.py"
    command = [sys.executable, "-m", "functions_framework", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--target", "nothing", "--source", str(source)]
    return replace(like, name="bare", port=port, command=command, is_healthy=lambda: rig.listens(port))


def _callbacks(settings: Settings, handed_over: list[tuple[str, str, str]]) -> Iterator[bytes]:
    """Twilio's requests for every message: `sent`, and some messages later `delivered`."""
    channel = ChannelSettings.read(functions.environment(settings))
    urls = Callbacks(channel, "message")
    told = sorted(
        (place + delay, status, message)
        for place, message in enumerate(handed_over)
        for status, delay in (("sent", 0), ("delivered", APART))
    )
    for _, status, (delivery_id, provider_id, phone) in told:
        form = {
            "AccountSid": channel.twilio_account_sid, "ApiVersion": "2010-04-01", "From": "+15005550006",
            "MessageSid": provider_id, "MessageStatus": status, "MessagingServiceSid": channel.twilio_messaging_service_sid,
            "SmsSid": provider_id, "SmsStatus": status, "To": phone,
        }  # fmt: skip
        url = urls.url(delivery_id, 1).partition("#")[0]
        yield _request(channel, url, form)


def _request(channel: ChannelSettings, url: str, form: dict[str, str]) -> bytes:
    target, body = url.removeprefix(f"{channel.functions_url}/delivery-webhook"), urlencode(form)
    head = [
        f"POST {target} HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: TwilioProxy/1.1",
        "Accept: */*",
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
        f"Content-Length: {len(body)}",
        f"X-Twilio-Signature: {sign_twilio(channel.twilio_auth_token, url, form)}",
    ]
    return "\r\n".join([*head, "", body]).encode()


def _figure(runs: list[Run], bare: list[Run]) -> Figure:
    value, beside = rig.median([each.pace for each in runs]), rig.median([each.pace for each in bare])
    own, theirs = (rig.median([each.cpu_microseconds for each in many]) for many in (runs, bare))
    database = rig.median([each.database_cpu_seconds / each.callbacks * 1e6 for each in runs])
    slowest = max(each.slowest_seconds for each in runs)
    return Figure(
        "receipts", value, "callbacks/s", beside, value / beside, f">= {LEAST_RATIO}",
        value / beside >= LEAST_RATIO and slowest < LATEST_SECONDS,
        f"CPU a callback: {own:.0f} us, bare server {theirs:.0f} us ({theirs / own:.2f}), PostgreSQL {database:.0f} us;"
        f" slowest answer {slowest:.2f} s",
    )  # fmt: skip
