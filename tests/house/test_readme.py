"""The README says what is so: its commands exist, its files exist, its settings are the ones that are read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_make_target_that_it_names_exists_and_every_target_is_named() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    assert named <= targets, f"the README names targets that the Makefile lacks: {named - targets}"
    assert {"demo", "test", "check", "bench", "up", "down"} <= named


@pytest.mark.parametrize("command", sorted(set(re.findall(r"credoalert ([a-z]+)\b(?! \|)", README))))
def test_every_command_that_it_shows_is_understood(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "infra.local.cli", command, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for options in re.findall(rf"credoalert {command}((?: +--?[a-z-]+(?: [a-z0-9/.]+)?)+)", README):
        for option in re.findall(r"--[a-z-]+", options):
            assert option in shown.stdout, f"credoalert {command} has no {option}"


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:functions|shared|supabase|infra|tests)/[\w./]*)`", README)))
)
def test_every_file_that_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists(), f"the README names {path}, which is not there"


def test_every_picture_that_it_shows_exists() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), f"the README shows {path}, which is not there"


def test_every_setting_that_it_lists_is_read_and_every_secret_is_listed() -> None:
    code = (ROOT / "shared" / "settings.py").read_text()
    read = set(re.findall(r'"([A-Z][A-Z0-9]+_[A-Z0-9_]+)"', code))
    listed = {
        name
        for line in README.splitlines()
        if line.startswith("| `") and "_" in line
        for name in re.findall(r"`([A-Z][A-Z0-9]+_[A-Z0-9_]+)`", line)
    }
    assert listed <= read, f"the README lists settings that nothing reads: {listed - read}"
    secrets = {name for name in read if name.endswith(("_SECRET", "_KEY", "_TOKEN"))}
    assert secrets <= listed, f"settings that the README should list: {secrets - listed}"
