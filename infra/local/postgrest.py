"""PostgREST: the database's REST door, set as on hosted Supabase."""

from __future__ import annotations

from pathlib import Path

from infra.local import node, probe
from infra.local.process import Component
from infra.local.settings import Settings, write_private


def component(settings: Settings) -> Component:
    configuration = settings.home / "postgrest.conf"
    return Component(
        name="postgrest",
        command=[str(node.postgrest()), str(configuration)],
        port=settings.ports.postgrest,
        is_healthy=lambda: probe.answers(settings.ports.postgrest_admin, "/ready", at_most_status=200),
        environment={"LANG": "C.UTF-8"},
        directory=settings.home,
        prepare=lambda: _write(configuration, settings),
    )


def _write(file: Path, settings: Settings) -> None:
    options: dict[str, str | int] = {
        "db-uri": settings.socket_url("authenticator", settings.secrets.authenticator_password),
        "db-schemas": "public",
        "db-anon-role": "anon",
        "db-extra-search-path": "public, extensions",
        "db-max-rows": 1000,
        "db-pool": 16,
        "db-pool-acquisition-timeout": 10,
        "jwt-secret": settings.verification_keys(),
        "jwt-cache-max-lifetime": 300,
        "openapi-mode": "disabled",
        "server-host": "127.0.0.1",
        "server-port": settings.ports.postgrest,
        "admin-server-port": settings.ports.postgrest_admin,
        "log-level": "error",
    }
    write_private(file, "".join(f"{name} = {_quoted(value)}\n" for name, value in options.items()))


def _quoted(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
