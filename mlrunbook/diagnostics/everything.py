"""All checks of the doctor, for the command and for the console's page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlrunbook.base.policy_file import load
from mlrunbook.base.settings import Settings
from mlrunbook.diagnostics import models, people, runtime, senders, services, sign_in, store
from mlrunbook.diagnostics.doctor import Ask, Check, Finding, examine, fail
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.policy.policy import Policy, channel_variable


def of_models(settings: Settings, env: Mapping[str, str], source: Path | None, only: str | None) -> list[models.ModelReport]:
    """Of the models whose platform the policy composes of parts; none where the policy does not hold, which `findings` says."""
    try:
        return models.reports(load(source) if source else Policy(), settings, env, only)
    except RunbookError:
        return []


def findings(settings: Settings, env: Mapping[str, str], source: Path | None, model: str) -> list[Finding]:
    """`source`: the policy file in force, None: the defaults hold. `env`: where the channels' addresses stand."""
    wrong = []
    try:
        policy = load(source) if source else Policy()
    except RunbookError as error:
        wrong.append(fail("policy", "; ".join(str(error).splitlines()), "mlrunbook policy check"))
        source, policy = None, Policy()
    addresses = {name: env[channel_variable(name)] for name in policy.channels if env.get(channel_variable(name))}
    checks = [
        Check("database", store.store),
        Check("Prefect", services.prefect),
        Check("gateway", services.gateway),
        Check("feature store", runtime.features, timeout_s=30.0),
        Check("channels", people.channels),
        Check("senders", senders.sns),
        Check("sign-in", sign_in.sign_in),
    ]
    if not models.has_no_server(policy, model):
        checks[3:3] = [Check("runtime", runtime.runtime, timeout_s=20.0)]
    if model not in models.composed(policy) or "platform_url" in settings.model_fields_set:
        checks[3:3] = [Check("platform", services.platform, timeout_s=60.0), Check("model server", services.model_server)]
    if not wrong:
        checks.insert(0, Check("policy", lambda ask: people.policy(ask, source)))
    return wrong + examine(checks, Ask(settings, policy, model, addresses))
