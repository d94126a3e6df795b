"""The team's rules as one validated value. `Policy()` is runbook.md; `runbook.yaml` says the same in YAML with comments.

Names carry their unit (`_min` minutes, `_h` hours, `_s` seconds; shares and drops are 0..1). Nothing here is an address or a
secret: a channel is a name, and its address comes from the environment (`channel_variable`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, PrivateAttr, model_validator

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.alerting import Maintenance, RecurrencePolicy, SafetyPolicy, Silence
from mlrunbook.domain.policy.audits import AuditPolicy
from mlrunbook.domain.policy.changes import BreachPolicy, ContainmentPolicy
from mlrunbook.domain.policy.cluster import ClusterPolicy
from mlrunbook.domain.policy.compliance import RegulatoryPolicy
from mlrunbook.domain.policy.connections import Connection, ConnectionName, check_parts, check_registered
from mlrunbook.domain.policy.console import ConsolePolicy
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.judging import DriftPolicy, FairnessPolicy, FeatureStorePolicy, RecoveryPolicy, RolloutPolicy, SeverityPolicy
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.own import own
from mlrunbook.domain.policy.owned import OWN_SECTIONS, ModelRules, check_models, check_objects, rules_for
from mlrunbook.domain.policy.patterns import covers, most_specific
from mlrunbook.domain.policy.people import ChannelName, Contacts, Escalation, Section, Text, people_of, reached_through, through
from mlrunbook.domain.roles import Duty, Role, RolesPolicy

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Minutes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class ResponseTimes(Section):
    """Runbook, "Severity Levels": minutes from detection to a human's answer."""

    critical: Minutes = 15
    high: Minutes = 60
    medium: Minutes = 240
    low: Minutes = 1440

    @model_validator(mode="after")
    def _worse_is_never_slower(self) -> Self:
        if not self.critical <= self.high <= self.medium <= self.low:
            raise ValueError("a more severe incident must not have a longer response time (critical <= high <= medium <= low)")
        return self

    def of(self, severity: Severity) -> timedelta:
        return timedelta(minutes=getattr(self, severity.value))


class AlertThresholds(Section):
    """Runbook, "Automated Alerts"; drops are relative to the baseline. An alert's level is not the incident's severity."""

    f1_drop_warning: Share = 0.10
    f1_drop_critical: Share = 0.20
    precision_drop_warning: Share = 0.15
    recall_drop_warning: Share = 0.15
    null_rate_warning: Share = 0.05
    latency_warning_s: Annotated[float, Field(gt=0)] = 2.0
    error_rate_warning: Share = 0.01
    # "Model predicts all assets as high-risk" (Severity Levels): a share, because one asset scored low must not hide it.
    flagged_share_critical: Share = 0.90
    # Below these a window says nothing: an alert then neither starts nor ends.
    min_predictions: Count = 200
    min_labelled: Count = 100
    min_positives: Count = 5
    # A restart of the model server takes seconds and is no outage; neither is a lock in the feature store.
    server_down_after_s: Seconds = 30.0
    feature_store_down_after_s: Seconds = 10.0
    # Drift is looked at all day: a look is wrong at most this often, smaller moves than this KS or Jensen-Shannon distance are no alert,
    # and it must stand at every look for this long.
    drift_false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] = 0.001
    drift_effect: Annotated[float, Field(gt=0, lt=1)] = 0.10
    drift_after_s: Seconds = 900.0
    clears_after_s: Seconds = 30.0  # an alert ends once all has been well for this long

    @model_validator(mode="after")
    def _critical_is_beyond_warning(self) -> Self:
        if self.f1_drop_critical < self.f1_drop_warning:
            raise ValueError("f1_drop_critical must not be below f1_drop_warning")
        return self


class OnExpiry(StrEnum):
    """What follows when nobody decided in time. Never a silent yes."""

    ASK_AGAIN = "ask_again"
    ESCALATE = "escalate"  # ask again and page the next role of the escalation path


class ApprovalRule(Section):
    """Who may approve a kind of plan, how many of them, for how long the request stands, and what follows.

    `accept_prefect_form`: count a yes typed into Prefect's form, which cannot prove who typed it: one for all who share its login.
    `not_by_requester`: the yes of whoever asked for the plan does not count, so that `count` others must agree. null: so where `count` is
    2 or more, so that one person on call can act where one is enough. false: who asked is one of the `count`.
    """

    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    count: Count = 1
    expires_after_min: Minutes = 60
    accept_prefect_form: bool = False
    not_by_requester: bool | None = None
    on_expiry: OnExpiry = OnExpiry.ESCALATE

    @property
    def excludes_requester(self) -> bool:
        return self.count >= 2 if self.not_by_requester is None else self.not_by_requester


_LEAD_AND_ABOVE = (Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER, Role.VP_ENGINEERING)
_RESPONDERS = (Role.ONCALL_ML_ENGINEER, *_LEAD_AND_ABOVE)


class Approvals(Section):
    """Step 2 belongs to the on-call engineer, Step 4 to the team lead. What needs no approval: `containment.automatic`."""

    containment: ApprovalRule = ApprovalRule(roles=_RESPONDERS, expires_after_min=15)
    mitigation: ApprovalRule = ApprovalRule(roles=_RESPONDERS)
    emergency: ApprovalRule = ApprovalRule(roles=_RESPONDERS, expires_after_min=15)
    staging: ApprovalRule = ApprovalRule(roles=_LEAD_AND_ABOVE)
    resolution: ApprovalRule = ApprovalRule(roles=_LEAD_AND_ABOVE)
    undo: ApprovalRule = ApprovalRule(roles=_RESPONDERS)
    # A breach is no engineer's to judge, nor to declare over.
    isolation: ApprovalRule = ApprovalRule(
        roles=(Role.SECURITY_OFFICER, Role.COMPLIANCE_OFFICER, Role.ENGINEERING_MANAGER, Role.VP_ENGINEERING)
    )

    def of(self, kind: PlanKind) -> ApprovalRule:
        rule: ApprovalRule = getattr(self, kind.value)
        return rule


class Communication(Section):
    """Runbook, Step 5 and Step 6."""

    initial_within_min: Minutes = 60
    update_every_min: Minutes = 30
    review_due_h: Count = 48
    review_remind_before_h: Count = 24
    review_overdue_every_h: Count = 24
    action_remind_before_h: Count = 48
    action_overdue_every_h: Count = 168
    # A page that its channel did not take this often goes out by the next channel of the role, then by these.
    fallback_after_attempts: Count = 3
    fallback_channels: tuple[ChannelName, ...] = ("incidents", "email")
    observe_channel: ChannelName = "incidents"  # where a model in mode observe says what would be done


class Signatures(Section):
    """Step 6, "Approvals": whose signature counts. Who approves a review is another person than who reviewed it."""

    reviewed: tuple[Role, ...] = (Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER)
    approved: tuple[Role, ...] = (Role.ENGINEERING_MANAGER, Role.VP_ENGINEERING)


class FreezeWindow(Section):
    """No approved change starts in [start, end) unless it stops danger."""

    start: AwareDatetime
    end: AwareDatetime
    reason: Text

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self


class Guardrails(Section):
    """Limits for the machine, not for people. A critical stop and its undo override them and page that they did."""

    changes_per_model_and_hour: Count = 10
    min_replicas: Annotated[int, Field(ge=0)] = 1
    freeze_windows: tuple[FreezeWindow, ...] = ()


class Triage(Section):
    """How an alert is looked at a second time before it is called a false alarm.

    The first page waits up to `page_anyway_after_s` for that, unless the report is critical: then it goes out, looked at or not.
    """

    looks: Count = 3
    seconds_between_looks: Annotated[float, Field(gt=0)] = 5.0
    page_anyway_after_s: Annotated[float, Field(ge=0)] = 60.0
    # An alert judged a false alarm that still fires after this long opens a new incident: by now it may be right.
    doubt_false_alarm_after_min: Minutes = 30


class RecoveryWatch(Section):
    """How often recovery is measured after a change, and after how long without an answer people are asked.

    `confirm_after_min` after the closing it is measured once more, on the outcomes that have come since: what disagrees reopens the
    incident. Outcomes that do not say by then are waited for, again and again, up to `confirm_for_min` after the closing.
    """

    check_every_s: Annotated[float, Field(gt=0)] = 5.0
    give_up_after_min: Minutes = 60
    confirm_after_min: Minutes = 1440
    confirm_for_min: Minutes = 10_080


class Training(Section):
    """The training command (runbook, Path C): an argument list, never a shell string, with {start_date}, {end_date}, {model_name}
    and {version} filled in. It must leave the version where the platform can register it."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)] = (
        "mlrunbook", "train", "--start-date", "{start_date}", "--end-date", "{end_date}", "--model-name", "{model_name}",
        "--version", "{version}",
    )  # fmt: skip
    timeout_min: Minutes = 60
    memory_limit_mb: Annotated[int, Field(ge=64)] = 4096


class Retraining(Section):
    """When path C may be prepared without being asked for, and what a candidate must show. Nothing promotes alone.

    `triggers` are causes of the diagnosis. The newest `holdout_share` of the labelled window is never trained on. After a promotion
    live metrics are watched for `watch_min`; a fall returns to the version before.
    """

    triggers: tuple[Cause, ...] = (Cause.NEW_SEGMENT, Cause.CONCEPT_DRIFT, Cause.DATA_DRIFT)
    look_back_days: Count = 30
    holdout_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    min_positives: Count = 30
    shadow_min_positives: Count = 30
    shadow_give_up_min: Minutes = 1440
    max_latency_ratio: Annotated[float, Field(gt=1)] = 2.0
    max_size_mb: Annotated[float, Field(gt=0)] = 200.0
    max_calibration_error: Share = 0.10
    watch_s: Annotated[float, Field(ge=0)] = 1800.0


class CostAssumptions(Section):
    """For impact estimates. None: the estimate says "not estimated" instead of guessing."""

    per_unnecessary_work_order: Annotated[float, Field(ge=0)] | None = None
    currency: Text = "USD"


class Policy(Section):
    mode: Mode = Mode.ACT
    response_min: ResponseTimes = ResponseTimes()
    alerts: AlertThresholds = AlertThresholds()
    # Alert name -> incident type; any other name counts as performance_degradation.
    alert_types: dict[Text, IncidentType] = Field(
        default={
            "ModelF1Drop": IncidentType.PERFORMANCE_DEGRADATION,
            "ModelAccuracyDrop": IncidentType.PERFORMANCE_DEGRADATION,
            "ModelPrecisionDrop": IncidentType.PERFORMANCE_DEGRADATION,
            "ModelRecallDrop": IncidentType.PERFORMANCE_DEGRADATION,
            "FeatureNullRateHigh": IncidentType.PERFORMANCE_DEGRADATION,
            "FeatureDrift": IncidentType.PERFORMANCE_DEGRADATION,
            "InferenceLatencyHigh": IncidentType.PERFORMANCE_DEGRADATION,
            "AllAssetsHighRisk": IncidentType.PREDICTION_ERROR,
            "CriticalFailureMissed": IncidentType.PREDICTION_ERROR,
            "FairnessGap": IncidentType.BIAS_FAIRNESS,
            "FeatureStoreUnavailable": IncidentType.INFRASTRUCTURE,
            "ModelServerDown": IncidentType.INFRASTRUCTURE,
            "ModelErrorRateHigh": IncidentType.INFRASTRUCTURE,
            "DeploymentFailed": IncidentType.INFRASTRUCTURE,
            "ModelPlatformDown": IncidentType.INFRASTRUCTURE,
            "OutcomesMissing": IncidentType.INFRASTRUCTURE,
            "OutcomesRewritten": IncidentType.INFRASTRUCTURE,
            "ModelProbed": IncidentType.SECURITY,
        }
    )
    # Types that are one failure seen from two sides share a family, and so one open incident; any other type stands alone.
    families: dict[Text, tuple[IncidentType, ...]] = Field(
        default={"performance": (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION)}
    )
    escalation: Escalation = Escalation()
    contacts: Contacts = Contacts()
    roles: RolesPolicy = RolesPolicy()
    channels: dict[ChannelName, Text] = Field(  # name -> how people call it
        default={
            "incidents": "#ml-incidents",
            "email": "stakeholders by email",
            "page": "paging service",
            "tickets": "ticket queue",
            "compliance": "compliance officer",
            "security": "security team",
            "supervisors": "maintenance supervisors",
            "maintenance": "maintenance team",
        }
    )
    containment: ContainmentPolicy = ContainmentPolicy()
    breach: BreachPolicy = BreachPolicy()
    regulatory: RegulatoryPolicy = RegulatoryPolicy()
    approvals: Approvals = Approvals()
    communication: Communication = Communication()
    review: Signatures = Signatures()
    severity: SeverityPolicy = SeverityPolicy()
    safety: SafetyPolicy = SafetyPolicy()
    triage: Triage = Triage()
    recovery: RecoveryPolicy = RecoveryPolicy()
    recovery_watch: RecoveryWatch = RecoveryWatch()
    recurrence: RecurrencePolicy = RecurrencePolicy()
    silences: tuple[Silence, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    drift: DriftPolicy = DriftPolicy()
    fairness: FairnessPolicy = FairnessPolicy()
    features: FeatureStorePolicy = FeatureStorePolicy()
    training: Training = Training()
    retraining: Retraining = Retraining()
    guardrails: Guardrails = Guardrails()
    # Name -> what stands there; its address is MLRUNBOOK_CONNECTION_<NAME>.
    connections: dict[ConnectionName, Connection] = Field(default_factory=dict)
    # Model id, or a pattern of them -> who owns it and what is its own.
    models: dict[Text, ModelRules] = Field(default_factory=dict)
    cluster: ClusterPolicy = ClusterPolicy(default_model="predictive_maintenance")
    rollouts: RolloutPolicy = RolloutPolicy()
    intake: IntakePolicy = IntakePolicy()
    audits: AuditPolicy = AuditPolicy()
    console: ConsolePolicy = ConsolePolicy()
    costs: CostAssumptions = CostAssumptions()
    _whole: Policy | None = PrivateAttr(default=None)  # that of all models, where this one holds for one of them

    @model_validator(mode="after")
    def _a_type_has_one_family(self) -> Self:
        seen: dict[IncidentType, str] = {}
        for family, types in self.families.items():
            for type_ in types:
                if type_ in seen:
                    raise ValueError(f"families: {type_} is in {seen[type_]} and in {family}; a type belongs to one family")
                seen[type_] = family
        for family in self.families:
            if family in set(IncidentType) and seen.get(IncidentType(family)) != family:
                raise ValueError(f"families: {family} is the name of a type that is not in it; choose another name")
        return self

    @model_validator(mode="after")
    def _every_channel_used_is_named(self) -> Self:
        used = [("communication.fallback_channels", channel) for channel in self.communication.fallback_channels]
        used += [("communication.observe_channel", self.communication.observe_channel)]
        people = people_of(self.escalation, self.contacts)
        used += [(f"{where}.channels", channel) for where, contact in people for channel in contact.channels]
        for where, channel in used:
            if channel not in self.channels:
                raise ValueError(f"{where}: there is no channel {channel!r}; name it under channels")
        return self

    @model_validator(mode="after")
    def _nothing_belongs_to_two_models(self) -> Self:
        check_models(self.models)
        check_objects(self.objects.by_model)
        check_registered({name: self.rules_of(name).platform for name in self.models})
        return self

    @model_validator(mode="after")
    def _every_connection_used_is_named(self) -> Self:
        for name, rules in self.models.items():
            if rules.platform is not None:
                check_parts(f"models.{name}.platform", rules.platform, self.connections)
        return self

    @model_validator(mode="after")
    def _what_is_a_models_own_holds(self) -> Self:
        for name, rules in self.models.items():
            for channel, stands_in in (rules.channels or {}).items():
                for one in (channel, stands_in):
                    if one not in self.channels:
                        raise ValueError(f"models.{name}.channels.{channel}: there is no channel {one!r}; name it under channels")
            self._following(self._with_wider(name), at=f"models.{name}")
        return self

    def _with_wider(self, name: str) -> ModelRules:
        """What a name or pattern says, and what holds for every model that fits it."""
        return rules_for(name, {other: rules for other, rules in self.models.items() if other == name or covers(other, name)})

    @property
    def of_all(self) -> Policy:
        """That of all models, where this one holds for one of them."""
        return self._whole or self

    def for_model(self, model: str) -> Policy:
        """The policy as it holds for one model: with what is its own of every section, and its own channels."""
        whole = self.of_all
        try:
            return whole._following(rules_for(model, whole.models), at=f"models.{model}")
        except ValueError:
            # Each pattern was checked with those that are wider; two that only overlap may not fit together. The most specific one
            # counts, as it was checked.
            found = most_specific(model, whole.models)
            return whole._following(whole._with_wider(found), at=f"models.{found}") if found else whole

    def _following(self, rules: ModelRules, *, at: str) -> Policy:
        """Raises ValueError, with the key, where a section cannot be so."""
        made: dict[str, Any] = {"mode": rules.mode} if rules.mode is not None else {}
        for section in OWN_SECTIONS:
            if keys := getattr(rules, section):
                made[section] = own(getattr(self, section), keys, at=f"{at}.{section}")
        if rules.feature_views is not None:
            made["features"] = replace(made.get("features", self.features), views=rules.feature_views)
        if not made and not rules.channels:
            return self
        found = self.model_copy(update=made)
        for where, contact in people_of(found.escalation, found.contacts):
            for channel in contact.channels:
                if channel not in self.channels:
                    raise ValueError(f"{at}.{where}.channels: there is no channel {channel!r}; name it under channels")
        if rules.channels:
            found = found._through(rules.channels)
        found._whole = self
        return found

    def _through(self, stand_ins: Mapping[str, str]) -> Policy:
        """Everyone is reached by the channels that stand for theirs."""
        said = self.communication
        moved = {
            "fallback_channels": through(said.fallback_channels, stand_ins),
            "observe_channel": stand_ins.get(said.observe_channel, said.observe_channel),
        }
        escalation, contacts = reached_through(self.escalation, self.contacts, stand_ins)
        made = {"escalation": escalation, "contacts": contacts, "communication": said.model_copy(update=moved)}
        return self.model_copy(update=made)

    def channel_of(self, model: str, channel: str) -> str:
        """The channel that stands for this one in what concerns the model."""
        return (self.rules_of(model).channels or {}).get(channel, channel)

    def mode_of(self, model: str) -> Mode:
        return self.of_all.rules_of(model).mode or self.of_all.mode

    @property
    def variants(self) -> list[Policy]:
        """The policy as it holds for each name and pattern of `models`, after that of all others."""
        whole = self.of_all
        return [whole, *(whole.for_model(name) for name in whole.models)]

    @property
    def objects(self) -> ClusterPolicy:
        """The cluster objects of every model that policy maps, wherever in the file they stand."""
        own = {name: rules.cluster for name, rules in self.models.items() if rules.cluster is not None}
        return replace(self.cluster, models={**self.cluster.models, **own})

    @property
    def named_models(self) -> frozenset[str]:
        """Every model, and every pattern of models, that policy speaks of: also the targets of mappings."""
        return frozenset({*self.models, *self.objects.by_model, *self.intake.models.values()})

    def names(self, model: str) -> bool:
        """Whether policy knows a model of that name."""
        return most_specific(model, self.named_models) is not None

    def rules_of(self, model: str) -> ModelRules:
        """What policy says of the model under its name and the patterns that fit it; the defaults where nothing does."""
        return rules_for(model, self.models)

    def feature_views_of(self, model: str) -> tuple[str, ...]:
        """The feature views that the model reads: what an incident of it may materialise."""
        return self.for_model(model).features.views

    def family_of(self, type_: IncidentType) -> str:
        """The failure family of an incident type: one incident may be open per model and family."""
        return next((family for family, types in self.families.items() if type_ in types), type_.value)

    def freeze_at(self, at: datetime) -> FreezeWindow | None:
        """The freeze window that holds at `at`, if any."""
        return next((w for w in self.guardrails.freeze_windows if w.start <= at < w.end), None)


def channel_variable(channel: str) -> str:
    """The environment variable that holds a channel's address (an apprise URL)."""
    return "MLRUNBOOK_CHANNEL_" + channel.upper().replace("-", "_")


def role_of(duty: Duty, severity: Severity, policy: Policy) -> Role:
    """The role that a duty falls to at this severity."""
    match duty:
        case Duty.INCIDENT_COMMANDER:
            rules = policy.roles
            return rules.incident_commander_then if severity.at_least(rules.manager_from) else rules.incident_commander
        case Duty.CONTAINMENT_APPROVER:
            return policy.approvals.containment.roles[0]
        case Duty.RESOLUTION_APPROVER:
            return policy.approvals.resolution.roles[0]
