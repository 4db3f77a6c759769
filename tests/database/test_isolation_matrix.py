"""Role x table x verb x {own, other}: what members of every role, outsiders and strangers get through PostgREST."""

from __future__ import annotations

from uuid import uuid4

import pytest

from infra.local.settings import Settings
from tests.database.builders import Organisation, Sql, new_phone, value, values
from tests.database.matrix import TABLES, TENANT_COLUMN, VERBS, World, change, insertable, rows_of
from tests.support.api import Caller, Reply

every_table = pytest.mark.parametrize("table", TABLES)
Found = list[tuple[str, str, int, int]]


@pytest.fixture(scope="module")
def _world() -> list[World]:
    return []


@pytest.fixture
def world(settings: Settings, sql: Sql, _world: list[World]) -> World:
    if not _world:
        _world.append(World.make(settings, sql))
    return _world[0]


def attempt(
    caller: Caller, verb: str, table: str, organisation: Organisation, row_key: str | None = None
) -> Reply:
    """One verb on the rows of one organisation."""
    column = TENANT_COLUMN.get(table, "organisation_id")
    where = {} if column == "version" else {column: f"eq.{organisation.id}"}
    if row_key:
        where["contact_id" if table in {"group_members", "addresses"} else "id"] = f"eq.{row_key}"
    if verb == "select":
        return caller.get(table, select=column, **where)
    if verb == "insert":
        return caller.post(table, insertable(organisation, table), select=column)
    if verb == "update":
        return caller.patch(table, change(organisation, table), **{**where, "select": column})
    return caller.delete(table, **{**(where or {"version": "gt.0"}), "select": column})


def spare_row(organisation: Organisation, table: str) -> str | None:
    """A row to be deleted, or to be left alone; None in tables of which nobody deletes."""
    contact = organisation.contact(new_phone())
    match table:
        case "contacts" | "addresses":
            return str(contact)
        case "groups":
            return str(organisation.group([]))
        case "group_members":
            organisation.group([contact])
            return str(contact)
    return None


def count(reply: Reply) -> int:
    return len(reply.json) if reply.status < 300 and isinstance(reply.json, list) else 0


def expected(world: World, role: str, verb: str, table: str, organisation: Organisation) -> tuple[int, bool]:
    """The status, and whether rows come back, for a member of `own` with this role (or for no role of it)."""
    permission = TABLES[table].get(verb)
    if permission is None:
        return 403, False
    may = world.permits(role, permission) and (
        organisation is world.own or TENANT_COLUMN.get(table) == "version"
    )
    if verb == "insert":
        return (201, True) if may else (403, False)
    own_row = table == "memberships" and role in world.members and organisation is world.own
    return 200, may or own_row


def test_matrix_knows_every_table(sql: Sql) -> None:
    assert set(TABLES) == set(
        values(
            sql,
            "select relname::text from pg_class where relnamespace = 'public'::regnamespace"
            " and relkind in ('r', 'p', 'v', 'm') and not relispartition",
        )
    ), "say in tests/database/matrix.py which permission each verb on the new table needs"


@every_table
@pytest.mark.parametrize("verb", VERBS)
def test_members_do_what_their_role_says_in_their_own_organisation_only(
    world: World, table: str, verb: str
) -> None:
    wrong: list[str] = []
    for role, member in world.members.items():
        for place, organisation in (("own", world.own), ("other", world.other)):
            key = spare_row(organisation, table) if verb in {"update", "delete"} else None
            untouched = rows_of(world.sql, table, world.other)
            reply = attempt(member, verb, table, organisation, key)
            status, with_rows = expected(world, role, verb, table, organisation)
            if (reply.status, count(reply) > 0) != (status, with_rows):
                wrong.append(
                    f"{role} {verb} {place}: {reply.status} with {count(reply)} rows, wanted {status} {with_rows}"
                )
            if organisation is world.other and rows_of(world.sql, table, world.other) != untouched:
                wrong.append(f"{role} changed {table} of the other organisation")
    assert not wrong


@every_table
@pytest.mark.parametrize("verb", VERBS)
def test_people_of_elsewhere_find_nothing(world: World, table: str, verb: str) -> None:
    before = rows_of(world.sql, table, world.own)
    for name, caller in world.outsiders.items():
        reply = attempt(caller, verb, table, world.own)
        status, _ = expected(world, "of elsewhere", verb, table, world.own)
        seen = TABLES[table].get(verb) == "signed in"
        assert (reply.status, count(reply) > 0) == (status, seen), (name, reply)
    # the rows that an insert would have needed were made by this test
    if verb != "insert" or table not in {"contacts", "groups"}:
        assert rows_of(world.sql, table, world.own) == before


@every_table
@pytest.mark.parametrize("verb", VERBS)
def test_without_an_identity_everything_is_401(world: World, table: str, verb: str) -> None:
    found = {name: attempt(caller, verb, table, world.own).status for name, caller in world.refused.items()}
    assert set(found.values()) == {401}, found


@every_table
def test_every_row_that_a_member_sees_is_of_their_organisation(world: World, table: str) -> None:
    column = TENANT_COLUMN.get(table, "organisation_id")
    if column == "version":
        return
    for role, member in world.members.items():
        reply = member.get(table, select=column)
        assert {row[column] for row in reply.json} <= {str(world.own.id)}, role


@pytest.mark.parametrize("table", ["organisations", "contacts", "addresses"])
def test_change_without_a_filter_stays_at_home(world: World, table: str) -> None:
    untouched = rows_of(world.sql, table, world.other)
    own = value(
        world.sql,
        f"select count(*) from public.{table} where {TENANT_COLUMN.get(table, 'organisation_id')} = %s",
        world.own.id,
    )
    reply = world.members["admin"].patch(
        table, change(world.own, table), select=TENANT_COLUMN.get(table, "organisation_id")
    )
    assert (reply.status, count(reply)) == (200, own)
    assert rows_of(world.sql, table, world.other) == untouched


@pytest.mark.parametrize("table", ["contacts", "addresses", "groups", "group_members"])
def test_delete_without_a_filter_stays_at_home(settings: Settings, sql: Sql, table: str) -> None:
    world = World.make(settings, sql)
    untouched = rows_of(sql, table, world.other)
    reply = world.members["sender"].delete(table, select="organisation_id")
    assert reply.status == 200
    assert count(reply) > 0
    assert rows_of(sql, table, world.own)[0] == 0
    assert rows_of(sql, table, world.other) == untouched


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("contacts", {"organisation_id": str(uuid4())}),
        ("contacts", {"id": str(uuid4())}),
        ("contacts", {"created_at": "2020-01-01"}),
        ("contacts", {"restricted_at": None}),
        ("addresses", {"contact_id": str(uuid4())}),
        ("addresses", {"destination_hash": "\\x00"}),
        ("addresses", {"country": "US"}),
        ("groups", {"organisation_id": str(uuid4())}),
        ("organisations", {"max_recipients": 1_000_000}),
        ("organisations", {"id": str(uuid4())}),
        ("memberships", {"role": "owner"}),
        ("credit_accounts", {"available": 1_000_000}),
        ("alerts", {"state": "completed"}),
        ("deliveries", {"state": "planned"}),
    ],
)
def test_owner_can_not_write_what_only_operations_write(
    world: World, table: str, change: dict[str, object]
) -> None:
    column = TENANT_COLUMN.get(table, "organisation_id")
    before = rows_of(world.sql, table, world.own)
    reply = world.members["owner"].patch(table, change, **{column: f"eq.{world.own.id}", "select": column})
    assert reply.status == 403
    assert rows_of(world.sql, table, world.own) == before


def test_row_can_not_point_at_another_organisation(world: World) -> None:
    theirs = world.other.contact()
    owner = world.members["owner"]
    group = world.own.group([])
    link = {"organisation_id": str(world.own.id), "group_id": str(group), "contact_id": str(theirs)}
    assert owner.post("group_members", link).status == 409
    address = {
        "organisation_id": str(world.own.id),
        "contact_id": str(theirs),
        "kind": "phone",
        "value": new_phone(),
    }
    assert owner.post("addresses", address).status == 409
    assert value(world.sql, "select count(*) from public.addresses where contact_id = %s", theirs) == 0


@pytest.mark.parametrize("table", ["role_permissions", "organisation_keys", "receipts", "queues", "leases"])
def test_schema_private_is_no_part_of_the_api(world: World, table: str) -> None:
    for caller in (*world.members.values(), *world.outsiders.values()):
        assert caller.get(table, select="*").status == 404
        profile = {"Accept-Profile": "private"}
        url = f"{caller.settings.api_url}/rest/v1/{table}"
        assert caller.request("GET", url, headers=profile).status == 406


def test_removed_member_is_out_at_once(settings: Settings, sql: Sql) -> None:
    world = World.make(settings, sql)
    viewer = world.members["viewer"]
    assert count(viewer.get("contacts", select="id")) > 0
    sql.execute("delete from public.memberships where user_id = %s", (viewer.id,))
    assert count(viewer.get("contacts", select="id")) == 0
