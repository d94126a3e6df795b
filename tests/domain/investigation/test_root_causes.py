"""What each fault of the data looks like to the diagnosis, and what is true of every diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.evaluation.probing import Probing
from mlrunbook.domain.evaluation.rollback_target import TargetChoice
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.investigation.causes.case_file import DISTRIBUTIONS, CaseFile
from mlrunbook.domain.investigation.causes.definition import CauseDefinition
from mlrunbook.domain.investigation.causes.registry import DEFINITIONS
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.investigation.upstream import Course
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.review.review import action_items
from tests.domain.builders import BASELINE, FALLEN, HEALTHY, NOW, change, gathered, metrics, prediction, status

TRIGGERS = ("new_segment", "concept_drift", "data_drift")
JUMPED, CREPT = Course(0.6, 0.95), Course(0.6, 0.2)
PROBED = Probing(True, 240, 60, 3, ("asset_7",), 4000, "300 requests that hardly differ from each other, about asset_7")
CALM = Probing(False, 0, 0, 0, (), 4000, "nobody probes")


def findings(default: State = State.OK, *, moved: Sequence[str] = (), **states: State) -> list[Finding]:
    """All 19; name exceptions by the key's last part. `moved` are the features that drifted."""
    if moved:
        states["feature_distributions"] = State.SUSPECT
    value = {name: {"found": ["moved"] if name in moved else []} for name in ("torque_nm", "air_temperature_k", *moved)}
    return [
        Finding(i.key, states.get(i.key.split(".")[1], default), "test", value if i.key == DISTRIBUTIONS else None, f"{i.key} seen")
        for i in CHECKLIST
    ]


def rows(n: int = 900) -> list[Prediction]:
    """A tenth fail; types L and M are told apart, H is not."""
    return [
        prediction(i, outcome=i % 10 == 0, score=0.2 + 0.001 * (i % 97) if i % 3 == 2 else 0.9 if i % 10 == 0 else 0.1) for i in range(n)
    ]


def facts(**changes: Any) -> DiagnosisFacts:
    """An old, sound release whose F1 fell; nothing was changed."""
    values: dict[str, Any] = {
        "detected_at": NOW,
        "metrics": metrics(FALLEN),
        "changes": [],
        "status": status(),
        "predictions": rows(),
        "model_version": "v2.0.0",
        "probing": CALM,
        "retrain_triggers": TRIGGERS,
    }
    return gathered(**(values | changes))


def decide(found: Sequence[Finding], **changes: Any) -> Diagnosis:
    return diagnose(found, facts(**changes), NOW)


def one_type_fell() -> ModelMetrics:
    """Over all F1 is as it was; type H, an eighth of the failures, is missed."""
    whole = metrics(HEALTHY)
    by_type = {"L": Confusion(tp=120, fp=20, fn=20, tn=2000), "H": Confusion(tp=16, fp=10, fn=30, tn=400)}
    before = {"L": Confusion(tp=600, fp=100, fn=100, tn=10_000), "H": Confusion(tp=170, fp=30, fn=40, tn=2_000)}
    return replace(whole, current=replace(whole.current, by_asset_type=by_type), baseline=replace(whole.baseline, by_asset_type=before))


class TestASensorThatReadsWrong:
    def test_one_sensor_off_since_a_moment_is_for_people_and_nothing_is_retrained(self) -> None:
        d = decide(findings(moved=["torque_nm"]), courses={"torque_nm": JUMPED})
        assert (d.top.cause, d.path) == (Cause.DATA_DRIFT, None)
        assert "No safe automatic path here: torque_nm moved by +0.6 standard deviations at once" in d.sentence
        assert "retraining would teach the model its error" in d.advice
        assert d.chain[-1].startswith("Why did that move? Because torque_nm moved")

    def test_a_fleet_that_changes_in_several_readings_is_learned(self) -> None:
        moved = ["torque_nm", "air_temperature_k"]
        d = decide(findings(moved=moved), courses=dict.fromkeys(moved, CREPT))
        assert (d.top.cause, d.path) == (Cause.DATA_DRIFT, Path.RETRAIN)

    def test_drift_that_cannot_be_told_from_a_broken_sensor_is_for_people(self) -> None:
        assert decide(findings(moved=["torque_nm"])).path is None


class TestOneAssetType:
    def test_a_type_that_overall_f1_hides_is_found_and_goes_to_people(self) -> None:
        d = decide(findings(affected_asset_types=State.SUSPECT), metrics=one_type_fell())
        assert (d.top.cause, d.path) == (Cause.CONCEPT_DRIFT, None)
        assert "look at asset type H alone" in d.advice
        assert "asset type H: F1 fell" in d.sentence
        assert d.chain[0].startswith("Why did performance fall? Because v2.0.0 is wrong about asset type H")

    def test_a_type_too_rare_to_be_proven_fallen_is_found_by_how_far_it_fell_behind_another(self) -> None:
        whole = metrics(HEALTHY)
        now = {"M": Confusion(tp=260, fp=35, fn=40, tn=5000), "H": Confusion(tp=22, fp=12, fn=28, tn=1300)}
        before = {"M": Confusion(tp=2000, fp=300, fn=300, tn=40_000), "H": Confusion(tp=80, fp=15, fn=25, tn=6000)}
        rare = replace(whole, current=replace(whole.current, by_asset_type=now), baseline=replace(whole.baseline, by_asset_type=before))
        d = decide(findings(), metrics=rare)
        assert (d.top.cause, d.path) == (Cause.CONCEPT_DRIFT, None)
        assert "look at asset type H alone" in d.advice
        assert "for H and 0.87 for M" in d.sentence

    def test_other_thresholds_are_replayed_on_the_type_alone(self) -> None:
        best = facts(metrics=one_type_fell()).replay_best
        assert best is not None
        assert best.expected.n == 300
        assert best.recoverable is False

    def test_a_release_that_fails_one_type_is_still_rolled_back(self) -> None:
        d = decide(findings(), metrics=one_type_fell(), changes=[change("deployment", hours_ago=3)])
        assert (d.top.cause, d.path) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK)

    def test_a_type_that_pulls_down_the_figure_of_all_is_named_and_nothing_is_retrained(self) -> None:
        whole = replace(one_type_fell(), current=replace(metrics(FALLEN).current, by_asset_type=one_type_fell().current.by_asset_type))
        d = decide(findings(), metrics=whole)
        assert (d.top.cause, d.path) == (Cause.CONCEPT_DRIFT, None)
        assert "asset type H" in d.sentence

    def test_where_every_type_fell_none_is_singled_out(self) -> None:
        worse = {"L": Confusion(tp=70, fp=40, fn=70, tn=2000), "H": Confusion(tp=16, fp=10, fn=30, tn=400)}
        both = replace(one_type_fell(), current=replace(metrics(FALLEN).current, by_asset_type=worse))
        assert facts(metrics=both).fallen_types == {}
        assert decide(findings(), metrics=both).path is Path.RETRAIN


class TestOutcomesThatStopped:
    @pytest.mark.parametrize("known", [HEALTHY, FALLEN, Confusion()])
    def test_f1_is_neither_called_fallen_nor_fine(self, known: Confusion) -> None:
        d = decide(findings(), metrics=metrics(known, outcomes_due=3000, outcomes_missing=2500))
        assert (d.top.cause, d.path) == (Cause.LABEL_PROBLEM, None)
        assert "look at the feed of outcomes" in d.advice
        assert "F1" not in d.sentence
        scores = {c.cause: c.score for c in d.causes}
        assert max(scores[c] for c in (Cause.NOTHING_WRONG, Cause.CONCEPT_DRIFT, Cause.BAD_DEPLOYMENT)) < 0.5
        assert d.chain == (
            "Why is performance not known? Because 500 of 3000 outcomes that are due have come (17 %, usually 100 %): "
            "performance is not known, neither bad nor good",
        )

    def test_a_model_that_flags_every_asset_is_stopped_without_any_outcome(self) -> None:
        stalled = metrics(Confusion(), predictions=500, outcomes_due=500, outcomes_missing=500)
        d = decide(findings(), metrics=stalled, changes=[change("deployment", hours_ago=1)], dangerous=True, predictions=[])
        assert (d.top.cause, d.path) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK)


class TestProbing:
    def test_probing_goes_to_security_with_what_was_seen(self) -> None:
        d = decide(findings(), metrics=metrics(HEALTHY), probing=PROBED)
        assert (d.top.cause, d.path) == (Cause.ATTACK, None)
        assert "have security find who sends these requests" in d.advice
        assert "asset_7" in d.advice

    def test_inputs_that_moved_because_of_the_probes_are_not_called_drift(self) -> None:
        d = decide(findings(moved=["torque_nm", "air_temperature_k"]), probing=PROBED)
        assert d.top.cause is Cause.ATTACK
        assert {c.cause: c.score for c in d.causes}[Cause.DATA_DRIFT] == 0

    def test_a_log_that_was_not_read_is_no_attack_and_no_peace(self) -> None:
        scores = {c.cause: c for c in decide(findings(), metrics=metrics(HEALTHY), probing=None).causes}
        assert scores[Cause.ATTACK].score < 0.5
        assert "the log was not read" in scores[Cause.NOTHING_WRONG].open


def test_a_move_too_small_to_explain_a_fall_is_not_its_cause() -> None:
    slight = [replace(f, value={"tool_wear_min": {"found": ["moved"], "effect": 0.06}}) for f in findings(moved=["tool_wear_min"])]
    slight = [f if f.key == DISTRIBUTIONS else replace(f, value=None) for f in slight]
    d = decide(slight)
    assert d.top.cause is Cause.CONCEPT_DRIFT
    assert next(c for c in d.causes if c.cause is Cause.DATA_DRIFT).score == 0


def test_drift_is_not_the_cause_where_another_version_does_well_on_the_same_requests() -> None:
    better = TargetChoice("v1.5.0", (), "v1.5.0 does better on the same requests", False, 4000, 130)
    released = [change("deployment", ref="v2.0.0", hours_ago=1)]
    d = decide(findings(moved=["torque_nm"]), changes=released, targets=better)
    assert d.top.cause is Cause.BAD_DEPLOYMENT
    assert next(c for c in d.causes if c.cause is Cause.DATA_DRIFT).score == 0


def test_an_ordinary_week_is_nothing_wrong() -> None:
    d = decide(findings(), metrics=metrics(HEALTHY))
    assert (d.top.cause, d.path, d.top.score) == (Cause.NOTHING_WRONG, None, 1.0)


def test_a_checklist_of_unknowns_is_not_an_all_clear() -> None:
    d = decide(findings(State.UNKNOWN), metrics=metrics(HEALTHY))
    assert d.top.cause is Cause.UNKNOWN


def test_the_leads_are_explained_and_what_is_ruled_out_is_none() -> None:
    d = decide(findings(moved=["torque_nm"]), courses={"torque_nm": JUMPED})
    assert [c.cause for c in d.leads][:2] == [Cause.DATA_DRIFT, Cause.CONCEPT_DRIFT]
    assert d.leads[1].explained.startswith("concept drift 0.")
    assert ". against: inputs: data_quality.feature_distributions seen" in d.leads[1].explained
    assert all(c.score > 0 for c in d.leads)


# --- of every diagnosis

STATES = st.lists(st.sampled_from(list(State)), min_size=len(CHECKLIST), max_size=len(CHECKLIST))
WORLDS: list[DiagnosisFacts] = [
    facts(),
    facts(metrics=metrics(HEALTHY)),
    facts(metrics=None, status=None, changes=None, predictions=[], probing=None),
    facts(changes=[change("deployment", hours_ago=3)]),
    facts(metrics=one_type_fell()),
    facts(metrics=metrics(HEALTHY, outcomes_due=3000, outcomes_missing=2500)),
    facts(probing=PROBED),
    facts(status=status(server_healthy=False)),
]
WORLD = st.sampled_from(WORLDS)


def stated(states: Sequence[State]) -> list[Finding]:
    return [Finding(item.key, state, "test", None, f"{item.key} seen") for item, state in zip(CHECKLIST, states, strict=True)]


def sentences(found: Sequence[Finding], about: DiagnosisFacts) -> Mapping[Cause, Mapping[bool | None, int]]:
    """How many lines of each cause hold, do not, and are not known."""
    file = CaseFile({f.key: f for f in found}, about, NOW)
    lines = {one.cause: one.evidence(file) for one in DEFINITIONS}
    return {cause: {held: sum(line.holds is held for line in of) for held in (True, False, None)} for cause, of in lines.items()}


@settings(max_examples=60, deadline=None)
@given(states=STATES, about=WORLD, order=st.permutations(range(len(CHECKLIST))))
def test_the_order_of_the_findings_changes_nothing(states: list[State], about: DiagnosisFacts, order: list[int]) -> None:
    found = stated(states)
    assert diagnose([found[i] for i in order], about, NOW) == diagnose(found, about, NOW)


@settings(max_examples=60, deadline=None)
@given(states=STATES, about=WORLD, at=st.integers(0, len(CHECKLIST) - 1))
def test_an_unknown_finding_never_counts_as_ok(states: list[State], about: DiagnosisFacts, at: int) -> None:
    """To know less never lets more lines hold, nor refutes more, and never makes it likelier that nothing is wrong."""
    known, less = list(states), list(states)
    known[at], less[at] = State.OK, State.UNKNOWN
    with_it, without = sentences(stated(known), about), sentences(stated(less), about)
    for cause, lines in without.items():
        assert lines[True] <= with_it[cause][True]
        assert lines[False] <= with_it[cause][False]
    calm = [{c.cause: c.score for c in diagnose(stated(s), about, NOW).causes}[Cause.NOTHING_WRONG] for s in (known, less)]
    assert calm[1] <= calm[0]


@settings(max_examples=60, deadline=None)
@given(states=STATES, about=WORLD)
def test_every_diagnosis_has_a_path_or_says_what_a_human_should_look_at(states: list[State], about: DiagnosisFacts) -> None:
    d = diagnose(stated(states), about, NOW)
    assert all(0 <= c.score <= 1 for c in d.causes)
    assert d.advice.startswith("Path ") if d.path in (Path.ROLLBACK, Path.MATERIALIZE, Path.RETRAIN, Path.THRESHOLD) else d.advice
    if d.path is None:
        assert d.advice.startswith("No safe automatic path here: ")
        assert len(d.advice) > 50
    assert d.headline.strip(": ")


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_defined_once_from_its_evidence_to_what_prevents_it(cause: Cause) -> None:
    (one,) = (definition for definition in DEFINITIONS if definition.cause is cause)
    assert one.headline.format(version="v2.0.0").strip()
    assert len(action_items(cause, Severity.HIGH, NOW + timedelta(hours=1))) >= 2
    assert all(todo.action.strip() and todo.days > 0 for todo in one.prevention.follow_ups)
    lessons = (one.prevention.technical, one.prevention.process, one.prevention.monitoring)
    assert all(lessons) or cause in (Cause.NOTHING_WRONG, Cause.UNKNOWN)


@pytest.mark.parametrize("one", DEFINITIONS, ids=lambda one: one.cause)
@settings(max_examples=30, deadline=None)
@given(states=STATES, about=WORLD)
def test_every_part_of_a_definition_speaks_of_any_world(one: CauseDefinition, states: list[State], about: DiagnosisFacts) -> None:
    """Also of one that another cause explains better, and of one where nothing could be read."""
    file = CaseFile({f.key: f for f in stated(states)}, about, NOW)
    lines = one.evidence(file)
    assert sum(line.weight for line in lines) > 0 or one.cause is Cause.UNKNOWN
    assert all(line.sentence for line in lines)
    assert one.remedy(file).advice
    assert all("? Because " in why for why in one.whys(file))


def test_a_baseline_that_is_too_small_to_compare_with_blames_nothing() -> None:
    d = decide(findings(), metrics=metrics(HEALTHY, replace(BASELINE, tp=4, fn=2)))
    assert d.top.cause is Cause.UNKNOWN
