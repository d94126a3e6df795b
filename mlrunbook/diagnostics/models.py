"""The doctor of each model whose platform is composed of parts: what works, what is missing, what follows, and the next command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mlrunbook.adapters.mlflow.replay.confine import why_not as why_not_confined
from mlrunbook.base.settings import Settings
from mlrunbook.diagnostics.connect.checking import Checked, check
from mlrunbook.domain.connecting.drift import Drift
from mlrunbook.domain.connecting.standing import Can, Means, Standing, standings
from mlrunbook.domain.policy.connections import PlatformParts, Serving
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.domain.policy.policy import Policy

BOX_TRAINING = ("mlrunbook", "train")


@dataclass(frozen=True)
class ModelReport:
    """`failed`: parts that could not be looked at, by connection."""

    model: str
    mode: str
    owner: str
    drifts: tuple[Drift, ...]
    failed: Mapping[str, str]
    standings: tuple[Standing, ...]

    @property
    def works(self) -> bool:
        return not self.drifts and not self.failed

    @property
    def next_command(self) -> str:
        if self.failed:
            return "correct what failed, then mlrunbook connect --check"
        if self.drifts:
            return self.drifts[0].fix
        missing = next((s.fix for s in self.standings if s.can is not Can.YES and s.fix.startswith("mlrunbook ")), "")
        return missing or ("mlrunbook observe report" if self.mode == "observe" else "mlrunbook incidents list")


def composed(policy: Policy) -> tuple[str, ...]:
    """The models that have a report."""
    return tuple(name for name, rules in policy.models.items() if rules.platform is not None and not is_pattern(name))


def has_no_server(policy: Policy, model: str) -> bool:
    """Policy says that no server of it is ours to change."""
    rules = policy.models.get(model)
    return rules is not None and rules.platform is not None and rules.platform.serving is Serving.NONE


def reports(policy: Policy, settings: Settings, env: Mapping[str, str], only: str | None = None) -> list[ModelReport]:
    names = [name for name in composed(policy) if only in (None, name)]
    if not names:
        return []
    checked = check(policy, settings, env, datetime.now(UTC))
    return [_report(policy, settings, name, checked) for name in names]


def _report(policy: Policy, settings: Settings, name: str, checked: Checked) -> ModelReport:
    rules = policy.models[name]
    parts = rules.platform or PlatformParts()
    used = {part.connection for part in (parts.registry, parts.predictions, parts.live) if part is not None}
    others = {} if _serving(parts, settings) is not Serving.KUBERNETES else {"the cluster"}
    failed = {part: said for part, said in checked.problems.items() if part in {*used, *others}}
    own = policy.for_model(name)
    means = Means(
        parts,
        _serving(parts, settings),
        policy.objects.by_model.get(name),
        "platform_url" in settings.model_fields_set,
        tuple(rules.feature_views or ()),
        settings.feature_repo is not None,
        tuple(own.training.command[:2]) != BOX_TRAINING,
        why_not_confined() or "",
    )
    return ModelReport(name, own.mode.value, rules.owner, tuple(d for d in checked.drifts if d.model == name), failed, standings(means))


def _serving(parts: PlatformParts, settings: Settings) -> Serving:
    return parts.serving or Serving(settings.runtime)
