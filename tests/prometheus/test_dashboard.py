"""The Grafana dashboard: every expression is PromQL that Prometheus parses, and asks for a metric that exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlrunbook.adapters.reports import prometheus_rules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform.prometheus_metrics import FAMILIES
from mlrunbook.local.serving.predicting import Figures
from tests.prometheus.test_rules import DEPLOYMENTS, NEEDS_PROMTOOL, promtool

DASHBOARD: dict[str, Any] = json.loads((DEPLOYMENTS / "grafana-dashboard.json").read_text())
LIMITS = Policy().alerts


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def served() -> Iterator[str]:
    """What the model server exports, with what a histogram is made of."""
    for family in Figures().registry.collect():
        yield from {"counter": [f"{family.name}_total"], "histogram": [f"{family.name}_bucket"]}.get(family.type, [family.name])


@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{i}", "expr": expr.replace("$model", "m")} for i, expr in enumerate(expressions())]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


def test_every_metric_exists() -> None:
    recorded = {r["record"] for r in prometheus_rules.rules(Policy())["groups"][0]["rules"] if "record" in r}
    known = {*FAMILIES, *recorded, *served(), "ALERTS"}
    for expr in expressions():
        asked = re.findall(r"\b(ALERTS|model[_:][a-z0-9_:]+)\b", re.sub(r"\bmodel_version\b", "", expr))
        assert asked
        assert set(asked) <= known


def test_the_lines_in_the_panels_are_the_policys_limits() -> None:
    lines = {
        p["title"]: [s["value"] for s in p["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])][1:]
        for p in DASHBOARD["panels"]
    }
    assert lines["Drop against the baseline"] == [LIMITS.f1_drop_warning, LIMITS.f1_drop_critical]
    assert lines["Share flagged high-risk"] == [LIMITS.flagged_share_critical]
    assert lines["Nulls in the worst feature"] == [LIMITS.null_rate_warning]
    assert lines["Inference time"] == [LIMITS.latency_warning_s]
    assert lines["Failed predictions"] == [LIMITS.error_rate_warning]


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
