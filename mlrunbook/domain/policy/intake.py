"""What a team decides about incoming alerts: which model they are about, and where its own JSON keeps what an alert needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

MODEL_LABELS = ("model", "model_name", "modelId")
CHANGE_KINDS = ("deployment", "rollback", "staging", "config", "feature_store", "infrastructure", "data_pipeline")
OWN_KEY = "mlrunbook:"  # what our pages are known by elsewhere begins with it
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


# Who reports: mlrunbook itself (its monitor, its audits, the forms of Prefect), a person's report over HTTP, and the formats of alerts.
OWN, UNPROVEN = "mlrunbook", ""
MAIL = "email"
SENDERS = (OWN, "report", "alertmanager", "grafana", "datadog", "pagerduty", "opsgenie", "cloudevents", "mlflow", "generic", MAIL)
Trusted = Literal["containment", "isolation"]


@dataclass(frozen=True)
class Trust:
    """Section `intake.trusted_for`: on whose word alone something is done at once. All others are heard, page and open incidents, and what
    rests on their word alone waits for a person; what triage measures itself needs nobody's word.

    A sender counts where it is proven: by the secret of its format, or by a token that is limited to it, or that may operate. `mlrunbook`
    itself always is. Mail passes through the hands of others with its token in it, so it is not among the defaults.
    """

    containment: tuple[str, ...] = tuple(sender for sender in SENDERS if sender != MAIL)
    isolation: tuple[str, ...] = tuple(sender for sender in SENDERS if sender != MAIL)

    def __post_init__(self) -> None:
        for sender in (*self.containment, *self.isolation):
            if sender not in SENDERS:
                raise ValueError(f"trusted_for: there is no sender {sender[:50]!r}; known are {', '.join(SENDERS)}")

    def trusts(self, kind: Trusted, proven_as: str) -> bool:
        """Whether policy does `kind` on the word of a sender that was proven to be `proven_as`.

        >>> Trust(isolation=("alertmanager",)).trusts("isolation", "alertmanager"), Trust().trusts("isolation", UNPROVEN)
        (True, False)
        """
        return proven_as in (self.containment if kind == "containment" else self.isolation)


@dataclass(frozen=True)
class GenericFields:
    """Dotted paths into a message of `/webhooks/generic`; a number picks from a list, as in `alerts.0.name`.

    `alerts` is where a list of alerts stands; None: the message is one alert, and all other paths start at its top. `firing` and
    `resolved` are the words of the field `status`, in small letters; a message without a status fires.
    """

    alerts: str | None = None
    model: str = "model"
    model_version: str = "model_version"
    name: str = "kind"
    level: str = "severity"
    status: str = "status"
    summary: str = "summary"
    started_at: str = "started_at"
    fingerprint: str = "dedup_key"
    incident_type: str = "incident_type"
    firing: tuple[str, ...] = ("firing", "triggered", "alerting", "open", "active")
    resolved: tuple[str, ...] = ("resolved", "recovered", "ok", "closed", "normal")


@dataclass(frozen=True)
class IntakePolicy:
    """Section `intake`.

    models                what an alert says -> model id: "service:Pump API" is the label or field `service` with that value, for alerts
                          without a label `model`; "model:Pump API" says what is meant by that label; `*` and `?` stand for any text
    replay_window_s       a signature with a timestamp further away than this is refused (Slack's and Stripe's schemes use 300)
    cloudevents_per_min   events a minute that one sender of CloudEvents is granted; above it is told to wait (429)
    production_aliases    aliases of the MLflow registry whose move is a deployment
    unknown_models_per_hour  alerts on models that nobody knows open so many incidents an hour, all names together; the rest are
                          quarantined
    trusted_for           on whose word containment and isolation are automatic: see Trust
    """

    models: Mapping[str, str] = field(default_factory=dict)
    generic: GenericFields = GenericFields()
    replay_window_s: float = 300.0
    cloudevents_per_min: int = 100
    production_aliases: tuple[str, ...] = ("champion", "production")
    unknown_models_per_hour: int = 5
    trusted_for: Trust = Trust()

    def __post_init__(self) -> None:
        if self.replay_window_s <= 0 or self.cloudevents_per_min < 1:
            raise ValueError("replay_window_s must be over 0 and cloudevents_per_min at least 1")
        if self.unknown_models_per_hour < 1:
            raise ValueError("unknown_models_per_hour must be at least 1: an alert must be able to page somebody")
        for pattern, model in self.models.items():
            if ":" not in pattern:
                raise ValueError(f"models: {pattern!r} must be a label and its value, as in 'service:Pump API'")
            if not MODEL_ID.fullmatch(model):
                raise ValueError(f"models: {model!r} is no model id: letters, digits, '.', '_' and '-', 100 at most")

    def model_of(self, said: Mapping[str, str]) -> str | None:
        """The model an alert is about: what the team says of its label, the label, the first pattern that fits; None when nothing
        names one.

        >>> IntakePolicy(models={"service:Pump*": "pump_failure"}).model_of({"service": "Pump API"})
        'pump_failure'
        """
        named = next((label for label in MODEL_LABELS if said.get(label)), None)
        # A label that names the model is believed, unless the team says what is meant by just that: "model:Pump API".
        pairs = [f"{name}:{value}" for name, value in said.items() if named in (None, name)]
        mapped = (model for pattern, model in self.models.items() if any(_fits(pair, pattern, named) for pair in pairs))
        return next(mapped, said[named] if named else None)


def _fits(pair: str, pattern: str, named: str | None) -> bool:
    return (named is None or pattern.startswith(f"{named}:")) and fnmatchcase(pair, pattern)
