"""The rules of the schema hold in the catalog, and each check was seen to fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.database.builders import Sql, values
from tests.database.rules import PREPARE, RULES, Rule

by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))


@pytest.fixture
def rolled_back(sql: Sql) -> Iterator[Sql]:
    """A transaction of which nothing stays."""
    sql.execute("begin")
    yield sql
    sql.execute("rollback")


@by_name
def test_rule_holds(sql: Sql, rule: Rule) -> None:
    broken = values(sql, rule.query)
    assert not broken, f"{rule.name}, but: {', '.join(broken)}. Instead: {rule.instead}"


@by_name
def test_rule_finds_a_violation(rolled_back: Sql, rule: Rule) -> None:
    for violation, preparation in PREPARE.items():
        if rule.violation.startswith(violation):
            rolled_back.execute(preparation.encode())
    rolled_back.execute(rule.violation.encode())
    assert values(rolled_back, rule.query), f"the check does not see: {rule.violation}"


def test_months_around_now_have_partitions(sql: Sql) -> None:
    children = values(
        sql,
        "select c.relname from pg_class c where c.relispartition and c.relkind = 'r' and"
        " c.relname ~ to_char(now() + interval '1 month', '_YYYY_MM')",
    )
    assert len(children) == 2


def test_new_partitions_are_closed_too(rolled_back: Sql) -> None:
    rolled_back.execute("select private.ensure_partitions(now() + interval '9 months')")
    for rule in RULES:
        broken = values(rolled_back, rule.query)
        assert not broken, f"{rule.name}, but: {', '.join(broken)}. Instead: {rule.instead}"
