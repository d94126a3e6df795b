"""Tasks of step 1: triage, and triage again once more is known."""

from mlrunbook.response.detection import triage
from tasks._step import step

triage_incident = step(triage.triage, "triage-{incident_id}")
reassess_severity = step(triage.reassess_after_investigation, "grade-{incident_id}-again")
