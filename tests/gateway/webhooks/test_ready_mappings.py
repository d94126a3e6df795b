"""The mappings of deployments/receivers, each with messages in its sender's form: an alert opens an incident, and its end ends it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine

from mlrunbook.base.policy_file import parse, warnings_of
from tests.gateway.conftest import Clock, world_on
from tests.gateway.webhooks.test_as_the_sender_meant import Desk, Registry

RECEIVERS = Path(__file__).resolve().parents[3] / "deployments/receivers"
MAPPINGS = sorted((RECEIVERS / "mappings").glob("*.yaml"))
TOPIC = "arn:aws:sns:eu-west-1:000000000000:ml-alarms"
ALARM = "arn:aws:cloudwatch:eu-west-1:000000000000:alarm:scoring-5xx-critical"
SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
_numbers = itertools.count(1)


def sns(alarm: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": f"00000000-0000-0000-0000-{next(_numbers):012}",
        "TopicArn": TOPIC,
        "Subject": f"{alarm['NewStateValue']}: {alarm['AlarmName']}",
        "Message": json.dumps(alarm),
        "Timestamp": "2026-03-02T09:00:01.000Z",
        "SignatureVersion": "2",
        "Signature": "c2lnbmVk",
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
    }


def cloudwatch(model: str, state: str, name: str = "scoring-5xx-critical", **more: Any) -> dict[str, Any]:
    trigger = {
        "MetricName": "Invocation5XXErrors",
        "Namespace": "AWS/SageMaker",
        "StatisticType": "Statistic",
        "Statistic": "SUM",
        "Unit": None,
        "Dimensions": [{"value": "AllTraffic", "name": "VariantName"}, {"value": model, "name": "EndpointName"}],
        "Period": 60,
        "EvaluationPeriods": 3,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 5.0,
    }
    alarm = {
        "AlarmName": name,
        "AlarmDescription": None,
        "AWSAccountId": "000000000000",
        "NewStateValue": state,
        "NewStateReason": "Threshold Crossed: 3 datapoints were greater than the threshold (5.0).",
        "StateChangeTime": "2026-03-02T09:00:00.000+0000",
        "Region": "EU (Ireland)",
        "AlarmArn": f"{ALARM}-{model}",
        "OldStateValue": "OK",
        "Trigger": trigger,
    }
    return sns(alarm | more)


def azure(model: str, condition: str, severity: str = "Sev1", /, **custom: Any) -> dict[str, Any]:
    target = f"{SUBSCRIPTION}/resourcegroups/ml/providers/microsoft.machinelearningservices/workspaces/ws/onlineendpoints/ep-{model}"
    essentials = {
        "alertId": f"{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts/{model}",
        "alertRule": "scoring latency",
        "severity": severity,
        "signalType": "Metric",
        "monitorCondition": condition,
        "monitoringService": "Platform",
        "alertTargetIDs": [target],
        "configurationItems": [f"ep-{model}"],
        "originAlertId": "11111111_ml_Microsoft.Insights_metricAlerts_scoring",
        "firedDateTime": "2026-03-02T09:00:00.1234567Z",
        "description": "p95 of the endpoint is over a second",
        "essentialsVersion": "1.0",
        "alertContextVersion": "1.0",
    }
    measured = {"metricName": "RequestLatency_P95", "dimensions": [{"name": "deployment", "value": "blue"}], "metricValue": 1240.5}
    context = {"conditionType": "SingleResourceMultipleMetricCriteria", "condition": {"windowSize": "PT5M", "allOf": [measured]}}
    data = {"essentials": essentials, "alertContext": context, "customProperties": custom or None}
    return {"schemaId": "azureMonitorCommonAlertSchema", "data": data}


def gcp(model: str, state: str, severity: str | None = "Critical", **more: Any) -> dict[str, Any]:
    incident = {
        "incident_id": f"0.{model}",
        "scoping_project_id": "ml-production",
        "url": "https://console.cloud.google.com/monitoring/alerting/incidents/0.x?project=ml-production",
        "started_at": 1772442000,
        "ended_at": None if state.lower() == "open" else 1772442600,
        "state": state,
        "severity": severity,
        "summary": "Prediction error rate of the endpoint is above 0.05",
        "resource": {"type": "aiplatform.googleapis.com/Endpoint", "labels": {"location": "europe-west4", "endpoint_id": f"n{model}"}},
        "metric": {"type": "aiplatform.googleapis.com/prediction/online/error_count", "displayName": "Errors", "labels": {"code": "500"}},
        "metadata": {"system_labels": {}, "user_labels": {}},
        "policy_name": "scoring errors",
        "condition_name": "error rate too high",
        "policy_user_labels": {"model": model},
    }
    return {"version": "1.2", "incident": incident | more}


def new_relic(model: str, state: str, priority: str = "CRITICAL", **more: Any) -> dict[str, Any]:
    issue = {
        "model": model,
        "id": f"issue-{model}",
        "state": state,
        "priority": priority,
        "title": "Scoring errors above 5 % for at least 5 minutes",
        "createdAt": 1772442000000,
        "issueUrl": "https://radar-api.service.newrelic.com/accounts/1/issues/x",
        "impactedEntities": ["scoring"],
        "alertPolicyNames": ["ML on-call"],
        "alertConditionNames": ["Scoring errors"],
    }
    return issue | more


def sentry_event(model: str, level: str = "fatal", **more: Any) -> dict[str, Any]:
    event = {
        "event_id": "e1",
        "issue_id": f"77{model}",
        "title": "ValueError: feature vector has 11 values",
        "level": level,
        "datetime": "2026-03-02T09:00:00.000000Z",
        "project": 4,
        "release": "scoring@1.4.0",
        "tags": [["environment", "production"], ["level", level], ["model", model]],
    }
    return {"action": "triggered", "actor": {"type": "application"}, "data": {"event": event | more, "triggered_rule": "Scoring fails"}}


def sentry_issue(model: str, action: str) -> dict[str, Any]:
    issue = {
        "id": f"77{model}",
        "shortId": "SCORING-1",
        "title": "ValueError: feature vector has 11 values",
        "level": "fatal",
        "status": "resolved",
        "project": {"id": "4", "slug": "scoring"},
        "firstSeen": "2026-03-02T09:00:00Z",
    }
    return {"action": action, "actor": {"type": "user"}, "data": {"issue": issue}, "installation": {"uuid": "u"}}


def sentry_metric(model: str, action: str) -> dict[str, Any]:
    alert = {
        "id": f"9{model}",
        "status": 20,
        "title": "Scoring errors",
        "alert_rule": {"id": "3", "name": f"Scoring errors of {model}", "aggregate": "count()"},
        "date_started": "2026-03-02T09:00:00Z",
        "projects": ["scoring"],
    }
    said = {
        "metric_alert": alert,
        "description_title": f"{action}: Scoring errors",
        "description_text": "120 events in the last 10 minutes",
    }
    return {"action": action, "actor": {"type": "application"}, "data": said}


def goalert(model: str, **more: Any) -> dict[str, Any]:
    alert = {
        "AppName": "GoAlert",
        "Type": "Alert",
        "AlertID": 4711,
        "Summary": "Scoring: F1 is low",
        "Details": "F1 is 0.71",
        "ServiceID": "s1",
        "ServiceName": "Scoring",
        "Meta": {"model": model, "severity": "critical"},
    }
    return alert | more


def goalert_status(entry: str) -> dict[str, Any]:
    return {"AppName": "GoAlert", "Type": "AlertStatus", "AlertID": 4711, "LogEntry": entry}


def jira(model: str, action: str) -> dict[str, Any]:
    alert = {
        "alertId": f"00000000-aaaa-bbbb-cccc-{model}",
        "message": "Scoring: F1 is low",
        "tags": [f"model:{model}", "ml"],
        "tinyId": "23",
        "alias": f"scoring-{model}",
        "createdAt": 1772442000000,
        "updatedAt": 1772442000000000000,
        "username": "System",
        "userId": "u1",
        "entity": "",
        "priority": "P1",
        "details": {},
        "source": "System",
    }
    about = {"source": {"name": "", "type": "api"}, "integrationName": "mlrunbook", "integrationId": "i1"}
    return about | {"action": action, "alert": alert}


@dataclass(frozen=True)
class Sender:
    """`levels`: what the sender calls it, as a message, and how bad the incident then is."""

    door: str
    opens: Callable[[str], Any]
    ends: Callable[[str], Any]
    levels: tuple[tuple[Callable[[str], Any], str], ...]


SENDERS = {
    "cloudwatch": Sender(
        "generic/cloudwatch",
        lambda m: cloudwatch(m, "ALARM"),
        lambda m: cloudwatch(m, "OK"),
        (
            (lambda m: cloudwatch(m, "ALARM", "scoring-5xx-CRITICAL"), "high"),
            (lambda m: cloudwatch(m, "ALARM", "scoring-error-warning"), "medium"),
            (lambda m: cloudwatch(m, "ALARM", "scoring-5xx"), "medium"),
        ),
    ),
    "azure-monitor": Sender(
        "generic/azure-monitor",
        lambda m: azure(m, "Fired", model=m),
        lambda m: azure(m, "Resolved", model=m),
        (
            (lambda m: azure(m, "Fired", "Sev0", model=m), "high"),
            (lambda m: azure(m, "Fired", "Sev2", model=m), "medium"),
            (lambda m: azure(m, "Fired", "Sev3", model=m), "low"),
            (lambda m: azure(m, "Fired", "Sev4", model=m), "low"),
        ),
    ),
    "gcp-monitoring": Sender(
        "generic/gcp-monitoring",
        lambda m: gcp(m, "open"),
        lambda m: gcp(m, "closed"),
        (
            (lambda m: gcp(m, "OPEN", "Error"), "high"),
            (lambda m: gcp(m, "open", "Warning"), "medium"),
            (lambda m: gcp(m, "open", "No severity"), "medium"),
            (lambda m: gcp(m, "open", None), "medium"),
            (lambda m: gcp(m, "open", None, policy_user_labels={"model": m, "severity": "info"}), "low"),
        ),
    ),
    "newrelic": Sender(
        "generic/newrelic",
        lambda m: new_relic(m, "ACTIVATED"),
        lambda m: new_relic(m, "CLOSED"),
        (
            (lambda m: new_relic(m, "CREATED", "HIGH"), "high"),
            (lambda m: new_relic(m, "ACTIVATED", "MEDIUM"), "medium"),
            (lambda m: new_relic(m, "ACTIVATED", "LOW"), "low"),
        ),
    ),
    "sentry": Sender(
        "generic/sentry",
        sentry_event,
        lambda m: sentry_issue(m, "resolved"),
        (
            (lambda m: sentry_event(m, "error"), "high"),
            (lambda m: sentry_event(m, "warning"), "medium"),
            (lambda m: sentry_event(m, "info"), "low"),
        ),
    ),
    "goalert": Sender(
        "generic/goalert",
        goalert,
        lambda m: goalert_status("Closed by the on-call engineer"),
        (
            (lambda m: goalert(m, Meta={"model": m, "severity": "page"}), "high"),
            (lambda m: goalert(m, Meta={"model": m}), "medium"),
        ),
    ),
    "jira-service-management": Sender(
        "opsgenie",
        lambda m: jira(m, "Create"),
        lambda m: jira(m, "Close"),
        ((lambda m: jira(m, "Create"), "high"),),
    ),
}


@pytest.fixture
def desk(engine: Engine, model: str) -> Desk:
    clock = Clock()
    world = replace(world_on(engine, clock), platform=Registry(model))  # type: ignore[arg-type]
    return with_mappings(Desk(world, clock, model))


def with_mappings(desk: Desk, **intake: Any) -> Desk:
    """All of them in one policy, as a team with many senders has them."""
    together: dict[str, Any] = {}
    for path in MAPPINGS:
        given = yaml.safe_load(path.read_text())["intake"]
        together |= given | {"generic": together.get("generic", {}) | given["generic"]}
    return desk.under(**together | intake)


def test_every_mapping_has_a_sender_here_and_is_a_policy_without_doubts() -> None:
    assert {path.stem for path in MAPPINGS} | {"jira-service-management"} == set(SENDERS)
    for path in MAPPINGS:
        text = path.read_text()
        assert (list(parse(text).intake.generic), warnings_of(text)) == (["default", path.stem], [])
        assert f"/webhooks/generic/{path.stem}" in text


@pytest.mark.parametrize("name", SENDERS)
def test_an_alert_opens_one_incident_and_its_end_ends_it(desk: Desk, name: str) -> None:
    sender, before = SENDERS[name], desk.waiting
    desk.take(sender.door, sender.opens(desk.model))
    assert (desk.only.model, desk.only.severity, desk.ends) == (desk.model, "high", 0)
    assert desk.only.model_version == ("scoring@1.4.0" if name == "sentry" else None)
    desk.take(sender.door, sender.opens(desk.model))
    assert (desk.only.severity, desk.ends) == ("high", 0), "the same again is no other alert"
    desk.take(sender.door, sender.ends(desk.model))
    assert (len(desk.incidents), desk.ends, desk.waiting) == (1, 1, before)


@pytest.mark.parametrize(("name", "number"), [(name, n) for name, sender in SENDERS.items() for n in range(len(sender.levels))])
def test_the_sender_s_word_for_how_bad_it_is_counts(desk: Desk, name: str, number: int) -> None:
    message, severity = SENDERS[name].levels[number]
    desk.take(SENDERS[name].door, message(desk.model))
    assert desk.only.severity == severity


@pytest.mark.parametrize(
    ("line", "door", "message"),
    [
        ("alertname:scoring-*", "generic/cloudwatch", lambda m: cloudwatch(m, "ALARM", "scoring-rule", Trigger=None)),
        ("model:ep-1", "generic/cloudwatch", lambda m: cloudwatch("ep-1", "ALARM")),
        ("resource:ep-*", "generic/azure-monitor", lambda m: azure(m, "Fired")),
        ("target:*/onlineendpoints/ep-*", "generic/azure-monitor", lambda m: azure(m, "Fired")),
        ("deployment:blue", "generic/azure-monitor", lambda m: azure(m, "Fired")),
        ("model:n*", "generic/gcp-monitoring", lambda m: gcp(m, "open", policy_user_labels=None)),
        ("policy:scoring errors", "generic/gcp-monitoring", lambda m: gcp(m, "open", policy_user_labels={}, resource=None)),
        ("alertname:Scoring*", "generic/newrelic", lambda m: new_relic("", "ACTIVATED")),
        ("policy:ML on-call", "generic/newrelic", lambda m: new_relic("", "ACTIVATED")),
        ("project:4", "generic/sentry", lambda m: sentry_event(m, tags=[])),
        ("project:scoring", "generic/sentry", lambda m: sentry_metric(m, "critical")),
        ("alertname:Scoring errors of *", "generic/sentry", lambda m: sentry_metric(m, "critical")),
        ("ServiceName:Scoring", "generic/goalert", lambda m: goalert(m, Meta=None)),
    ],
)
def test_what_names_no_model_is_named_by_policy(desk: Desk, line: str, door: str, message: Callable[[str], Any]) -> None:
    with_mappings(desk, models={line: desk.model}).take(door, message(desk.model))
    assert desk.only.model == desk.model


def test_a_metric_of_several_is_about_the_endpoint_that_it_names(desk: Desk) -> None:
    dimensions = [{"name": "EndpointName", "value": desk.model}]
    metrics = [{"Id": "rate", "Expression": "m1 / m2"}, {"Id": "m1", "MetricStat": {"Metric": {"Dimensions": dimensions}}}]
    desk.take("generic/cloudwatch", cloudwatch("other", "ALARM", Trigger={"Period": 60, "Metrics": metrics}))
    assert desk.only


def test_an_alarm_without_data_is_about_what_measures(desk: Desk) -> None:
    desk.take("generic/cloudwatch", cloudwatch(desk.model, "INSUFFICIENT_DATA"))
    assert desk.only.type == "infrastructure"


def test_two_alarms_of_one_endpoint_join_one_incident_and_end_each_by_itself(desk: Desk) -> None:
    for state in ("ALARM", "OK"):
        for n in (1, 2):
            desk.take("generic/cloudwatch", cloudwatch(desk.model, state, f"scoring-{n}", AlarmArn=f"{ALARM}-{n}"))
    assert (len(desk.incidents), desk.ends) == (1, 2)


@pytest.mark.parametrize("action", ["created", "assigned", "archived", "ignored"])
def test_what_happens_to_an_issue_of_sentry_opens_nothing(desk: Desk, action: str) -> None:
    before = desk.waiting
    desk.take("generic/sentry", sentry_issue(desk.model, action))
    assert (desk.incidents, desk.waiting) == ([], before)


def test_a_metric_alert_of_sentry_ends_itself_and_no_issue_of_the_same_number(desk: Desk) -> None:
    mapped = with_mappings(desk, models={"project:scoring": desk.model})
    mapped.take("generic/sentry", sentry_metric(desk.model, "critical"))
    issue = sentry_issue(desk.model, "resolved")
    issue["data"]["issue"]["id"] = f"9{desk.model}"
    mapped.take("generic/sentry", issue)
    assert (desk.only.severity, desk.ends) == ("high", 0)
    mapped.take("generic/sentry", sentry_metric(desk.model, "resolved"))
    assert desk.ends == 1


def test_goalert_s_log_entries_end_nothing_and_its_bundle_is_an_alert(desk: Desk) -> None:
    mapped, before = with_mappings(desk, models={"ServiceName:Scoring": desk.model}), desk.waiting
    mapped.take("generic/goalert", goalert(desk.model))
    for entry in ("Acknowledged by the on-call engineer", "Escalated to step #2 automatically after 5 minutes"):
        mapped.take("generic/goalert", goalert_status(entry))
    for other in ("Test", "ScheduleOnCallUsers"):
        mapped.take("generic/goalert", {"AppName": "GoAlert", "Type": other})
    assert (desk.only.alert_count, desk.ends, desk.waiting) == (1, 0, before)
    bundle = {"AppName": "GoAlert", "Type": "AlertBundle", "ServiceID": "s1", "ServiceName": "Scoring", "Count": 3}
    mapped.take("generic/goalert", bundle)
    assert desk.only.alert_count == 2


def test_goalert_s_verification_code_waits_for_a_person(desk: Desk) -> None:
    before = desk.waiting
    desk.take("generic/goalert", {"AppName": "GoAlert", "Type": "Verification", "Code": "481516"})
    assert (desk.incidents, desk.waiting) == ([], before + 1)


@pytest.mark.parametrize("action", ["Acknowledge", "AddNote", "AddTags", "UpdatePriority", "AssignOwnership"])
def test_what_is_done_to_an_alert_in_jira_ends_nothing(desk: Desk, action: str) -> None:
    desk.take("opsgenie", jira(desk.model, "Create"))
    desk.take("opsgenie", jira(desk.model, action))
    assert (desk.only.model, desk.ends) == (desk.model, 0)


def test_new_relic_is_asked_for_the_fields_that_are_read() -> None:
    template = (RECEIVERS / "newrelic.hbs").read_text()
    assert set(re.findall(r'"(\w+)": \{\{', template)) == {*new_relic("m", "ACTIVATED"), "model_version", "incident_type"}
    with_tags = re.sub(r"\{\{(?!#|/).*?\}\}", '"x"', template)
    for filled in (re.sub(r"\{\{.*?\}\}", "", with_tags), re.sub(r"\{\{#if.*?\{\{/if\}\}", "", with_tags)):
        assert json.loads(filled)["id"] == "x", "with the tags and without them it is JSON"
