from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.rollback_target import Judged, TargetChoice, TargetVerdict
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import last_threshold_change, unseen_types
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.observed import FeatureFault, FeatureProblem, Prediction
from tests.domain.builders import FALLEN, HEALTHY, NOW, TOO_MANY_ALARMS, change, gathered, metrics, prediction, status, threshold_change


def found(default: State = State.OK, **states: State) -> list[Finding]:
    """All 19 findings; name exceptions by the key's last part."""
    return [Finding(i.key, states.get(i.key.split(".")[1], default), "test", None, f"{i.key} seen") for i in CHECKLIST]


def scored(good: bool, n: int = 400) -> list[Prediction]:
    """A tenth of the assets fail; a good model scores failures .9 and the rest .2, a bad one cannot tell them apart."""
    return [
        prediction(i, outcome=i % 10 == 0, score=0.9 if good and i % 10 == 0 else 0.2 + 0.5 * (not good) * (i % 7) / 7) for i in range(n)
    ]


def decide(findings: Sequence[Finding] | None = None, **facts: Any) -> Diagnosis:
    values: dict[str, Any] = {
        "detected_at": NOW,
        "metrics": metrics(FALLEN),
        "changes": [],
        "status": status(),
        "predictions": scored(good=False),
        "model_version": "v2.0.0",
    }
    return diagnose(findings or found(), gathered(**(values | facts)), NOW)


def test_a_fresh_deployment_of_a_bad_model_is_rolled_back() -> None:
    d = decide(changes=[change("deployment", hours_ago=3)])
    assert (d.top.cause, d.path, d.target_version) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK, "v1.5.0")
    assert d.top.score == 1.0
    assert d.sentence.startswith("v2.0.0 is a bad release: deployment of v2.0.0 by release-bot 3 h ago; it was within 24 h")
    assert d.sentence.endswith("Path A: roll back to v1.5.0")
    assert d.chain[0] == "Why did performance fall? Because v2.0.0 missed 52 of 102 failures, and 30 of its 80 alarms were false"
    assert d.chain[1] == "Why did v2.0.0 answer? Because release-bot made it serve at 2025-03-01 09:00 UTC"


def test_a_deployment_days_ago_is_weaker_but_still_the_cause_when_no_threshold_helps() -> None:
    old, new = decide(changes=[change("deployment", hours_ago=100)]), decide(changes=[change("deployment", hours_ago=3)])
    assert old.top.cause is Cause.BAD_DEPLOYMENT
    assert old.top.score < new.top.score


def test_a_deployment_more_than_a_week_ago_is_no_cause() -> None:
    assert decide(changes=[change("deployment", hours_ago=200)]).path is None


def test_a_deployment_after_detection_is_the_response_not_the_cause() -> None:
    assert decide(changes=[change("rollback", hours_ago=-1)]).path is None


def test_a_slipped_threshold_is_put_back_even_right_after_a_deployment() -> None:
    d = decide(
        metrics=metrics(TOO_MANY_ALARMS),
        changes=[threshold_change(0.5, 0.002), change("deployment", hours_ago=4)],
        predictions=scored(good=True),
    )
    assert (d.top.cause, d.path, d.target_threshold) == (Cause.THRESHOLD_CHANGE, Path.THRESHOLD, 0.5)
    assert d.sentence.endswith("Path D: restore the threshold 0.5 that was configured before")
    assert "Why was it 0.002? Because release-bot set it at 2025-03-01 10:00 UTC" in d.chain


def test_a_threshold_change_that_does_not_replay_well_is_not_blamed() -> None:
    d = decide(changes=[threshold_change(0.5, 0.4), change("deployment", hours_ago=4)], predictions=scored(good=False))
    assert d.top.cause is Cause.BAD_DEPLOYMENT


def test_a_threshold_change_that_cannot_be_replayed_leaves_the_choice_to_a_person() -> None:
    d = decide(changes=[threshold_change(0.5, 0.002), change("deployment", hours_ago=4)], predictions=[])
    assert (d.top.cause, d.path) == (Cause.UNKNOWN, None)
    assert "No safe automatic path here" in d.sentence


def test_the_raise_that_contained_the_incident_is_not_its_cause() -> None:
    slip, contained = threshold_change(0.5, 0.002, hours_ago=2), threshold_change(0.002, 0.2, hours_ago=-0.1)
    last = last_threshold_change([contained, slip], NOW)
    assert last is not None
    assert (last.before, last.after) == (0.5, 0.002)


@pytest.mark.parametrize(
    "detail", [{}, {"from": None, "to": {"threshold": 0.4}}, {"from": {"threshold": "x"}, "to": {}}, {"from": "v1", "to": "v2"}]
)
def test_a_config_change_without_thresholds_is_no_threshold_change(detail: dict[str, Any]) -> None:
    assert last_threshold_change([change("config", hours_ago=1, detail=detail)], NOW) is None


def test_without_a_previous_version_there_is_no_path_and_it_is_said() -> None:
    d = decide(changes=[change("deployment", hours_ago=3)], status=status(previous_version=None))
    assert d.path is None
    assert d.sentence.endswith("No safe automatic path here: there is no previous version to go back to; deploy a fixed one")


def test_after_a_temporary_rollback_the_resolution_stays_where_it_went() -> None:
    rolled = status(serving_version="v1.5.0", previous_version="v2.0.0")
    assert decide(changes=[change("deployment", hours_ago=3)], status=rolled).target_version == "v1.5.0"


@pytest.mark.parametrize(
    ("suspect", "cause"),
    [
        ("feature_distributions", Cause.DATA_DRIFT),
        ("missing_features", Cause.NULL_OR_BROKEN_FEATURE),
        ("feature_store_availability", Cause.FEATURE_STORE_OUTAGE),
        ("feature_store_connectivity", Cause.FEATURE_STORE_OUTAGE),
    ],
)
def test_causes_without_a_safe_path_say_what_to_look_at(suspect: str, cause: Cause) -> None:
    d = decide(found(**{suspect: State.SUSPECT}))
    assert (d.top.cause, d.path) == (cause, None)
    assert "No safe automatic path here: " in d.sentence
    assert len(d.chain) == 2


def test_nothing_suspect_and_nothing_fallen_is_nothing_wrong() -> None:
    d = decide(metrics=metrics(HEALTHY), predictions=scored(good=True))
    assert (d.top.cause, d.path, d.chain) == (Cause.NOTHING_WRONG, None, ())


def test_with_nothing_known_the_cause_is_unknown_never_nothing_wrong() -> None:
    d = decide(found(State.UNKNOWN), metrics=None, changes=None, status=None, predictions=[], model_version=None)
    assert d.top.cause is Cause.UNKNOWN
    assert d.sentence.startswith("the cause is not known: no cause is supported well enough")


def test_every_model_flagged_high_risk_after_a_deployment_is_a_bad_release_without_any_outcome() -> None:
    d = decide(metrics=metrics(Confusion(), predictions=500), changes=[change("deployment", hours_ago=1)], predictions=[], dangerous=True)
    assert (d.top.cause, d.path) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK)


def test_scores_of_another_version_are_not_replayed() -> None:
    other = [prediction(i, outcome=True, version="v1.5.0") for i in range(50)]
    facts = gathered(detected_at=NOW, metrics=metrics(FALLEN), changes=[], status=status(), predictions=other)
    assert facts.replay_best is None


def test_every_cause_shows_its_evidence_and_scores_lie_between_0_and_1() -> None:
    for cause in decide(changes=[change("deployment", hours_ago=3)]).causes:
        assert 0 <= cause.score <= 1
        assert cause.supports or cause.against or cause.open


TRIGGERS = ("new_segment", "concept_drift", "data_drift")


def verdict(*faults: FeatureFault, mendable: bool | None = True, outage: bool = False) -> FeatureVerdict:
    problems = tuple(FeatureProblem(f, f"{f} seen", "asset_wear") for f in faults)
    return FeatureVerdict(problems, ("asset_wear",), NOW, ("asset_wear",), mendable, outage, "the verdict", judged_at=NOW)


def test_stale_features_are_materialized_and_their_schedule_resumed() -> None:
    d = decide(found(data_freshness=State.SUSPECT), features=verdict(FeatureFault.STALE_JOB), retrain_triggers=TRIGGERS)
    assert (d.top.cause, d.path) == (Cause.STALE_FEATURES, Path.MATERIALIZE)
    assert d.repair == Repair(("asset_wear",), NOW.isoformat(), ("asset_wear",), as_of=NOW.isoformat())


def test_features_empty_only_online_are_materialized_and_empty_at_the_source_go_to_a_human() -> None:
    nulls = found(missing_features=State.SUSPECT)
    assert decide(nulls, features=verdict(FeatureFault.NULLS_ONLINE)).path is Path.MATERIALIZE
    lost = decide(nulls, features=verdict(FeatureFault.NULLS_IN_SOURCE, mendable=False), retrain_triggers=TRIGGERS)
    assert (lost.top.cause, lost.path) == (Cause.NULL_OR_BROKEN_FEATURE, None)
    assert "find where the feature's values are lost" in lost.sentence


def test_a_model_is_never_blamed_or_retrained_while_its_features_are_stale() -> None:
    moved = found(feature_distributions=State.SUSPECT)
    d = decide(moved, features=verdict(FeatureFault.STALE_JOB), retrain_triggers=TRIGGERS)
    assert d.top.cause is Cause.STALE_FEATURES
    drifted = {c.cause: c.score for c in d.causes}
    assert drifted[Cause.DATA_DRIFT] == drifted[Cause.CONCEPT_DRIFT] == 0


def test_an_asset_type_the_training_never_saw_is_retrained_on() -> None:
    rows = [replace(p, asset_type="XL" if i % 3 == 0 else "L") for i, p in enumerate(scored(good=False))]
    drift = found(feature_distributions=State.SUSPECT)
    d = decide(drift, predictions=rows, trained_types=("L", "M", "H"), retrain_triggers=TRIGGERS, features=verdict(mendable=None))
    assert (d.top.cause, d.path) == (Cause.NEW_SEGMENT, Path.RETRAIN)
    assert "XL" in d.top.supports[0]
    assert "XL" in d.chain[1]


def test_an_unknown_type_in_a_handful_of_predictions_may_be_a_typing_error() -> None:
    assert unseen_types(["L"] * 400 + ["x"] * 19, ("L",)) == {}
    assert unseen_types(["L"] * 380 + ["x"] * 20, ("L",)) == {"x": 0.05}
    assert unseen_types(["L"], None) is None


def test_worse_outcomes_from_the_same_inputs_with_no_change_before_are_concept_drift() -> None:
    d = decide(retrain_triggers=TRIGGERS, features=verdict(mendable=None), targets=choice(None))
    assert (d.top.cause, d.path) == (Cause.CONCEPT_DRIFT, Path.RETRAIN)
    assert decide(retrain_triggers=(), targets=choice(None)).path is None, "retraining that policy does not trigger is left to people"


def test_a_fresh_deployment_is_blamed_before_the_world() -> None:
    d = decide(changes=[change("deployment", hours_ago=3)], targets=choice("v1.4.0"), retrain_triggers=TRIGGERS)
    assert (d.top.cause, d.target_version) == (Cause.BAD_DEPLOYMENT, "v1.4.0"), "the version that wins the replay, not the one before"


def test_when_every_version_is_refused_nothing_is_rolled_back() -> None:
    d = decide(changes=[change("deployment", hours_ago=3)], targets=choice(None))
    assert d.path is None
    assert d.sentence.endswith("there is no other version; deploy a fixed version")


def test_with_too_few_outcomes_to_replay_the_version_before_is_offered_with_the_doubt() -> None:
    d = decide(changes=[change("deployment", hours_ago=3)], targets=choice(None, known=False))
    assert (d.path, d.target_version) == (Path.ROLLBACK, "v1.5.0")
    assert "every version was replayed" in d.sentence


def test_the_version_before_is_not_offered_where_the_replay_refused_it_though_another_stays_open() -> None:
    judged = (TargetVerdict("v1.5.0", Judged.REFUSED, "it is worse"), TargetVerdict("v1.4.0", Judged.NOT_ENOUGH_EVIDENCE, "who knows"))
    targets = replace(choice(None, known=False), ranking=judged)
    d = decide(changes=[change("deployment", hours_ago=3)], targets=targets)
    assert (d.path, d.target_version) == (None, None)
    assert "v1.5.0 would not do better" in d.sentence


def choice(target: str | None, *, known: bool = True) -> TargetChoice:
    return TargetChoice(target, (), "every version was replayed", not known, 4000, 130)


class TestGoThrough:
    """Where no cause is known, what there is to look at is listed, most suspect first, and fits a page."""

    def unexplained(self, **states: State) -> str:
        return decide(found(**states), metrics=metrics(HEALTHY), predictions=scored(good=True)).advice

    def test_every_suspect_finding_is_named_with_its_sentence(self) -> None:
        advice = self.unexplained(server_logs=State.SUSPECT, error_patterns=State.SUSPECT)
        assert "infrastructure.server_logs seen" in advice
        assert "ground_truth.error_patterns seen" in advice

    def test_what_speaks_most_for_a_cause_comes_first(self) -> None:
        """A broken read of the feature store is worth more than a line in a log, which is worth more than a pattern."""
        said = self.unexplained(server_logs=State.SUSPECT, error_patterns=State.SUSPECT)
        assert said.index("infrastructure.server_logs seen") < said.index("ground_truth.error_patterns seen")

    def test_many_and_long_ones_fit_a_page(self) -> None:
        many = dict.fromkeys(
            ("metrics_dashboard", "server_logs", "resource_utilization", "inference_latency", "error_patterns"), State.SUSPECT
        )
        states = [replace(f, sentence=f.sentence * 30) for f in found(State.UNKNOWN, **many)]
        advice = decide(states, metrics=metrics(HEALTHY), predictions=scored(good=True)).advice
        assert "and 2 more" in advice
        assert len(advice) < 480

    def test_where_none_is_suspect_that_is_said(self) -> None:
        advice = decide(found(State.UNKNOWN), metrics=None, predictions=[]).advice
        assert "no checked item is suspect" in advice
        assert "19 items could not be checked" in advice
