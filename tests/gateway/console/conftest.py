"""People with a browser, signed in to the console."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from mlrunbook.gateway.console.visitor import csrf_of
from tests.gateway.console.provider import RunningProvider, running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient


class Browser(TestClient):
    """Keeps cookies and follows redirects as a browser does; `submit` sends a form as our pages do."""

    @property
    def secret(self) -> str:
        """Of the session, as the cookie has it; empty: not signed in."""
        return str(self.cookies.get("__Host-mlrunbook") or self.cookies.get("mlrunbook") or "")

    @property
    def csrf(self) -> str:
        return csrf_of(self.secret)

    def submit(self, path: str, form: Mapping[str, Any] | None = None, **how: Any) -> Any:
        return self.post(path, data={"csrf": self.csrf, **(form or {})}, **how)


SignIn = Callable[[str], Browser]


@pytest.fixture
def browser(anonymous: TestClient) -> Iterator[Callable[..., Browser]]:
    """Another browser: of nobody yet. `app`: of another gateway than that of this module."""
    with ExitStack() as open_:

        def opened(app: FastAPI | None = None, **how: Any) -> Browser:
            return open_.enter_context(Browser(app or anonymous.app, raise_server_exceptions=False, **how))

        yield opened


@pytest.fixture
def sign_in(browser: Callable[..., Browser]) -> SignIn:
    """A browser that is signed in with this token."""

    def signed_in(token: str) -> Browser:
        one = browser()
        answer = one.post("/login/token", data={"token": token}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return one

    return signed_in


@pytest.fixture
def incident(client: TestClient, model: str) -> str:
    """An open incident of `model`."""
    body = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}
    return str(client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"])


@pytest.fixture(scope="session")
def provider(scratch: Path) -> Iterator[RunningProvider]:
    with running(scratch / "provider.log") as one:
        yield one
