"""Which names are models: asked of the registry without keeping anybody waiting, and accepted where it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.owned import Known, ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.known_models import KnownModels
from tests.fakes import Clock

POLICY = Policy(models={"churn_*": ModelRules()}, intake=IntakePolicy(models={"service:Pumps": "pump_failure"}))


class Registry:
    """A platform that counts what it is asked. `error`: what every read raises; `gate`: what every read waits for."""

    def __init__(self, *models: str, keeps_a_list: bool = True) -> None:
        self.registered, self.keeps_a_list = set(models), keeps_a_list
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.asked: list[str] = []

    def models(self) -> list[str]:
        self._answer("models")
        if not self.keeps_a_list:
            raise NotFound("GET /api/v1/ml/models: Not Found")
        return sorted(self.registered)

    def status(self, model: str) -> None:
        self._answer(f"status {model}")
        raise NotFound(f"no version of {model} is in production")

    def versions(self, model: str) -> list[Any]:
        self._answer(f"versions {model}")
        if model not in self.registered:
            raise NotFound(f"there is no model {model}")
        return []

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.gate:
            self.gate.wait(120)
        if self.error:
            raise self.error


def known(registry: Registry, clock: Clock | None = None, **how: Any) -> KnownModels:
    return KnownModels(registry, clock or Clock(), **how)  # type: ignore[arg-type]


def of(models: KnownModels, name: str, **how: Any) -> Known:
    return models.of(POLICY, [name], **how)[name].known


@pytest.fixture
def hanging() -> Iterator[Registry]:
    registry = Registry("fraud_score")
    registry.gate = threading.Event()
    yield registry
    registry.gate.set()


@pytest.mark.parametrize("name", ["predictive_maintenance", "churn_eu", "pump_failure"])
def test_policy_knows_models_patterns_and_targets_of_mappings_and_the_registry_is_not_asked(name: str) -> None:
    registry = Registry()
    assert of(known(registry), name) is Known.KNOWN
    assert registry.asked == []


@pytest.mark.parametrize("keeps_a_list", [True, False])
def test_a_name_that_the_registry_does_not_know_is_unknown_and_one_without_a_serving_version_is_known(keeps_a_list: bool) -> None:
    models = known(Registry("fraud_score", keeps_a_list=keeps_a_list))
    assert of(models, "fraud_score") is Known.KNOWN
    assert of(models, "fraud") is Known.UNKNOWN


def test_whoever_misspelt_a_name_is_told_what_is_close_to_it() -> None:
    models = known(Registry("fraud_score", "energy_load"))
    assert models.of(POLICY, ["fruad_score"])["fruad_score"].hint == "did you mean fraud_score?"
    with pytest.raises(NotFound, match=r"did you mean pump_failure\?.*--unknown-model"):
        models.demand(POLICY, "pump_failur")


@pytest.mark.parametrize("error", [Transient("away"), Refused("401"), ValueError("a defect"), UnicodeEncodeError("ascii", "é", 0, 1, "no")])
@pytest.mark.parametrize("keeps_a_list", [True, False])
def test_while_the_registry_does_not_answer_every_name_is_accepted(error: Exception, keeps_a_list: bool) -> None:
    registry = Registry(keeps_a_list=keeps_a_list)
    registry.error = error
    models = known(registry)
    assert of(models, "fraud") is Known.UNREACHABLE
    registry.error = None
    assert of(models, "fraud") is Known.UNKNOWN


def test_a_registry_that_hangs_costs_one_short_wait_and_not_one_an_alert(hanging: Registry) -> None:
    models = known(hanging, wait_s=0.3)
    begun = time.monotonic()
    assert {of(models, f"fraud_{n}") for n in range(200)} == {Known.UNREACHABLE}
    assert time.monotonic() - begun < 5
    assert hanging.asked == ["models"]


def test_many_who_ask_at_once_share_one_question(hanging: Registry) -> None:
    models, found = known(hanging, wait_s=30), []
    threads = [threading.Thread(target=lambda: found.append(of(models, "fraud_score"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert hanging.gate is not None
    hanging.gate.set()
    for thread in threads:
        thread.join()
    assert found == [Known.KNOWN] * 20
    assert hanging.asked == ["models"]


def test_a_thousand_alerts_ask_once() -> None:
    registry = Registry("fraud_score")
    models = known(registry)
    for _ in range(1000):
        assert of(models, "fraud") is Known.UNKNOWN
    assert registry.asked == ["models"]


def test_a_model_that_was_registered_meanwhile_is_known_soon_and_at_once_to_a_person_who_reports_on_it() -> None:
    registry, clock = Registry(), Clock()
    models = known(registry, clock)
    assert of(models, "fraud") is Known.UNKNOWN
    registry.registered.add("fraud")
    assert of(models, "fraud") is Known.UNKNOWN
    assert of(models, "fraud", fresh=True) is Known.KNOWN
    assert of(models, "fraud") is Known.KNOWN


def test_an_unknown_name_is_asked_about_again_after_a_moment() -> None:
    registry, clock = Registry(), Clock()
    models = known(registry, clock)
    assert of(models, "fraud") is Known.UNKNOWN
    registry.registered.add("fraud")
    clock.advance(seconds=6)
    assert of(models, "fraud") is Known.KNOWN


@pytest.mark.parametrize("name", ["../admin", "a/b", "modèle", "fraud?x=1", "fraud\nx", "\ud800", "", "x" * 101])
def test_a_name_that_no_model_can_have_never_reaches_the_registry(name: str) -> None:
    registry = Registry(keeps_a_list=False)
    assert of(known(registry), name) is Known.UNKNOWN
    assert registry.asked == ["models"]
