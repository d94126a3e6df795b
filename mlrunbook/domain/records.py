"""What a step leaves for a later one: the keys of its rows, and how a frozen dataclass becomes a row and comes back.

A record is a frozen dataclass that names its key. Rows outlive versions: a field that older rows lack has a default, a field that only they
have is ignored, and neither a key nor a field is ever renamed (`Annotated[T, Field(alias="old")]` where Python needs another name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import PlainSerializer, TypeAdapter, ValidationError

from mlrunbook.domain.errors import Unreadable


class Record(StrEnum):
    """Keys of the rows. Stored: never change a value. One that ends in a colon has a row for each name that follows it."""

    # Detection and triage
    REPORT = "report"
    TRIAGE = "triage"
    GRADED_AGAIN = "graded_again"  # measured once more, once an investigation
    SEVERITY_DOUBTED = "severity_doubted"  # a worse alert has come: triage looks again
    SEVERITY_SET = "severity_set"  # the last change of severity after triage's
    SUBTYPE = "subtype:"  # a kind of breach that a person has named
    UNKNOWN_MODEL = "unknown_model"  # the registry and policy do not know the incident's model
    RECOGNISED = "recognised"  # the model has become known
    # Containment
    CONTAINMENT = "containment"  # what was planned
    CONTAINED = "contained"  # it was carried out and announced
    ALARM = "alarm:"
    ISOLATION_WAITS = "isolation-waits:"
    FAILED = "failed:"  # an action that could not be done
    ORDER_ENDED = "order:"
    ORDER_WAITS = "order-waits:"
    RELEASE = "release:"
    # What a model in mode observe would have had done
    WOULD_CONTAIN = "would_contain"
    WOULD_RESOLVE = "would_resolve"
    OBSERVATION_OVER = "observation_over"
    # Investigation
    FINDINGS = "findings:"
    FEATURES = "features"
    INPUTS = "inputs"  # what is wrong with the features, by what the rows logged
    ROLLBACK_TARGETS = "rollback_targets"
    DIAGNOSIS = "diagnosis"
    # Resolution
    REQUEST = "request"  # the path a person has asked for
    RETRAIN = "retrain"
    TRAINED = "trained"
    CANDIDATE_PLAN = "candidate_plan"
    VALIDATION = "validation"
    SHADOW = "shadow"
    RESOLUTION_PLAN = "resolution_plan"
    FORM = "form:"
    APPLIED = "applied"
    HUMAN_RESOLUTION = "human_resolution"
    OUTCOMES_OVERDUE = "outcomes_overdue"
    RECOVERY = "recovery"
    PROMOTION_WATCH = "promotion_watch"
    RETURN_PLAN = "return_plan"
    UNDO = "undo"
    # Communication
    REPORTED = "reported:"  # what a person has said, by its number
    HOLDER = "holder:"  # who has taken a role or a duty over
    CLOCK = "clock:"
    ESCALATION_AUDIT = "escalation_audit:"
    # Review
    REVIEW = "review"
    REVIEWED = "review_reviewed"
    APPROVED = "review_approved"
    DRIFT_REPORT = "drift_report"
    # The life of an incident and its runs
    OPENED_BY = "opened_by:"
    STOPPED = "stopped:"
    SHOWN = "shown:"
    REOPENED = "reopened"  # the last reopening
    FLAPPING = "flapping"  # the incident's automation has stopped
    FLAPPING_GO_ON = "flapping_go_on"  # a person's word about it

    def of(self, *names: object) -> str:
        """The key of one row of several: `Record.FINDINGS.of("platform")` is "findings:platform"."""
        return self + ":".join(str(name) for name in names)


CANDIDATE_STEPS = (Record.RETRAIN, Record.TRAINED, Record.CANDIDATE_PLAN, Record.VALIDATION, Record.SHADOW)
CANDIDATE_RECORDS = (*CANDIDATE_STEPS, Record.PROMOTION_WATCH)  # what another attempt at path C must not take over
# What was found, planned and done about a failure that is not over.
OF_THE_FIX = (
    Record.RESOLUTION_PLAN,
    Record.APPLIED,
    Record.RECOVERY,
    Record.OUTCOMES_OVERDUE,
    Record.DIAGNOSIS,
    Record.HUMAN_RESOLUTION,
    Record.REQUEST,
    Record.GRADED_AGAIN,
    Record.SEVERITY_DOUBTED,
    Record.FEATURES,
    Record.INPUTS,
    Record.ROLLBACK_TARGETS,
    *CANDIDATE_RECORDS,
)
SIGNATURES = (Record.REVIEWED, Record.APPROVED)
ReviewPart = Literal["reviewed", "approved"]
OF_THE_REVIEW = (Record.REVIEW, *SIGNATURES)
OF_OBSERVING = (Record.WOULD_CONTAIN, Record.WOULD_RESOLVE, Record.OBSERVATION_OVER)
OF_THE_RESPONSE = (Record.CONTAINMENT, Record.CONTAINED, Record.UNDO, *OF_THE_REVIEW, *OF_OBSERVING)


# The two forms in which rows have always had a moment. Keys are built from them, so each record keeps its own; both are read.
SpacedTime = Annotated[datetime, PlainSerializer(str)]  # 2026-03-01 12:00:00+00:00
IsoTime = Annotated[datetime, PlainSerializer(datetime.isoformat)]  # 2026-03-01T12:00:00+00:00


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


class Recorded:
    """A frozen dataclass that is kept as a row: `class Contained(Recorded, key=Record.CONTAINED)`."""

    key: ClassVar[Record]

    def __init_subclass__(cls, *, key: Record) -> None:
        cls.key = key

    def to_record(self) -> dict[str, Any]:
        """The row, as JSON values."""
        return dict(_adapter(type(self)).dump_python(self, mode="json", by_alias=True, fallback=str))

    @classmethod
    def from_record(cls, row: Mapping[str, Any]) -> Self:
        """The dataclass of a row of this or an older version. Unreadable where a newer one wrote what this one does not know."""
        adapter: TypeAdapter[Self] = _adapter(cls)
        try:
            return adapter.validate_python(dict(row))
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            what = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
            raise Unreadable(f"the record {cls.key!s} cannot be read ({what}): run the version of mlrunbook that wrote it") from error
