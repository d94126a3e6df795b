"""A real OpenID Connect provider, in a process of its own (`oidc-provider-mock`): one a session, because it takes long to start."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.waiting import until


@dataclass(frozen=True)
class RunningProvider:
    issuer: str

    def person(self, sub: str, **claims: Any) -> None:
        """What it says of that account from now on."""
        httpx.put(f"{self.issuer}/users/{sub}", json=claims, timeout=60).raise_for_status()

    def agree(self, address: str, sub: str) -> str:
        """Somebody proves to be `sub` on the provider's page: where it sends the browser then."""
        answer = httpx.post(address, data={"sub": sub}, timeout=60)
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])


@contextlib.contextmanager
def running(log: Path) -> Iterator[RunningProvider]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "oidc_provider_mock", "-p", str(port), "--user-claims", json.dumps({"sub": "nobody"})]
    with log.open("wb") as into:
        process = subprocess.Popen(command, stdout=into, stderr=into)
    try:
        provider = RunningProvider(f"http://127.0.0.1:{port}")
        until(lambda: process.poll() is not None or _answers(provider.issuer), timeout_s=240)
        assert process.poll() is None, log.read_text()
        yield provider
    finally:
        process.terminate()
        process.wait(30)


def _answers(issuer: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{issuer}/.well-known/openid-configuration", timeout=60).status_code == 200
    return False
