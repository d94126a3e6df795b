"""What a sender said becomes a model, a type and a level, and each verdict says what decided it."""

from __future__ import annotations

from datetime import UTC, datetime
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.detection.alerts import NormalisedAlert, judge
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.intake.classification import classify, line_for
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.level import grade
from mlrunbook.domain.intake.naming import Named, Unnamed, asked_about, identify
from mlrunbook.domain.intake.words import meaning
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.owned import Known, Standing
from mlrunbook.domain.policy.policy import Policy

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
KNOWN, UNKNOWN = Standing(Known.KNOWN), Standing(Known.UNKNOWN)
TYPES = Policy().alert_types


def facts(said: dict[str, str], title: str = "QueueLong", **more: object) -> Facts:
    return Facts("a1", State.FIRING, title, said, **more)  # type: ignore[arg-type]


def named(one: Facts, models: dict[str, str] | None = None, known: tuple[str, ...] = (), *, about_a_model: bool = False) -> str | None:
    """The model, where every name has been looked up."""
    standings = {name: KNOWN if name in known else UNKNOWN for name in asked_about(one)}
    found = identify(one, IntakePolicy(models=models or {}), standings, about_a_model=about_a_model)
    return found.model if isinstance(found, Named) else None


class TestTheModel:
    def test_what_policy_says_of_the_name_counts_before_the_name(self) -> None:
        assert named(facts({"model": "pumps"}), {"model:pumps": "pump_failure"}, known=("pumps",)) == "pump_failure"

    @pytest.mark.parametrize("name", ["acme/summariser-7b", "Risk Model", "models:/risk/12", "4598713216", "x" * 200, "Größe", "a:b:c"])
    def test_any_name_can_be_mapped(self, name: str) -> None:
        assert named(facts({"model_name": name}), {f"model_name:{name}": "risk"}) == "risk"

    def test_another_label_is_mapped_where_the_name_is_no_model_of_ours(self) -> None:
        for name in ("acme/summariser-7b", "llama", "Risk Model"):
            assert named(facts({"model_name": name, "job": "scorer"}), {"job:scorer": "risk"}) == "risk"

    def test_a_known_name_counts_before_what_is_made_of_other_labels(self) -> None:
        assert named(facts({"model": "pumps", "job": "scorer"}), {"job:scorer": "risk"}, known=("pumps",)) == "pumps"

    def test_a_known_name_counts_before_a_look_alike(self) -> None:
        assert named(facts({"model": "XY4000NM", "model_name": "pumps"}), known=("pumps",)) == "pumps"

    @pytest.mark.parametrize("label", ["model", "model_name", "modelId", "Model", "ModelName"])
    def test_a_device_is_no_model(self, label: str) -> None:
        assert named(facts({label: "XY4000NM-1V", "device": "sda"}, "DiskHot")) is None

    def test_a_name_nobody_knows_counts_where_the_alert_is_about_a_model(self) -> None:
        assert named(facts({"model": "pumps"}, "ModelF1Drop"), about_a_model=True) == "pumps"
        typo = Standing(Known.UNKNOWN, "did you mean pumps?")
        assert isinstance(identify(facts({"model": "pumsp"}), IntakePolicy(), {"pumsp": typo}, about_a_model=False), Named)

    @pytest.mark.parametrize("said", ["None", "null", "NaN", "<no value>", "{{ model }}", "$MODEL", "undefined", "true", "N/A", "-"])
    def test_what_a_template_found_nothing_for_is_no_name(self, said: str) -> None:
        assert isinstance(identify(facts({"model": said}, "ModelF1Drop"), IntakePolicy(), {}, about_a_model=True), Unnamed)
        assert named(facts({"model": said, "model_name": "pumps"}), known=("pumps",)) == "pumps"
        assert named(facts({"model": said}), {f"model:{said}": "pumps"}) == "pumps"

    def test_every_name_counts_while_the_registry_cannot_be_asked(self) -> None:
        assert isinstance(identify(facts({"model": "pumps"}), IntakePolicy(), {}, about_a_model=False), Named)

    @pytest.mark.parametrize(
        ("said", "model", "version"),
        [
            ("models/risk:20", "risk", "20"),
            ("models:/risk/20", "risk", "20"),
            ("models:/risk@champion", "risk", "champion"),
            ("projects/p/models/risk/versions/20", "risk", "20"),
            ("projects/p/locations/l/models/risk", "risk", None),
            ("risk:20", "risk", "20"),
            ("risk@20", "risk", "20"),
        ],
    )
    def test_a_resource_name_names_model_and_version(self, said: str, model: str, version: str | None) -> None:
        found = identify(facts({"model": said}), IntakePolicy(), {"risk": KNOWN}, about_a_model=False)
        assert isinstance(found, Named)
        assert (found.model, found.version) == (model, version)

    def test_the_name_after_the_organisation_counts_where_it_is_known(self) -> None:
        assert named(facts({"model_name": "acme/risk"}), known=("risk",)) == "risk"
        assert named(facts({"model_name": "acme/risk"}), about_a_model=True) is None

    def test_only_star_and_question_mark_are_wild(self) -> None:
        models = {"title:[FIRING:1] LossHigh*": "pumps"}
        assert named(facts({"title": "[FIRING:1] LossHigh on x"}), models) == "pumps"
        assert named(facts({"title": "F LossHigh"}), models) is None

    def test_who_names_no_model_hears_what_to_do(self) -> None:
        found = identify(facts({"service": "web"}), IntakePolicy(), {}, about_a_model=True)
        assert isinstance(found, Unnamed)
        assert "intake.models" in found.reason


class TestTheType:
    @pytest.mark.parametrize(
        "title",
        [
            "ModelServerDown",
            "[FIRING:1] ModelServerDown pumps (critical)",
            "modelserverdown",
            "Model server down: pumps",
            "model_server_down",
        ],
    )
    def test_the_name_counts_anywhere_in_a_title_in_any_case(self, title: str) -> None:
        assert classify(title, {}, TYPES).value is IncidentType.INFRASTRUCTURE

    def test_a_name_inside_another_word_does_not(self) -> None:
        assert line_for("RemodelServerDownstream", TYPES) is None

    def test_the_longest_name_counts(self) -> None:
        types = {"Drift": IncidentType.BIAS_FAIRNESS, "FeatureDrift": IncidentType.INFRASTRUCTURE}
        assert classify("FeatureDrift on pumps", {}, types).value is IncidentType.INFRASTRUCTURE

    def test_a_pattern_counts_where_no_name_does(self) -> None:
        types = {"*latency*": IncidentType.INFRASTRUCTURE, "*latency*bias*": IncidentType.BIAS_FAIRNESS, "P95": IncidentType.SECURITY}
        assert classify("p99 LATENCY high", {}, types).value is IncidentType.INFRASTRUCTURE
        assert classify("latency and bias", {}, types).value is IncidentType.BIAS_FAIRNESS
        assert classify("P95 latency", {}, types).value is IncidentType.SECURITY

    @pytest.mark.parametrize(
        ("label", "value", "kind"),
        [
            ("incident_type", "security", IncidentType.SECURITY),
            ("incident_type", "Bias Fairness", IncidentType.BIAS_FAIRNESS),
            ("subtype", "data_leakage", IncidentType.SECURITY),
            ("subtype", "privacy-breach", IncidentType.COMPLIANCE),
        ],
    )
    def test_a_label_counts_before_the_name(self, label: str, value: str, kind: IncidentType) -> None:
        assert classify("ModelServerDown", {label: value}, TYPES).value is kind

    def test_what_could_not_be_measured_is_infrastructure(self) -> None:
        assert classify("ModelF1Drop", {}, TYPES, unanswered="connection refused").value is IncidentType.INFRASTRUCTURE


class TestTheLevel:
    @pytest.mark.parametrize(
        ("said", "level"),
        [
            ({"severity": "page"}, "critical"),
            ({"severity": "Emergency"}, "critical"),
            ({"severity": "SEV-1"}, "critical"),
            ({"severity": "Sev 1 - outage"}, "critical"),
            ({"priority": "P1"}, "critical"),
            ({"severity": "none", "priority": "P1"}, "critical"),
            ({"priority": "SEV-1", "urgency": "low"}, "critical"),
            ({"urgency": "high"}, "critical"),
            ({"Severity": "WARN"}, "warning"),
            ({"severity": "P3"}, "warning"),
            ({"severity": "LOW"}, "info"),
            ({"severity": "ok"}, "info"),
            ({"severity": "purple"}, ""),
            ({"severity": "not critical"}, ""),
            ({}, ""),
        ],
    )
    def test_it_is_read_in_the_senders_own_words(self, said: dict[str, str], level: str) -> None:
        assert grade(facts(said), IntakePolicy()).value == level

    def test_what_the_format_says_counts_before_the_labels(self) -> None:
        assert grade(facts({"severity": "critical"}, levels=("", "warn")), IntakePolicy()).value == "warning"

    def test_a_team_has_words_of_its_own(self) -> None:
        policy = IntakePolicy(levels={"critical": ("lila",), "info": ("P1",)})
        assert grade(facts({"severity": "Lila"}), policy).value == "critical"
        assert grade(facts({"severity": "p1"}), policy).value == "info"

    def test_a_level_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="purple"):
            IntakePolicy(levels={"purple": ("x",)})

    @given(st.sampled_from(["P1", "page", "warning", "info"]), st.text(alphabet=ascii_lowercase, max_size=5))
    def test_a_denied_word_never_counts(self, word: str, noise: str) -> None:
        assert meaning(f"not {word} {noise}".strip(), IntakePolicy().levels) is None


class TestAnAlert:
    def judged(self, one: Facts, **policy: object) -> NormalisedAlert | str:
        return judge(one, Policy.model_validate(policy), {"pumps": KNOWN}, received_at=NOW)

    def test_says_how_it_was_read(self) -> None:
        alert = self.judged(facts({"model": "pumps", "priority": "P1"}, "[FIRING:1] FeatureDrift"))
        assert isinstance(alert, NormalisedAlert)
        assert (alert.name, alert.model, alert.severity) == ("FeatureDrift", "pumps", Severity.HIGH)
        assert set(alert.body["read"]) == {"model", "type", "level", "state", "identity"}
        assert all(alert.body["read"].values())

    def test_an_end_needs_no_model(self) -> None:
        alert = self.judged(Facts("a1", State.RESOLVED, "x", {}))
        assert isinstance(alert, NormalisedAlert)
        assert not alert.firing
        assert isinstance(self.judged(Facts("", State.RESOLVED, "x", {})), str)

    @given(st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=5), st.text(max_size=60))
    def test_is_read_or_refused_with_a_reason_whatever_is_said(self, said: dict[str, str], title: str) -> None:
        found = self.judged(facts(said, title))
        assert found
        assert not isinstance(found, NormalisedAlert) or found.model
