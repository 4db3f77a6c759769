"""Where the stack lives when nobody says: in the checkout, or where Postgres' user can get to."""

from __future__ import annotations

import os
from pathlib import Path

from infra.local import accounts
from infra.local.settings import CHECKOUT, DEFAULT_PORT_BASE, LocalStackError, digest

SHARED_PLACE = Path("/var/tmp")  # noqa: S108 -- it outlives a restart, and its owner is checked


def default_home() -> Path:
    """`.credoalert` in the checkout; as root and under a directory that others can't enter, a place in /var/tmp.

    The setting CREDOALERT_HOME wins over both. Raises LocalStackError when somebody else made that place.
    """
    if wanted := os.environ.get("CREDOALERT_HOME"):
        return Path(wanted)
    account = accounts.unprivileged()
    if accounts.can_reach(account, CHECKOUT):
        return CHECKOUT / ".credoalert"
    home = SHARED_PLACE / f"credoalert-{digest(CHECKOUT)}"
    home.mkdir(mode=0o755, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != os.geteuid():
        raise LocalStackError(f"{home} belongs to somebody else: choose another --home")
    return home


def default_port_base() -> int | None:
    """The setting CREDOALERT_PORT_BASE; None when it is not set. Raises LocalStackError when it is no port."""
    wanted = os.environ.get("CREDOALERT_PORT_BASE")
    return check_port_base(wanted) if wanted else None


def check_port_base(value: str) -> int:
    """A port base between 1024 and 65500. Raises LocalStackError."""
    if not value.isdecimal() or not 1024 <= int(value) <= 65500:
        raise LocalStackError(
            f"the port base must be between 1024 and 65500 (usually {DEFAULT_PORT_BASE}), not {value}"
        )
    return int(value)
