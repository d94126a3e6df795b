"""When mlrunbook itself is down people hear of it past mlrunbook; and when nobody could say so, a watch outside misses the Watchdog."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlrunbook.gateway.dispatcher import STUCK_S
from mlrunbook.gateway.late_pages import PAGE_LATE
from mlrunbook.gateway.metrics import FAMILIES
from tests.adapters.channels.test_pagers import KEY, PagerDuty
from tests.gateway.test_heartbeat import Watch
from tests.prometheus import alertmanager
from tests.prometheus.test_end_to_end import PATIENCE_S, free_ports, process
from tests.prometheus.test_rules import DEPLOYMENTS, NEEDS_PROMTOOL, promtool
from tests.waiting import until

RECEIVER = DEPLOYMENTS.parent / "receivers/alertmanager-watchdog.yml"
WATCH = DEPLOYMENTS / "watch.yml"
CONFIGS = pytest.mark.parametrize("config", [RECEIVER, DEPLOYMENTS / "alertmanager.yml"], ids=lambda path: path.name)


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in yaml.safe_load(WATCH.read_text())["groups"][0]["rules"]}


def test_what_is_about_mlrunbook_names_no_model_and_is_as_late_as_the_heartbeat() -> None:
    assert all("model" not in rule["labels"] for rule in rules().values())
    assert f"> {PAGE_LATE.total_seconds():.0f} " in rules()["MlrunbookPagesDoNotFlow"]["expr"]
    assert PAGE_LATE.total_seconds() == STUCK_S == 120, "docs/how-to say 2 minutes"
    for rule in rules().values():
        assert set(re.findall(r"mlrunbook_\w+", rule["expr"])) <= set(FAMILIES)
    assert "watch.yml" in yaml.safe_load((DEPLOYMENTS / "prometheus.yml").read_text())["rule_files"]


def test_the_part_to_paste_is_in_the_whole_configuration() -> None:
    part, whole = (yaml.safe_load(path.read_text()) for path in (RECEIVER, DEPLOYMENTS / "alertmanager.yml"))
    assert whole["route"]["routes"][: len(part["route"]["routes"])] == part["route"]["routes"], "before what goes to mlrunbook"
    assert [r for r in part["receivers"] if r not in whole["receivers"]] == []


GOOD = {'up{job="mlrunbook"}': "1+0x40", "mlrunbook_page_waiting_seconds": "0+0x40", "mlrunbook_dispatcher_up": "1+0x40"}
# What happens from the start on -> which alerts fire after a minute and a half, after five minutes. A sample is 15 s.
CASES: dict[str, tuple[dict[str, str], set[str], set[str]]] = {
    "all is well": ({}, set(), set()),
    "the gateway is down": ({name: "stale" for name in GOOD} | {'up{job="mlrunbook"}': "0+0x40"}, set(), {"MlrunbookDown"}),
    "nobody scrapes it": (dict.fromkeys(GOOD, "stale"), set(), {"MlrunbookDown"}),
    "one of two gateways is down": ({'up{job="mlrunbook",instance="b"}': "0+0x40"}, set(), set()),
    "a page waits": ({"mlrunbook_page_waiting_seconds": "0+15x40"}, set(), {"MlrunbookPagesDoNotFlow"}),
    "every page waits a minute": ({"mlrunbook_page_waiting_seconds": "60+0x40"}, set(), set()),
    "the dispatcher hangs": ({"mlrunbook_dispatcher_up": "0+0x40"}, {"MlrunbookPagesDoNotFlow"}, {"MlrunbookPagesDoNotFlow"}),
    "the dispatcher of one of two gateways hangs": ({'mlrunbook_dispatcher_up{instance="b"}': "0+0x40"}, set(), set()),
}


@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_each_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    promtool("check", "rules", WATCH)
    tests = []
    for changes, early, late in CASES.values():
        given = [{"series": name, "values": values} for name, values in (GOOD | changes).items()]
        firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
        expected = [
            {
                "expr": firing,
                "eval_time": at,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted({"Watchdog", *fires})],
            }
            for at, fires in (("90s", early), ("5m", late))
        ]
        tests.append({"interval": "15s", "input_series": given, "promql_expr_test": expected})
    (tmp_path / "watch.yml").write_text(WATCH.read_text())
    file = tmp_path / "watch_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": ["watch.yml"], "evaluation_interval": "15s", "tests": tests}))
    promtool("test", "rules", file)


@CONFIGS
@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_the_configuration_is_valid_and_routes_past_mlrunbook(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager.readable(config))
    subprocess.run(["amtool", "check-config", file], check=True, capture_output=True)
    for name, receiver in (("Watchdog", "heartbeat"), ("MlrunbookDown", "direct"), ("MlrunbookPagesDoNotFlow", "direct")):
        asked = ["amtool", "config", "routes", "test", f"--config.file={file}", f"alertname={name}", "severity=critical"]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == receiver
    assert set(rules()) == {"Watchdog", "MlrunbookDown", "MlrunbookPagesDoNotFlow"}


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.stop()


@pytest.fixture
def pagerduty() -> Iterator[PagerDuty]:
    service = PagerDuty()
    yield service
    service.stop()


@pytest.mark.prometheus
@pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None and "CI" not in os.environ,
    reason="no Alertmanager: apt-get install prometheus prometheus-alertmanager",
)
def test_with_the_gateway_down_on_call_is_paged_directly_and_the_watch_outside_is_pinged(
    tmp_path: Path, watch: Watch, pagerduty: PagerDuty
) -> None:
    prometheus_port, alertmanager_port, nobody = free_ports(3)
    pager = pagerduty.address.partition("host=")[2].partition("&")[0]
    direct = f"routing_key_file: pagerduty.key\n        url: http://{pager}/v2/enqueue"
    text = alertmanager.readable(RECEIVER, heartbeat_url=watch.url).replace("routing_key_file: pagerduty.key", direct)
    (tmp_path / "alertmanager.yml").write_text(text)
    (tmp_path / "heartbeat.url").write_text(watch.url)
    (tmp_path / "pagerduty.key").write_text(KEY)
    (tmp_path / "reader.token").write_text("of nobody")
    (tmp_path / "watch.yml").write_text(WATCH.read_text().replace("for: 2m", "for: 1s").replace("interval: 15s", "interval: 1s"))
    config = (DEPLOYMENTS / "prometheus.yml").read_text().replace(": 15s", ": 1s").replace(":9093", f":{alertmanager_port}")
    for port in ("8070", "8080", "8090"):
        config = config.replace(f"127.0.0.1:{port}", f"127.0.0.1:{nobody}")
    (tmp_path / "prometheus.yml").write_text(config)
    with ExitStack() as parts:
        listen = f"--web.listen-address=127.0.0.1:{alertmanager_port}"
        storage = f"--storage.path={tmp_path / 'alertmanager'}"
        started = ("prometheus-alertmanager", "--config.file=alertmanager.yml", storage, listen, "--cluster.listen-address=")
        parts.enter_context(process(tmp_path, *started))
        listen = f"--web.listen-address=127.0.0.1:{prometheus_port}"
        started = ("prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={tmp_path / 'tsdb'}", listen)
        parts.enter_context(process(tmp_path, *started, "--rules.alert.resend-delay=1s"))
        until(lambda: bool(watch.pings) and bool(pagerduty.events), 2 * PATIENCE_S)
    assert "Watchdog" in watch.pings[0][1]
    assert pagerduty.events[0]["event_action"] == "trigger"
    assert "MlrunbookDown" in str(pagerduty.events[0]["payload"])
