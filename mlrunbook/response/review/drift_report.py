"""The HTML drift report, kept with the evidence after resolution. Never on the way to containment: drawing takes seconds."""

from __future__ import annotations

from datetime import datetime

from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.evaluation.drift import DriftVerdict
from mlrunbook.domain.evaluation.prediction_rows import drift_between, feature_columns, in_time_order
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.domain.review.review import DriftReport
from mlrunbook.response.measurement import metrics
from mlrunbook.response.run import Run
from mlrunbook.store import evidence

NAME = "drift-report.html"
ROWS = 10_000  # of the prediction log, of each side: the most the platform gives at once


def keep(run: Run) -> str | None:
    """The name of the report in the evidence, drawn once; None when it could not be drawn, which is a note on the timeline and no more."""
    if standing := run.recall(DriftReport):
        return standing.name
    try:
        verdict, content = _drawn(run)
    except Exception as error:  # whatever it is: the incident is over and must not be held open by a picture
        why = str(error) if isinstance(error, RunbookError) else f"{type(error).__name__}: {error}"
        with run.write() as conn:
            run.note(conn, "evidence", f"No drift report: {why}")
            return run.keep(conn, DriftReport(None, why)).name
    with run.write() as conn:
        evidence.preserve(conn, run.incident_id, NAME, content, "text/html", now=run.world.now())
        run.note(conn, "evidence", f"Drift report kept as {NAME}: {verdict.sentence}")
        return run.keep(conn, DriftReport(NAME)).name


def _drawn(run: Run) -> tuple[DriftVerdict, bytes]:
    incident, platform = run.incident(), run.world.platform
    baseline = metrics.metrics(run).baseline
    since = min(metrics.window_start(run), incident.detected_at)
    before = in_time_order(platform.prediction_log(incident.model, limit=ROWS, since=baseline.since, until=baseline.until))
    now = in_time_order(platform.prediction_log(incident.model, limit=ROWS, since=since, until=_fixed_at(run)))
    verdict = drift_between(before, now, run.world.policy.drift)
    return verdict, run.world.draw_drift_page(feature_columns(before), feature_columns(now), verdict)


def _fixed_at(run: Run) -> datetime | None:
    """Predictions made after the fix would dilute what was wrong."""
    fix = run.recall(Applied) or run.recall(HumanResolution)
    return fix.at if fix else None
