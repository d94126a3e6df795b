"""Path B, asked for by a person: the request is checked before an incident opens."""

from mlrunbook.response.measurement import feature_store
from tasks._step import world_step

materialization_asked = world_step(feature_store.asked, "read-the-request")
