"""Operation x role x {own, other, none}: allowed, 403 without the permission, 404 outside, 401 without an identity."""

from __future__ import annotations

import pytest

from infra.local.settings import Settings
from tests.database.builders import Json, Sql, values
from tests.database.matrix import OPEN_OPERATIONS, OPERATIONS, SERVICE_OPERATIONS, World
from tests.support.api import Caller

every_operation = pytest.mark.parametrize("operation", OPERATIONS)
every_service_operation = pytest.mark.parametrize("operation", SERVICE_OPERATIONS)


@pytest.fixture(scope="module")
def _world() -> list[World]:
    return []


@pytest.fixture
def world(settings: Settings, sql: Sql, _world: list[World]) -> World:
    if not _world:
        _world.append(World.make(settings, sql))
    return _world[0]


def outcome(caller: Caller, operation: str, arguments: Json) -> tuple[int, str]:
    """The status and the code of the refusal, or an empty one."""
    reply = caller.rpc(operation, **arguments)
    return reply.status, reply.json.get("message", "") if isinstance(reply.json, dict) else ""


def test_matrix_knows_every_operation(sql: Sql) -> None:
    found = set(values(sql, "select proname::text from pg_proc where pronamespace = 'public'::regnamespace"))
    assert found == {*OPERATIONS, *OPEN_OPERATIONS, *SERVICE_OPERATIONS}, (
        "say in tests/database/matrix.py which permission the new operation needs"
    )


@every_operation
def test_member_may_what_the_role_says(world: World, operation: str) -> None:
    permission, arguments = OPERATIONS[operation]
    own = {"p_organisation_id": str(world.own.id), **arguments}
    for role, member in world.members.items():
        status, code = outcome(member, operation, own)
        if world.permits(role, permission):
            # past the door: these arguments are refused for what they say
            assert (status, code) != (403, "permission_missing"), role
            assert code != "organisation_not_found", role
            assert status in {404, 422} or (status, code) == (403, "owner_needed"), (role, status, code)
        else:
            assert (status, code) == (403, "permission_missing"), role


@every_operation
def test_organisation_of_others_does_not_exist(world: World, operation: str) -> None:
    arguments = {"p_organisation_id": str(world.other.id), **OPERATIONS[operation][1]}
    for role, member in world.members.items():
        assert outcome(member, operation, arguments) == (404, "organisation_not_found"), role
    arguments["p_organisation_id"] = str(world.own.id)
    for name, caller in world.outsiders.items():
        assert outcome(caller, operation, arguments) == (404, "organisation_not_found"), name


@pytest.mark.parametrize("operation", [*OPERATIONS, *OPEN_OPERATIONS, *SERVICE_OPERATIONS])
def test_operation_without_an_identity_is_401(world: World, operation: str) -> None:
    if operation in OPERATIONS:
        arguments = {"p_organisation_id": str(world.own.id), **OPERATIONS[operation][1]}
    else:
        arguments = (OPEN_OPERATIONS | SERVICE_OPERATIONS)[operation]
    found = {name: outcome(caller, operation, arguments)[0] for name, caller in world.refused.items()}
    assert set(found.values()) == {401}, found


@pytest.mark.parametrize("operation", OPEN_OPERATIONS)
def test_anybody_who_signed_in_may_call_open_operations(world: World, operation: str) -> None:
    for name, caller in {**world.members, **world.outsiders}.items():
        assert outcome(caller, operation, OPEN_OPERATIONS[operation])[0] in {404, 422}, name


@every_service_operation
def test_service_operation_is_closed_to_members(world: World, operation: str) -> None:
    for name, caller in {**world.members, **world.outsiders}.items():
        assert outcome(caller, operation, SERVICE_OPERATIONS[operation])[0] == 403, name


@every_service_operation
def test_service_operation_is_open_to_the_service(world: World, service: Caller, operation: str) -> None:
    assert outcome(service, operation, SERVICE_OPERATIONS[operation])[0] in {200, 422}


@pytest.mark.parametrize("operation", [*OPERATIONS, *OPEN_OPERATIONS])
def test_service_has_no_members_operations(world: World, service: Caller, operation: str) -> None:
    arguments = (
        {"p_organisation_id": str(world.own.id), **OPERATIONS[operation][1]}
        if operation in OPERATIONS
        else (OPEN_OPERATIONS[operation])
    )
    assert outcome(service, operation, arguments)[0] == 403


def test_service_reads_no_table(world: World, service: Caller) -> None:
    for table in ("contacts", "alerts", "deliveries", "credit_ledger"):
        assert service.get(table, select="organisation_id").status == 403
