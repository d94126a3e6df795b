"""Every kind of record has a row of an earlier version among the samples."""

from __future__ import annotations

from mlrunbook.domain.records import Record, Recorded
from tests.store import (
    test_old_records_of_containment,
    test_old_records_of_detection,
    test_old_records_of_investigation,
    test_old_records_of_resolution,
)

PARTS = (
    test_old_records_of_containment,
    test_old_records_of_detection,
    test_old_records_of_investigation,
    test_old_records_of_resolution,
)


def test_no_kind_of_record_is_without_a_sample_and_no_key_without_a_kind() -> None:
    kinds = {kind for kind in Recorded.__subclasses__() if kind.__module__.startswith("mlrunbook.")}
    assert {kind for part in PARTS for kind, _, _ in part.SAMPLES} == kinds
    assert {kind.key for kind in kinds} == set(Record)
