"""What is wrong with the feature store, and whether materialising again can mend it (runbook, Path B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FeatureFault(StrEnum):
    """Each has its own sentence and its own answer."""

    REGISTRY_MISSING = "registry_missing"  # an empty store looks like this too: compared with the expected views
    VIEW_MISSING = "view_missing"
    SERVICE_MISSING = "service_missing"
    ONLINE_UNREACHABLE = "online_unreachable"
    ONLINE_LOCKED = "online_locked"
    ONLINE_DROPPED = "online_dropped"
    SOURCE_MISSING = "source_missing"
    SOURCE_CORRUPT = "source_corrupt"
    NO_ROWS_IN_WINDOW = "no_rows_in_window"
    FUTURE_END = "future_end"  # later incremental runs succeed and do nothing
    WRONG_ENTITY_KEY = "wrong_entity_key"
    STALE_JOB = "stale_job"  # the materialisation does not run
    STALE_DATA = "stale_data"  # it runs, and the online rows are old all the same
    SOURCE_STALE = "source_stale"  # nothing new arrives at the source
    NULLS_ONLINE = "nulls_online"  # empty online, whole in the source
    NULLS_IN_SOURCE = "nulls_in_source"
    ENTITIES_MISSING = "entities_missing"


@dataclass(frozen=True)
class FeatureProblem:
    """`view` and `feature` where it is about one."""

    fault: FeatureFault
    sentence: str
    view: str | None = None
    feature: str | None = None


@dataclass(frozen=True)
class ViewState:
    """One feature view as read from Feast. Of `entities` sampled assets, `behind` have an online row older than the source's newest
    for them and `missing` have none. Null shares 0..1 by feature, of the sample: online, and in the source's newest rows.

    `job_end_at` is how far the last materialisation says it came; None: never ran. It moves also when no row was new.
    """

    name: str
    job_end_at: datetime | None = None
    updated_at: datetime | None = None
    source_newest_at: datetime | None = None
    online_newest_at: datetime | None = None
    entities: int = 0
    behind: int = 0
    missing: int = 0
    null_online: Mapping[str, float] | None = None
    null_source: Mapping[str, float] | None = None


@dataclass(frozen=True)
class FeatureStoreState:
    """What was read, and what could not be read and why. `read_ok`: a synthetic online read by feature service worked."""

    views: tuple[ViewState, ...]
    problems: tuple[FeatureProblem, ...] = ()
    read_ok: bool | None = None
