"""What a message says becomes alerts and changes on models: the same steps for every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mlrunbook.domain.detection.alerts import NormalisedAlert, judge
from mlrunbook.domain.intake.facts import State
from mlrunbook.domain.intake.naming import Unnamed, asked_about, identify
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.owned import Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.webhooks.parsing import ExternalNote, Reading, Unusable


@dataclass(frozen=True)
class ModelChange:
    model: str
    change: Change
    because: str = ""  # what made it this model's; "": it was told by hand
    kind_because: str = ""  # what made it a change of this kind; "": its format knows no other


@dataclass(frozen=True)
class PassedOver:
    """What nobody has to hear of, and what decided that."""

    title: str
    because: str


@dataclass(frozen=True)
class Judgement:
    """One reading, judged. `delivery_id` None: its sender numbers nothing, or nothing of it could be used, so that it may come again."""

    alerts: Sequence[NormalisedAlert] = ()
    unusable: Sequence[Unusable] = ()
    truncated: int = 0
    changes: Sequence[ModelChange] = ()
    words: Sequence[ExternalNote] = ()
    passed_over: Sequence[PassedOver] = ()
    delivery_id: str | None = None
    part: Any = None  # of the message that this is; None: the message is all about it, or each alert has its own


def names_in(readings: Iterable[Reading]) -> set[str]:
    """The models that are to be looked up before `judge_all`."""
    facts = (one for reading in readings for one in (*reading.alerts, *(told.facts for told in reading.changes)))
    return {name for one in facts if one.state is not State.IGNORED for name in asked_about(one)}


def judge_all(readings: Iterable[Reading], policy: Policy, standings: Mapping[str, Standing], *, received_at: datetime) -> list[Judgement]:
    return [_judgement(reading, policy, standings, received_at) for reading in readings]


def _with_names_of_registries(policy: Policy) -> IntakePolicy:
    """A registry tells of a model by the name that it has there; lines of `intake.models` come first."""
    registries = {model: rules.platform.registry for model, rules in policy.models.items() if rules.platform}
    lines = {f"registered_model:{part.name}": model for model, part in registries.items() if part and part.name}
    return replace(policy.intake, models={**policy.intake.models, **lines}) if lines else policy.intake


def _judgement(reading: Reading, policy: Policy, standings: Mapping[str, Standing], received_at: datetime) -> Judgement:
    alerts, changes, unusable = list[NormalisedAlert](), list[ModelChange](), list(reading.unusable)
    passed = [PassedOver("", reading.passed_over)] if reading.passed_over else []
    for facts in reading.alerts:
        if facts.state is State.IGNORED:
            passed.append(PassedOver(facts.title, facts.state_because))
            continue
        alert = judge(facts, policy, standings, received_at=received_at)
        if isinstance(alert, str):
            unusable.append(Unusable(facts.part if facts.part is not None else reading.part, alert))
        else:
            alerts.append(alert)
    for told in reading.changes:
        named = identify(told.facts, _with_names_of_registries(policy), standings, about_a_model=True)
        if isinstance(named, Unnamed):
            unusable.append(Unusable(reading.part, f"the change {named.reason}"))
        else:
            changes.append(ModelChange(named.model, told.change, named.because, told.facts.state_because))
    nothing = bool(unusable) and not (alerts or changes or reading.words)
    number = None if nothing else reading.delivery_id
    return Judgement(alerts, unusable, reading.truncated, changes, reading.words, passed, number, reading.part)
