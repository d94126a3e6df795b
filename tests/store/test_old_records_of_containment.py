"""Rows as earlier versions wrote them are read as what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.approval import FormAnswer
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.containment.breach import Alarm, IsolationWaits, Release
from mlrunbook.domain.containment.containment import Contained, ContainmentDecided
from mlrunbook.domain.containment.orders import Failed, OrderEnded, OrderWaits
from mlrunbook.domain.incident import Case, ClockName, Subtype
from mlrunbook.domain.records import Recorded
from mlrunbook.store import records
from tests.store.old_records import check_read

AT = datetime(2026, 3, 29, 0, 30, 7, 250000, tzinfo=UTC)
DIGEST = "5f" * 32
CLOCK_ROW: dict[str, Any] = {
    "name": "gdpr",
    "case": "personal_data",
    "aware_at": "2026-03-29 00:30:07.250000+00:00",
    "deadline": "2026-04-01 00:30:07.250000+00:00",
    "why": "data leakage: personal data may be concerned",
    "ended_at": None,
    "ended_by": None,
    "reference": "",
    "not_required": "",
}
CLOCK = Clock(ClockName.GDPR, Case.PERSONAL_DATA, AT, AT + timedelta(days=3), "data leakage: personal data may be concerned")

# The kind, the row as 0.1.0 or a later version before this one wrote it, and what must be read.
SAMPLES: list[tuple[type[Recorded], dict[str, Any], Recorded]] = [
    (ContainmentDecided, {"reasons": ["severity low: a ticket"], "isolates": False}, ContainmentDecided(("severity low: a ticket",))),
    (
        ContainmentDecided,
        {"reasons": ["a leak"], "isolates": True, "automatic": DIGEST},
        ContainmentDecided(("a leak",), True, automatic=DIGEST),
    ),
    (
        ContainmentDecided,
        {"reasons": ["high"], "isolates": False, "automatic": DIGEST, "mitigation": DIGEST[::-1]},
        ContainmentDecided(("high",), automatic=DIGEST, mitigation=DIGEST[::-1]),
    ),
    (Contained, {"at": str(AT)}, Contained(AT)),
    (Alarm, {"kinds": []}, Alarm()),
    (Alarm, {"kinds": ["data_leakage", "privacy_breach"]}, Alarm((Subtype.DATA_LEAKAGE, Subtype.PRIVACY_BREACH))),
    (IsolationWaits, {"error": "the runtime does not answer"}, IsolationWaits("the runtime does not answer")),
    (Failed, {"error": "stopped by the freeze window"}, Failed("stopped by the freeze window")),
    (OrderWaits, {"error": "it took too long"}, OrderWaits("it took too long")),
    (OrderEnded, {"failed": []}, OrderEnded()),
    (OrderEnded, {"failed": ["stop serving pump"]}, OrderEnded(("stop serving pump",))),
    (Release, {"digest": DIGEST}, Release(DIGEST)),
    (FormAnswer, {}, FormAnswer()),
    (
        FormAnswer,
        {"decision": "rejected", "name": "Security", "comment": "not on a Friday"},
        FormAnswer("rejected", "Security", "not on a Friday"),
    ),
    (Clock, CLOCK_ROW, CLOCK),
    (
        Clock,
        CLOCK_ROW
        | {
            "case": "personal_data",
            "ended_at": "2026-03-30 00:30:07.250000+00:00",
            "ended_by": "Security",
            "reference": "case 7",
        },
        Clock(CLOCK.name, CLOCK.case, AT, CLOCK.deadline, CLOCK.why, AT + timedelta(days=1), "Security", "case 7"),
    ),
]


@pytest.mark.parametrize(("kind", "row", "meant"), SAMPLES, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_a_row_of_an_earlier_version_is_read_as_what_it_says(
    conn: Connection, incident_id: str, kind: type[Recorded], row: dict[str, Any], meant: Recorded
) -> None:
    check_read(conn, incident_id, kind, row, meant)
    written = records.get(conn, incident_id, kind.key)
    assert written is not None
    assert {name: written[name] for name in row} == row, "an earlier version reads it as well"


def test_a_clock_set_by_an_earlier_version_names_its_reminders_as_before() -> None:
    """A reminder's row names the deadline in this form: one that does not match is taken for a reminder of another deadline."""
    assert Clock.from_record(CLOCK_ROW).deadline.isoformat() == "2026-04-01T00:30:07.250000+00:00"
