"""The secret of an endpoint: shown to who may write contacts, and the very one that its messages are signed with."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from infra.local.carriers.client import Carriers
from infra.local.settings import Settings
from infra.local.stack import Stack
from tests.support.api import make_member
from tests.support.scene import Scene, make_scene
from tests.support.waiting import until


@pytest.fixture
def scene(settings: Settings, sql: Any) -> Scene:
    return make_scene(settings, sql, 1)


def endpoint_id(scene: Scene) -> str:
    rows = scene.owner.get(
        "addresses", select="id", organisation_id=f"eq.{scene.organisation_id}", kind="eq.endpoint"
    ).json
    return str(rows[0]["id"])


def asked(scene: Scene, address_id: str) -> dict[str, str]:
    return {"organisation_id": scene.organisation_id, "address_id": address_id}


def test_messages_are_signed_with_the_secret_that_is_shown(
    stack: Stack, settings: Settings, scene: Scene
) -> None:
    from standardwebhooks import Webhook

    reply = scene.owner.function("send-alert", asked(scene, endpoint_id(scene)), "/endpoint-secret")
    assert reply.status == 200
    carriers = Carriers(settings.carriers_url)
    carriers.knobs(webhook={"keep_body": True})
    try:
        alert = scene.alert(channels=["webhook"])
        assert scene.owner.function("send-alert", alert).status == 202
        until(lambda: scene.report(alert["alert_id"])["delivered"] == 1, seconds=20, what="the delivery")
        [row] = [
            each
            for each in carriers.journal("webhook")
            if (each.reference or "").startswith(alert["alert_id"].replace("-", ""))
        ]
    finally:
        carriers.knobs(webhook={"keep_body": False})
    assert row.body is not None
    assert row.headers is not None
    Webhook(reply.json["secret"]).verify(row.body, row.headers)


def test_only_their_own_and_only_who_may(settings: Settings, sql: Any, scene: Scene) -> None:
    address_id = endpoint_id(scene)
    stranger = make_member(settings, sql)
    assert stranger.function("send-alert", asked(scene, address_id), "/endpoint-secret").status == 404
    assert scene.owner.function("send-alert", asked(scene, str(uuid4())), "/endpoint-secret").status == 404
    viewer = make_member(settings, sql)
    sql.execute(
        "insert into public.memberships (organisation_id, user_id, role) values (%s, %s, 'viewer')",
        (scene.organisation_id, viewer.id),
    )
    reply = viewer.function("send-alert", asked(scene, address_id), "/endpoint-secret")
    assert (reply.status, reply.json["code"]) == (403, "permission_missing")
