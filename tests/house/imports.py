"""The import table (design: house.md): who may import whom, and which package lives in which file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

VALUES = frozenset(
    {
        "errors",
        "values",
        "clock",
        "settings",
        "log",
        "guard",
        "problems",
        "segments",
        "addresses",
        "messages",
        "pace",
        "exchange",
        "hosts",
    }
)
DOORS = frozenset({"database", "outbound", "auth", "signatures", "twilio_rest", "kick", "twiml"})
DISPATCH = frozenset({"deliveries", "recorder", "sender", "doubts", "dispatcher"})

# a module of shared, and what of shared it may import beside the kernel values
MORE: dict[str, frozenset[str]] = {
    "twilio_rest": frozenset({"outbound", "signatures"}),
    "web": frozenset({"database", "auth"}),
    "recorder": frozenset({"deliveries"}),
    "sender": frozenset({"deliveries", "recorder"}),
    "doubts": frozenset({"deliveries", "recorder", "sender"}),
    "dispatcher": frozenset({"deliveries", "recorder", "sender", "doubts"}),
}
CHANNELS_MAY = frozenset({"outbound", "signatures", "twilio_rest"})
DOMAINS_MAY = frozenset({"database"})

# a package, and the only files that may import it
HOMES: dict[str, frozenset[str]] = {
    "urllib3": frozenset({"shared/database.py"}),
    "httpx": frozenset({"shared/database.py"}),
    "postgrest": frozenset({"shared/database.py"}),
    "aiohttp": frozenset({"shared/database.py", "shared/outbound.py"}),
    "http.client": frozenset({"shared/kick.py"}),
    "requests": frozenset(),
    "supabase": frozenset(),
    "jwt": frozenset({"shared/auth.py"}),
    "twilio": frozenset({"shared/signatures.py", "shared/twiml.py", "shared/channels/voice.py"}),
    "standardwebhooks": frozenset({"shared/signatures.py"}),
    "resend": frozenset(),
    "flask": frozenset({"shared/hosts.py"}),
    "starlette": frozenset({"shared/hosts.py"}),
    "functions_framework": frozenset(),
    "phonenumbers": frozenset({"shared/addresses.py"}),
    "email_validator": frozenset({"shared/addresses.py"}),
    "random": frozenset({"shared/clock.py"}),
    "secrets": frozenset({"shared/clock.py"}),
    "time": frozenset({"shared/clock.py"}),
}
INSTEAD: dict[str, str] = {
    "urllib3": "call the database by shared.database, a provider by shared.outbound",
    "httpx": "call the database by shared.database, a provider by shared.outbound",
    "requests": "call the database by shared.database, a provider by shared.outbound",
    "aiohttp": "call a provider by shared.outbound",
    "http.client": "start a dispatcher by shared.kick, call a provider by shared.outbound",
    "postgrest": "use shared.database.Database",
    "supabase": "use shared.database.Database",
    "flask": "take shared.web.Request and return shared.web.Response",
    "starlette": "take shared.web.Request and return shared.web.Response",
    "functions_framework": "register handlers with shared.web.Function",
    "random": "take chance from shared.clock",
    "secrets": "take chance from shared.clock",
    "time": "take time from shared.clock",
    "resend": "speak REST by shared.outbound",
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, where it stands, and whether it is there for types alone."""

    file: str
    line: int
    module: str
    for_types: bool


def sources() -> list[Path]:
    """Every deployed Python file."""
    return sorted(path for folder in ("shared", "functions") for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands in it."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        for module in _modules(node):
            yield Import(name(path), getattr(node, "lineno", 0), module, id(node) in guarded)


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        if node.module in ("shared", "functions", "shared.channels"):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        return [node.module]
    return []


def allowed(file: str) -> frozenset[str] | None:
    """The modules of shared that a file may import; None: any (functions)."""
    parts = Path(file).parts
    if parts[0] == "functions":
        return None
    module = Path(parts[1]).stem
    if module == "channels":
        return VALUES | CHANNELS_MAY
    if module in VALUES:
        return VALUES
    if module in DOORS or module == "web" or module in DISPATCH:
        return VALUES | MORE.get(module, frozenset())
    return VALUES | DOMAINS_MAY
