"""What a person or the diagnosis names is looked up before anything is planned with it; what cannot be looked up is not planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlrunbook.domain.actions import (
    Configure,
    Materialize,
    Path,
    PlanKind,
    Promote,
    Register,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Stage,
)
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import Invalid, Transient
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.execution import existing
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.fakes import MODEL, FileWorld
from tests.response.carrying import carry
from tests.response.people import plan, recorded, report, told

UNKNOWN = Request(path=Path.ROLLBACK, target_version="v9.9.9", reason="worse", by="an engineer")
KNOWN = replace(UNKNOWN, target_version="v1.5.0")


def ask_for(world: World, request: Request) -> str:
    about = (MODEL, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "F1 fell", "", "an engineer")
    return open_or_join(world, NewReport(*about), request)


class TestVersion:
    def test_one_that_is_not_registered_is_invalid_with_those_that_are(self, world: World) -> None:
        existing.check_version(world, MODEL, "v1.5.0")
        with pytest.raises(Invalid, match=r"v9\.9\.9 is not registered for predictive_maintenance; registered: v1\.4\.0, v1\.5\.0") as no:
            existing.check_version(world, MODEL, "v9.9.9")
        assert no.value.field == "version"
        with pytest.raises(Invalid, match="knows no model churn"):
            existing.check_version(world, "churn", "v1.5.0")

    def test_while_the_registry_cannot_be_read_nothing_is_said_to_exist(self, world: World, file_world: FileWorld) -> None:
        file_world.down = True
        with pytest.raises(Transient, match=r"whether v1\.5\.0 is registered for predictive_maintenance cannot be checked"):
            existing.check_version(world, MODEL, "v1.5.0")


class TestAskedFor:
    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (UNKNOWN, "targetVersion"),
            (Request(path=Path.THRESHOLD, threshold=1.0, reason="", by="an engineer"), "threshold"),
            (Request(path=Path.THRESHOLD, threshold=float("nan"), reason="", by="an engineer"), "threshold"),
            (Request(path=Path.THRESHOLD, threshold=-0.2, reason="", by="an engineer"), "threshold"),
            (Request(path=Path.MATERIALIZE, views=("customer_activity",), reason="", by="an engineer"), "featureViews"),
        ],
    )
    def test_what_does_not_exist_is_refused_by_the_parameters_name_and_opens_nothing(
        self, world: World, request_: Request, field: str
    ) -> None:
        with pytest.raises(Invalid) as no:
            ask_for(world, request_)
        assert no.value.field == field
        with world.transaction() as conn:
            assert incidents.find(conn, model=MODEL) == []

    def test_an_incident_opens_also_while_the_registry_is_away_and_its_plan_waits_for_it(self, world: World, file_world: FileWorld) -> None:
        """Pages fail open, changes fail closed."""
        file_world.down = True
        incident_id = ask_for(world, UNKNOWN)
        file_world.down = False
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert plan(world, incident_id) is None
        assert "v9.9.9 is not registered" in recorded(world, incident_id, "resolution_plan")["why"]
        assert any("v9.9.9 is not registered" in said for said in told(world, incident_id, "plan"))
        assert not {"rollback", "route:v9.9.9"} & file_world.applied.keys()

    def test_a_version_that_is_registered_is_planned(self, world: World) -> None:
        incident_id = ask_for(world, KNOWN)
        assert carry(world, incident_id, "run-1") == "pending"
        asked = plan(world, incident_id)
        assert asked is not None
        assert RollBack(MODEL, "v1.5.0").target() in [a.target() for a in asked.actions]

    def test_a_plan_is_not_made_while_its_version_cannot_be_looked_up(
        self, world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The registry's list alone is away: everything else answers."""
        incident_id = ask_for(world, KNOWN)

        def away(model: str) -> Any:
            raise Transient("the registry does not answer")

        monkeypatch.setattr(file_world, "versions", away)
        assert carry(world, incident_id, "run-1") == "waiting for a human"
        assert "cannot be checked" in recorded(world, incident_id, "resolution_plan")["why"]


class TestActions:
    def test_each_that_names_what_is_not_there_is_refused(self, world: World, file_world: FileWorld) -> None:
        actions = (
            RollBack(MODEL, "v9.9.9"),
            RouteTraffic(MODEL, "v9.9.9"),
            Stage(MODEL, "v9.9.9"),
            Promote(MODEL, "v9.9.9"),
            Configure(MODEL, {"threshold": 1.4}),
            Materialize(MODEL, ("customer_activity",)),
            ResumeMaterialization(MODEL, ("customer_activity",)),
        )
        assert set(existing.refused(world, MODEL, actions)) == set(range(len(actions)))
        sound = (
            RollBack(MODEL, "v1.5.0"),
            RouteTraffic(MODEL, None),
            Stage(MODEL, None),
            Configure(MODEL, {"threshold": 0.4}),
            Materialize(MODEL, ("asset_wear",)),
        )
        assert existing.refused(world, MODEL, sound) == {}

    def test_a_version_that_the_plan_itself_registers_may_be_staged(self, world: World) -> None:
        assert existing.refused(world, MODEL, (Register(MODEL, "v3.0.0"), Stage(MODEL, "v3.0.0"))) == {}

    def test_while_the_registry_is_away_the_runtime_alone_judges_a_route(self, world: World, file_world: FileWorld) -> None:
        file_world.down = True
        assert list(existing.refused(world, MODEL, (RouteTraffic(MODEL, "v1.5.0"), RollBack(MODEL, "v1.5.0")))) == [1]


def test_stale_views_of_another_model_are_nobodys_repair_in_this_incident(world: World, file_world: FileWorld) -> None:
    """Two models share the feature store: only the views of the incident's own are judged, materialised and resumed."""
    own = replace(world, policy=Policy(models={MODEL: ModelRules(feature_views=("asset_wear",))}))
    file_world.set(bad_versions={}, features=file_world.state["features"] | {"stale": ["asset_sensors"], "suspended": ["asset_sensors"]})
    incident_id = report(own, Severity.HIGH, by_alert=False)
    carry(own, incident_id, "run-1")
    verdict = recorded(own, incident_id, "features")["verdict"]
    assert (verdict["views"], verdict["resume"]) == ([], [])
    assert not any(kind.startswith(("materialize", "resume")) for kind in file_world.applied)


def test_dangerous_predictions_are_stopped_where_the_version_before_is_no_longer_registered(world: World, file_world: FileWorld) -> None:
    file_world.set(versions=["v2.0.0"], bad_versions={"v2.0.0": "dangerous"})
    incident_id = report(world, Severity.CRITICAL)
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 0
    assert not any(kind.startswith("route") for kind in file_world.applied)
    assert plan(world, incident_id, PlanKind.MITIGATION) is None
