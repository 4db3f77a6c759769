"""The rules of a file: its first line, its length, and where the environment, time and chance come from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.imports import ROOT, name, sources

LONGEST_FILE = 300  # house.md: about 120 lines, past 300 look for the seam
LONGEST_FUNCTION = 50  # about 15 lines, past 50 look for the seam
LONGEST_MIGRATION = 450  # house.md: past 450 look for the seam

# (what, where it is allowed, what to use instead)
CALLS = (
    ("os.environ", "shared/settings.py", "read a setting in shared/settings.py"),
    ("os.getenv", "shared/settings.py", "read a setting in shared/settings.py"),
    ("datetime.now", "shared/clock.py", "take the time from shared.clock"),
    ("datetime.utcnow", "shared/clock.py", "take the time from shared.clock"),
    ("date.today", "shared/clock.py", "take the day from shared.clock"),
    ("time.time", "shared/clock.py", "take the time from shared.clock"),
    ("time.monotonic", "shared/clock.py", "take the time from shared.clock"),
    ("uuid.uuid4", "shared/clock.py", "take ids from shared.clock"),
    ("uuid.uuid1", "shared/clock.py", "take ids from shared.clock"),
    ("os.urandom", "shared/clock.py", "take chance from shared.clock"),
    ("print", "", "write a line with shared.log"),
)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, _dotted(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=name)
def test_the_environment_time_and_chance_have_one_home(path: Path) -> None:
    uses = list(_uses(ast.parse(path.read_text())))
    wrong = [
        f"{name(path)}:{line} uses {used}: {instead}"
        for what, home, instead in CALLS
        for line, used in uses
        if (used == what or used.endswith("." + what)) and name(path) != home
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("path", sources(), ids=name)
def test_a_file_says_its_one_job_in_its_first_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{name(path)} needs a docstring that says its one job"
    first = docstring.splitlines()[0]
    assert first.endswith((".", ":")), (
        f"{name(path)}: the first line of the docstring is a sentence of its own"
    )


@pytest.mark.parametrize("path", sources(), ids=name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE, f"{name(path)} is long: look for the seam"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, (
                f"{name(path)}: {node.name} has {length} lines, look for the seam"
            )


def test_migrations_stay_readable() -> None:
    for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("-- "), f"{path.name} needs a first line that says its one job"
        assert len(lines) <= LONGEST_MIGRATION, f"{path.name} is long: look for the seam"


def test_no_file_names_this_machine() -> None:
    for path in sources():
        text = path.read_text()
        assert "/work/" not in text, f"{name(path)} names a folder of somebody's machine"
        assert "/tmp/" not in text, f"{name(path)} names a folder: take it from a setting"
