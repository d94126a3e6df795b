"""What a team decides about incoming alerts: which model they are about, and where its own JSON keeps what an alert needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from mlrunbook.domain.policy.expressions import compiled, path_of
from mlrunbook.domain.policy.patterns import fits

MODEL_LABELS = ("model", "model_name", "modelname", "model_id", "modelid")  # in any case; the plainest counts first
CHANGE_KINDS = ("deployment", "rollback", "staging", "config", "feature_store", "infrastructure", "data_pipeline")
OWN_KEY = "mlrunbook:"  # what our pages are known by elsewhere begins with it
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

VERSION_OF_TYPE = re.compile(r"[./]v?\d+(\.\d+)*$")  # CDEvents and many others end the type in its version

LEVELS = ("critical", "warning", "info")  # the worst first
# Of Prometheus' documentation, syslog, PagerDuty, Opsgenie, Datadog, Azure Monitor, Zabbix, Sentry, ServiceNow and incident levels in use.
WORDS_OF_LEVEL = {
    "critical": (
        *("critical", "crit", "page", "emergency", "emerg", "panic", "fatal", "disaster", "blocker", "severe", "urgent", "alert"),
        *("high", "highest", "major", "important", "error", "err", "down", "unreachable", "availability", "outage", "red"),
        *("sev0", "sev1", "sev2", "s0", "s1", "s2", "p0", "p1", "p2"),
        *("severity 0", "severity 1", "severity 2", "priority 0", "priority 1", "priority 2"),
    ),
    "warning": (
        *("warning", "warn", "medium", "moderate", "average", "minor", "degraded", "yellow", "amber", "orange"),
        *("sev3", "s3", "p3", "severity 3", "priority 3"),
    ),
    "info": (
        *("info", "information", "informational", "notice", "low", "lowest", "trivial", "debug", "verbose", "none", "ok", "okay", "normal"),
        *("sev4", "sev5", "s4", "s5", "p4", "p5", "severity 4", "severity 5", "priority 4", "priority 5"),
        *("planning", "success", "green", "not classified", "not urgent"),
    ),
}


@dataclass(frozen=True)
class StateWords:
    """How an alert stands, in senders' words; spelling does not matter. A message without such a word fires."""

    firing: tuple[str, ...] = (
        *("firing", "triggered", "trigger", "alerting", "alert", "alarm", "open", "opened", "active", "activated", "problem", "down"),
        *("failed", "failing", "failure", "fail", "critical", "crit", "warning", "warn", "major", "minor", "fatal", "unhealthy", "trouble"),
        *("started", "new", "create", "created", "reopen", "reopened", "error", "errored", "fired", "breached", "breach", "violated"),
        *("violation", "completed with violations", "anomaly", "anomalous", "degraded", "unavailable", "unreachable", "offline", "outage"),
        *("major outage", "partial outage", "crashed", "aborted", "timed out", "missing", "late", "flapping", "upgraded", "acknowledged"),
        *("acknowledgement", "ack", "escalated", "triage", "in triage", "investigating", "identified", "fixing", "mitigated", "monitoring"),
        *("in progress", "on hold", "no data", "missing data", "insufficient data", "unknown"),
    )
    resolved: tuple[str, ...] = (
        *("resolved", "resolve", "recovered", "recovery", "ok", "okay", "closed", "close", "normal", "up", "clear", "cleared", "inactive"),
        *("deactivated", "pass", "passing", "passed", "restored", "success", "successful", "succeeded", "completed", "operational"),
        *("healthy", "ended", "fixed", "done", "solved", "canceled", "cancelled", "false positive", "no action needed", "back to normal"),
    )
    ignored: tuple[str, ...] = ()


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


def _as_tuple(given: Any) -> Any:
    """What comes out of `_by_name` is no JSON any more, and strict validation takes no list for a tuple then."""
    return tuple(given) if isinstance(given, list) else given


def _expression(given: str) -> str:
    if given:
        compiled(given)
    return given


def _path(given: str) -> str:
    path_of(given)
    return given


_Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
_Paths = Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], BeforeValidator(_as_tuple)]
_Expression = Annotated[str, AfterValidator(_expression)]


@dataclass(frozen=True)
class GenericMapping:
    """Where a sender's own JSON keeps what an alert needs: JMESPath expressions, each into one alert; "" where it keeps no such thing.

    `json_in` names the fields whose text is itself JSON, the outer ones first, from the top of the message or of an alert; they are read
    before anything else. `alerts` is where a list of alerts stands; None: the message is one alert, or a list of them. `labels` is an
    object whose fields `intake.models` and the steps after it may ask about, beside those at the top of the alert. `firing`, `resolved`
    and `ignored` are the words of `status`, where they are other ones than those of `intake.states`.
    """

    json_in: _Paths = ()
    alerts: _Expression | None = None
    labels: _Expression = ""
    model: _Expression = "model"
    model_version: _Expression = "model_version"
    name: _Expression = "kind"
    level: _Expression = "severity"
    status: _Expression = "status"
    summary: _Expression = "summary"
    started_at: _Expression = "started_at"
    fingerprint: _Expression = "dedup_key"
    incident_type: _Expression = "incident_type"
    firing: _Texts = ()
    resolved: _Texts = ()
    ignored: _Texts = ()


EXPRESSIONS = tuple(f.name for f in fields(GenericMapping) if f.name not in ("json_in", "firing", "resolved", "ignored"))
DEFAULT_MAPPING = "default"  # of `/webhooks/generic` without a name
MAPPING_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def unnamed_fields(given: Mapping[str, Any]) -> list[str]:
    """The keys of `intake.generic` that are fields of a mapping and no mappings: as policies had it when there was one, without a name."""
    return [key for key, value in given.items() if key in GenericMapping.__dataclass_fields__ and not isinstance(value, Mapping)]


def _by_name(given: Any) -> Any:
    """With a mapping named `default`, which is also that of a policy whose one mapping has no name."""
    if not isinstance(given, Mapping):
        return given
    unnamed, default = unnamed_fields(given), given.get(DEFAULT_MAPPING, {})
    if unnamed and isinstance(default, Mapping):
        default = {**default, **{key: given[key] for key in unnamed}}
    return {DEFAULT_MAPPING: default} | {key: one for key, one in given.items() if key not in (DEFAULT_MAPPING, *unnamed)}


@dataclass(frozen=True)
class EventTypes:
    """What a CloudEvent is, by patterns of its type (any case, without the version it may end in); the first list that fits counts: alerts,
    changes, ignored. Any other type is an alert, and so is one whose data has an `alertname` or a state that fires.
    """

    alerts: tuple[str, ...] = ("*drift*", "*violation*", "*alarm*", "*alert*", "*incident*", "*anomaly*", "*fail*", "*error*")
    changes: Mapping[str, str] = field(
        default_factory=lambda: {
            "*.deployed": "deployment",
            "*.upgraded": "deployment",
            "*.promoted": "deployment",
            "*.rolledback": "rollback",
            "*.rolled_back": "rollback",
            "*.modelversion*registered": "staging",
            "*.model.registered": "staging",
        }
    )
    ignored: tuple[str, ...] = (
        *("*.created", "*.published", "*.packaged", "*.signed", "*.queued", "*.started", "*.finished", "*.completed", "*.succeeded"),
        *("*.requested", "*.inference.request", "*.inference.response", "*.request", "*.response", "*.logged", "*.log", "*.report"),
        *("*.removed", "*.deleted", "*.merged", "*.heartbeat", "*.ping", "*.status.changed", "*.audit.*"),
    )

    def __post_init__(self) -> None:
        for pattern, kind in self.changes.items():
            if kind not in CHANGE_KINDS:
                raise ValueError(f"cloudevents.changes: {pattern!r} is no kind of change {kind!r}; there are {', '.join(CHANGE_KINDS)}")

    def kind_of(self, type_: str) -> tuple[str, str] | None:
        """("alert", "ignored" or a kind of change, and the pattern that says so); None where nothing fits.

        >>> EventTypes().kind_of("dev.cdevents.service.deployed"), EventTypes().kind_of("com.example.Drift.detected")
        (('deployment', '*.deployed'), ('alert', '*drift*'))
        >>> EventTypes().kind_of("Microsoft.MachineLearningServices.ModelDeployed")
        ('deployment', '*.deployed')
        """
        lists = [dict.fromkeys(self.alerts, "alert"), self.changes, dict.fromkeys(self.ignored, "ignored")]
        names = [type_.casefold(), _HUMP.sub(".", type_).casefold()]  # "ModelDeployed" is "model.deployed" as well
        for one in lists:
            for pattern, kind in one.items():
                if any(fits(named, pattern.casefold()) for named in names):
                    return kind, pattern
        return None


@dataclass(frozen=True)
class IntakePolicy:
    """Section `intake`.

    models                what an alert says -> model id: "service:Pump API" is the label or field `service` with that value; the first
                          line that fits counts, and `*` and `?` stand for any text. Lines about the name that an alert gives its model
                          ("model:Pump API") are asked first, then a name that is known, then the other lines
    states                words for an alert that fires, one that is over, and one that nobody has to hear of
    levels                how bad -> the senders' words for it; spelling does not matter ("SEV-1" is "sev1")
    generic               how the JSON of a sender without a format of its own is read: `/webhooks/generic/<name>` uses the mapping of that
                          name, `/webhooks/generic` the one named `default`
    sns_topics            patterns of the ARNs of topics of Amazon SNS that are heard on Amazon's signature: that alone anybody has who
                          sends from a topic of their own
    replay_window_s       a signature with a timestamp further away than this is refused (Slack's and Stripe's schemes use 300)
    cloudevents           which types of CloudEvents are alerts, changes, or nothing that anybody has to hear of
    cloudevents_per_min   events a minute that one sender of CloudEvents is granted; above it is told to wait (429)
    production_aliases    aliases of the MLflow registry whose move is a deployment
    unknown_models_per_hour  alerts of one sender on models that nobody knows open so many incidents an hour, all names together; the rest
                          are quarantined
    held_page_every_min   how long on-call may wait to hear of what was quarantined for that; the first alert pages at once
    trusted_for           on whose word containment and isolation are automatic: see Trust
    """

    models: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(WORDS_OF_LEVEL))
    states: StateWords = StateWords()
    generic: Annotated[Mapping[str, GenericMapping], BeforeValidator(_by_name)] = field(
        default_factory=lambda: {DEFAULT_MAPPING: GenericMapping()}
    )
    sns_topics: tuple[str, ...] = ()
    cloudevents: EventTypes = EventTypes()
    replay_window_s: float = 300.0
    cloudevents_per_min: int = 100
    production_aliases: tuple[str, ...] = ("champion", "production")
    unknown_models_per_hour: int = 5
    held_page_every_min: int = 10
    trusted_for: Trust = Trust()

    def __post_init__(self) -> None:
        if self.replay_window_s <= 0 or self.cloudevents_per_min < 1:
            raise ValueError("replay_window_s must be over 0 and cloudevents_per_min at least 1")
        if self.unknown_models_per_hour < 1:
            raise ValueError("unknown_models_per_hour must be at least 1: an alert must be able to page somebody")
        if self.held_page_every_min < 1:
            raise ValueError("held_page_every_min must be at least 1")
        if strange := sorted(set(self.levels) - set(LEVELS)):
            raise ValueError(f"levels: {strange[0]!r} is no level; there are {', '.join(LEVELS)}")
        for name in self.generic:
            if not MAPPING_NAME.fullmatch(name):
                raise ValueError(f"generic: {name[:50]!r} is no name for a mapping: small letters, digits and '-', 40 at most")
        for pattern, model in self.models.items():
            if ":" not in pattern:
                raise ValueError(f"models: {pattern!r} must be a label and its value, as in 'service:Pump API'")
            if not MODEL_ID.fullmatch(model):
                raise ValueError(f"models: {model!r} is no model id: letters, digits, '.', '_' and '-', 100 at most")

    def line_for(self, said: Mapping[str, str]) -> str | None:
        """The first line of `models` that fits something of what was said; only `*` and `?` are wild.

        >>> IntakePolicy(models={"service:Pump*": "pump_failure"}).line_for({"service": "Pump API"})
        'service:Pump*'
        """
        pairs = [f"{name}:{value}" for name, value in said.items()]
        return next((line for line in self.models if any(fits(pair, line) for pair in pairs)), None)
