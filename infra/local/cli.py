"""The `credoalert` command: start, look at, use and stop the embedded stack."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, util
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from infra.local import display, doctor, homes, process
from infra.local.compose import PARTS
from infra.local.settings import SECRETS, LocalStackError
from infra.local.sign_in import access_token
from infra.local.stack import Stack

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Home = Annotated[Path | None, typer.Option(help="The directory that the stack lives in.", show_default=False)]
PortBase = Annotated[int | None, typer.Option(help="Use the 20 ports above this one.", show_default="54320")]


def open_stack(home: Path | None = None, port_base: int | None = None) -> Stack:
    """The stack that the options and settings name; its home is made if need be. Raises LocalStackError."""
    if port_base is not None:
        homes.check_port_base(str(port_base))
    return Stack.of(home or homes.default_home(), port_base or homes.default_port_base())


def existing_stack(home: Path | None = None) -> Stack:
    """The stack in a home that was used before. Raises LocalStackError."""
    home = home or homes.default_home()
    if not (home / SECRETS).exists():
        raise LocalStackError(f"there is no stack in {home}: credoalert up")
    return Stack.of(home)


@contextmanager
def explained() -> Iterator[None]:
    """Show an error of the stack as a sentence; SIGTERM ends the command as Ctrl-C does, so that nothing is left."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except LocalStackError as error:
        display.console.print(f"✗ {error}", markup=False, soft_wrap=True, style="red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        display.console.print("interrupted")
        raise typer.Exit(130) from None


@app.command()
def up(
    home: Home = None,
    port_base: PortBase = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print addresses and keys as JSON.")] = False,
    only: Annotated[str, typer.Option(help="Parts to start, separated by commas.")] = ",".join(PARTS),
) -> None:
    """Start the stack in the background and wait until all of it answers."""
    with explained():
        stack = open_stack(home, port_base)
        parts = [part.strip() for part in only.split(",")]
        if unknown := set(parts) - set(PARTS):
            raise LocalStackError(
                f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}"
            )
        with display.progress() as report:
            stack.up(parts, report)
        if as_json:
            print(json.dumps(stack.summary(), indent=2))
        else:
            display.addresses(stack)


@app.command()
def down(home: Home = None) -> None:
    """Stop the stack; its data stays."""
    with explained():
        existing_stack(home).down()


@app.command()
def status(home: Home = None) -> None:
    """Show every process; exit status 1 when one is not well or nothing runs."""
    with explained():
        stack = existing_stack(home)
        if not stack.running:
            raise LocalStackError("the stack is not up: credoalert up")
        found = stack.health()
        display.processes(found)
        for each in found:
            if not each.is_alive:
                display.console.print(
                    f"{each.name} has died. {process.last_words(stack.log(each.name))}",
                    markup=False,
                    soft_wrap=True,
                )
        if not all(each.is_healthy for each in found):
            raise typer.Exit(1)


@app.command(name="doctor")
def examine(home: Home = None, port_base: PortBase = None) -> None:
    """Say what this machine lacks, and what to do about it."""
    with explained():
        if not display.findings(doctor.examine(open_stack(home, port_base))):
            raise typer.Exit(1)


@app.command()
def token(
    email: str,
    home: Home = None,
    password: Annotated[str, typer.Option(help="Sign in with this password; a new user gets it.")] = "",
) -> None:
    """Print an access token for a local user, who is made when there is none with this e-mail address."""
    with explained():
        stack = existing_stack(home)
        if not stack.is_up:
            raise LocalStackError("the stack is not up: credoalert up")
        print(access_token(stack.settings, email, password))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context, home: Home = None, port_base: PortBase = None) -> None:
    """Run a command with the stack up; stop the stack afterwards when it was not up before."""
    with explained():
        stack = open_stack(home, port_base)
        was_up = stack.is_up
        with display.progress() as report:
            stack.up(report=report)
        try:
            code = subprocess.run(context.args, check=False).returncode
        finally:
            if not was_up:
                stack.down()
    raise typer.Exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _add_demo() -> None:
    """The demo lives in a package of its own and registers its command itself."""
    if util.find_spec("infra.local.demo") and util.find_spec("infra.local.demo.command"):
        import_module("infra.local.demo.command").register(app)


_add_demo()

if __name__ == "__main__":
    sys.exit(app())
