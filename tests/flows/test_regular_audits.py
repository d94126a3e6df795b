"""The four audits on a stack that has seen incidents: each is held by its deployment, files its report and shows it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from mlrunbook.domain.audits.period import Kind
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.local.platform.predictions import Scored, record
from mlrunbook.store import audits
from tests.flows.live import Live

pytestmark = [pytest.mark.prefect, pytest.mark.stack]


def miss_failures_of_type_h(live: Live) -> None:
    """In weeks that the month's audit looks at, and no baseline of a week does."""
    began = datetime.now(UTC) - timedelta(days=25)
    hours = [began + timedelta(hours=h) for h in range(17 * 24)]
    seen = [Scored(at, f"L{n}", "L", {}, 0.99, outcome=True) for n, at in enumerate(hours)]
    missed = [Scored(at, f"H{n}", "H", {}, 0.01, outcome=True) for n, at in enumerate(hours)]
    with live.store() as conn:
        record(conn, [*seen, *missed], model=MODEL, version="v1.5.0", threshold=0.5, latency_ms=2.0)


@pytest.fixture(scope="module")
def held(live: Live) -> dict[Kind, audits.Filed]:
    """As a person starts them in the UI, all at once."""
    miss_failures_of_type_h(live)
    runs = {kind: live.start(f"{kind}-audit", model=MODEL, up_to_now=True) for kind in Kind}
    for run in runs.values():
        live.wait_until_run_is(run, "COMPLETED")
    with live.store() as conn:
        filed = audits.find(conn, model=MODEL)
    assert sorted(one.kind for one in filed) == sorted(Kind), "each once"
    return {one.kind: one for one in filed}


@pytest.mark.parametrize("kind", list(Kind))
def test_the_run_page_shows_every_line_and_links_the_report(live: Live, held: dict[Kind, audits.Filed], kind: Kind) -> None:
    filed = held[kind]
    shown = live.artifact(f"audit-{kind}-{MODEL}".replace("_", "-"))
    assert len([line for line in shown.splitlines() if line.startswith("| ") and "| Verdict |" not in line]) == len(filed.sections)
    (link,) = re.findall(r"\((http\S+/report)\)", shown)
    page = live.read(link)
    assert page.startswith("<!DOCTYPE html>")
    assert all(str(section["title"]) in page for section in filed.sections)


def test_a_broken_limit_has_opened_or_joined_an_incident_of_its_type_that_a_run_carries(live: Live, held: dict[Kind, audits.Filed]) -> None:
    opened = {i: kind for kind, one in held.items() for i in one.incident_ids}
    for incident_id, kind in opened.items():
        assert live.incident(incident_id).reported_by == f"{kind} audit" or live.said(incident_id, f"Reported again by {kind} audit")
        live.wait(incident_id, "a run has taken it up", lambda i=incident_id: live.said(i, "Severity"))  # type: ignore[misc]
    assert [s["verdict"] for s in held[Kind.MONTHLY].sections if s["key"] == "recall"] == ["fail"]
    assert any(live.incident(i).type == "bias_fairness" for i in opened)
