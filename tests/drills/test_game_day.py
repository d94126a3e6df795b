"""The game day's verdicts on an outcome, what it counts as harmful, and when its figures hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from mlrunbook.drills import scoring
from mlrunbook.drills.game_day import Score, judged, score, table, wrong_actions
from mlrunbook.drills.simulator.faults import FAULTS, Truth

QUIET = FAULTS["blip"].truth
ROLLBACK = FAULTS["bad-release"].truth
RETRAIN = FAULTS["concept-drift"].truth
HUMAN = FAULTS["null-feature"].truth
STALE, MISSED, DOWN, ATTACK = (
    FAULTS[name].truth for name in ("stale-features", "missed-critical-failure", "server-down", "adversarial-burst")
)


def facts(truth: Truth, **others: Any) -> dict[str, Any]:
    """The outcome as the truth says."""
    named = str(truth.diagnosed) if truth.diagnosed else None
    return {
        "incident_id": "incident_1",
        "status": str(truth.status),
        "severity": str(truth.severity),
        "type": str(truth.type),
        "cause": named,
        "causes": [named] if named else [],
        "applied_path": str(truth.path) if truth.path else None,
        "candidate": None,
        "actions": [],
        "platform_applied": {},
        "f1": {"baseline": 0.88, "during": 0.5, "after": 0.87},
        "seconds": {"to_detect": 1.0, "to_acknowledge": 2.0, "to_contain": 3.0, "to_resolve": 40.0},
    } | others


def contained(kind: str, **target: Any) -> dict[str, Any]:
    return {"actions": [{"name": kind, "kind": kind, "plan": "containment", "target": target}]}


def right(truth: Truth, outcome: dict[str, Any]) -> tuple[bool, bool, bool, list[str]]:
    row = judged(outcome, truth)
    return row["top1"], row["top3"], row["right_path"], row["wrong_actions"]


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_an_outcome_as_the_truth_says_is_right_in_everything(name: str) -> None:
    truth = FAULTS[name].truth
    assert right(truth, facts(truth)) == (True, True, True, [])


def test_the_right_cause_in_second_place_counts_among_the_first_three_alone() -> None:
    outcome = facts(ROLLBACK, cause="concept_drift", causes=["concept_drift", "bad_deployment", "data_drift"])
    assert right(ROLLBACK, outcome)[:2] == (False, True)


def test_no_incident_where_nothing_was_wrong_is_right_and_where_something_was_it_is_not() -> None:
    nothing = scoring.nothing_happened(fault="blip", injected_at=datetime(2026, 3, 1, tzinfo=UTC), applied={})
    assert right(QUIET, nothing) == (True, True, True, [])
    assert right(ROLLBACK, nothing)[:3] == (False, False, False)


def test_a_real_incident_where_nothing_was_wrong_took_no_right_path_also_when_it_changed_nothing() -> None:
    assert right(QUIET, facts(QUIET, status="closed", cause="concept_drift", causes=["concept_drift"]))[:3] == (False, False, False)


@pytest.mark.parametrize(
    ("truth", "others", "wrong"),
    [
        pytest.param(QUIET, {"actions": [{"name": "require human approval"}]}, ["require human approval"], id="any change in a blip"),
        pytest.param(QUIET, {"platform_applied": {"rollback": 1, "config": 0}}, ["rollback"], id="a change that nobody planned"),
        pytest.param(HUMAN, {"applied_path": "retrain"}, ["path retrain"], id="a path where people were to mend it"),
        pytest.param(HUMAN, {"platform_applied": {"rollback": 1}}, ["rollback"], id="another version where people were to mend it"),
        pytest.param(RETRAIN, {"platform_applied": {"promote": 1, "register": 1, "staging": 1}}, [], id="a promotion in path C"),
        pytest.param(RETRAIN, {"platform_applied": {"promote": 1, "rollback": 1}}, ["rollback"], id="a rollback beside path C"),
        pytest.param(ROLLBACK, {"platform_applied": {"rollback": 1, "config": 2}}, [], id="a rollback in path A"),
        pytest.param(ROLLBACK, {"applied_path": "threshold"}, ["path threshold"], id="another path"),
        pytest.param(ROLLBACK, {"applied_path": None}, [], id="no path: wrong, but nothing was harmed"),
        pytest.param(HUMAN, contained("scale", replicas=0), ["scale"], id="serving stopped where predictions are no danger"),
        pytest.param(MISSED, contained("route_traffic", version="v1.4.0"), ["route_traffic"], id="another version for one missed failure"),
        pytest.param(STALE, contained("scale", replicas=0), [], id="serving stopped where it misses nearly every failure"),
        pytest.param(DOWN, contained("configure", auto_work_orders=False), ["configure"], id="work orders halted while nothing predicts"),
        pytest.param(DOWN, contained("configure", threshold=0.7), ["configure"], id="a threshold raised for a dead server"),
        pytest.param(ROLLBACK, contained("configure", threshold=0.7), [], id="a threshold raised for a bad model"),
        pytest.param(DOWN, contained("isolate", isolated=True), ["isolate"], id="isolated without a breach"),
        pytest.param(ATTACK, contained("isolate", isolated=True), [], id="isolated in a breach"),
        pytest.param(HUMAN, contained("configure", human_approval=True), [], id="human approval is never harmful"),
    ],
)
def test_what_nobody_should_have_changed_is_harmful(truth: Truth, others: dict[str, Any], wrong: list[str]) -> None:
    assert wrong_actions(facts(truth, **others), truth) == wrong


def test_a_run_that_did_not_end_counts_as_wrong_in_everything() -> None:
    assert score([judged(None, ROLLBACK)]) == Score(1, 0.0, 0.0, 0.0, 0)


def test_the_figures_hold_from_95_percent_on_and_never_with_a_harmful_action_or_without_a_run() -> None:
    good, bad = judged(facts(ROLLBACK), ROLLBACK), judged(facts(ROLLBACK, cause="unknown", causes=[]), ROLLBACK)
    harmful = judged(facts(ROLLBACK, platform_applied={"promote": 1}), ROLLBACK)
    assert score([*[good] * 19, bad]) == Score(20, 0.95, 0.95, 1.0, 0)
    assert score([*[good] * 19, bad]).holds
    assert not score([*[good] * 18, bad, bad]).holds
    assert not score([*[good] * 19, harmful]).holds
    assert not score([]).holds


def test_the_table_fits_a_terminal_and_marks_what_is_wrong() -> None:
    about: dict[str, Any] = {"seed": 0, "error": None}
    lost = judged(facts(ROLLBACK, cause="concept_drift"), ROLLBACK)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([{"fault": "bad-release"} | about | lost, {"fault": "blip", "seed": 0, "error": "stuck"} | judged(None, QUIET)]))
    shown = " ".join(console.export_text().replace("│", " ").split())
    assert "(wrong)" in shown
    assert "did not" in shown
    assert all(len(line) <= 80 for line in console.export_text().splitlines())
