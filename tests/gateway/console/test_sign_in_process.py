"""The gateway as it is started, with the settings of docs/how-to/sign-in.md: a provider, a link, and what doctor says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.diagnostics.doctor import Ask, Level
from mlrunbook.diagnostics.sign_in import sign_in
from mlrunbook.domain.policy.console import ConsolePolicy, GroupRule, ProxyPolicy
from mlrunbook.domain.policy.policy import Policy
from tests.gateway.console.provider import RunningProvider
from tests.served import gateway_process

PUBLIC = "http://incidents.example.com"
POLICY = """
console:
  groups:
    ml-leads: {role: ml_team_lead, scopes: [read, report, operate, approve]}
"""
LEADS = Policy(console=ConsolePolicy(groups={"ml-leads": GroupRule(("read",))}))


def test_people_sign_in_at_the_provider_and_with_a_link(
    database_url: str, engine: Engine, tmp_path: Path, provider: RunningProvider
) -> None:
    provider.person("hal", name="Hal Kay", email="hal@example.com", groups=["ml-leads"])
    (tmp_path / "runbook.yaml").write_text(POLICY)
    named = {"MLRUNBOOK_OIDC_ISSUER": provider.issuer, "MLRUNBOOK_OIDC_CLIENT_ID": "mlrunbook", "MLRUNBOOK_OIDC_CLIENT_SECRET": "any"}
    with gateway_process(database_url, tmp_path, MLRUNBOOK_PUBLIC_URL=PUBLIC, **named) as (_, url):
        with httpx.Client(base_url=url, timeout=120) as http:
            there = http.get("/login/oidc", params={"next": "/incidents"}).headers["location"]
            back = provider.agree(there, "hal")
            assert back.startswith(f"{PUBLIC}/login/oidc/callback?")
            answer = http.get(back.removeprefix(PUBLIC))
            assert (answer.status_code, answer.headers["location"]) == (303, "/incidents"), answer.text
            assert "Hal Kay" in http.get("/login").text
        with transaction(engine) as conn:
            token = tokens.create(conn, name="Ida Moe", scopes=(Scope.READ,))
        link = printed_link(url, token)
        assert link.startswith(f"{PUBLIC}/login/link/")
        with httpx.Client(base_url=url, timeout=120) as http:
            answer = http.post(link.removeprefix(PUBLIC))
            assert (answer.status_code, answer.headers["location"]) == (303, "/incidents/incident_12")
            assert "Ida Moe" in http.get("/login").text


def printed_link(url: str, token: str) -> str:
    env = os.environ | {"MLRUNBOOK_GATEWAY_URL": url, "MLRUNBOOK_GATEWAY_TOKEN": token}
    command = [sys.executable, "-m", "mlrunbook.cli", "login", "incident_12"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def levels(policy: Policy, **settings: object) -> dict[str, Level]:
    return {one.name: one.level for one in sign_in(Ask(Settings(**settings), policy, "m"))}  # type: ignore[arg-type]


class TestDoctor:
    def test_all_is_well_where_the_provider_answers_and_takes_us(self, provider: RunningProvider) -> None:
        found = levels(LEADS, public_url="http://127.0.0.1:8090", oidc_issuer=provider.issuer, oidc_client_id="mlrunbook")
        assert set(found.values()) == {Level.OK}

    def test_a_redirect_uri_that_the_provider_does_not_know_is_a_failure(self, provider: RunningProvider) -> None:
        known = {"redirect_uris": ["https://other.example.com/login/oidc/callback"]}
        client = httpx.post(f"{provider.issuer}/oauth2/clients", json=known, timeout=120).json()["client_id"]
        found = levels(LEADS, public_url="http://127.0.0.1:8090", oidc_issuer=provider.issuer, oidc_client_id=client)
        assert found["sign-in provider"] is Level.FAIL

    @pytest.mark.parametrize("issuer", ["http://127.0.0.1:9", "no address", "http://localhost:{port}"])
    def test_one_that_is_away_or_calls_itself_otherwise_is_a_failure(self, provider: RunningProvider, issuer: str) -> None:
        named = issuer.format(port=provider.issuer.rpartition(":")[2]) + ("/." if "localhost" in issuer else "")
        found = levels(LEADS, public_url="http://127.0.0.1:8090", oidc_issuer=named, oidc_client_id="mlrunbook")
        assert found["sign-in provider"] is Level.FAIL

    def test_half_of_the_settings_is_a_failure(self) -> None:
        assert levels(LEADS, oidc_issuer="https://login.example.com")["sign-in provider"] is Level.FAIL

    def test_a_provider_without_groups_in_policy_lets_nobody_in(self, provider: RunningProvider) -> None:
        found = levels(Policy(), public_url="http://127.0.0.1:8090", oidc_issuer=provider.issuer, oidc_client_id="mlrunbook")
        assert found["sign-in groups"] is Level.WARN

    @pytest.mark.parametrize(
        ("url", "level"),
        [
            (None, Level.WARN),
            ("https://incidents.example.com", Level.OK),
            ("http://localhost:8090", Level.OK),
            ("http://[::1]:8090", Level.OK),
            ("http://incidents.example.com", Level.FAIL),
        ],
    )
    def test_the_public_address_is_https_but_on_this_machine(self, url: str | None, level: Level) -> None:
        assert levels(Policy(), public_url=url)["console address"] is level

    def test_a_proxy_whose_network_is_everybodys_is_a_failure(self) -> None:
        wide = Policy(console=ConsolePolicy(proxy=ProxyPolicy(networks=("0.0.0.0/0",))))
        narrow = Policy(console=ConsolePolicy(proxy=ProxyPolicy(networks=("10.1.2.7",))))
        assert [levels(policy)["sign-in by proxy"] for policy in (wide, narrow)] == [Level.FAIL, Level.OK]
