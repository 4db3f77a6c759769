"""The very bodies that the dispatcher posts for an alert, made beforehand by the adapter itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from infra.bench.scene import Scene
from infra.local import functions
from shared.channels import Message, sms
from shared.outbound import Answer
from shared.settings import ChannelSettings

if TYPE_CHECKING:
    from yarl import URL

    from shared.outbound import Outbound

_MESSAGES = """
select
  replace(d.alert_id::text, '-', '') || '-' || d.number, d.organisation_id::text, a.value, d.language,
  private.render(t.body, c.name, c.external_id, c.attributes), extract(epoch from alert.expires_at)::float8
from public.deliveries d
join public.alerts alert on alert.organisation_id = d.organisation_id and alert.id = d.alert_id
join public.contacts c on c.organisation_id = d.organisation_id and c.id = d.contact_id
join public.addresses a on a.organisation_id = d.organisation_id and a.id = d.address_id
join private.alert_contents t
  on t.organisation_id = d.organisation_id and t.alert_id = d.alert_id
  and t.channel = d.channel and t.language = d.language
where d.alert_id = %s and d.state <> 'skipped'
order by d.number
"""


class _Keeper:
    """In place of the HTTP client: keeps what would be posted."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []

    def target(self, url: str) -> URL:
        return cast("URL", url)

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.posts.append((str(url), dict(headers), body))
        return Answer(201, {}, b'{"sid":"SM' + b"0" * 32 + b'"}')


def messages(scene: Scene, alert_id: str) -> list[Message]:
    """What a dispatcher would claim of an alert, in order."""
    rows: list[tuple[Any, ...]] = scene.sql.execute(_MESSAGES.encode(), (alert_id,)).fetchall()
    return [
        Message(
            delivery_id=delivery_id, organisation_id=organisation_id, attempt=1, to=to, language=language,
            subject=None, body=body, expires_at=expires_at,
        )
        for delivery_id, organisation_id, to, language, body, expires_at in rows
    ]  # fmt: skip


def posts(scene: Scene, alert_id: str) -> list[tuple[str, dict[str, str], bytes]]:
    """URL, headers and body of every request that the SMS adapter makes for an alert."""
    keeper = _Keeper()
    settings = ChannelSettings.read(functions.environment(scene.settings))
    adapter = sms.connect(cast("Outbound", keeper), settings)

    async def send() -> None:
        for message in messages(scene, alert_id):
            await adapter.send([message], "")

    asyncio.run(send())
    return keeper.posts
