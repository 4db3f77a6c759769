"""The user that PostgreSQL and nginx's workers run as, since both refuse or drop root, and what that user can reach."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infra.local.settings import LocalStackError

CANDIDATES = ("nobody", "postgres", "daemon")


@dataclass(slots=True, frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int

    @property
    def group(self) -> str:
        return grp.getgrgid(self.gid).gr_name


@cache
def unprivileged() -> Account | None:
    """The user for what must not be root; None when this user is not root and everything runs as it is.

    CREDOALERT_USER names another than the first suitable one. Raises LocalStackError when there is none.
    """
    if os.geteuid() != 0:
        return None
    wanted = os.environ.get("CREDOALERT_USER")
    for name in (wanted,) if wanted else CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise LocalStackError(
        f"PostgreSQL refuses to run as root and there is no user {wanted or ' or '.join(CANDIDATES)}: "
        "set CREDOALERT_USER to an unprivileged user, or run as one"
    )


def can_reach(account: Account | None, path: Path) -> bool:
    """Whether the user can read and enter the path: asked of the system, since mount options and ACLs count too."""
    if account is None:
        return True
    test = subprocess.run(
        ["/bin/sh", "-c", 'test -r "$1" && test -x "$1"', "sh", str(path)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    return test.returncode == 0


def readable_copy(source: Path, target: Path) -> Path:
    """Copy a tree so that everybody can read and run it; an existing copy is kept."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copytree(source, temporary, symlinks=True)
        for path in (temporary, *temporary.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o055 if path.is_dir() or mode & 0o100 else 0o044))
        temporary.rename(target)
    return target
