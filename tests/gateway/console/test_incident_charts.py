"""What is drawn of an incident, and that nothing odd in the evidence keeps the rest from being shown."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from mlrunbook.adapters.reports import metric_chart
from mlrunbook.adapters.reports.metric_chart import Mark, Reading
from mlrunbook.domain.tally import Confusion
from mlrunbook.gateway.console import incident_charts as charts
from mlrunbook.gateway.console.incident_charts import Facts, Window

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
BAD, GOOD = Confusion(50, 50, 55, 2845), Confusion(820, 180, 180, 28820)
HOSTILE = '<script>alert(1)</script>"\x1b[31m'


def window(counts: Confusion, **more: Any) -> Window:
    return Window(NOW - HOUR, NOW, counts, **more)


def drawn(facts: Facts) -> list[charts.ChartView]:
    found = list(charts.views(facts))
    for one in found:
        ElementTree.fromstring(str(one.svg))
        assert one.rows, "what cannot be seen is read"
    return found


def test_metric_confusion_segments_and_drift_are_drawn_with_their_values() -> None:
    facts = Facts(
        window(BAD, by_type={"pump": BAD, "fan": Confusion(5, 0, 1, 90)}),
        window(GOOD, by_type={"pump": GOOD}),
        marks=(Mark(NOW, "detected"), Mark(NOW, "rolled back")),
        drift={"pressure": 0.4, "age": 0.0},
        drifted=("pressure",),
    )
    assert [one.title for one in drawn(facts)] == [
        "F1 over time", "Outcomes before", "Outcomes in the incident", "F1 by asset type", "Drift by feature",
    ]  # fmt: skip


def test_the_platforms_slices_are_drawn_one_by_one_and_a_slice_without_failures_is_left_out() -> None:
    found = list(charts.readings_of(window(BAD, blocks=(BAD, Confusion(), GOOD))))
    assert [round(one.value, 2) for one in found] == [0.49, 0.82]
    assert found[1].since == NOW - HOUR / 3


def test_hostile_names_are_text_in_a_chart() -> None:
    facts = Facts(
        window(BAD, by_type={HOSTILE: BAD, "b": BAD}), window(GOOD), marks=(Mark(NOW, HOSTILE),), drift={HOSTILE: 0.3}, drifted=(HOSTILE,)
    )
    for one in drawn(facts):
        assert "<script" not in str(one.svg)
        assert "\x1b" not in str(one.svg)


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"current": 1, "baseline": 2}',
        b'{"current": {"tally": {"tp": -1, "fp": 0, "fn": 0, "tn": 0}}, "baseline": {}}',
    ],
)
def test_evidence_that_is_not_such_counts_is_no_error(kept: bytes) -> None:
    assert charts.windows(kept) == (None, None)
    assert drawn(Facts()) == []


def test_the_windows_are_read_from_the_evidence_as_it_is_written() -> None:
    counts = {"tp": 1, "fp": 2, "fn": 3, "tn": 4}
    body = {
        "since": str(NOW - HOUR),
        "until": str(NOW),
        "tally": counts,
        "blocks": [counts],
        "by_asset_type": {"pump": counts, "odd": None},
    }
    now, before = charts.windows(json.dumps({"current": body, "baseline": body}).encode())
    assert now == before == Window(NOW - HOUR, NOW, Confusion(1, 2, 3, 4), (Confusion(1, 2, 3, 4),), {"pump": Confusion(1, 2, 3, 4)})


def test_letters_of_one_moment_stand_apart_and_inside_the_picture() -> None:
    picture = metric_chart.draw("F1", [Reading(NOW - HOUR, NOW, 0.5, 0.4, 0.6)], [Mark(NOW, str(n)) for n in range(6)], None)
    places = [float(x) for x in re.findall(r'<circle cx="([0-9.]+)" cy="20" r="8"', picture)]
    assert len(places) == 6
    assert all(b - a >= 16 for a, b in pairwise(places))
    assert max(places) < 680
