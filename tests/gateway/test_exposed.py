"""The console as browsers elsewhere reach it: over the gateway's own TLS, and through nginx as the how-to page sets it up."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from mlrunbook.base.tokens import Scope
from mlrunbook.response.world import World
from mlrunbook.store import timeline
from tests.certificates import Authority
from tests.docs.pages import ROOT, Page
from tests.gateway.conftest import Keys
from tests.gateway.console.test_live import Stream
from tests.served import answers, gateway_process
from tests.waiting import until

HOST = "mlrunbook.example.com"
PAGE = Page(ROOT / "docs/how-to/expose-the-console.md")
ELSEWHERE = "127.0.0.2"  # as a client's own address: not the one that proxies of this machine come from


class ByName(httpx.HTTPTransport):
    """Asks 127.0.0.1 and expects the certificate of `HOST`."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = HOST
        return super().handle_request(request)


def browser(port: int, root: Path, **how: str) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(root))
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=ByName(verify=trusted, **how), headers={"Host": HOST}, timeout=60)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def sign_in(one: httpx.Client, token: str) -> httpx.Response:
    return one.post("/login/token", data={"token": token}, headers={"Origin": f"https://{HOST}", "Sec-Fetch-Site": "same-origin"})


def reported(url: str, keys: Keys, model: str) -> str:
    body = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}
    answer = httpx.post(f"{url}/api/v1/model-governance/{model}/incidents", json=body, headers=keys.of("a reporter"), timeout=60)
    return str(answer.raise_for_status().json()["id"])


def test_the_gateway_speaks_tls_where_it_listens_and_believes_no_stranger_about_addresses(
    database_url: str, keys: Keys, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue(HOST, now=datetime.now(UTC))
    port = free_port()
    options = ["--listen", f"127.0.0.1:{port}", "--tls-cert", str(cert), "--tls-key", str(key)]
    with gateway_process(database_url, tmp_path / "gateway", options=options) as (_, url):
        assert answers(f"{url}/health"), "the parts of this machine still speak plain HTTP to loopback"
        with browser(port, authority.root, local_address=ELSEWHERE) as one:
            done = sign_in(one, keys.token("Ann Lee", Scope.READ))
            assert done.status_code == 303, done.text
            assert done.headers["set-cookie"].startswith("__Host-")
            assert "Secure" in done.headers["set-cookie"]
            refused = one.post("/login/token", data={"token": "mlrb_wrong"}, headers={"X-Forwarded-For": "203.0.113.9"})
            assert refused.status_code == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=60)
        log = (tmp_path / "gateway" / "gateway.log").read_text()
        assert f"from {ELSEWHERE}" in log
        assert "203.0.113.9" not in log


def test_a_certificate_that_is_none_stops_the_gateway_with_one_line(database_url: str, tmp_path: Path) -> None:
    options = ["--listen", "127.0.0.1:8443", "--tls-cert", "missing.pem", "--tls-key", "missing.key"]
    argv = [sys.executable, "-m", "mlrunbook.cli", "up", *options]
    env = {**os.environ, "MLRUNBOOK_DATA_DIR": str(tmp_path)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[int]:
    """The page's certificate, made by the page's commands, and the page's server block; of both only folder and ports are this test's."""
    for command in PAGE.commands_of("A certificate of your own CA"):
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, timeout=120)
    (site,) = PAGE.blocks("nginx")
    port = free_port()
    for shown, ours in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/nginx/mlrunbook/", f"{folder}/"),
        ("http://127.0.0.1:8090", upstream),
    ):
        assert shown in site
        site = site.replace(shown, ours)
    places = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    conf.write_text(f"{user}pid {folder}/nginx.pid;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{site}\n}}\n")
    process = subprocess.Popen(["nginx", "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(conf)])
    try:
        until(lambda: process.poll() is not None or _accepts(port))
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(shutil.which("nginx") is None and "CI" not in os.environ, reason="no nginx (Debian: apt-get install nginx-light)")
def test_the_console_works_through_nginx_as_the_page_sets_it_up(
    world: World, database_url: str, keys: Keys, model: str, tmp_path: Path
) -> None:
    public = {"MLRUNBOOK_PUBLIC_URL": f"https://{HOST}"}
    with gateway_process(database_url, tmp_path / "gateway", **public) as (_, url), nginx(tmp_path, url) as port:
        incident_id = reported(url, keys, model)
        with browser(port, tmp_path / "ca.pem") as one:
            first = one.get(f"/incidents/{incident_id}")
            assert first.headers["location"].startswith("/login"), "a link to a page of the host that the browser knows"
            done = sign_in(one, keys.token("Ann Lee", Scope.READ))
            assert done.status_code == 303, done.text
            assert done.headers["set-cookie"].startswith("__Host-")
            shown = one.get(f"/incidents/{incident_id}")
            assert shown.status_code == 200
            assert "max-age" in shown.headers["strict-transport-security"]
            assert "script-src 'self'" in shown.headers["content-security-policy"], "nginx adds headers and takes none away"
            with world.transaction() as conn:
                seen = timeline.length(conn, incident_id)
            with Stream(one, f"/incidents/{incident_id}/events?after={seen}") as stream:
                with world.transaction() as conn:
                    timeline.append(conn, incident_id, "note", "live through nginx", actor="the lead", at=world.now())
                until(lambda: any("live through nginx" in data for _, _, data in stream.came))
                assert not stream.ended.is_set(), "it came while the answer was still open: nothing was held back"
            spoofed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Email": "ann.lee@example.com"}
            with browser(port, tmp_path / "ca.pem") as stranger:
                assert stranger.post("/login/token", data={"token": "mlrb_wrong"}, headers=spoofed).status_code == 401
                assert stranger.get(f"/incidents/{incident_id}", headers=spoofed).headers["location"].startswith("/login")
        assert "203.0.113.9" not in (tmp_path / "gateway" / "gateway.log").read_text()
