"""The API's documentation comes from us alone, and an unknown path is answered as whoever asks can read it."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from tests.gateway.console.reading import checked

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_the_documentation_fetches_nothing_from_anybody_else(anonymous: TestClient) -> None:
    page = anonymous.get("/docs")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files
    for address in files:
        assert address.startswith("/"), address
        if address.startswith(("/static", "/docs")):
            assert anonymous.get(address).status_code == 200, address
    assert "<script>" not in page.text
    assert "style=" not in page.text
    bundle = anonymous.get("/docs/swagger-ui-bundle.js")
    assert "SwaggerUIBundle" in bundle.text
    assert "javascript" in bundle.headers["content-type"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_the_pages_that_would_fetch_are_gone(anonymous: TestClient) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert anonymous.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/nothing", "/incident/1", "/modles", "/static/nothing.js", "/docs/nothing"])
def test_a_browser_gets_a_page_with_links(anonymous: TestClient, path: str) -> None:
    answer = anonymous.get(f"{path}?<script>", headers=BROWSER)
    assert answer.status_code == 404
    assert "/incidents" in checked(answer).links


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/webhooks/nothing"])
def test_a_program_gets_a_problem(anonymous: TestClient, path: str) -> None:
    for headers in ({"Accept": "application/json"}, {"Accept": "*/*"}):
        assert anonymous.get(path, headers=headers).headers["content-type"] == "application/problem+json"
    assert anonymous.post(path, headers=BROWSER).status_code in (404, 401)


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/webhooks/nothing"])
def test_the_api_answers_a_browser_as_it_answers_anybody(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path, headers=BROWSER).headers["content-type"] == "application/problem+json"
