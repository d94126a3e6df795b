"""The runbook's automated alerts: when they fire, when they end, and that the gateway is told whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.domain.detection.alert_rules import ServerSeen
from mlrunbook.domain.errors import Transient
from mlrunbook.local.platform import alerts, metrics, registry
from tests.local.platform.kit import NOW, log, new_model, reading, release


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"state": "ok", "checkedAt": "2026-03-02T12:00:00Z", "failingSince": None}, ServerSeen()),
        ({"state": "not_configured"}, ServerSeen()),
        (None, ServerSeen()),  # a server that knows no feature store
        ({"state": "loading"}, ServerSeen(features_known=False)),
        ({"state": "failing", "failingSince": "2026-03-02T11:59:50Z"}, ServerSeen(features_down_for=timedelta(seconds=10))),
        ({"state": "failing", "failingSince": "noon"}, ServerSeen(features_known=False)),
        ({"state": "failing"}, ServerSeen(features_known=False)),
    ],
)
def test_what_the_servers_health_says_of_its_features(features: dict[str, Any] | None, expected: ServerSeen) -> None:
    assert alerts.server_seen({"status": "ok", "features": features}, down_for=None, now=NOW) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"version": "v2", "since": "2026-03-02T11:59:20Z", "error": "no"},
            ServerSeen(not_loaded="no", not_loaded_for=timedelta(seconds=40)),
        ),
        (None, ServerSeen()),
        ({"version": "v2"}, ServerSeen()),
        ("v2", ServerSeen()),
    ],
)
def test_what_the_servers_health_says_of_a_version_it_cannot_load(said: Any, expected: ServerSeen) -> None:
    assert alerts.server_seen({"status": "ok", "notLoaded": said}, down_for=None, now=NOW) == expected
    assert alerts.server_seen({"status": "ok"}, down_for=None, now=NOW) == ServerSeen()


def test_a_silent_or_loading_server_neither_starts_nor_ends_the_feature_store_alert(engine: Engine, model: str) -> None:
    def firing(server: ServerSeen, minutes: int) -> bool:
        evaluate(engine, NOW + timedelta(minutes=minutes), server)
        return "FeatureStoreUnavailable" in {a["labels"]["alertname"] for a in active(engine)}

    silent = alerts.server_seen(None, down_for=timedelta(seconds=1), now=NOW)
    assert not firing(silent, 0)
    assert firing(ServerSeen(features_down_for=timedelta(seconds=12)), 1)
    assert firing(silent, 2)
    assert firing(ServerSeen(), 3)
    assert not firing(ServerSeen(), 4)


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """A model with a labelled week behind it; the only one with something in production."""
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0", "v2.0.0")
    log(engine, name, tp=80, fp=20, fn=20, tn=880, at=NOW - timedelta(days=2))
    yield name
    with transaction(engine) as conn:
        conn.execute(text("DELETE FROM platform.alerts"))
        conn.execute(text("DELETE FROM platform.production"))


def evaluate(engine: Engine, at: datetime = NOW, server: ServerSeen = ServerSeen()) -> None:
    with transaction(engine) as conn:
        alerts.evaluate(conn, now=at, server=lambda _: server, environment="test")


def active(engine: Engine) -> list[dict[str, Any]]:
    with transaction(engine) as conn:
        return alerts.active(conn)


def bad(engine: Engine, model: str, **where: Any) -> None:
    log(engine, model, **{"tp": 40, "fp": 60, "fn": 60, "tn": 840, "version": "v2.0.0", **where})


class Gateway:
    """Takes webhooks, or is away."""

    def __init__(self) -> None:
        self.away, self.got = False, []  # type: ignore[var-annotated]

    def __call__(self, message: dict[str, Any]) -> None:
        if self.away:
            raise Transient("connection refused")
        self.got.append(json.loads(json.dumps(message)))

    def told(self) -> list[tuple[str, str, str]]:
        return [(m["status"], m["alerts"][0]["labels"]["alertname"], m["alerts"][0]["labels"]["severity"]) for m in self.got]


def test_an_alert_has_the_labels_numbers_and_fingerprint_of_alertmanager(engine: Engine, model: str) -> None:
    bad(engine, model)
    evaluate(engine)
    gateway = Gateway()
    alerts.deliver_due(engine, gateway, now=NOW)
    message = next(m for m in gateway.got if m["groupLabels"]["alertname"] == "ModelF1Drop")
    (alert,) = message["alerts"]
    assert (message["version"], message["status"], message["truncatedAlerts"]) == ("4", "firing", 0)
    assert alert["labels"] == {
        "alertname": "ModelF1Drop",
        "severity": "critical",
        "model": model,
        "model_version": "v2.0.0",
        "environment": "test",
    }
    assert alert["fingerprint"] == alerts.fingerprint(dict(reversed(alert["labels"].items())))
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-02T12:00:00.000Z", "0001-01-01T00:00:00Z")
    assert "fell 50.0% (0.800 -> 0.400, 1000 labelled predictions)" in alert["annotations"]["summary"]


def test_the_bad_version_is_judged_alone_not_with_the_good_one_before_it(engine: Engine, model: str) -> None:
    log(engine, model, tp=800, fp=200, fn=200, tn=8800, at=NOW - timedelta(minutes=50))
    bad(engine, model)
    with transaction(engine) as conn:
        mixed = metrics.compare(conn, model, now=NOW).current.confusion.f1
    evaluate(engine)
    assert mixed is not None
    assert mixed > 0.75  # the mixture alone would not even warn
    assert {a["labels"]["alertname"] for a in active(engine)} >= {"ModelF1Drop"}


def test_an_alert_keeps_its_start_and_ends_when_the_rolled_back_version_predicts(engine: Engine, model: str, tmp_path: Path) -> None:
    bad(engine, model)
    evaluate(engine)
    evaluate(engine, NOW + timedelta(minutes=1))
    assert {a["startsAt"] for a in active(engine)} == {"2026-03-02T12:00:00.000Z"}
    with transaction(engine) as conn:
        registry.serve(conn, tmp_path, model=model, version="v1.5.0", change=registry.Change(registry.ROLLBACK, "x", NOW))
    log(engine, model, tn=1, at=NOW + timedelta(minutes=2))
    evaluate(engine, NOW + timedelta(minutes=3))
    assert active(engine) == []


def test_a_mended_threshold_ends_the_alert_only_once_it_is_proved(engine: Engine, model: str) -> None:
    bad(engine, model, threshold=0.01)
    evaluate(engine)
    log(engine, model, tn=50, version="v2.0.0", threshold=0.5, at=NOW + timedelta(minutes=1))
    evaluate(engine, NOW + timedelta(minutes=2))
    assert "ModelF1Drop" in {a["labels"]["alertname"] for a in active(engine)}
    log(engine, model, tp=80, fp=20, fn=20, tn=880, version="v2.0.0", threshold=0.5, at=NOW + timedelta(minutes=3))
    evaluate(engine, NOW + timedelta(minutes=4))
    assert "ModelF1Drop" in {a["labels"]["alertname"] for a in active(engine)}
    evaluate(engine, NOW + timedelta(minutes=5))
    assert active(engine) == []


def test_deliveries_wait_while_the_gateway_is_away_and_none_is_lost(engine: Engine, model: str) -> None:
    gateway = Gateway()
    gateway.away = True
    evaluate(engine, server=ServerSeen(down_for=timedelta(minutes=1)))
    assert alerts.deliver_due(engine, gateway, now=NOW) == 0
    for minutes in (1, 2):
        evaluate(engine, NOW + timedelta(minutes=minutes))  # the server is back before anybody was told
    gateway.away = False
    later = NOW + timedelta(minutes=3)
    assert alerts.deliver_due(engine, gateway, now=later) == 2
    assert gateway.told() == [("firing", "ModelServerDown", "critical"), ("resolved", "ModelServerDown", "critical")]
    assert gateway.got[1]["alerts"][0]["endsAt"] == "2026-03-02T12:02:00.000Z"
    assert alerts.deliver_due(engine, gateway, now=later + timedelta(hours=1)) == 0


def test_a_firing_alert_is_told_again_every_five_minutes(engine: Engine, model: str) -> None:
    gateway = Gateway()
    evaluate(engine, server=ServerSeen(down_for=timedelta(minutes=1)))
    counts = [alerts.deliver_due(engine, gateway, now=NOW + timedelta(minutes=m)) for m in (0, 1, 5, 6, 10)]
    assert counts == [1, 0, 1, 0, 1]


def test_a_delivery_cut_off_after_the_claim_is_made_again(engine: Engine, model: str) -> None:
    def killed(message: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    evaluate(engine, server=ServerSeen(down_for=timedelta(minutes=1)))
    with pytest.raises(KeyboardInterrupt):
        alerts.deliver_due(engine, killed, now=NOW)
    gateway = Gateway()
    assert alerts.deliver_due(engine, gateway, now=NOW + alerts.CLAIM) == 1


def test_a_warning_that_becomes_critical_is_told_as_critical_before_the_warning_ends(engine: Engine, model: str) -> None:
    gateway = Gateway()
    log(engine, model, tp=71, fp=29, fn=29, tn=871, version="v2.0.0")
    evaluate(engine)
    alerts.deliver_due(engine, gateway, now=NOW)
    bad(engine, model, tp=0, fp=0, fn=100, tn=0, at=NOW)
    evaluate(engine, NOW + timedelta(minutes=1))
    alerts.deliver_due(engine, gateway, now=NOW + timedelta(minutes=1))
    f1 = [(status, severity) for status, name, severity in gateway.told() if name == "ModelF1Drop"]
    assert f1 == [("firing", "warning"), ("firing", "critical"), ("resolved", "warning")]


def test_nulls_in_a_feature_fire_from_the_log_itself(engine: Engine, model: str) -> None:
    log(engine, model, tn=180, version="v2.0.0")
    log(engine, model, tn=20, version="v2.0.0", features_of=reading(None))
    evaluate(engine)
    (alert,) = active(engine)
    assert (alert["labels"]["alertname"], alert["annotations"]["summary"]) == (
        "FeatureNullRateHigh",
        f"10.0% of a feature of {model} is null, 10.0% more than in the baseline",
    )


def test_the_webhook_carries_the_token_and_anything_but_2xx_is_an_error() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202 if len(seen) == 1 else 500)

    gateway = alerts.Gateway(httpx.Client(transport=httpx.MockTransport(answer)), "http://gateway", "mlrb_x")
    gateway({"version": "4"})
    assert (str(seen[0].url), seen[0].headers["authorization"]) == ("http://gateway/webhooks/alertmanager", "Bearer mlrb_x")
    with pytest.raises(httpx.HTTPStatusError):
        gateway({"version": "4"})


@pytest.mark.parametrize("hours", [1, 25])
def test_a_clock_that_is_set_back_delays_no_alert(engine: Engine, model: str, hours: int) -> None:
    back = NOW - timedelta(hours=hours)

    def refuse(_: dict[str, Any]) -> None:
        raise Transient("the gateway is away")

    told: list[dict[str, Any]] = []
    evaluate(engine, NOW, ServerSeen(down_for=timedelta(hours=1)))
    alerts.deliver_due(engine, refuse, now=NOW)
    assert alerts.deliver_due(engine, told.append, now=back) >= 1, "the next try is not an hour away"
    assert alerts.deliver_due(engine, told.append, now=back + timedelta(seconds=1)) == 0, "and it is told once"
    assert alerts.deliver_due(engine, told.append, now=back + alerts.REPEAT) >= 1


@pytest.mark.parametrize(
    "health",
    [
        None,
        {"features": {"state": "failing", "failingSince": NOW.isoformat()}},
        {"notLoaded": {"version": "v2", "since": NOW.isoformat(), "error": "no"}},
    ],
    ids=["down", "no features", "not loaded"],
)
def test_what_is_wrong_with_a_server_lasts_on_when_the_clock_is_set_back(health: dict[str, Any] | None) -> None:
    clock = NOW
    watch = alerts.ServerWatch(lambda _: health, lambda _: False, lambda: clock)
    watch("m")
    clock = NOW - timedelta(hours=1)
    watch("m")
    clock += timedelta(minutes=2)
    seen = watch("m")
    assert max(d for d in (seen.down_for, seen.features_down_for, seen.not_loaded_for) if d is not None) == timedelta(minutes=2)
