"""Run the stand-in for Supabase Auth: `python -m infra.local.auth HOME PORT_BASE`."""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

from infra.local.auth.server import AuthServer
from infra.local.settings import load


def main() -> None:
    settings = load(Path(sys.argv[1]), int(sys.argv[2]))
    server = AuthServer(settings)
    web.run_app(server.application(), host="127.0.0.1", port=settings.ports.auth, print=None, access_log=None)


if __name__ == "__main__":
    main()
