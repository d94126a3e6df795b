"""A model's known outcomes by block of time and by asset, counted by PostgreSQL in one statement."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import floor

from sqlalchemy import Connection, text

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.outcome_blocks import MOST_BLOCKS, OutcomeBlocks
from mlrunbook.domain.tally import Confusion
from mlrunbook.local.platform import change_log

MOST_ASSETS = 5000  # of more, some are counted together: they stay apart from the others

# One row a block that holds an outcome, and one an asset.
_BLOCKS = """
    SELECT t.block, t.asset, GROUPING(t.block) = 0 AS is_block,
        count(*) FILTER (WHERE t.label AND t.outcome) AS tp, count(*) FILTER (WHERE t.label AND NOT t.outcome) AS fp,
        count(*) FILTER (WHERE NOT t.label AND t.outcome) AS fn, count(*) FILTER (WHERE NOT t.label AND NOT t.outcome) AS tn
    FROM (
        SELECT CAST(floor(extract(epoch FROM p.at - CAST(:since AS timestamptz)) / :block_s) AS integer) AS block,
            abs(mod(hashtextextended(p.asset_id, 0), :most_assets)) AS asset, p.label, p.outcome
        FROM platform.predictions p
        WHERE p.model = :model AND p.at >= :since AND p.at < :until AND p.outcome IS NOT NULL {version}
    ) AS t GROUP BY GROUPING SETS ((t.block), (t.asset)) ORDER BY t.block, t.asset
"""


def of_model(
    conn: Connection, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None
) -> OutcomeBlocks:
    """The whole blocks of [since, until), of one version where given. NotFound for an unknown model; Invalid for too many blocks."""
    change_log.find(conn, model)
    count = floor((until - since).total_seconds() / block_s + 1e-9)
    if count < 0:
        raise Invalid(f"since ({since.isoformat()}) must not be after until ({until.isoformat()})", field="since")
    if count > MOST_BLOCKS:
        raise Invalid(f"{count} blocks of {block_s:g} s; {MOST_BLOCKS} at most: ask for longer blocks or a shorter time", field="blockS")
    ends = since + timedelta(seconds=count * block_s)
    asked = {"model": model, "since": since, "until": ends, "block_s": block_s, "version": version, "most_assets": MOST_ASSETS}
    of_version = "AND p.version = :version" if version is not None else ""
    rows = conn.execute(text(_BLOCKS.format(version=of_version)), asked).mappings().all()
    counted = [(r["is_block"], r["block"], Confusion(tp=r["tp"], fp=r["fp"], fn=r["fn"], tn=r["tn"])) for r in rows]
    by_block = {block: counts for is_block, block, counts in counted if is_block}
    blocks = tuple(by_block.get(k, Confusion()) for k in range(count))
    return OutcomeBlocks(since, block_s, blocks, tuple(counts for is_block, _, counts in counted if not is_block))
