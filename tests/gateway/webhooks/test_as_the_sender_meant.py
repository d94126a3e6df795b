"""Messages as monitors, pagers and clouds write them: each is read as its sender meant it, whatever words and places it uses."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from typing import Any

import pytest
from sqlalchemy import Engine

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.observed import ModelVersion
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.webhooks import mail_parsing, registry
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, quarantine, recent_changes, timeline
from tests.gateway.conftest import Away, Clock, world_on

STARTED = "2026-03-02T09:00:00Z"
_numbers = itertools.count(1)


class Registry(Away):
    """Knows what the test names."""

    def __init__(self, *models: str) -> None:
        self._models = list(models)

    def models(self) -> list[str]:
        return self._models

    def versions(self, model: str) -> list[ModelVersion]:
        if model not in self._models:
            raise NotFound(f"no model {model}")
        return []


@dataclass
class Desk:
    """A gateway with a sender of its own, and one model that is known."""

    world: World
    clock: Clock
    model: str
    sender: str = field(default_factory=lambda: f"sender {next(_numbers)}")

    def under(self, **intake: Any) -> Desk:
        return replace(self, world=replace(self.world, policy=Policy.model_validate({"intake": intake})))

    def take(self, form: str, message: Any, headers: dict[str, str] | None = None) -> None:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sender = Identity("", self.sender, None, frozenset())
        ingest(self.world, registry.of(form), received(body, headers or {}, self.world), body, sender=sender)
        self.clock.pass_(minutes=1)

    def mail(self, subject: str, text: str = "", html: str = "") -> None:
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"], mail["Message-ID"] = subject, "a@example.com", "b@example.com", f"<{next(_numbers)}@x>"
        mail.set_content(html or text, subtype="html" if html else "plain")
        self.take("email", mail_parsing.limited(mail.as_bytes()))

    @property
    def incidents(self) -> list[Any]:
        with self.world.transaction() as conn:
            return sorted(incidents.find(conn, model=self.model), key=lambda i: int(i.id.rpartition("_")[2]))

    @property
    def only(self) -> Any:
        [one] = self.incidents
        return one

    @property
    def told(self) -> list[str]:
        with self.world.transaction() as conn:
            return [e.text for i in self.incidents for e in timeline.read(conn, i.id)]

    @property
    def alert_status(self) -> list[str]:
        with self.world.transaction() as conn:
            return [row["status"] for i in self.incidents for row in alerts.of_incident(conn, i.id)]

    @property
    def ends(self) -> int:
        with self.world.transaction() as conn:
            return sum(e.text.startswith("Alert resolved") for i in self.incidents for e in timeline.read(conn, i.id))

    @property
    def waiting(self) -> int:
        with self.world.transaction() as conn:
            return quarantine.waiting(conn)


@pytest.fixture
def desk(engine: Engine, model: str) -> Desk:
    clock = Clock()
    return Desk(replace(world_on(engine, clock), platform=Registry(model)), clock, model)  # type: ignore[arg-type]


def alertmanager(labels: dict[str, str], **more: Any) -> dict[str, Any]:
    annotations = more.pop("annotations", {"summary": "it is bad"})
    one = {"status": "firing", "labels": labels, "annotations": annotations, "startsAt": STARTED, "fingerprint": "a1"} | more
    return {"version": "4", "alerts": [one]}


def pagerduty(kind: str, number: int = 1, **data: Any) -> dict[str, Any]:
    about = {"id": "Q1", "created_at": STARTED, "title": "Scores look odd", "urgency": "high", "service": {"id": "S", "summary": "Scorer"}}
    return {"event": {"id": f"{data.get('id', 'Q1')}-{number}", "event_type": kind, "data": about | data}}


def event(type_: str, number: int = 1, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "type": type_, "source": "/watch", "id": str(number), "subject": "s", "data": data}


CE = {"content-type": "application/cloudevents+json"}


class TestTheModel:
    def test_of_a_hub_s_name_is_what_policy_makes_of_another_label(self, desk: Desk) -> None:
        mapped = desk.under(models={"job:scorer": desk.model})
        mapped.take("alertmanager", alertmanager({"alertname": "QueueLong", "model_name": "acme/scorer-7b", "job": "scorer"}))
        assert desk.only.model == desk.model

    def test_of_a_subject_has_its_version(self, desk: Desk) -> None:
        desk.take("cloudevents", event("com.example.drift.detected") | {"subject": f"models/{desk.model}:20"}, CE)
        assert (desk.only.model, desk.only.model_version) == (desk.model, "20")

    def test_comes_later_as_a_custom_field(self, desk: Desk) -> None:
        desk.take("pagerduty", pagerduty("incident.triggered"))
        fields = [{"name": "model", "value": desk.model}]
        update = {"incident": {"id": "Q1"}, "custom_fields": fields}
        desk.take("pagerduty", {"event": {"id": "e2", "event_type": "incident.custom_field_values.updated", "data": update}})
        assert desk.only

    def test_comes_later_as_a_tag(self, desk: Desk) -> None:
        alert = {"alertId": "og", "message": "Scores look odd", "tags": [], "createdAt": 1772442000000}
        desk.take("opsgenie", {"action": "Create", "alert": alert})
        desk.take("opsgenie", {"action": "AddTags", "alert": alert | {"tags": [f"model:{desk.model}"]}})
        assert desk.only

    def test_a_device_s_opens_nothing_and_waits_with_the_reason(self, desk: Desk) -> None:
        before = desk.waiting
        desk.take("alertmanager", alertmanager({"alertname": "DiskHot", "model_name": "XY4000NM-1V", "device": "sda"}))
        assert desk.waiting == before + 1

    def test_of_the_registry_may_have_a_space(self, desk: Desk) -> None:
        data = {"name": "Risk Model", "alias": "champion", "version": "12"}
        mapped = desk.under(models={"registered_model:Risk Model": desk.model})
        mapped.take("mlflow", {"entity": "model_version_alias", "action": "created", "timestamp": STARTED, "data": data})
        with desk.world.transaction() as conn:
            [change] = recent_changes.of_model(conn, desk.model, since=Clock().at.replace(year=2026, month=1, day=1))
        assert (change.kind, change.ref) == ("deployment", "12")


class TestTheLevel:
    @pytest.mark.parametrize("labels", [{"severity": "page"}, {"priority": "P1"}, {"severity": "Sev1"}, {"severity": "fatal"}])
    def test_of_any_sender_s_words_for_what_must_wake_somebody(self, desk: Desk, labels: dict[str, str]) -> None:
        desk.take("alertmanager", alertmanager({"alertname": "ModelErrorRateHigh", "model": desk.model} | labels))
        assert desk.only.severity == "high"

    def test_a_priority_counts_before_the_urgency(self, desk: Desk) -> None:
        mapped = desk.under(models={"service:Scorer": desk.model})
        mapped.take("pagerduty", pagerduty("incident.triggered", urgency="low", priority={"summary": "SEV-1"}))
        assert desk.only.severity == "high"

    def test_one_that_gets_worse_under_the_same_key_is_heard(self, desk: Desk) -> None:
        desk.take("alertmanager", alertmanager({"alertname": "FeatureDrift", "model": desk.model, "severity": "warning"}))
        desk.take("alertmanager", alertmanager({"alertname": "FeatureDrift", "model": desk.model, "severity": "critical"}))
        with desk.world.transaction() as conn:
            words = [e.text for e in timeline.read(conn, desk.only.id)]
        assert any(text.startswith("Reported again") for text in words)


class TestTheEnd:
    def test_needs_no_model(self, desk: Desk) -> None:
        before, alert = desk.waiting, {"alertId": "og", "message": "Odd", "tags": [f"model:{desk.model}"], "createdAt": 1772442000000}
        desk.take("opsgenie", {"action": "Create", "alert": alert})
        desk.take("opsgenie", {"action": "Close", "alert": alert | {"tags": []}})
        assert (desk.ends, desk.waiting) == (1, before)

    def test_may_carry_another_start(self, desk: Desk) -> None:
        desk.take("alertmanager", alertmanager({"alertname": "FeatureDrift", "model": desk.model}))
        over = alertmanager({"alertname": "FeatureDrift", "model": desk.model}, status="resolved", startsAt="2026-03-02T10:00:00Z")
        desk.take("alertmanager", over)
        assert desk.ends == 1

    def test_a_merge_is_none(self, desk: Desk) -> None:
        mapped = desk.under(models={"service:Scorer": desk.model})
        mapped.take("pagerduty", pagerduty("incident.triggered"))
        mapped.take("pagerduty", pagerduty("incident.resolved", 2, resolve_reason={"type": "merge_resolve_reason"}))
        assert desk.ends == 0

    @pytest.mark.parametrize(
        ("begins", "ends"), [("incident.detected.0.3.0", "incident.resolved.0.3.0"), ("alarm.raised", "alarm.cleared")]
    )
    def test_of_an_event_is_in_its_type(self, desk: Desk, begins: str, ends: str) -> None:
        desk.take("cloudevents", event(f"org.example.{begins}", 1, model=desk.model), CE)
        desk.take("cloudevents", event(f"org.example.{ends}", 2, model=desk.model), CE)
        assert (desk.only.alert_count, desk.ends) == (1, 1)

    @pytest.mark.parametrize("said", [{"status": "closed"}, {"state": "RESOLVED"}])
    def test_of_what_never_fired_opens_nothing(self, desk: Desk, said: dict[str, str]) -> None:
        desk.take("cloudevents", event("com.example.drift", 1, model=desk.model, **said), CE)
        assert desk.incidents == []

    def test_what_fires_again_after_it_is_open_again(self, desk: Desk) -> None:
        labels = {"alertname": "FeatureDrift", "model": desk.model}
        desk.take("alertmanager", alertmanager(labels))
        desk.take("alertmanager", alertmanager(labels, status="resolved"))
        desk.take("alertmanager", alertmanager(labels))
        with desk.world.transaction() as conn:
            assert any(e.text.startswith("Reported again") for e in timeline.read(conn, desk.only.id))


class TestWhatIsNoAlert:
    @pytest.mark.parametrize(
        "type_", ["dev.cdevents.service.deployed.0.3.0", "org.kubeflow.serving.inference.request", "x.pipeline.finished"]
    )
    def test_a_release_or_a_log_opens_nothing(self, desk: Desk, type_: str) -> None:
        desk.take("cloudevents", event(type_, 1, model=desk.model), CE)
        assert desk.incidents == []

    def test_a_report_that_found_nothing(self, desk: Desk) -> None:
        desk.take("cloudevents", event("com.example.drift.report", 1, model=desk.model, driftDetected="false"), CE)
        assert desk.incidents == []
        desk.take("cloudevents", event("com.example.drift.report", 2, model=desk.model, driftDetected="true"), CE)
        assert desk.only

    def test_a_state_that_policy_ignores(self, desk: Desk) -> None:
        before = desk.waiting
        desk.under(generic={"default": {"ignored": ["updating"]}}).take(
            "generic", {"model": desk.model, "kind": "Endpoint", "status": "Updating"}
        )
        assert (desk.incidents, desk.waiting) == ([], before)

    def test_a_subscription_that_asks_to_be_confirmed_waits_for_a_person(self, desk: Desk) -> None:
        before = desk.waiting
        desk.take("generic", {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example.com/x", "model": desk.model})
        assert (desk.incidents, desk.waiting) == ([], before + 1)


class TestWhereItStands:
    def test_in_a_text_that_is_json(self, desk: Desk) -> None:
        paths = {"name": "Message.AlarmName", "status": "Message.NewStateValue", "fingerprint": "Message.AlarmName"}
        mapping = paths | {"json_in": ["Message"], "firing": ["alarm"], "resolved": ["ok"]}
        mapped = desk.under(models={"TopicArn:*:ml": desk.model}, generic={"default": mapping})
        for state in ("ALARM", "OK"):
            alarm = json.dumps({"AlarmName": "scorer-5xx", "NewStateValue": state})
            mapped.take("generic", {"Type": "Notification", "TopicArn": "arn:aws:sns:eu:0:ml", "Message": alarm})
        assert (desk.only.alert_count, desk.ends) == (1, 1)

    def test_in_a_list_of_names_and_values_in_any_order(self, desk: Desk) -> None:
        dimensions = [{"name": "Variant", "value": "all"}, {"name": "Endpoint", "value": desk.model}]
        mapped = desk.under(generic={"default": {"model": "pairs(dims, 'name', 'value').Endpoint"}})
        mapped.take("generic", {"kind": "Invocation5XX", "dims": dimensions})
        assert desk.only

    def test_in_a_body_that_is_a_list(self, desk: Desk) -> None:
        desk.take("generic", [{"model": desk.model, "kind": "A", "dedup_key": "1"}, {"model": desk.model, "kind": "B", "dedup_key": "2"}])
        assert desk.only.alert_count == 2

    def test_in_a_table_of_a_mail(self, desk: Desk) -> None:
        rows = f"<tr><td>model</td><td>{desk.model}</td></tr><tr><td>severity</td><td>critical</td></tr>"
        desk.mail("[FIRING:1] DriftHigh", html=f"<table>{rows}</table>")
        assert desk.only.severity == "high"

    def test_in_an_old_annotation(self, desk: Desk) -> None:
        labels = {"alertname": "TargetDown", "model": desk.model}
        desk.take("alertmanager", alertmanager(labels, annotations={"message": "11 % of the targets are down."}))
        assert "11 %" in desk.only.description

    def test_in_an_event_for_pagerduty(self, desk: Desk) -> None:
        payload = {"summary": "PSI 0.31", "source": "watcher", "severity": "critical", "custom_details": {"model": desk.model}}
        desk.take("pagerduty", {"routing_key": "R", "event_action": "trigger", "dedup_key": "d1", "payload": payload})
        desk.take("pagerduty", {"routing_key": "R", "event_action": "resolve", "dedup_key": "d1"})
        assert (desk.only.severity, desk.ends) == ("high", 1)


class TestMail:
    @pytest.mark.parametrize(
        ("fires", "ends"),
        [
            ('ALARM: "{}-5xx" in EU', 'OK: "{}-5xx" in EU'),
            ("Monitor is DOWN: {}", "Monitor is UP: {}"),
            ("PROBLEM: {} slow", "RESOLVED: {} slow"),
            ("[FIRING:1] {} slow", "[RESOLVED] {} slow"),
        ],
    )
    def test_a_pair_of_words_begins_and_ends_one_alert(self, desk: Desk, fires: str, ends: str) -> None:
        mapped = desk.under(models={f"subject:*{desk.model}*": desk.model})
        mapped.mail(fires.format(desk.model))
        mapped.mail(ends.format(desk.model))
        assert (desk.only.alert_count, desk.ends) == (1, 1)

    @pytest.mark.parametrize("subject", ["Recall check of {} NOT OK", "{}: was OK until 9:00", "closed loop of {} drifts"])
    def test_a_word_in_the_middle_ends_nothing(self, desk: Desk, subject: str) -> None:
        desk.under(models={f"subject:*{desk.model}*": desk.model}).mail(subject.format(desk.model))
        assert desk.only


class TestTheType:
    def test_the_name_in_a_pager_s_title_is_the_alert_that_it_names(self, desk: Desk) -> None:
        mapped = desk.under(models={"service:Scorer": desk.model})
        mapped.take("alertmanager", alertmanager({"alertname": "ModelServerDown", "model": desk.model, "severity": "critical"}))
        mapped.take("pagerduty", pagerduty("incident.triggered", title="[FIRING:1] ModelServerDown scorer (critical)"))
        assert (desk.only.type, desk.only.alert_count) == ("infrastructure", 2)

    def test_a_rule_that_cannot_be_evaluated_says_nothing_about_the_model(self, desk: Desk) -> None:
        labels = {"alertname": "DatasourceError", "rulename": "ModelF1Drop", "model": desk.model}
        message = alertmanager(labels, annotations={"summary": "F1 is below 0.8", "Error": "connection refused"}) | {"version": "1"}
        desk.take("grafana", message)
        assert desk.only.type == "infrastructure"
        assert "ModelF1Drop" in desk.only.description
        assert "below" not in desk.only.description

    def test_the_same_alert_of_another_kind_opens_its_own(self, desk: Desk) -> None:
        desk.take("alertmanager", alertmanager({"alertname": "Odd", "model": desk.model, "incident_type": "infrastructure"}))
        desk.take("alertmanager", alertmanager({"alertname": "Odd", "model": desk.model, "incident_type": "bias_fairness"}))
        assert [one.type for one in desk.incidents] == ["infrastructure", "bias_fairness"]
