"""PostgreSQL 17: make the cluster, lay the platform's emulation into it, apply the migrations."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psycopg
from psycopg import sql

from infra.local import accounts, node
from infra.local.process import Component
from infra.local.settings import CHECKOUT, LocalStackError, Settings, write_private

PLATFORM = Path(__file__).with_name("platform.sql")
SUPERUSER = "supabase_admin"
LOGIN_ROLES = ("postgres", "authenticator", "supabase_auth_admin")

# durable, and sized for a developer's machine
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",  # the directory keeps strangers out, passwords the rest
    "max_connections": "100",
    "shared_buffers": "512MB",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "random_page_cost": "1.1",
    "track_functions": "pl",
    "shared_preload_libraries": "pg_stat_statements",
    "log_line_prefix": "%m [%p] %u ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def component(settings: Settings) -> Component:
    options = {
        **OPTIONS,
        "port": str(settings.ports.postgres),
        "unix_socket_directories": str(settings.sockets),
    }
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return Component(
        name="postgres",
        command=[str(_program(settings, "postgres")), "-D", str(settings.data), *arguments],
        port=settings.ports.postgres,
        is_healthy=lambda: accepts_connections(settings),
        environment=_environment(),
        account=accounts.unprivileged(),
        stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, writes a checkpoint
        stop_seconds=60,
        prepare=lambda: prepare(settings),
    )


def _program(settings: Settings, name: str) -> Path:
    """A program of PostgreSQL, where the user that runs it can reach it: its copy in the home if need be."""
    tree = node.postgres_tree()
    if not accounts.can_reach(accounts.unprivileged(), tree / "bin" / name):
        tree = accounts.readable_copy(tree, settings.home / "postgres-programs")
    return tree / "bin" / name


def prepare(settings: Settings) -> None:
    """Make the cluster unless it exists, and clear what a crash left. Raises LocalStackError."""
    _make_directory(settings.sockets)
    if (settings.data / "PG_VERSION").exists():
        (settings.data / "postmaster.pid").unlink(
            missing_ok=True
        )  # the caller knows that no server runs here
        return
    _make_directory(settings.data)
    _initialise(settings)


def set_up(settings: Settings) -> None:
    """Lay the platform's emulation into a new cluster; nothing happens to one that has it."""
    with _superuser(settings) as connection:
        if connection.execute("select 1 from pg_roles where rolname = 'authenticator'").fetchone():
            return
        with connection.transaction():
            connection.execute(PLATFORM.read_bytes())
            passwords = (
                settings.secrets.postgres_password,
                settings.secrets.authenticator_password,
                settings.secrets.auth_password,
            )
            for role, password in zip(LOGIN_ROLES, passwords, strict=True):
                connection.execute(
                    sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(password))
                )


def migrate(settings: Settings, checkout: Path = CHECKOUT) -> None:
    """Apply pending migrations with Supabase's own command line. Raises LocalStackError with its words."""
    if _applied(settings) >= _versions(checkout):
        return
    supabase(settings, "migration", "up", "--include-all", "--yes", checkout=checkout)
    with psycopg.connect(settings.db_url, autocommit=True) as connection:
        connection.execute("notify pgrst, 'reload schema'")


def supabase(settings: Settings, *arguments: str, checkout: Path = CHECKOUT) -> str:
    """Run Supabase's command line on the stack's database and give its output.

    Raises LocalStackError with its output when it fails.
    """
    done = subprocess.run(
        [
            node.supabase(),
            *arguments,
            f"--remote={settings.db_url}",
            "--workdir",
            str(checkout),
            "--agent",
            "no",
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(settings.home), "SUPABASE_TELEMETRY_DISABLED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    output = (done.stdout + done.stderr).replace(settings.secrets.postgres_password, "***")
    if done.returncode != 0:
        raise LocalStackError(f"supabase {' '.join(arguments)} failed:\n{output}")
    return output


def accepts_connections(settings: Settings) -> bool:
    try:
        _superuser(settings).close()
    except psycopg.OperationalError:
        return False
    return True


def _superuser(settings: Settings) -> psycopg.Connection:
    url = settings.database_url(SUPERUSER, settings.secrets.superuser_password)
    return psycopg.connect(url, connect_timeout=3, autocommit=True)


def _applied(settings: Settings) -> set[str]:
    with _superuser(settings) as connection:
        row = connection.execute(
            "select to_regclass('supabase_migrations.schema_migrations') is not null"
        ).fetchone()
        if row is None or not row[0]:
            return set()
        return {
            version
            for (version,) in connection.execute("select version from supabase_migrations.schema_migrations")
        }


def _versions(checkout: Path) -> set[str]:
    return {file.name.partition("_")[0] for file in (checkout / "supabase" / "migrations").glob("*.sql")}


def _initialise(settings: Settings) -> None:
    account = accounts.unprivileged()
    password = settings.data.with_name(".superuser-password")
    write_private(password, settings.secrets.superuser_password)
    if account:
        os.chown(password, account.uid, account.gid)
    try:
        _run_initdb(settings, password, account)
    finally:
        password.unlink()


def _run_initdb(settings: Settings, password: Path, account: accounts.Account | None) -> None:
    done = subprocess.run(
        [
            _program(settings, "initdb"),
            *("--pgdata", str(settings.data), "--username", SUPERUSER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--data-checksums"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        ],
        env=_environment(),
        cwd="/",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalStackError(f"initdb failed:\n{done.stdout}{done.stderr}")


def _make_directory(path: Path) -> None:
    account = accounts.unprivileged()
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid not in {
        os.geteuid(),
        account.uid if account else os.geteuid(),
    }:
        raise LocalStackError(f"{path} belongs to somebody else: choose another --home")
    if account:
        os.chown(path, account.uid, account.gid)
        if not accounts.can_reach(account, path):
            raise LocalStackError(f"user {account.name} can't reach {path}: choose a --home that it can")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
