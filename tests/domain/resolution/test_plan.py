from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.domain.actions import Action, Configure, Path, Plan, PlanKind, Restart, RollBack, RouteTraffic, Scale
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.containment.taking_back import Executed, undo_plan
from mlrunbook.domain.evaluation.threshold import effect_of
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosis, ScoredCause, diagnose
from mlrunbook.domain.resolution.candidate import Candidate
from mlrunbook.domain.resolution.paths import Situation
from mlrunbook.domain.resolution.plan import propose
from tests.domain.builders import FALLEN, HEALTHY, MODEL, NOW, TOO_MANY_ALARMS, change, gathered, metrics, serving, status, threshold_change
from tests.domain.investigation.test_diagnosis import found, scored

INC = "inc-7"


def plan_for(fault: str, **changes: Any) -> Plan | None:
    worlds: dict[str, dict[str, Any]] = {
        "bad release": {"metrics": metrics(FALLEN), "changes": [change("deployment", hours_ago=3)], "predictions": scored(good=False)},
        "slip": {"metrics": metrics(TOO_MANY_ALARMS), "changes": [threshold_change(0.5, 0.002)], "predictions": scored(good=True)},
        "nothing": {"metrics": metrics(HEALTHY), "changes": [], "predictions": scored(good=True)},
    }
    facts = gathered(detected_at=NOW, status=status(), model_version="v2.0.0", **worlds[fault])
    return propose(Situation(INC, MODEL, diagnose(found(), facts, NOW), facts, **changes))


def steps(plan: Plan | None) -> list[Action]:
    return list(plan.actions) if plan else []


ROLLED_BACK = RollBack(MODEL, "v1.5.0", reason="inc-7: performance degradation in v2.0.0")


def test_path_a_names_the_version_the_reasons_and_what_to_expect() -> None:
    plan = plan_for("bad release")
    assert plan is not None
    assert (plan.kind, plan.path, plan.actions) == (PlanKind.RESOLUTION, Path.ROLLBACK, (ROLLED_BACK,))
    assert plan.expected == "v1.5.0 serves; F1 back within 5 % of the baseline 0.80 on fresh predictions"
    assert plan.facts["f1_baseline"] == 0.8
    assert plan.facts["cause"] == "bad_deployment"
    assert Plan.from_dict(plan.as_dict()).digest == plan.digest


def test_path_d_restores_the_threshold_and_restarts_once() -> None:
    plan = plan_for("slip")
    assert steps(plan) == [Configure(MODEL, {"threshold": 0.5}), Restart(MODEL, "inc-7-threshold-0.5")]
    assert plan is not None
    assert "replayed at threshold 0.5, F1 is 1.00 against 0.80" in plan.expected


def test_the_same_facts_give_the_same_digest() -> None:
    first, again = plan_for("slip"), plan_for("slip")
    assert first is not None
    assert again is not None
    assert first.digest == again.digest


def test_without_a_safe_path_nothing_is_proposed() -> None:
    assert plan_for("nothing") is None


def test_a_raised_threshold_goes_back_with_the_rollback_or_recovery_could_never_be_measured() -> None:
    raised = Executed("a1", Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5})
    plan = plan_for("bad release", state=serving(threshold=0.7), executed=[raised])
    assert steps(plan) == [ROLLED_BACK, Configure(MODEL, {"threshold": 0.5}), Restart(MODEL, "inc-7-threshold-0.5")]
    assert undo_plan(INC, MODEL, [raised], resolution=plan).kept == {"a1": "the resolution has set threshold itself"}


def test_servers_that_were_stopped_start_after_the_rollback_not_before() -> None:
    stopped = Executed("a1", Scale(MODEL, 0), {"replicas": 2})
    assert steps(plan_for("bad release", state=serving(replicas=0), executed=[stopped])) == [ROLLED_BACK, Scale(MODEL, 2)]
    slip = plan_for("slip", state=serving(replicas=0), executed=[stopped])
    assert steps(slip) == [Configure(MODEL, {"threshold": 0.5}), Scale(MODEL, 2)]


def test_a_route_to_another_version_gives_way_or_the_rollback_could_never_be_seen() -> None:
    plan = plan_for("bad release", state=serving(route="v1.4.0"))
    assert steps(plan) == [RouteTraffic(MODEL, "v1.5.0"), ROLLED_BACK]
    assert steps(plan_for("bad release", state=serving(route="v1.5.0"))) == [ROLLED_BACK]


def test_after_a_threshold_fix_traffic_returns_to_the_version_it_was_routed_away_from() -> None:
    routed = Executed("a1", RouteTraffic(MODEL, "v1.5.0"), {"version": None, "serves": "v2.0.0"})
    plan = plan_for("slip", state=serving(route="v1.5.0"), executed=[routed])
    assert steps(plan)[-1] == RouteTraffic(MODEL, None)
    assert undo_plan(INC, MODEL, [routed], resolution=plan, state=serving()).kept == {"a1": "the override is gone already"}


REPAIR = Repair(("asset_sensors", "asset_history"), "2025-02-01T00:00:00+00:00", ("asset_sensors",), as_of="2025-03-01T12:00:00+00:00")
CONTAINED = (
    Executed("a1", Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}),
    Executed("a2", RouteTraffic(MODEL, "v1.4.0"), {"version": None, "serves": "v2.0.0"}),
    Executed("a3", Scale(MODEL, 0), {"replicas": 2}),
)
EFFECT = effect_of([0.1, 0.4, 0.6, 0.9], [False, True, False, True], current=0.7, target=0.5, predictions_per_day=100.0)


@pytest.mark.parametrize(
    ("path", "named", "known", "digest"),
    [
        (Path.ROLLBACK, {"target_version": "v1.5.0"}, {}, "f6eb2fd4746cb885"),
        (Path.ROLLBACK, {"target_version": "v1.5.0", "objection": "v1.5.0 was not compared"}, {"executed": CONTAINED}, "2d6ba58817ef8e12"),
        (Path.MATERIALIZE, {"repair": REPAIR}, {}, "1c01c6396b808c80"),
        (
            Path.RETRAIN,
            {},
            {"executed": CONTAINED, "candidate": Candidate("v2.1.0", ("validation: better",), ("f1: 0.8",))},
            "de2d86e55cc8ac3e",
        ),
        (Path.THRESHOLD, {"target_threshold": 0.5}, {"threshold_effect": EFFECT}, "e50d2ee9f04f3c58"),
        (Path.THRESHOLD, {"target_threshold": 0.45}, {"executed": CONTAINED}, "a17ef02cfd458115"),
        (Path.UNDO_ROLLOUT, {"target_revision": 4}, {}, "1acd45c94ac2cfb7"),
        (Path.RESTART, {}, {}, "4b959c49776688e0"),
        (Path.RESTART, {}, {"executed": CONTAINED}, "db3141cb91bcb6ce"),
    ],
)
def test_a_plan_that_was_shown_before_an_upgrade_is_the_same_plan_after_it(
    path: Path, named: dict[str, Any], known: dict[str, Any], digest: str
) -> None:
    """Its digest is what the approval is bound to: one that changes leaves every plan that waits to be approved again."""
    diagnosis = Diagnosis(
        (ScoredCause(Cause.BAD_DEPLOYMENT, 0.9, ("for",), ("against",), ("open",)),), path, (), "the sentence", "the headline", **named
    )
    facts = gathered(detected_at=NOW, status=status(), model_version="v2.0.0", metrics=metrics(FALLEN), changes=[], predictions=[])
    state = serving(replicas=0, threshold=0.7, route="v1.4.0") if "executed" in known else serving()
    plan = propose(Situation(INC, MODEL, diagnosis, facts, state=state, **known))
    assert plan is not None
    assert plan.digest[:16] == digest
