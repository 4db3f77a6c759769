"""The lines of Python in the README run as they stand, on this session's stack, and the person is reached."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.local.stack import Stack
from tests.support.scene import make_scene

ROOT = Path(__file__).parents[2]
START = 'subprocess.check_output([".venv/bin/credoalert", "up", "--json"])'


def test_the_walk_by_hand_sends_and_reports(stack: Stack, sql: Any) -> None:
    make_scene(stack.settings, sql, 1)  # senders at full pace
    [lines] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert START in lines
    lines = lines.replace(START, repr(json.dumps(stack.summary())))
    ran = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("202 ")
    assert "'planned': 2" in ran.stdout
    assert "delivered" in ran.stdout.splitlines()[-1]
