"""The gateway: nginx, one address for the database, sign-in, storage and functions, as a hosted project has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.local import accounts, node, probe
from infra.local.process import Component
from infra.local.settings import Settings, write_private

TEMPLATE = Path(__file__).with_name("gateway.conf")


def component(settings: Settings, functions: Mapping[str, Sequence[int]]) -> Component:
    """`functions` are the ports behind each deployed name, e.g. `{"send-alert": [54330]}`."""
    configuration = settings.home / "gateway.conf"
    return Component(
        name="gateway",
        command=[str(node.nginx()), "-p", f"{settings.home}/", "-c", str(configuration)],
        port=settings.ports.gateway,
        is_healthy=lambda: probe.answers(settings.ports.gateway, "/healthz", at_most_status=204),
        directory=settings.home,
        prepare=lambda: _prepare(settings, configuration, render(settings, functions)),
    )


def render(settings: Settings, functions: Mapping[str, Sequence[int]]) -> str:
    """nginx's configuration for this stack."""
    account = accounts.unprivileged()
    values = {
        "user": f"user {account.name} {account.group};" if account else "",
        "home": str(settings.home),
        "gateway": str(settings.ports.gateway),
        "postgrest": str(settings.ports.postgrest),
        "auth": str(settings.ports.auth),
        "storage": str(settings.ports.storage),
        "publishable_key": settings.secrets.publishable_key,
        "secret_key": settings.secrets.secret_key,
        "anon_token": settings.role_token("anon"),
        "service_token": settings.role_token("service_role"),
        "function_upstreams": "\n".join(_upstream(name, ports) for name, ports in functions.items()),
        "function_locations": "\n".join(_location(name) for name in functions),
    }
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _upstream(name: str, ports: Sequence[int]) -> str:
    servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in ports)
    # gunicorn closes a connection after 2 s without a request: the gateway has to be the first
    return f"  upstream {name} {{\n    least_conn;\n{servers}\n    keepalive 32;\n    keepalive_timeout 1s;\n  }}"


def _location(name: str) -> str:
    return (
        f"    location = /functions/v1/{name} {{ proxy_pass http://{name}/; }}\n"
        f"    location /functions/v1/{name}/ {{ proxy_pass http://{name}/; }}"
    )


def _prepare(settings: Settings, configuration: Path, text: str) -> None:
    directory = settings.home / "gateway"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)  # nginx's workers keep large bodies there, and are not root
    write_private(configuration, text)
