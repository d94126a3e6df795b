"""The audits' deployments, and what they show on the run page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.server.schemas.schedules import CronSchedule

from mlrunbook.domain.audits.period import Kind, complete
from mlrunbook.domain.audits.section import Verdict
from mlrunbook.store.audits import Filed
from tasks.audits import audit_markdown

PREFECT_YAML = Path(__file__).resolve().parents[2] / "prefect.yaml"
DEPLOYMENTS = {d["name"]: d for d in yaml.safe_load(PREFECT_YAML.read_text())["deployments"]}


@pytest.mark.parametrize("kind", list(Kind))
async def test_each_audit_is_due_once_in_its_period_in_a_zone_that_is_said_after_the_days_it_looks_at(kind: Kind) -> None:
    (schedule,) = DEPLOYMENTS[f"{kind}-audit"]["schedules"]
    assert ZoneInfo(schedule["timezone"])
    cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    due = [at.astimezone(UTC) for at in await cron.get_dates(n=40, start=datetime(2026, 11, 24, tzinfo=UTC))]
    periods = [complete(kind, at) for at in due]
    assert len({p.name for p in periods}) == len(due), "no period twice"
    assert all(after.since == before.until for before, after in pairwise(periods)), "and none left out"
    assert all(timedelta(hours=5) < at - p.until < timedelta(days=2) for at, p in zip(due, periods, strict=True))


def test_what_others_wrote_is_no_markup_on_the_run_page() -> None:
    hostile = "<script>x</script> | [click](javascript:x) `a` ![i](http://x)"
    section = {"key": "alerts", "title": "Open alerts", "verdict": "fail", "sentence": hostile, "change": hostile, "incident_id": None}
    now = datetime(2026, 1, 5, 6, tzinfo=UTC)
    filed = Filed(1, hostile, Kind.WEEKLY, "2026-W01", now, now, now, Verdict.FAIL, [section], "00")
    shown = audit_markdown(filed, "http://gateway/api/v1/audits/1/report")
    row = next(line for line in shown.splitlines() if "Open alerts" in line)
    assert "<script" not in shown
    assert "[click](" not in shown.replace("\\[click\\](", "")
    assert len([c for i, c in enumerate(row) if c == "|" and row[i - 1] != "\\"]) == 6
