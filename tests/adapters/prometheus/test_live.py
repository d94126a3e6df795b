"""Live figures of the real Prometheus, over TLS; and what odd answers become: a reason, never a number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlrunbook.adapters.prometheus.live import PrometheusLive
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.policy.connections import LivePart
from mlrunbook.ports import Live
from tests.certificates import Authority
from tests.prometheus.test_end_to_end import free_ports, process
from tests.prometheus.test_rules import NEEDS_PROMTOOL, promtool
from tests.waiting import until as wait_until

HOUR = timedelta(hours=1)
UNTIL = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 2 * HOUR
STEP_S, STEPS = 15, 4 * 120  # two hours
FIGURES = ("latency_p95_ms", "error_rate", "requests", "null_rate")


def part(model: str, **changes: Any) -> LivePart:
    of = f'{{model="{model}"}}'
    queries: dict[str, Any] = {
        "latency_p95_s": f"histogram_quantile(0.95, sum by (le) (rate(seconds_bucket{of}[{{window}}])))",
        "error_rate": f'sum(rate(asked_total{{model="{model}",code="500"}}[{{window}}])) / sum(rate(asked_total{of}[{{window}}]))',
        "requests": f"sum(increase(asked_total{of}[{{window}}]))",
        "null_rate": f"nulls{of}",
    }
    return LivePart("prom", **(queries | changes))


def openmetrics(models: dict[str, int]) -> str:
    """Of each model this many steps: 19 requests and an error, 94 of 100 within 0.1 s and the others within 0.5 s."""
    lines: dict[str, list[str]] = {
        "asked": ["# TYPE asked counter"],
        "seconds": ["# TYPE seconds histogram"],
        "nulls": ["# TYPE nulls gauge"],
    }
    begin = UNTIL.timestamp() - STEP_S * STEPS
    for model, steps in models.items():
        for i in range(steps):
            at = f"{begin + STEP_S * i:.0f}"
            lines["asked"] += [f'asked_total{{model="{model}",code="{code}"}} {each * i} {at}' for code, each in (("200", 19), ("500", 1))]
            buckets = (("0.1", 94), ("0.5", 100), ("+Inf", 100))
            lines["seconds"] += [f'seconds_bucket{{model="{model}",le="{le}"}} {each * i} {at}' for le, each in buckets]
            lines["nulls"].append(f'nulls{{model="{model}"}} 0.03 {at}')
    return "\n".join([line for family in lines.values() for line in sorted(family, key=_by_series)] + ["# EOF", ""])


def _by_series(line: str) -> str:
    return "" if line.startswith("#") else line.split(" ")[0]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("prometheus")
    authority = Authority(folder)
    cert, key = authority.issue("localhost", now=datetime.now(UTC))
    (folder / "metrics.txt").write_text(openmetrics({"churn": STEPS, "gone": STEPS - 160}))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "metrics.txt", folder / "tsdb")
    (folder / "prometheus.yml").write_text("{}")
    (folder / "web.yml").write_text(f"tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n")
    (port,) = free_ports(1)
    url = f"https://127.0.0.1:{port}"
    options = (f"--storage.tsdb.path={folder / 'tsdb'}", "--storage.tsdb.retention.time=10y", f"--web.listen-address=127.0.0.1:{port}")
    with process(folder, "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.config.file={folder / 'web.yml'}", *options):
        wait_until(lambda: _is_ready(url))
        yield url, authority.root


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", verify=False, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.mark.prometheus
@pytest.mark.skipif(**NEEDS_PROMTOOL)
def test_the_figures_of_a_window_are_what_prometheus_holds_and_what_it_no_longer_scrapes_is_missing(prometheus: tuple[str, Path]) -> None:
    url, ca = prometheus
    live = PrometheusLive("prom", f"{url}/", part, ca_file=str(ca))
    found = live.live("churn", since=UNTIL - HOUR, until=UNTIL - timedelta(seconds=STEP_S))
    assert found.missing == {}
    assert found.latency_p95_ms == pytest.approx(1000 * (0.1 + 0.4 / 6))
    assert found.error_rate == pytest.approx(0.05)
    assert found.requests == pytest.approx(4800, rel=0.01)
    assert found.null_rate == 0.03

    gone = live.live("gone", since=UNTIL - HOUR, until=UNTIL)
    assert (set(gone.missing), gone) == (set(FIGURES), Live(missing=gone.missing))
    assert set(live.live("never was", since=UNTIL - HOUR, until=UNTIL).missing) == set(FIGURES)

    odd = part(
        "churn",
        latency_p95_s="asked_total",
        error_rate='sum(rate(asked_total{code="404"}[{window}])) / 0',
        requests="sum(increase(asked_total[{window}",
        null_rate="asked_total[5m]",
    )
    assert set(PrometheusLive("prom", url, lambda _: odd, ca_file=str(ca)).live("churn", since=UNTIL - HOUR, until=UNTIL).missing) == set(
        FIGURES
    )
    with pytest.raises(Refused):
        PrometheusLive("prom", url, part).live("churn", since=UNTIL - HOUR, until=UNTIL)  # nobody said whom to trust
    with pytest.raises(Invalid):
        live.live("churn", since=UNTIL, until=UNTIL)


def answering(status: int = 200, body: Any = None, *, text: str | None = None, part_: LivePart | None = None, **how: Any) -> PrometheusLive:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, text=text) if text is not None else httpx.Response(status, json=body)

    asked: list[httpx.Request] = []
    live = PrometheusLive(
        "prom", how.pop("address", "http://prom:9090/base"), lambda _: part_ or part("m"), transport=httpx.MockTransport(answer), **how
    )
    live.asked = asked  # type: ignore[attr-defined]
    return live


def vector(*values: str) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1.0, value]} for value in values]}}


@pytest.mark.parametrize(
    "body",
    [
        vector(),
        vector("0.1", "0.2"),
        vector("NaN"),
        vector("+Inf"),
        vector("-0.1"),
        vector("1e300"),
        vector("a lot"),
        {"status": "success", "data": {"resultType": "string", "result": [1.0, "0.1"]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "histogram": [1.0, {}]}]}},
        {"status": "success", "data": None},
        vector("0.1") | {"warnings": ["a store did not answer"]},
    ],
    ids=["none", "two", "nan", "inf", "negative", "huge", "text", "string", "histogram", "nothing", "partial"],
)
def test_what_is_no_single_number_within_range_is_missing_with_its_reason(body: dict[str, Any]) -> None:
    found = answering(body=body).live("m", since=UNTIL - HOUR, until=UNTIL)
    assert found == Live(missing=found.missing)
    assert set(found.missing) == set(FIGURES)
    assert all(found.missing.values())


def test_a_share_over_one_is_of_another_unit_and_a_figure_without_a_query_is_missing() -> None:
    found = answering(body=vector("5"), part_=part("m", null_rate=None)).live("m", since=UNTIL - HOUR, until=UNTIL)
    assert (found.latency_p95_ms, found.requests, found.error_rate) == (5000.0, 5, None)
    assert set(found.missing) == {"error_rate", "null_rate"}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {}, Refused),
        (403, {}, Refused),
        (302, {}, Refused),
        (404, {}, Refused),
        (200, ["not", "prometheus"], Refused),
        (429, {}, Transient),
        (503, {"errorType": "timeout", "error": "query timed out"}, Transient),
        (422, {"errorType": "timeout", "error": "query timed out"}, Transient),
    ],
)
def test_a_prometheus_that_does_not_answer_is_an_error_of_ours(status: int, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        answering(status, body).live("m", since=UNTIL - HOUR, until=UNTIL)


def test_a_page_in_its_place_is_refused() -> None:
    with pytest.raises(Refused):
        answering(text="<html>Sign in</html>").live("m", since=UNTIL - HOUR, until=UNTIL)


def test_the_window_and_the_login_are_sent_and_no_error_holds_the_password() -> None:
    live = answering(body=vector("0.1"), address="https://us%40er:pa%2Fss@prom/base", token=None)
    live.live("m", since=UNTIL - HOUR, until=UNTIL)
    asked = live.asked  # type: ignore[attr-defined]
    assert {request.url.path for request in asked} == {"/base/api/v1/query"}
    assert "[3600s]" in asked[0].url.params["query"]
    assert float(asked[0].url.params["time"]) == UNTIL.timestamp()
    assert httpx.BasicAuth("us@er", "pa/ss")._auth_header == asked[0].headers["Authorization"]

    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot reach {request.url}")

    live = PrometheusLive("prom", "https://us%40er:secret@prom", part, transport=httpx.MockTransport(down))
    with pytest.raises(Transient) as caught:
        live.live("m", since=UNTIL - HOUR, until=UNTIL)
    assert "secret" not in json.dumps(str(caught.value))
    assert answering(body=vector("0.1"), token="t0ken").live("m", since=UNTIL - HOUR, until=UNTIL).error_rate == 0.1


def test_an_address_that_is_none_is_refused_without_what_it_holds() -> None:
    with pytest.raises(Refused, match="MLRUNBOOK_CONNECTION_PROM") as caught:
        PrometheusLive("prom", "http://reader:hush/x@prometheus:9090", part)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
