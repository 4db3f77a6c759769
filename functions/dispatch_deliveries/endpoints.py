"""What dispatch-deliveries answers: it starts a dispatcher and answers with its tally when that ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from shared import clock, kick, settings, web
from shared.database import Database, KeepAliveTransport
from shared.errors import AppError
from shared.settings import DispatchSettings, Environment
from shared.stopping import Stopping

LAST_HOP = 100  # dispatchers that start one another without a timer or a send between them
ALIVE_SECONDS = 15  # a place ends so long after the last sign of life: a killed dispatcher frees its own
SIGN_OF_LIFE_SECONDS = 5
SOON_SECONDS = 15  # what is due so soon is waited for


def create(environment: Environment | None = None) -> web.Function:
    """The function, ready to serve. Raises SettingsError."""
    environment = settings.present() if environment is None else environment
    dispatch = DispatchSettings.read(environment)
    service = settings.DatabaseSettings.read("service", environment)
    channel = settings.ChannelSettings.read(environment)
    kicker = kick.Kicker(dispatch)
    stopping = Stopping()
    function = web.Function("dispatch-deliveries", settings.WebSettings.read(environment))

    @function.endpoint("POST /", caller=web.internal(dispatch.secret))
    async def run(request: web.Request, _caller: None) -> web.Response:
        hop = _hop(request)
        stopping.listen()
        answer, leaves_work = await _work(
            service, channel, dispatch, stopping, on_backlog=lambda: kicker.kick(hop + 1)
        )
        if leaves_work and hop < LAST_HOP:
            kicker.kick(hop + 1)
        return web.ok(answer)

    return function


async def _work(
    service: settings.DatabaseSettings,
    channel: settings.ChannelSettings,
    dispatch: DispatchSettings,
    stopping: Stopping,
    *,
    on_backlog: Callable[[], None],
) -> tuple[dict[str, Any], bool]:
    """One dispatcher's life, unless enough of them are alive: its answer, and whether it leaves work behind.

    `on_backlog` is called once when there is more to send than one dispatcher should and a place is free.
    """
    worker = clock.system.uuid4().hex
    db = Database(KeepAliveTransport(service), service)
    async with _place(db, worker, dispatch) as place:
        if not place["admitted"]:
            return {"admitted": False, "alive": place["alive"]}, False
        # what dead dispatchers left behind comes first; so one timer is enough for everything
        with suppress(AppError):
            await asyncio.to_thread(db.rpc, "sweep_deliveries")
        backlog = await asyncio.to_thread(db.rpc, "dispatch_backlog")
        if not backlog["due"] and not 0 <= (backlog["next_seconds"] or -1) <= SOON_SECONDS:
            return {"admitted": True, "tally": {}, "leaves_work": False}, False
        tally, leaves_work = await _dispatch(
            service,
            channel,
            dispatch,
            worker=worker,
            on_backlog=on_backlog if place["alive"] < dispatch.max_workers else None,
            is_stopping=stopping.is_requested,
        )
    return {"admitted": True, "tally": tally, "leaves_work": leaves_work}, leaves_work


async def _dispatch(
    service: settings.DatabaseSettings,
    channel: settings.ChannelSettings,
    dispatch: DispatchSettings,
    *,
    worker: str,
    on_backlog: Callable[[], None] | None,
    is_stopping: Callable[[], bool],
) -> tuple[dict[str, dict[str, int]], bool]:
    """Send what is due. The HTTP client and the channels are imported only now: a timer's kick seldom needs them."""
    from shared import channels
    from shared.database import AsyncDatabase
    from shared.dispatcher import Dispatcher, Limits
    from shared.outbound import Outbound
    from shared.values import Channel

    outbound = Outbound(
        timeout_seconds=channel.provider_timeout_seconds,
        connections=dispatch.in_flight * len(Channel),
        local_sink=channel.webhook_local_sink,
    )
    async with AsyncDatabase(service) as db, outbound:
        dispatcher = Dispatcher(
            db,
            lambda name: channels.load(name, outbound, channel),
            Limits(
                budget_seconds=dispatch.budget_seconds,
                lease_seconds=dispatch.lease_seconds,
                in_flight=dispatch.in_flight,
                call_seconds=channel.provider_timeout_seconds,
            ),
            worker=worker,
            on_backlog=on_backlog,
            is_stopping=is_stopping,
        )
        return await dispatcher.run()


@asynccontextmanager
async def _place(db: Database, worker: str, dispatch: DispatchSettings) -> AsyncIterator[dict[str, Any]]:
    """A place among the dispatchers, kept by signs of life and given back at the end."""

    async def show_life() -> dict[str, Any]:
        place: dict[str, Any] = await asyncio.to_thread(
            db.rpc,
            "begin_dispatch",
            p_worker=worker,
            p_limit=dispatch.max_workers,
            p_lease_seconds=ALIVE_SECONDS,
        )
        return place

    async def keep() -> None:
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
            with suppress(AppError):
                await show_life()

    place = await show_life()
    keeper = asyncio.create_task(keep())
    try:
        yield place
    finally:
        keeper.cancel()
        if place["admitted"]:
            with suppress(AppError):  # the place ends by itself
                await asyncio.to_thread(db.rpc, "end_dispatch", p_worker=worker)


def _hop(request: web.Request) -> int:
    """How many dispatchers started one another before this one. Raises Refusal.

    What our own kicks send is read without pydantic, whose import is a sixth of a cold start; anything else is
    left to the model, which says what is wrong with it.
    """
    if request.headers.get("content-type", "") == "application/json":
        with suppress(ValueError, RecursionError):
            kick = json.loads(request.body)
            if isinstance(kick, dict) and kick.keys() == {"hop"}:
                hop = kick["hop"]
                if type(hop) is int and hop >= 0:
                    return hop
    return _explained(request)


def _explained(request: web.Request) -> int:
    from pydantic import BaseModel, ConfigDict, Field

    class Kick(BaseModel):
        model_config = ConfigDict(extra="forbid")
        hop: int = Field(default=0, ge=0)

    return request.parse(Kick).hop
