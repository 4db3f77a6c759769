"""What dispatch-deliveries answers: it starts a dispatcher and answers with its tally when that ends."""

from __future__ import annotations

from typing import Any

from shared import clock, kick, settings, web
from shared.settings import DispatchSettings, Environment

LAST_HOP = 100  # dispatchers that start one another without a timer or a send between them
LEASE_SLACK_SECONDS = 15  # a place among the dispatchers outlives the budget by the calls that still end


def create(environment: Environment | None = None) -> web.Function:
    """The function, ready to serve. Raises SettingsError."""
    environment = settings.present() if environment is None else environment
    dispatch = DispatchSettings.read(environment)
    service = settings.DatabaseSettings.read("service", environment)
    channel = settings.ChannelSettings.read(environment)
    kicker = kick.Kicker(dispatch)
    function = web.Function("dispatch-deliveries", settings.WebSettings.read(environment))

    @function.endpoint("POST /", caller=web.internal(dispatch.secret))
    async def run(request: web.Request, _caller: None) -> web.Response:
        hop = _hop(request)
        answer, leaves_work = await work(service, channel, dispatch, lambda: kicker.kick(hop + 1))
        if leaves_work and hop < LAST_HOP:
            kicker.kick(hop + 1)
        return web.ok(answer)

    return function


async def work(
    service: settings.DatabaseSettings,
    channel: settings.ChannelSettings,
    dispatch: DispatchSettings,
    kick_another: Any,
) -> tuple[dict[str, Any], bool]:
    """One dispatcher's life, unless enough of them are alive: its answer, and whether it leaves work behind.

    `kick_another` is called once when there is more to send than one dispatcher should and a place is free.
    """
    from shared import channels
    from shared.database import AsyncDatabase
    from shared.dispatcher import Dispatcher, Limits
    from shared.outbound import Outbound
    from shared.values import Channel

    worker = clock.system.uuid4().hex
    limits = Limits(
        budget_seconds=dispatch.budget_seconds,
        lease_seconds=dispatch.lease_seconds,
        in_flight=dispatch.in_flight,
        call_seconds=channel.provider_timeout_seconds,
    )
    async with (
        AsyncDatabase(service) as db,
        Outbound(
            timeout_seconds=channel.provider_timeout_seconds,
            connections=dispatch.in_flight * len(Channel),
            local_sink=channel.webhook_local_sink,
        ) as outbound,
    ):
        place = await db.rpc(
            "begin_dispatch",
            p_worker=worker,
            p_limit=dispatch.max_workers,
            p_lease_seconds=dispatch.budget_seconds + LEASE_SLACK_SECONDS,
        )
        if not place["admitted"]:
            return {"admitted": False, "alive": place["alive"]}, False
        dispatcher = Dispatcher(
            db,
            lambda name: channels.load(name, outbound, channel),
            limits,
            worker=worker,
            on_backlog=kick_another if place["alive"] < dispatch.max_workers else None,
        )
        try:
            tally, leaves_work = await dispatcher.run()
        finally:
            await db.rpc("end_dispatch", p_worker=worker)
    return {"admitted": True, "tally": tally, "leaves_work": leaves_work}, leaves_work


def _hop(request: web.Request) -> int:
    from pydantic import BaseModel, ConfigDict, Field

    class Kick(BaseModel):
        model_config = ConfigDict(extra="forbid")
        hop: int = Field(default=0, ge=0)

    return request.parse(Kick).hop
