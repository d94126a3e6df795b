"""Tasks of mode observe: what would be done, and when nothing is left to observe."""

from mlrunbook.response.resolution import observation
from tasks._step import step

LOOK_AGAIN_S = observation.LOOK_AGAIN_S

is_observed = step(observation.is_observed, "is-{incident_id}-only-observed")
say_containment = step(observation.would_contain, "what-containment-{incident_id}-would-get")
say_resolution = step(observation.would_resolve, "what-plan-{incident_id}-would-get")
why_over = step(observation.is_over, "is-{incident_id}-over")
