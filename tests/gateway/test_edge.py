"""What reaches the gateway from outside, before anybody is known: it costs little, says nothing, and keeps nobody else out."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.base import http_server, web
from mlrunbook.base.authentication import AuthenticatedRoute
from mlrunbook.base.edge import Edge, address_of
from mlrunbook.base.tokens import Scope
from mlrunbook.gateway.app import MAX_BODY_BYTES, create_app
from mlrunbook.gateway.webhooks import pagerduty_door
from mlrunbook.response.world import World
from tests.gateway.conftest import Clock, Keys, world_on
from tests.gateway.console.test_authorization import OPEN as SIGNING_IN
from tests.served import served
from tests.waiting import until

REPORT = {"severity": "high", "type": "security", "description": "x"}


@contextlib.contextmanager
def gateway(world: World, **limits: Any) -> Iterator[tuple[FastAPI, httpx.Client]]:
    """On a port, as the process serves it."""
    app = create_app(world, limits=web.Limits(**{"body_bytes": MAX_BODY_BYTES} | limits))
    with served(app, **http_server.options()) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        yield app, http


def connect(http: httpx.Client) -> socket.socket:
    where = urlsplit(str(http.base_url))
    return socket.create_connection((where.hostname, where.port), timeout=60)


def begun(http: httpx.Client, path: str, *headers: str, length: int = MAX_BODY_BYTES, body: bytes = b"") -> socket.socket:
    """A request whose body is never finished."""
    one = connect(http)
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}", *headers, "", ""]
    one.sendall("\r\n".join(lines).encode() + body)
    return one


def status(one: socket.socket) -> int:
    answer = one.recv(4096)
    return int(answer.split()[1]) if answer else 0


def is_closed(one: socket.socket) -> bool:
    try:
        return not one.recv(65536)
    except ConnectionError:
        return True


# Who is not proven


def _posts(app: FastAPI) -> list[str]:
    return [path for path, operations in app.openapi()["paths"].items() if "post" in operations]


def test_no_door_reads_the_body_of_a_sender_without_a_token(world: World) -> None:
    with gateway(world, per_min_address=10_000) as (app, http):
        for path in _posts(app):
            with begun(http, re.sub(r"\{\w+\}", "incident_1", path)) as waiting:
                in_body = path.startswith(pagerduty_door.PATH)  # its token stands in the body, which is too large to be read
                assert status(waiting) == (413 if in_body else 401), path
                assert is_closed(waiting), path


def test_every_route_that_changes_something_authenticates_first(anonymous: TestClient) -> None:
    app = anonymous.app
    assert isinstance(app, FastAPI)
    routes = [route for included in app.routes for route in _flat(included)]
    changing = {"POST", "PUT", "PATCH", "DELETE"}
    posts = [route for route in routes if getattr(route, "methods", set()) & changing and ("POST", route.path) not in SIGNING_IN]
    assert len(posts) > 20
    for route in posts:
        assert isinstance(route, AuthenticatedRoute), route.path
        assert route.authentications, route.path


def _flat(route: Any) -> Iterator[Any]:
    inner = getattr(route, "original_router", None)
    if inner is None:
        yield route
    else:
        for one in inner.routes:
            yield from _flat(one)


@pytest.mark.parametrize("authorization", [None, "Bearer mlrb_00000000_x", "Bearer mlrb_\x00_x", "Bearer mlrb_a\xff_x", "Basic eDp5", "x"])
def test_a_stranger_gets_one_answer_whatever_is_there(
    client: TestClient, anonymous: TestClient, authorization: str | None, model: str
) -> None:
    incident = client.post(f"/api/v1/model-governance/{model}/incidents", json=REPORT).json()["id"]
    headers = {b"Authorization": authorization.encode("latin-1")} if authorization else {}
    answers = set()
    for of_model in (model, "another_model", "no model id!"):
        for number in (incident, "incident_999999", "\x00"):
            where = f"/api/v1/model-governance/{of_model}/incidents/{number}".replace("\x00", "%00")
            answers.add((anonymous.get(where, headers=headers).status_code, anonymous.get(where, headers=headers).text))
    assert len(answers) == 1
    assert {code for code, _ in answers} == {401}
    for body in (b"{", b"[]", json.dumps(REPORT).encode(), b"[" * 100_000):
        assert anonymous.post(f"/api/v1/incidents/{incident}/resolve", content=body, headers=headers).status_code == 401


def test_a_token_without_the_scope_is_told_nothing_of_what_exists(
    client: TestClient, anonymous: TestClient, keys: Keys, model: str
) -> None:
    incident = client.post(f"/api/v1/model-governance/{model}/incidents", json=REPORT).json()["id"]
    intake = keys.of("a sender", Scope.ALERTS)
    said = {
        (answer.status_code, answer.text)
        for path in (f"{model}/incidents/{incident}", f"another/incidents/{incident}", f"{model}/incidents/incident_999999")
        for answer in [anonymous.get(f"/api/v1/model-governance/{path}", headers=intake)]
    }
    assert len(said) == 1
    assert said.pop()[0] == 403


def test_who_says_that_a_body_is_signed_may_send_a_small_one_before_it_is_proven(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GRAFANA", "s3cret")
    signed = "X-Grafana-Alerting-Signature: 00"
    with gateway(world, unproven_body_bytes=1000, unproven_in_flight_bytes=2500) as (app, http):
        with begun(http, "/webhooks/grafana", signed, length=1001) as too_large:
            assert status(too_large) == 413
        with begun(http, "/webhooks/grafana", length=900) as says_nothing:
            assert status(says_nothing) == 401
        held = [begun(http, "/webhooks/grafana", signed, length=1000, body=b"x" * 900) for _ in range(2)]
        until(lambda: app.state.edge.unproven.left == 700)
        assert http.post("/webhooks/grafana", content=b"x" * 900, headers={"X-Grafana-Alerting-Signature": "00"}).status_code == 503
        for one in held:
            one.close()
        until(lambda: http.post("/webhooks/grafana", content=b"x" * 900, headers={"X-Grafana-Alerting-Signature": "00"}).status_code == 401)


# Sizes


def test_what_all_requests_hold_together_is_limited_and_given_back(world: World, keys: Keys) -> None:
    token = keys.of("a sender", Scope.ALERTS)
    line = f"Authorization: {token['Authorization']}"
    with gateway(world, in_flight_bytes=3000) as (app, http):
        held = [begun(http, "/webhooks/generic", line, length=2000, body=b"x" * 1400) for _ in range(2)]
        until(lambda: app.state.edge.proven.left == 200)
        refused = http.post("/webhooks/generic", content=b"x" * 1000, headers=token)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert http.get("/health").status_code == 200
        for one in held:
            one.close()
        until(lambda: http.post("/webhooks/generic", content=b"x" * 1000, headers=token).status_code == 202)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP, gzip"])
def test_a_compressed_body_is_refused_unread(client: TestClient, encoding: str) -> None:
    answer = client.post("/webhooks/generic", content=b"\x1f\x8b\x08", headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


def test_a_body_that_does_not_say_its_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    answer = client.post("/webhooks/generic", content=iter([b"x" * (1 << 20)] * 5))
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["detail"]


BOMBS = [(b"[" * 200_000, 413), (b'{"a":' * 100_000, 413), (b"[" * 19_000, 400), (b'{"a":' * 19_000, 400)]
BOMBS += [(b"9" * 5_000, 400), (b'{"severity": ' + b"9" * 5_000 + b"}", 400)]


@pytest.mark.parametrize(("bomb", "status_code"), BOMBS)
def test_json_made_to_break_a_reader_is_refused(client: TestClient, model: str, bomb: bytes, status_code: int) -> None:
    for path in (f"/api/v1/model-governance/{model}/incidents", "/api/v1/changes"):
        answer = client.post(path, content=bomb, headers={"Content-Type": "application/json"})
        assert answer.status_code == status_code, answer.text
    assert client.post("/webhooks/generic", content=bomb).status_code == 202, "what a known sender sent is kept aside"


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_moment_at_the_ends_of_the_calendar_is_named_as_invalid(client: TestClient, model: str, at: str) -> None:
    incident = client.post(f"/api/v1/model-governance/{model}/incidents", json=REPORT).json()["id"]
    change = {"model": model, "kind": "config", "ref": "x", "author": "x", "at": at}
    assert client.post("/api/v1/changes", json=change).status_code == 422
    assert client.get("/api/v1/changes", params={"model": model, "since": at}).status_code == 422
    assert client.post(f"/api/v1/incidents/{incident}/clocks/gdpr", json={"awareAt": at}).status_code == 422


# Time


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEADERS_S", 0.5)
    monkeypatch.setattr(http_server, "BODY_S", 0.8)


@pytest.mark.parametrize("sent", [b"", b"GET /he", b"POST /webhooks/generic HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\r\n\r\n"])
@pytest.mark.usefixtures("impatient")
def test_who_never_finishes_its_headers_is_sent_away(world: World, sent: bytes) -> None:
    with gateway(world) as (_, http), connect(http) as slow:
        slow.sendall(sent)
        assert status(slow) == 408
        assert is_closed(slow)


@pytest.mark.usefixtures("impatient")
def test_who_sends_a_byte_now_and_then_is_sent_away_too(world: World, keys: Keys) -> None:
    line = f"Authorization: {keys.of('a sender', Scope.ALERTS)['Authorization']}"
    with gateway(world) as (_, http):
        for one in (connect(http), begun(http, "/webhooks/generic", line), begun(http, "/webhooks/generic", length=1000)):
            assert _dripping_ends(one)
        after_an_answer = connect(http)
        after_an_answer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(after_an_answer) == 200
        assert _dripping_ends(after_an_answer, b"\r\n")


def _dripping_ends(one: socket.socket, drip: bytes = b"x") -> bool:
    one.settimeout(0.1)
    for _ in range(100):
        try:
            one.sendall(drip)
            if not one.recv(4096):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_endless_headers_and_trailers_are_cut_off(world: World, keys: Keys) -> None:
    token = keys.of("a sender", Scope.ALERTS)["Authorization"]
    chunked = f"POST /webhooks/generic HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with gateway(world) as (_, http):
        for start in ("GET / HTTP/1.1\r\n", "GET /" + "a" * 100, "GET / HTTP/1.1\r\nX: ", chunked):
            with connect(http) as one, contextlib.suppress(ConnectionError):
                one.sendall(start.encode())
                more = b"X-A: b\r\n" * 100 if start.endswith("\n") else b"a" * 800
                for _ in range(400):
                    one.sendall(more)
                assert status(one) in (400, 431), start
        assert http.get("/health").status_code == 200


def test_idle_connections_keep_nobody_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_most_connections", lambda: 20)
    with gateway(world) as (_, http):
        idle = [connect(http) for _ in range(60)]
        for one in idle[::2]:
            one.sendall(b"POST /webhooks/generic HTTP/1.1\r\nX-Slow: ")
        began = time.monotonic()
        for _ in range(5):
            answer = httpx.get(f"{http.base_url}/health", timeout=60, trust_env=False)
            assert answer.status_code == 200, answer.text
        assert time.monotonic() - began < 3
        idle[0].settimeout(5)
        assert is_closed(idle[0]), "who has waited longest made room"
        for one in idle:
            one.close()


def test_connections_leave_half_of_the_descriptors_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 512), (256, 128), (resource.RLIM_INFINITY, 1000), (1_000_000, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert http_server._most_connections() == most


# Rates


@pytest.fixture
def throttled(engine: Engine, clock: Clock) -> Iterator[TestClient]:
    limits = web.Limits(body_bytes=MAX_BODY_BYTES, per_min_token=3, per_min_address=40, failed_per_min_address=5)
    with TestClient(create_app(world_on(engine, clock), limits=limits), raise_server_exceptions=False) as client:
        yield client


def test_over_the_rate_of_its_token_an_alert_is_answered_with_what_its_sender_tries_again(throttled: TestClient, keys: Keys) -> None:
    sender, other = keys.of("a flood", Scope.ALERTS), keys.of("another", Scope.ALERTS)
    answers = [throttled.post("/webhooks/alertmanager", json={"version": "4", "alerts": []}, headers=sender) for _ in range(4)]
    assert [a.status_code for a in answers] == [202, 202, 202, 503]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert throttled.post("/webhooks/alertmanager", json={"version": "4", "alerts": []}, headers=other).status_code == 202


def test_elsewhere_it_is_429(throttled: TestClient, keys: Keys) -> None:
    reader = keys.of("a poller", Scope.READ)
    answers = [throttled.get("/api/v1/incidents", headers=reader) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_an_address_has_a_rate_and_health_one_of_its_own(throttled: TestClient) -> None:
    codes = Counter(throttled.get("/").status_code for _ in range(45))
    assert codes[429] >= 3
    assert throttled.get("/health").status_code == 200
    assert throttled.post("/webhooks/generic").status_code == 503


def test_failed_logins_are_limited_counted_and_logged_without_what_was_tried(
    throttled: TestClient, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    guess = "mlrb_00000000_" + "guess" * 8
    with caplog.at_level(logging.WARNING):
        codes = [throttled.get("/api/v1/incidents?t=x", headers={"Authorization": f"Bearer {guess}"}).status_code for _ in range(8)]
    assert codes == [401] * 5 + [429] * 3
    lines = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert 1 <= len(lines) <= 6
    assert "/api/v1/incidents" in lines[0]
    assert not any(guess[5:] in line or "guess" in line for line in lines)
    said = throttled.get("/metrics", headers=keys.of("prometheus", Scope.READ))
    assert said.status_code == 200, "a right token is not kept out by others at its address"
    assert 'mlrunbook_refused_requests_total{reason="authentication"} 8.0' in said.text


def test_a_line_of_the_log_is_one_line_whatever_is_asked_for(throttled: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        throttled.get("/api/v1/incidents/a%0Aforged%1b[2J")
    assert not any("\n" in r.getMessage() or "\x1b" in r.getMessage() for r in caplog.records)


def test_a_storm_of_a_thousand_alerts_is_within_the_default_rates() -> None:
    edge = Edge(web.Limits())
    assert all(edge.of_token.wait_s("alertmanager") is None and edge.of_address.wait_s("10.0.0.1") is None for _ in range(5_000))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_a_host_that_may_pick_its_address_is_one(one: str, other: str, same: bool) -> None:
    assert (address_of({"client": (one, 1)}) == address_of({"client": (other, 2)})) is same


# Many requests on one connection


def test_thousands_of_requests_that_are_sent_at_once_on_one_connection_keep_nobody_waiting(world: World) -> None:
    flood = b"GET / HTTP/1.1\r\n\r\n" * 10_000
    with gateway(world) as (app, http):
        assert http.get("/health").status_code == 200
        floods = [connect(http) for _ in range(20)]
        for one in floods:
            with contextlib.suppress(ConnectionError):
                one.sendall(flood)
        begun_s = time.monotonic()
        assert http.get("/health", timeout=60).status_code == 200
        assert time.monotonic() - begun_s < 2
        for one in floods:
            until(lambda one=one: is_closed(one))  # type: ignore[misc]
        assert app.state.edge.refused.labels("rate")._value.get() == 0


def test_a_client_that_sends_a_few_requests_ahead_gets_all_answers(world: World) -> None:
    with gateway(world) as (_, http), connect(http) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * http_server.MOST_PIPELINED)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < http_server.MOST_PIPELINED:
            more = one.recv(65536)
            assert more
            answers += more


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3,  # and gone before the answers
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 30,
    ],
)
def test_who_sends_what_is_no_request_fills_no_disk_with_our_log(world: World, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    with gateway(world) as (_, http):
        for _ in range(100):
            with connect(http) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(sent)
        assert http.get("/health").status_code == 200
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) <= 4 * http_server.WARNINGS_A_MIN, said[-1].getMessage()
