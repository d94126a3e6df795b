"""What no browser and no page of ours sends: it is refused in words, does nothing, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Limits
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.policy.console import ConsolePolicy, GroupRule, ProxyPolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console import insight, markdown
from mlrunbook.response.world import World
from tests.gateway.conftest import Keys
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.kit import opened
from tests.gateway.console.test_authorization import guarded
from tests.gateway.test_authorization import url_of
from tests.waiting import until

NO_ADDRESS = ("http://[", "http://[::1", "//[/", "http://\u2100.example", "https://a]b/")
BROUGHT = ("Origin", "Referer", "HX-Current-URL")


@pytest.mark.parametrize("address", NO_ADDRESS)
@pytest.mark.parametrize("header", BROUGHT)
@pytest.mark.parametrize("more", [{}, {"HX-Request": "true"}])
def test_a_header_that_is_no_address_is_no_error_of_ours(
    browser: Callable[..., Browser], keys: Keys, header: str, address: str, more: dict[str, str]
) -> None:
    one, headers = browser(), {header.encode(): address.encode(), **{k.encode(): v.encode() for k, v in more.items()}}
    for method, path in (
        ("GET", "/incidents"),
        ("POST", "/incidents/incident_1/close"),
        ("POST", "/login/token"),
        ("POST", "/login/link/x"),
    ):
        answer = one.request(method, path, headers=headers, follow_redirects=False)  # type: ignore[arg-type]
        assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.parametrize(
    "origin", ["null", "file://", "about:blank", "//", "http://", "https://evil.example", "http://testserver.evil.example"]
)
@pytest.mark.parametrize("public_url", ["", "https://incidents.example.com"])
def test_an_origin_that_is_not_ours_signs_nobody_in(
    browser: Callable[..., Browser], keys: Keys, world: World, origin: str, public_url: str
) -> None:
    one = browser(create_app(world, public_url=public_url))
    answer = one.post("/login/token", data={"token": keys.token("Ann Lee")}, headers={"Origin": origin}, follow_redirects=False)
    assert (answer.status_code, one.secret) == (403, "")


STRANGE = ("%00", "%ff", "%ed%a0%80", "9" * 30, "a" * 5000, "%25%5f%5c", "..%2f..%2f", "%0d%0aX-Evil:%201", "%E2%80%AE")


@pytest.mark.parametrize("strange", STRANGE)
def test_no_page_fails_for_what_stands_in_its_address(sign_in: SignIn, keys: Keys, anonymous: TestClient, strange: str) -> None:
    ann = sign_in(keys.token("Ann Lee", *Scope, role="ml_team_lead"))
    for method, path, route in guarded(anonymous):
        if method != "GET" or path in ("/doctor", "/incidents/{id}/events"):  # these take long
            continue
        asked = [field for one in (route.dependant, *route.dependant.dependencies) for field in one.query_params]
        for url in (re.sub(r"\{[^}]*\}", strange, path), *(f"{url_of(path)}?{field.alias}={strange}" for field in asked)):
            answer = ann.get(url, follow_redirects=False)
            assert answer.status_code < 500, (url[:200], answer.text[:300])
            assert "x-evil" not in answer.headers


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 11, "\u0663", "-1", "1e3", " "])
def test_a_stream_goes_on_after_no_entry_that_we_never_gave(
    browser: Callable[..., Browser], keys: Keys, world: World, model: str, number: str
) -> None:
    app, incident_id = create_app(world), opened(world, model)
    sent = asked_of(app, f"/incidents/{incident_id}/events", signed_in(browser(app), keys), {"Last-Event-ID": number.encode()})
    assert sent[0]["status"] == 200


def signed_in(one: Browser, keys: Keys) -> Browser:
    one.post("/login/token", data={"token": keys.token("Ann Lee")})
    return one


def asked_of(app: Any, path: str, who: Browser, headers: dict[str, bytes], *, is_stuck: bool = False) -> list[dict[str, Any]]:
    """What the application sends to a browser that is gone at once. `is_stuck`: and whose connection takes nothing more until then."""
    sent: list[dict[str, Any]] = []
    asks = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(asks, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if is_stuck:
            await asyncio.Event().wait()

    given = {"host": b"testserver", "cookie": f"mlrunbook={who.secret}".encode(), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        "headers": [(name.lower().encode(), value) for name, value in given.items()],
    }
    asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.parametrize("is_stuck", [False, True])
def test_a_browser_that_goes_before_the_first_word_leaves_its_place_to_others(
    browser: Callable[..., Browser], keys: Keys, world: World, model: str, is_stuck: bool
) -> None:
    app, incident_id = create_app(world), opened(world, model)
    sent = asked_of(app, f"/incidents/{incident_id}/events", signed_in(browser(app), keys), {}, is_stuck=is_stuck)
    assert sent[0]["status"] == 200
    assert app.state.live.streams == 0


SLOW = ("[" * 200_000, "![" * 100_000, "|a" * 500 + "\n" + "|-" * 500 + "\n" + "|\n" * 90_000, "[a](" * 50_000, "a\n" * 100_000)


@pytest.mark.parametrize("text", SLOW, ids=lambda text: text[:4])
def test_a_text_made_to_be_slow_is_shown_as_it_was_written(text: str) -> None:
    assert markdown.html(f"# x\n{text}<b>").startswith("<pre># x\n")
    assert markdown.html(f"# x\n{text}<b>").endswith("&lt;b&gt;</pre>")
    assert markdown.html("# x\n<b>") == "<h2>x</h2>\n<p>&lt;b&gt;</p>\n"


def test_many_who_ask_the_doctor_at_once_do_not_take_the_places_of_others() -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def examine(model: str) -> list[Any]:
        begun.release()
        may_end.wait(60)
        return []

    doctor = insight.Doctor(examine)
    busy: list[str] = []

    def ask(model: str) -> None:
        try:
            doctor.findings(model)
        except Transient:
            busy.append(model)

    asking = [threading.Thread(target=ask, args=(f"model_{number}",)) for number in range(30)]
    for one in asking:
        one.start()
    until(lambda: len(busy) == 30 - insight.MOST_WAITING)
    may_end.set()
    for one in asking:
        one.join(60)
    assert doctor.findings("model") == []


def test_a_token_for_some_models_does_not_see_the_doctor_of_all(browser: Callable[..., Browser], keys: Keys, model: str) -> None:
    with transaction(keys.engine) as conn:
        token = tokens.create(conn, name="Bo Day", scopes=(Scope.READ,), limits=tokens.Limits(models=(model,)))
    bo = browser()
    bo.post("/login/token", data={"token": token})
    for asked in ("", f"?model={model}", f"?model={model}&live=true"):
        assert bo.get(f"/doctor{asked}").status_code == 403, asked


def test_a_password_that_somebody_wrote_into_the_policy_is_not_on_its_page(
    browser: Callable[..., Browser], keys: Keys, world: World
) -> None:
    command = ["train", "--store", "postgresql://ann:hunter2secret@db.example/x", "--api-key=hunter2secret"]
    policy = Policy.model_validate({"training": {"command": command}})
    ann = browser(create_app(replace(world, policy=policy)))
    ann.post("/login/token", data={"token": keys.token("Ann Lee")})
    page = ann.get("/policy")
    assert page.status_code == 200
    assert "db.example" in page.text
    assert "hunter2secret" not in page.text


def test_a_person_named_like_a_sender_does_not_use_up_what_that_sender_may_send(world: World, browser: Callable[..., Browser]) -> None:
    proxy = ProxyPolicy(networks=("127.0.0.1",))
    policy = Policy(console=ConsolePolicy(groups={"all": GroupRule(("read",))}, proxy=proxy))
    app = create_app(replace(world, policy=policy), limits=Limits(per_min_token=3))
    headers = {"X-Forwarded-Email": "g@example.com", "X-Forwarded-User": "grafana", "X-Forwarded-Groups": "all"}
    one = browser(app, client=("127.0.0.1", 5), headers=headers)
    assert [one.get("/actions").status_code for _ in range(5)][-1] == 429
    assert not app.state.edge.of_token.is_spent("format grafana")
