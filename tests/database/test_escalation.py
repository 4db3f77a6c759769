"""Roles are granted from above only, invitations bind and end, and an organisation always has an owner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.builders import Connect, Organisation, Sql, act_as, new_user, refused, value, values


def role_of(organisation: Organisation, user_id: UUID) -> str | None:
    role: str | None = value(
        organisation.sql,
        "select role::text from public.memberships where organisation_id = %s and user_id = %s",
        organisation.id, user_id,
    )  # fmt: skip
    return role


def invite(organisation: Organisation, email: str, role: str = "viewer", inviter: UUID | None = None) -> str:
    token: str = organisation.call("invite_member", email, role, caller=inviter)["token"]
    return token


def accept(sql: Sql, user_id: UUID, email: str, token: str) -> None:
    act_as(sql, user_id, email)
    sql.execute("select public.accept_invitation(%s)", (token,))


def test_invitation_makes_a_member_once(organisation: Organisation, sql: Sql) -> None:
    alice, bob = new_user(sql), new_user(sql)
    token = invite(organisation, "Alice@Example.com", "sender")
    accept(sql, alice, "alice@example.com", token)
    assert role_of(organisation, alice) == "sender"
    with refused(404, "invitation_not_found"):
        accept(sql, bob, "alice@example.com", token)
    assert role_of(organisation, bob) is None


def test_only_the_hash_of_a_token_is_kept(organisation: Organisation, sql: Sql) -> None:
    token = invite(organisation, "alice@example.com")
    kept = value(sql, "select i::text from public.invitations i where organisation_id = %s", organisation.id)
    assert token not in kept
    assert token.encode().hex() not in kept


def test_invitation_is_bound_to_its_email(organisation: Organisation, sql: Sql) -> None:
    charlie = new_user(sql)
    token = invite(organisation, "alice@example.com")
    for email in ("charlie@example.com", ""):
        with refused(404, "invitation_not_found"):
            accept(sql, charlie, email, token)
    assert role_of(organisation, charlie) is None


@pytest.mark.parametrize(
    "end", ["expires_at = now() - interval '1 second'", "revoked_at = now()", "accepted_at = now()"]
)
def test_invitation_that_ended_looks_unknown(organisation: Organisation, sql: Sql, end: str) -> None:
    token = invite(organisation, "alice@example.com")
    sql.execute(
        f"update public.invitations set {end} where organisation_id = %s".encode(), (organisation.id,)
    )
    with refused(404, "invitation_not_found"):
        accept(sql, new_user(sql), "alice@example.com", token)


def test_invitation_lasts_three_days(organisation: Organisation, sql: Sql) -> None:
    invite(organisation, "alice@example.com")
    hours = "select extract(epoch from expires_at - now()) / 3600 from public.invitations where organisation_id = %s"
    assert 71.9 < value(sql, hours, organisation.id) <= 72


def test_revoked_invitation_admits_nobody(organisation: Organisation, sql: Sql) -> None:
    answer = organisation.call("invite_member", "alice@example.com", "viewer")
    organisation.call("revoke_invitation", UUID(answer["invitation_id"]))
    with refused(404, "invitation_not_found"):
        accept(sql, new_user(sql), "alice@example.com", answer["token"])


@pytest.mark.parametrize("change", ["role = 'viewer'", "role = 'sender'"])
def test_invitation_falls_with_the_rights_of_its_inviter(
    organisation: Organisation, sql: Sql, change: str
) -> None:
    admin, alice = organisation.join("admin"), new_user(sql)
    token = invite(organisation, "alice@example.com", "admin", inviter=admin)
    sql.execute(f"update public.memberships set {change} where user_id = %s".encode(), (admin,))
    with refused(404, "invitation_not_found"):
        accept(sql, alice, "alice@example.com", token)
    assert role_of(organisation, alice) is None


def test_invitation_falls_with_the_departure_of_its_inviter(organisation: Organisation, sql: Sql) -> None:
    admin = organisation.join("admin")
    token = invite(organisation, "alice@example.com", inviter=admin)
    sql.execute("delete from public.memberships where user_id = %s", (admin,))
    with refused(404, "invitation_not_found"):
        accept(sql, new_user(sql), "alice@example.com", token)


def test_invitation_never_changes_the_role_of_a_member(organisation: Organisation, sql: Sql) -> None:
    viewer = organisation.join("viewer")
    accept(sql, viewer, "viewer@example.com", invite(organisation, "viewer@example.com", "admin"))
    assert role_of(organisation, viewer) == "viewer"
    accept(sql, organisation.owner, "owner@example.com", invite(organisation, "owner@example.com", "viewer"))
    assert role_of(organisation, organisation.owner) == "owner"


def test_nobody_invites_an_owner(organisation: Organisation) -> None:
    for inviter in (organisation.owner, organisation.join("admin")):
        with refused(403, "owner_only_by_transfer"):
            invite(organisation, "alice@example.com", "owner", inviter)


def test_nobody_grants_above_their_own_rank(organisation: Organisation, sql: Sql) -> None:
    # today only owners and admins manage members: rank holds whoever else may be given the permission
    sql.execute("begin")
    sql.execute("insert into private.role_permissions (role, permission) values ('sender', 'members.manage')")
    sender = organisation.join("sender")
    with refused(403, "rank_too_low"):
        invite(organisation, "alice@example.com", "admin", sender)
    sql.execute("rollback")


def test_role_is_needed(organisation: Organisation) -> None:
    with refused(422, "role_missing"):
        organisation.call("invite_member", "alice@example.com", None)
    with refused(422, "role_missing"):
        organisation.call("change_member_role", organisation.join("viewer"), None)


def test_nobody_promotes_to_owner_or_demotes_one(organisation: Organisation) -> None:
    admin = organisation.join("admin")
    for caller in (admin, organisation.owner):
        with refused(403, "owner_only_by_transfer"):
            organisation.call("change_member_role", admin, "owner", caller=caller)
        with refused(403, "owner_only_by_transfer"):
            organisation.call("change_member_role", organisation.owner, "viewer", caller=caller)
    with refused(403, "owner_only_by_transfer"):
        organisation.call("remove_member", organisation.owner, caller=admin)
    assert (role_of(organisation, admin), role_of(organisation, organisation.owner)) == ("admin", "owner")


def test_member_of_another_organisation_is_not_found(organisation: Organisation, sql: Sql) -> None:
    stranger = Organisation.make(sql).owner
    for operation, more in (
        ("change_member_role", ["viewer"]),
        ("remove_member", []),
        ("transfer_organisation", []),
    ):
        with refused(404, "member_not_found"):
            organisation.call(operation, stranger, *more)


def test_member_leaves_alone_but_removes_nobody(organisation: Organisation) -> None:
    viewer, sender = organisation.join("viewer"), organisation.join("sender")
    with refused(403, "permission_missing"):
        organisation.call("remove_member", sender, caller=viewer)
    organisation.call("remove_member", viewer, caller=viewer)
    assert role_of(organisation, viewer) is None


def test_last_owner_stays(organisation: Organisation, sql: Sql) -> None:
    with refused(409, "last_owner"):
        organisation.call("remove_member", organisation.owner)
    with refused(409, "last_owner"):
        sql.execute("update public.memberships set role = 'admin' where user_id = %s", (organisation.owner,))
    with refused(409, "last_owner"):
        sql.execute("delete from auth.users where id = %s", (organisation.owner,))
    assert role_of(organisation, organisation.owner) == "owner"


def test_organisation_goes_with_its_last_owner_in_it(organisation: Organisation, sql: Sql) -> None:
    sql.execute("delete from public.organisations where id = %s", (organisation.id,))
    assert role_of(organisation, organisation.owner) is None


def test_transfer_makes_the_new_owner_and_an_admin_of_the_old(organisation: Organisation) -> None:
    admin = organisation.join("admin")
    with refused(403, "owner_needed"):
        organisation.call("transfer_organisation", organisation.join("viewer"), caller=admin)
    with refused(422, "transfer_to_self"):
        organisation.call("transfer_organisation", organisation.owner)
    organisation.call("transfer_organisation", admin)
    assert (role_of(organisation, admin), role_of(organisation, organisation.owner)) == ("owner", "admin")
    with refused(403, "owner_needed"):
        organisation.call("transfer_organisation", organisation.owner)


def at_once(*works: tuple[Sql, bytes, tuple[object, ...]]) -> list[str | None]:
    """Runs statements at the same time; the code of each one's refusal."""

    def run(work: tuple[Sql, bytes, tuple[object, ...]]) -> str | None:
        connection, query, parameters = work
        try:
            connection.execute(query, parameters)
        except psycopg.Error as error:
            return error.diag.message_primary
        return None

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


@pytest.mark.parametrize(
    "leave",
    [
        b"delete from public.memberships where user_id = %s",
        b"update public.memberships set role = 'viewer' where user_id = %s",
    ],
)
def test_two_owners_can_not_leave_at_once(organisation: Organisation, connect: Connect, leave: bytes) -> None:
    for _ in range(5):
        second = organisation.join("owner")
        owners = [organisation.owner, second]
        refusals = at_once(*[(connect(), leave, (owner,)) for owner in owners])
        assert sorted(map(str, refusals)) == ["None", "last_owner"]
        query = "select user_id from public.memberships where organisation_id = %s and role = 'owner'"
        left = values(organisation.sql, query, organisation.id)
        assert len(left) == 1
        organisation.owner = left[0]


def test_two_transfers_at_once_make_one_owner(organisation: Organisation, connect: Connect) -> None:
    for _ in range(5):
        heirs = [organisation.join("admin"), organisation.join("admin")]
        connections = [connect(), connect()]
        for each in connections:
            act_as(each, organisation.owner)
        transfer = b"select public.transfer_organisation(%s, %s)"
        refusals = at_once(
            *[(c, transfer, (organisation.id, h)) for c, h in zip(connections, heirs, strict=True)]
        )
        query = "select user_id from public.memberships where organisation_id = %s and role = 'owner'"
        owners = values(organisation.sql, query, organisation.id)
        assert len(owners) == 1, refusals
        organisation.owner = owners[0]


def test_organisation_is_made_once(sql: Sql) -> None:
    organisation = Organisation.make(sql)
    again = organisation.call("create_organisation", "Other name", "FR", "fr", "Europe/Paris")
    assert again == {"organisation_id": str(organisation.id)}
    assert value(sql, "select name from public.organisations where id = %s", organisation.id) == "A school"
    with refused(409, "organisation_id_unusable"):
        organisation.call("create_organisation", "Mine", "FR", "fr", "Europe/Paris", caller=new_user(sql))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "a\nb"}, "name_invalid"), ({"name": ""}, "name_invalid"), ({"name": None}, "name_invalid"),
        ({"country": "fr"}, "locale_invalid"), ({"language": None}, "locale_invalid"), ({"zone": "Paris"}, "time_zone_unknown"),
    ],
)  # fmt: skip
def test_organisation_of_bad_values_is_refused(sql: Sql, change: dict[str, str], code: str) -> None:
    given = {"name": "A", "country": "FR", "language": "fr", "zone": "Europe/Paris", **change}
    with refused(422, code):
        Organisation(sql, uuid4(), new_user(sql)).call("create_organisation", *given.values())
