"""Who may import whom: each message names what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import imports
from tests.house.imports import HOMES, INSTEAD, Import


def _home(module: str) -> str | None:
    return next((package for package in HOMES if module == package or module.startswith(package + ".")), None)


@pytest.mark.parametrize("path", imports.sources(), ids=imports.name)
def test_a_file_imports_only_what_its_layer_may(path: Path) -> None:
    may = imports.allowed(imports.name(path))
    wrong = [found for found in imports.imports(path) if not found.for_types and _is_forbidden(found, may)]
    assert not wrong, [
        f"{found.file}:{found.line} imports {found.module}; its layer may import {sorted(may or ())} of shared: "
        "pass it in as a parameter, or move the code to the layer that may"
        for found in wrong
    ]


def _is_forbidden(found: Import, may: frozenset[str] | None) -> bool:
    parts = found.module.split(".")
    if parts[0] == "shared" and may is not None:
        module = parts[1]
        inside = (
            found.file.startswith("shared/channels/") and module == "channels" and parts[2:3] in _CONTRACT
        )
        return module not in may and not inside
    if parts[0] == "functions":
        own = Path(found.file).parts
        return own[0] != "functions" or (len(own) > 2 and own[1] != parts[1])
    return parts[0] in ("infra", "tests")


# channels know their contract and never one another
_CONTRACT: tuple[list[str], ...] = (["Accepted"], ["Adapter"], ["Message"], ["Outcome"], ["Channel"], [])


@pytest.mark.parametrize("path", imports.sources(), ids=imports.name)
def test_a_package_is_imported_only_in_its_home(path: Path) -> None:
    wrong = []
    for found in imports.imports(path):
        package = _home(found.module)
        if package is not None and not found.for_types and found.file not in HOMES[package]:
            advice = INSTEAD.get(package, f"use what {sorted(HOMES[package])} offers")
            wrong.append(f"{found.file}:{found.line} imports {found.module}: {advice}")
    assert not wrong, wrong


def test_every_module_of_shared_has_its_place_in_the_table() -> None:
    modules = {path.stem for path in (imports.ROOT / "shared").glob("*.py")} - {"__init__"}
    for layer in (imports.VALUES, imports.DOORS, imports.DISPATCH):
        assert layer <= modules, (
            f"no longer there, take out of tests/house/imports.py: {sorted(layer - modules)}"
        )


def test_the_check_sees_a_forbidden_import(tmp_path: Path) -> None:
    may = imports.allowed("shared/contacts.py")
    assert may is not None
    assert _is_forbidden(Import("shared/contacts.py", 1, "shared.web", False), may)
    assert _is_forbidden(Import("shared/contacts.py", 1, "functions.send_alert", False), may)
    assert not _is_forbidden(Import("shared/contacts.py", 1, "shared.database", False), may)
    assert _is_forbidden(
        Import("functions/send_alert/main.py", 1, "functions.delivery_webhook.main", False), None
    )
    channels = imports.allowed("shared/channels/sms.py")
    assert _is_forbidden(Import("shared/channels/sms.py", 1, "shared.channels.email", False), channels)
    assert not _is_forbidden(Import("shared/channels/sms.py", 1, "shared.channels.Message", False), channels)
