"""The embedded stack as a whole: what a program gets from it, and how crashes and interruptions end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psycopg
import pytest

from infra.local import process
from infra.local.settings import LocalStackError, write_private
from infra.local.stack import Stack
from tests.support.api import Caller
from tests.support.ports import free_port_base

CREDOALERT = str(Path(sys.executable).with_name("credoalert"))


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own for a test that starts and stops a stack; nothing may be left of it."""
    path = Path(tempfile.mkdtemp(prefix="credoalert-tests-"))
    yield path
    Stack.of(path).down()
    assert _processes_of(path) == []
    shutil.rmtree(path)


def credoalert(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line on a home."""
    return subprocess.run(
        [CREDOALERT, *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_everything_of_a_running_stack_is_well(stack: Stack) -> None:
    stack.check()
    assert [each.name for each in stack.health() if not each.is_healthy] == []


def test_up_prints_what_a_program_needs_and_repeats_it(stack: Stack) -> None:
    # the stack of the session is up already, all but its timer
    parts = "postgres,postgrest,gateway"
    answer = credoalert("up", "--json", "--only", parts, home=stack.settings.home)
    assert answer.returncode == 0, answer.stderr
    summary = json.loads(answer.stdout)
    assert set(summary) == {
        *(
            "api_url",
            "publishable_key",
            "secret_key",
            "db_url",
            "functions_url",
            "carriers_url",
            "s3_url",
            "home",
            "pids",
        )
    }
    assert summary["pids"]["postgres"] == stack.running["postgres"].pid
    with psycopg.connect(summary["db_url"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("postgres",)


def test_status_shows_every_process(stack: Stack) -> None:
    answer = credoalert("status", home=stack.settings.home)
    assert answer.returncode == 0, answer.stdout
    assert all(name in answer.stdout for name in stack.running)


def test_token_signs_a_local_user_in(stack: Stack) -> None:
    made = credoalert("token", "alice@example.com", home=stack.settings.home)
    assert made.returncode == 0, made.stderr
    again = credoalert("token", "Alice@example.com", home=stack.settings.home)
    caller = Caller(stack.settings, stack.settings.secrets.publishable_key, again.stdout.strip())
    user = caller.request("GET", f"{stack.settings.api_url}/auth/v1/user")
    assert (user.status, user.json["email"]) == (200, "alice@example.com")


def test_commands_that_need_a_stack_say_that_there_is_none(home: Path) -> None:
    for command in (["status"], ["down"], ["token", "alice@example.com"]):
        answer = credoalert(*command, home=home / "nothing")
        assert answer.returncode == 1
        assert "there is no stack" in answer.stderr
    assert not (home / "nothing").exists()


def test_home_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    answer = credoalert("up", home=tmp_path)
    assert answer.returncode == 1
    assert "holds other things" in answer.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_stacks_run_side_by_side_and_data_outlives_a_stop(stack: Stack, home: Path) -> None:
    other = Stack.of(home, free_port_base())
    other.up(["postgres"])
    with psycopg.connect(other.settings.db_url) as connection:
        connection.execute("create table private.kept as select 1 as one")
    other.down()
    assert not other.is_up
    stack.check()
    again = Stack.of(home)
    assert again.settings.ports == other.settings.ports
    again.up(["postgres"])
    with psycopg.connect(again.settings.db_url) as connection:
        assert connection.execute("select one from private.kept").fetchone() == (1,)


def test_taken_port_is_named_with_the_option_to_change(stack: Stack, home: Path) -> None:
    answer = credoalert("up", "--port-base", str(stack.settings.ports.base), home=home)
    assert answer.returncode == 1
    assert "--port-base" in answer.stderr
    assert "is taken" in answer.stderr


def test_crash_is_reported_with_the_log_and_mended_by_up(home: Path) -> None:
    other = Stack.of(home, free_port_base())
    other.up(["auth", "postgres"])
    other.kill("auth")
    with pytest.raises(LocalStackError, match=r"auth has died(.|\n)*auth\.log"):
        other.check()
    answer = credoalert("status", home=home)
    assert answer.returncode == 1
    assert "auth has died" in answer.stderr
    other.up(["auth"])
    other.check()


def test_down_stops_what_the_stack_of_today_no_longer_knows(home: Path) -> None:
    Stack.of(home, free_port_base()).up(["carriers"])
    retired = process.Component("retired", ["sleep", "60"], None, lambda: True)
    running = process.start(retired, home / "logs" / "retired.log", mark=str(home))
    state = json.loads((home / "stack.json").read_text())
    state["running"].append(asdict(running))
    write_private(home / "stack.json", json.dumps(state))
    Stack.of(home).down()
    assert not running.is_alive


def test_database_survives_a_crash(home: Path) -> None:
    other = Stack.of(home, free_port_base())
    other.up(["postgres"])
    with psycopg.connect(other.settings.db_url) as connection:
        connection.execute("create table private.kept as select 1 as one")
    other.kill("postgres")
    other.restart("postgres")
    with psycopg.connect(other.settings.db_url) as connection:
        assert connection.execute("select one from private.kept").fetchone() == (1,)


def test_component_that_can_not_start_is_shown_with_its_log_and_nothing_stays(home: Path) -> None:
    other = Stack.of(home, free_port_base())
    other.up(["postgres"])
    other.down()
    (other.settings.data / "PG_VERSION").write_text("16\n")
    with pytest.raises(LocalStackError, match=r"postgres died(.|\n)*not compatible"):
        other.up(["carriers", "postgres"])
    assert not other.is_up
    assert _processes_of(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.2, 1.6])
def test_interrupted_start_leaves_no_process(home: Path, number: int, seconds: float) -> None:
    base = free_port_base()
    command = [CREDOALERT, "up", "--home", str(home), "--port-base", str(base)]
    starting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(seconds)
    starting.send_signal(number)
    output, _ = starting.communicate(timeout=60)
    if starting.returncode != 0:  # a quick machine may have finished before
        assert _processes_of(home) == [], output
        assert not Stack.of(home).is_up


@pytest.mark.parametrize("count", [1, 3])
def test_killed_start_is_cleared_by_down(home: Path, count: int) -> None:
    command = [CREDOALERT, "up", "--home", str(home), "--port-base", str(free_port_base())]
    starting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while len(Stack.of(home).running) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    starting.kill()
    starting.wait()
    assert credoalert("down", home=home).returncode == 0
    assert _processes_of(home) == []


def test_run_starts_and_stops_the_stack_around_a_command(home: Path) -> None:
    base = str(free_port_base())
    answer = subprocess.run(
        [
            CREDOALERT,
            "run",
            "--home",
            str(home),
            "--port-base",
            base,
            "--",
            "sh",
            "-c",
            "echo inside; exit 7",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (answer.returncode, answer.stdout) == (7, "inside\n"), answer.stderr
    assert _processes_of(home) == []


def test_stranger_with_a_recycled_process_id_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        recycled = process.Running("auth", stranger.pid, "another birth", None, 0.0)
        assert not recycled.is_alive
        process.stop(recycled)
        process.kill(recycled)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_secrets_are_for_their_owner_alone(stack: Stack) -> None:
    for name in ("secrets.json", "stack.json", "postgrest.conf", "gateway.conf"):
        mode = (stack.settings.home / name).stat().st_mode & 0o777
        assert mode == 0o600, f"{name} has mode {mode:o}"
    assert stack.settings.data.stat().st_mode & 0o777 == 0o700


def test_doctor_finds_nothing_to_do_beside_a_running_stack(stack: Stack) -> None:
    answer = credoalert("doctor", home=stack.settings.home)
    assert answer.returncode == 0, answer.stderr


def _processes_of(home: Path) -> list[int]:
    return process.marked(str(home), home)
