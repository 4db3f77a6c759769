"""What is set for the run and put back afterwards: the senders' pace and the carriers' faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.local.carriers.client import Carriers
from infra.local.demo.evidence import Connection
from infra.local.demo.options import Faults

SEGMENTS_PER_SECOND = 100_000


@contextmanager
def full_pace(sql: Connection) -> Iterator[None]:
    """Every sender as fast as it can: the cautious defaults (1 call/s) would take hours."""
    before = sql.execute("select channel, segments_per_second, burst from private.senders").fetchall()
    sql.execute(
        "update private.senders set segments_per_second = %(pace)s, burst = %(pace)s, tokens = %(pace)s, "
        "halted_until = '-infinity'",
        {"pace": SEGMENTS_PER_SECOND},
    )
    try:
        yield
    finally:
        for channel, pace, burst in before:
            sql.execute(
                "update private.senders set segments_per_second = %s, burst = %s, tokens = least(tokens, %s) "
                "where channel = %s",
                (pace, burst, burst, channel),
            )


@contextmanager
def carriers_with(carriers: Carriers, faults: Faults, seed: int) -> Iterator[None]:
    """The carriers under a preset, their chance begun anew; every knob as it was afterwards."""
    before = carriers.knobs()
    carriers.knobs(preset=faults.value, seed=seed)
    try:
        yield
    finally:
        carriers.knobs(**before)
