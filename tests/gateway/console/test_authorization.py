"""Every page of the console asks who is there, and every form whether it is ours."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base.tokens import OF_INTAKE, Scope
from mlrunbook.gateway.console.route import ConsoleRoute
from tests.gateway.conftest import Keys
from tests.gateway.console.conftest import SignIn
from tests.gateway.test_authorization import every, url_of

OPEN = {
    ("GET", "/login"),
    ("POST", "/login/token"),
    ("GET", "/login/link/{secret}"),
    ("POST", "/login/link/{secret}"),
    ("GET", "/login/oidc"),
    ("GET", "/login/oidc/callback"),
}


def guarded(client: TestClient) -> list[tuple[str, str, ConsoleRoute]]:
    pages = [(path, methods, route) for path, methods, route in every(client.app) if isinstance(route, ConsoleRoute)]  # type: ignore[arg-type]
    found = [(method, path, route) for path, methods, route in pages for method in sorted(methods - {"HEAD"})]
    return [one for one in found if one[:2] not in OPEN]


def test_every_page_asks_for_a_session_with_a_scope(anonymous: TestClient) -> None:
    without = [(method, path) for method, path, route in guarded(anonymous) if not route.doors]
    assert without == []


def test_nobody_gets_a_page_and_nobody_does_anything(anonymous: TestClient) -> None:
    for method, path, _ in guarded(anonymous):
        answer = anonymous.request(method, url_of(path), follow_redirects=False)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), (method, path)


def test_no_form_does_anything_without_the_sessions_token(sign_in: SignIn, keys: Keys, anonymous: TestClient) -> None:
    ann = sign_in(keys.token("Ann Lee", role="ml_team_lead"))
    for method, path, _ in guarded(anonymous):
        if method != "GET":
            assert ann.request(method, url_of(path), data={}, follow_redirects=False).status_code == 403, (method, path)


@pytest.mark.parametrize("scope", [s for s in Scope if s is not Scope.READ])
def test_a_session_is_let_in_by_its_scopes_alone(sign_in: SignIn, keys: Keys, anonymous: TestClient, scope: Scope) -> None:
    ann = sign_in(keys.token("Ann Lee", Scope.READ, scope))
    held = {Scope.READ, scope} | (OF_INTAKE if scope is Scope.INTAKE else frozenset())
    for method, path, route in guarded(anonymous):
        needed = {door.scope for door in route.doors}
        if not needed <= held:
            assert ann.request(method, url_of(path), data={"csrf": ann.csrf}, follow_redirects=False).status_code == 403, (method, path)
