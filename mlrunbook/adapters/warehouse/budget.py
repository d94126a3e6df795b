"""What one look may read, asked before it reads: by the statistics of the files or of the planner, which cost next to nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlrunbook.adapters.warehouse.connection import POSTGRES, Look
from mlrunbook.adapters.warehouse.mapping import Log
from mlrunbook.adapters.warehouse.values import Period
from mlrunbook.domain.errors import Refused

if TYPE_CHECKING:
    import ibis.expr.types as ir


LONG = 500_000


def check(look: Look, log: Log, period: Period) -> bool:
    """Whether it is LONG; Refused where the days of a look hold more rows than policy allows."""
    rows = sum(_rows(look, table) for table in log.touched(period))
    if rows > log.part.most_rows:
        raise Refused(
            f"{look.connection}: a look at {period.since:%d %b %H:%M} to {period.until:%d %b %H:%M} UTC would read {rows:,} rows, "
            f"more than predictions.most_rows ({log.part.most_rows:,}); name `columns.day` and `outcomes.day`, or raise it"
        )
    return rows > LONG


def _rows(look: Look, table: ir.Table) -> int:
    if look.dialect == POSTGRES:
        (row,) = look.fetch(f"EXPLAIN (FORMAT JSON) {look.backend.compile(table)}")
        plan = row["QUERY PLAN"]
        return int((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])
    (counted,) = look.rows(table.count().name("n").as_table())
    return int(counted["n"])
