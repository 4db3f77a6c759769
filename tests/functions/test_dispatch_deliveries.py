"""dispatch-deliveries on the whole stack: started by a send's kick, refused without the secret, limited in number."""

from __future__ import annotations

from typing import Any

from infra.local.carriers.client import Carriers
from infra.local.settings import Settings
from infra.local.stack import Stack
from tests.support.api import Caller
from tests.support.scene import CHANNELS, make_scene
from tests.support.waiting import until


def dispatch(settings: Settings, secret: str | None = None, body: Any = None) -> Any:
    caller = Caller(settings, settings.secrets.publishable_key, secret or settings.secrets.dispatch_secret)
    return caller.function("dispatch-deliveries", {"hop": 0} if body is None else body)


def test_a_send_starts_a_dispatcher_by_itself(stack: Stack, settings: Settings, sql: Any) -> None:
    """No timer runs here: only the kick after the send can have started one."""
    scene = make_scene(settings, sql, 3)
    alert = scene.alert()
    assert scene.owner.function("send-alert", alert).status == 202
    until(lambda: scene.report(alert["alert_id"])["sent"] == 3, seconds=20, what="the hand-over")


def test_every_channel_arrives_once_and_every_credit_is_settled(
    stack: Stack, settings: Settings, sql: Any
) -> None:
    scene = make_scene(settings, sql, 25)
    alert = scene.alert(channels=list(CHANNELS))
    assert scene.owner.function("send-alert", alert).status == 202
    report = until(
        lambda: (r := scene.report(alert["alert_id"]))["delivered"] == 100 and r["answered"] == 25 and r,
        seconds=60,
        what="the delivery of all",
    )
    assert report["credits"]["reserved"] == report["credits"]["settled"] > 0
    assert report["by_channel"].keys() == set(CHANNELS)


def test_it_refuses_a_caller_without_the_secret(stack: Stack, settings: Settings) -> None:
    for secret in ("", "wrong", settings.secrets.dispatch_secret[:-1], settings.secrets.secret_key):
        reply = dispatch(settings, secret or "x")
        assert reply.status == 401
        assert reply.json["status"] == 401


def test_it_refuses_a_body_that_is_not_a_kick(stack: Stack, settings: Settings) -> None:
    assert dispatch(settings, body={"hop": -1}).status == 422
    assert dispatch(settings, body={"hop": "1"}).status == 422
    assert dispatch(settings, body={"hops": 1}).status == 422


def test_no_more_dispatchers_work_than_the_limit(stack: Stack, settings: Settings, sql: Any) -> None:
    sql.execute(
        "insert into private.dispatchers select 'other-' || n, clock_timestamp() + interval '1 minute'"
        " from generate_series(1, 50) as n"
    )
    try:
        reply = dispatch(settings)
    finally:
        sql.execute("delete from private.dispatchers where worker like 'other-%%'")
    assert reply.status == 200
    assert reply.json["admitted"] is False
    assert reply.json["alive"] >= 50


def test_it_takes_up_what_a_dead_dispatcher_left_behind(stack: Stack, settings: Settings, sql: Any) -> None:
    """Claimed, never sent, the lease over: asked about, not found, then sent once."""
    scene = make_scene(settings, sql, 2)
    alert = scene.alert()
    reply = scene.owner.rpc("send_alert", p_organisation_id=scene.organisation_id, p_alert=alert)  # no kick
    assert reply.status == 200
    sql.execute("select private.claim_deliveries('sms', 10, 1, 'dead')")
    sql.execute("update private.leases set due_at = now() - interval '1 minute' where worker = 'dead'")
    answer = dispatch(settings).json
    assert answer["tally"]["sms"].get("absent") == 2, answer
    until(
        lambda: dispatch(settings) and scene.report(alert["alert_id"])["sent"] == 2,
        seconds=20,
        what="the sending",
    )
    references = [each for each in accepted_references(settings) if each.startswith(alert_hex(alert))]
    assert len(references) == len(set(references)) == 2


def alert_hex(alert: dict[str, Any]) -> str:
    return str(alert["alert_id"]).replace("-", "")


def accepted_references(settings: Settings) -> list[str]:
    """What the carriers accepted by SMS: the ground truth."""
    return [row.reference for row in Carriers(settings.carriers_url).journal(channel="sms") if row.reference]
