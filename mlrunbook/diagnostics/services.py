"""What answers over HTTP: Prefect with pool, worker and deployments; the model platform; the gateway; the model server."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from mlrunbook.adapters.prefect import deployments
from mlrunbook.diagnostics.doctor import CALL_S, Ask, Finding, fail, ok, skew, warn
from mlrunbook.diagnostics.platform_contract import CHECKS
from mlrunbook.diagnostics.platform_contract_http import Verdict, examine

READS = tuple(check.name for check in CHECKS if not check.changes)
SEEN = timedelta(seconds=90)  # a worker's heartbeat comes every 30 s


def prefect(ask: Ask) -> Iterator[Finding]:
    url = ask.settings.prefect_api_url
    if not url:
        yield fail("Prefect", "no server is named", "set PREFECT_API_URL, or start one with `mlrunbook up`")
        return
    auth = ask.settings.prefect_auth.get_secret_value() if ask.settings.prefect_auth else None
    with httpx.Client(base_url=url.rstrip("/"), auth=deployments.basic(auth), timeout=CALL_S, trust_env=False) as http:
        try:
            sent = datetime.now(UTC)
            answer = http.get("/admin/version")
            received = datetime.now(UTC)
            if answer.status_code in (401, 403):
                yield fail("Prefect", f"{url} refuses our credentials", "set PREFECT_API_AUTH_STRING to the server's")
                return
            if not answer.is_success:
                yield fail("Prefect", f"{url} answers {answer.status_code}", "correct PREFECT_API_URL: it ends in /api")
                return
            yield _version(answer.json())
            yield _login(http, url)
            yield from _clock("clock of Prefect", answer, sent, received)
            yield from _pool(http, ask.settings.runs_at_once)
            yield from _deployments(http, ask.settings.home)
        except httpx.HTTPError as error:
            yield fail("Prefect", f"{url} does not answer ({type(error).__name__})", "start its server, or correct PREFECT_API_URL")


def _version(theirs: Any) -> Finding:
    ours = version("prefect")
    if str(theirs).split(".")[:2] != ours.split(".")[:2]:
        return warn("Prefect", f"server {theirs}, our client {ours}", "run the same minor version on both sides")
    return ok("Prefect", f"server {theirs}")


def _login(http: httpx.Client, url: str) -> Finding:
    """What the login is worth, said each time: it looks like the login of a dashboard."""
    if httpx.get(f"{url.rstrip('/')}/admin/version", timeout=CALL_S, trust_env=False).is_success:
        said = f"{url} asks for none: whoever reaches it can start and end runs, and it equals a shell on a worker"
        return warn("Prefect's login", said, "set PREFECT_SERVER_API_AUTH_STRING on the server, and PREFECT_API_AUTH_STRING here")
    return ok("Prefect's login", "is one for everybody, and equals a shell on a worker: for those alone who may change production")


def _pool(http: httpx.Client, runs_at_once: int) -> Iterator[Finding]:
    answer = http.get(f"/work_pools/{deployments.POOL}")
    if answer.status_code == 404:
        yield fail("work pool", f"Prefect has no work pool {deployments.POOL}", "mlrunbook deploy")
        return
    pool = answer.json()
    if pool.get("is_paused"):
        yield fail("work pool", f"{deployments.POOL} is paused: no run starts", f"prefect work-pool resume {deployments.POOL}")
    elif wrong := deployments.differences(http, pool, runs_at_once):
        yield warn("work pool", f"{deployments.POOL}: {'; '.join(wrong)}", "mlrunbook deploy, and ask who changed it on the Prefect server")
    else:
        yield ok("work pool", f"{deployments.POOL}, type {pool.get('type')}, {runs_at_once} runs at once, critical incidents first")
    if deployments.worker_online(http, since=datetime.now(UTC) - SEEN):
        yield ok("worker", "has polled the pool")
    else:
        yield fail("worker", f"none has polled {deployments.POOL} for {SEEN.seconds} s", "mlrunbook worker")


def _deployments(http: httpx.Client, home: Path) -> Iterator[Finding]:
    file = home / "prefect.yaml"
    if not file.exists():
        yield fail("deployments", f"no prefect.yaml in {home}", "run it in the checkout, or set MLRUNBOOK_HOME to it")
        return
    bad, wanted = [], yaml.safe_load(file.read_text())["deployments"]
    for one in wanted:
        name, entrypoint = one["name"], one["entrypoint"]
        answer = http.get(f"/deployments/name/{name}/{name}")
        found = answer.json()
        if answer.status_code == 404:
            bad.append(f"{name} is not deployed")
        elif found.get("entrypoint") != entrypoint:
            bad.append(f"{name} starts {found.get('entrypoint')}, not {entrypoint}")
        elif found.get("pull_steps") or found.get("job_variables"):
            bad.append(f"{name} has pull steps or job variables: its runs are refused")
        elif not _defined(home, entrypoint):
            bad.append(f"{entrypoint} is not in {home}")
    if bad:
        yield fail("deployments", "; ".join(bad), "mlrunbook deploy")
    else:
        yield ok("deployments", f"{len(wanted)}, each with its flow")


def _defined(home: Path, entrypoint: str) -> bool:
    """Whether the dotted name is a function of the checkout; importing it would cost seconds."""
    module, _, name = entrypoint.rpartition(".")
    try:
        tree = ast.parse((home / (module.replace(".", "/") + ".py")).read_text())
    except (OSError, SyntaxError):
        return False
    return any(isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name == name for node in tree.body)


def platform(ask: Ask) -> Iterator[Finding]:
    """Each endpoint that is read, as `mlrunbook platform-contract` asks it."""
    config = ask.settings
    token = config.platform_token.get_secret_value() if config.platform_token else None
    good = 0
    # As long as the flows wait: an endpoint that counts weeks of outcomes may take longer than one that says it is there.
    for result in examine(config.platform_url, model=ask.model, token=token, timeout_s=config.http_timeout_s, names=READS):
        where = f"{result.method} {result.path}"
        if result.verdict is Verdict.NO_ANSWER:
            yield fail("platform", result.came, "start the model platform, or correct MLRUNBOOK_PLATFORM_URL")
            return
        if result.check == "status" and result.verdict is Verdict.MISSING:
            yield warn(
                "platform",
                f"{config.platform_url} knows no model {ask.model}",
                "register and promote a version, or name yours with --model",
            )
            return
        if result.check == "status" and result.verdict is Verdict.DIFFERS and "in production" in result.came:
            yield warn("platform", result.came, "promote a version")
            return
        if result.verdict in (Verdict.CONFORMS, Verdict.NOT_RUN):
            good += 1
        else:
            yield fail(
                f"platform {where}",
                f"{result.verdict}: {result.came}",
                f"expected {result.expected}; mlrunbook platform-contract says more",
            )
    yield ok("platform", f"{good} endpoints that are read answer as expected for {ask.model}")


def gateway(ask: Ask) -> Iterator[Finding]:
    url = ask.settings.gateway_url.rstrip("/")
    token = ask.settings.gateway_token
    try:
        with httpx.Client(base_url=url, timeout=CALL_S, trust_env=False) as http:
            sent = datetime.now(UTC)
            health = http.get("/health")
            received = datetime.now(UTC)
            if not health.is_success:
                yield fail("gateway", f"{url} answers {health.status_code}: {health.text[:200]}", "read its log, then restart it")
                return
            yield ok("gateway", f"{url} is healthy, its dispatcher {health.json().get('dispatcher')}")
            yield from _clock("clock of the gateway", health, sent, received)
            yield _heartbeat(ask, health.json().get("heartbeat", "off"))
            yield _chain(health.json().get("chain"))
            if token:
                headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
                listed = http.get("/api/v1/incidents", params={"limit": 1}, headers=headers)
                if not listed.is_success:
                    yield fail(
                        "gateway with our token", f"answers {listed.status_code}", "set MLRUNBOOK_GATEWAY_TOKEN to a token of scope read"
                    )
    except httpx.HTTPError as error:
        yield fail(
            "gateway", f"{url} does not answer ({type(error).__name__})", "start it (`mlrunbook gateway`), or correct MLRUNBOOK_GATEWAY_URL"
        )


def _heartbeat(ask: Ask, state: str) -> Finding:
    """Whether somebody outside notices when the gateway is silent. `state` is what the gateway says."""
    secret = ask.settings.heartbeat_url
    if secret and urlsplit(secret.get_secret_value()).scheme not in ("http", "https"):
        return fail("heartbeat", "MLRUNBOOK_HEARTBEAT_URL is not an http or https URL", "copy the ping URL of your watch whole")
    if state == "failing":
        said = "the gateway says that pages do not go out, or it does not reach the outside watch"
        return fail("heartbeat", said, "read the gateway's log: it says which")
    if state in ("ok", "waiting"):
        return ok("heartbeat", "set: the gateway pings an outside watch while pages go out")
    if secret:
        return warn("heartbeat", "set here, but the running gateway does not have it", "restart it with MLRUNBOOK_HEARTBEAT_URL set")
    return warn("heartbeat", "not set: nobody outside notices when the gateway dies", "set MLRUNBOOK_HEARTBEAT_URL for the gateway")


def _chain(state: str | None) -> Finding:
    """Whether an edit of the database shows although the editor recomputes the hashes."""
    if state == "signed":
        return ok("chain", "the gateway signs the heads of the incidents' chains")
    said = "heads go out unsigned: whoever can write to the database can rewrite an incident unseen"
    return warn("chain", said, "set MLRUNBOOK_CHAIN_KEY for the gateway, to a long random text that the database does not hold")


def model_server(ask: Ask) -> Iterator[Finding]:
    url, token = ask.settings.model_server_url.rstrip("/"), ask.settings.platform_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        answer = httpx.get(f"{url}/health", headers=headers, timeout=CALL_S, trust_env=False)
        said = answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError) as error:
        yield warn("model server", f"{url}/health does not answer ({type(error).__name__})", "was it stopped on purpose? Else start it")
        return
    if answer.status_code in (401, 403):
        yield warn("model server", f"{url} refuses MLRUNBOOK_PLATFORM_TOKEN", "give it the scope read: `mlrunbook token create`")
    elif not isinstance(said, dict):
        yield warn("model server", f"{url}/health answers {answer.status_code}", "correct MLRUNBOOK_MODEL_SERVER_URL")
    elif said.get("status") != "ok":
        yield warn("model server", f"has nothing to serve: {said.get('error') or said.get('status')}", "promote a version")
    elif not said.get("version"):
        yield ok("model server", "serves; it tells which version only to a token (MLRUNBOOK_PLATFORM_TOKEN)")
    else:
        yield ok("model server", f"serves {said.get('model')} {said.get('version')}")


def _clock(name: str, answer: httpx.Response, sent: datetime, received: datetime) -> Iterator[Finding]:
    if date := answer.headers.get("date"):
        yield skew(name, parsedate_to_datetime(date), sent, received, resolution_s=1.0)
