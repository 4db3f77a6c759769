"""What each function imports before its first request: the set of packages, because milliseconds vary and sets do not.

A package here costs every cold start. Import it where it is used, inside the function that needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.functions.environment import COMPLETE
from tests.house.imports import ROOT

# what functions-framework itself loads is not ours to choose, and does not count
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"}

EXPECTED = {
    "functions.send_alert": PYDANTIC,
    "functions.delivery_webhook": {"twilio", "standardwebhooks"},
    "functions.dispatch_deliveries": set(),
}
DEAR = {
    "aiohttp",
    "httpx",
    "postgrest",
    "supabase",
    "twilio",
    "resend",
    "stripe",
    "boto3",
    "jwt",
    "cryptography",
}

SCRIPT = """
import json, sys
import flask, functions_framework
before = {name.partition(".")[0] for name in sys.modules}
import importlib
module = importlib.import_module(sys.argv[1])
if sys.argv[2:]:
    module.create(json.loads(sys.argv[2]))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} - before)))
"""


def _imported(*arguments: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = set(json.loads(ran.stdout))
    return {
        one for one in found if one not in sys.stdlib_module_names and not one.startswith(("_", "shared"))
    }


@pytest.mark.parametrize("function", EXPECTED)
def test_a_function_imports_exactly_what_it_needs_to_start(function: str) -> None:
    found = _imported(f"{function}.endpoints", json.dumps(COMPLETE)) - {"functions"}
    more, less = sorted(found - EXPECTED[function]), sorted(EXPECTED[function] - found)
    assert not more, f"{function} now imports {more} at its start: import it where it is used"
    assert not less, f"{function} no longer imports {less}: take it out of EXPECTED"


@pytest.mark.parametrize(
    "module", ["shared.web", "shared.database", "shared.auth", "shared.signatures", "shared.contacts"]
)
def test_no_door_imports_an_sdk_at_its_start(module: str) -> None:
    found = _imported(module)
    assert not found & DEAR, (
        f"{module} imports {sorted(found & DEAR)} at its start: import it where it is used"
    )
