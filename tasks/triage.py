"""Tasks of step 1: triage, and triage again once more is known."""

from mlrunbook.response.detection import triage, unproven
from tasks._step import step

look_again_at_unproven = step(unproven.look_again, "look-again-at-unproven-{incident_id}")
waits_for_outcomes_s = step(unproven.waits_s, "does-{incident_id}-wait-for-outcomes")
triage_incident = step(triage.triage, "triage-{incident_id}")
reassess_severity = step(triage.reassess_after_investigation, "grade-{incident_id}-again")
