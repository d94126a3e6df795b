"""`mlrunbook doctor` against a real store, gateway and platform, and against Prefect, a cluster and channels that are served here."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.adapters.local.serving_state import claim
from mlrunbook.adapters.prefect.deployments import BASE_JOB_TEMPLATE, queues
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.diagnostics.doctor import Ask, Check, Level, examine, ok, skew
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.cli.conftest import Cli
from tests.docs.pages import ROOT
from tests.local.platform.kit import running
from tests.served import served

Findings = dict[str, dict[str, str]]


def looked(cli: Cli, *args: str, **env: str) -> tuple[int, Findings]:
    done = cli("doctor", *args, "--json", **env)
    return done.exit_code, {found["name"]: found for found in json.loads(done.stdout)}


@contextmanager
def prefect(*, clock: Callable[[], datetime] = lambda: datetime.now(UTC), **changes: Any) -> Iterator[str]:
    """What doctor asks of a Prefect server, all as it should be but for `changes`."""
    app = FastAPI()
    deployments = {d["name"]: d["entrypoint"] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    pool = {"type": "process", "is_paused": False, "concurrency_limit": 4, "base_job_template": BASE_JOB_TEMPLATE}
    queue = [{"name": q.name, "priority": q.priority, "concurrency_limit": q.limit, "is_paused": False} for q in queues(4)]
    state = {"auth": None, "pool": pool, "queues": queue, "workers": [{}], "deployments": deployments, "more": {}} | changes

    @app.api_route("/api/{path:path}", methods=["GET", "POST"])
    def everything(path: str, request: Request) -> Any:
        if state["auth"] and request.headers.get("authorization") != state["auth"]:
            return JSONResponse({}, 401)
        headers = {"date": format_datetime(clock(), usegmt=True)}
        if path == "admin/version":
            return JSONResponse("3.8.8", headers=headers)
        if path.endswith("/workers/filter"):
            return state["workers"]
        if path.endswith("/queues/filter"):
            return state["queues"]
        if path.startswith("work_pools/"):
            return state["pool"] or JSONResponse({}, 404)
        name = path.rpartition("/")[2]
        known = state["deployments"].get(name)
        return {"entrypoint": known} | state["more"] if known else JSONResponse({}, 404)

    with served(app, date_header=False) as url:
        yield f"{url}/api"


def test_where_all_is_well_nothing_fails(cli: Cli, platform: tuple[str, str], token: Callable[..., str]) -> None:
    """As after `mlrunbook up` with a model: what no laptop has (a pager, a feature store) is a warning."""
    url, model = platform
    token("a lead", Scope.APPROVE, role="ml_team_lead")
    with prefect() as api:
        code, found = looked(
            cli,
            "--model",
            model,
            PREFECT_API_URL=api,
            MLRUNBOOK_PLATFORM_URL=url,
            MLRUNBOOK_PLATFORM_TOKEN=token("flows", Scope.OPERATE, Scope.READ),
            MLRUNBOOK_HOME=str(ROOT),
        )
    assert (code, {name for name, f in found.items() if f["level"] == "fail"}) == (0, set())
    well = {"policy", "database", "schema", "database writable", "platform token", "gateway token", "gateway", "platform", "Prefect"}
    well |= {"work pool", "worker", "deployments", "clock of the database", "clock of Prefect"}
    assert well <= {name for name, f in found.items() if f["level"] == "ok"}
    assert {"feature store", "who is reached", "runtime"} <= {name for name, f in found.items() if f["level"] == "warn"}
    assert all(f["fix"] for f in found.values() if f["level"] != "ok")


def test_what_is_dead_is_named_with_what_to_do_and_costs_seconds(cli: Cli, dead_port: int) -> None:
    dead = f"http://127.0.0.1:{dead_port}"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        code, found = looked(
            cli,
            PREFECT_API_URL=f"{hanging}/api",
            MLRUNBOOK_DATABASE_URL=f"postgresql://me:s3cret-word@127.0.0.1:{dead_port}/x",
            MLRUNBOOK_PLATFORM_URL=dead,
            MLRUNBOOK_GATEWAY_URL=dead,
        )
        assert time.monotonic() - begun < 30
    assert code == 1
    assert {"database", "Prefect", "platform", "gateway"} <= {name for name, f in found.items() if f["level"] == "fail"}
    assert "start PostgreSQL" in found["database"]["fix"]


def test_a_secret_is_never_printed(cli: Cli, dead_port: int) -> None:
    secrets = ("s3cret-word", "mlrb_aaaa_bbbbbbbb", "login-word", "hook-word")
    done = cli(
        "doctor",
        MLRUNBOOK_DATABASE_URL=f"postgresql://me:s3cret-word@127.0.0.1:{dead_port}/s3cret-word",
        MLRUNBOOK_PLATFORM_TOKEN="mlrb_aaaa_bbbbbbbb",
        PREFECT_API_URL=f"http://127.0.0.1:{dead_port}/login-word",
        PREFECT_API_AUTH_STRING="mlrunbook:login-word",
        MLRUNBOOK_CHANNEL_PAGE="nonsense://hook-word",
    )
    assert done.exit_code == 1
    assert not [secret for secret in secrets if secret in done.output]
    assert "channel page: its address is none that apprise knows" in done.stdout


@pytest.mark.parametrize(
    ("gateway_says", "url", "level", "word"),
    [
        ("off", None, "warn", "MLRUNBOOK_HEARTBEAT_URL"),
        ("off", "https://hc.example/heart-word", "warn", "restart it"),
        ("waiting", None, "ok", ""),
        ("ok", "https://hc.example/heart-word", "ok", ""),
        ("failing", None, "fail", "log"),
        ("ok", "hc.example/heart-word", "fail", "whole"),
    ],
)
def test_whether_somebody_outside_would_notice_is_said(cli: Cli, gateway_says: str, url: str | None, level: str, word: str) -> None:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "dispatcher": "alive", "heartbeat": gateway_says}

    with served(app) as gateway:
        _, found = looked(cli, MLRUNBOOK_GATEWAY_URL=gateway, **({"MLRUNBOOK_HEARTBEAT_URL": url} if url else {}))
    assert found["heartbeat"]["level"] == level
    assert word in found["heartbeat"]["fix"]
    assert "heart-word" not in str(found)


@pytest.mark.parametrize(("gateway_says", "level"), [("signed", "ok"), ("unsigned", "warn")])
def test_whether_heads_of_the_chains_go_out_signed_is_said(cli: Cli, gateway_says: str, level: str) -> None:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "dispatcher": "alive", "heartbeat": "ok", "chain": gateway_says}

    with served(app) as gateway:
        _, found = looked(cli, MLRUNBOOK_GATEWAY_URL=gateway)
    assert found["chain"]["level"] == level
    assert ("MLRUNBOOK_CHAIN_KEY" in found["chain"]["fix"]) == (level == "warn")


def test_a_secret_in_an_error_is_taken_out() -> None:
    def leaking(_: Ask) -> Iterator[Any]:
        raise OSError("cannot reach https://hook.example/hook-word")
        yield

    ask = Ask(Settings(), Policy(), "m", {"page": "https://hook.example/hook-word"})
    (found,) = examine([Check("x", leaking)], ask)
    assert (found.level, found.said) == (Level.FAIL, "OSError: cannot reach ***")


def test_a_check_that_hangs_is_left_behind() -> None:
    never = threading.Event()

    def hanging(_: Ask) -> Iterator[Any]:
        yield ok("first", "answered")
        never.wait(20)

    found = examine([Check("slow", hanging, timeout_s=0.1), Check("fast", lambda _: [ok("fast", "well")])], Ask(Settings(), Policy(), "m"))
    never.set()
    assert [(f.name, f.level) for f in found] == [("first", Level.OK), ("slow", Level.FAIL), ("fast", Level.OK)]


@pytest.mark.parametrize(
    ("changes", "name", "said", "fix"),
    [
        ({"auth": "Basic bm9ib2R5"}, "Prefect", "refuses our credentials", "PREFECT_API_AUTH_STRING"),
        ({"pool": None}, "work pool", "no work pool", "mlrunbook deploy"),
        ({"pool": {"type": "process", "is_paused": True}}, "work pool", "paused", "resume"),
        ({"workers": []}, "worker", "none has polled", "mlrunbook worker"),
        ({"deployments": {"respond": "flows.incident.respond"}}, "deployments", "rollback is not deployed", "mlrunbook deploy"),
        ({"deployments": {"respond": "old.py:respond"}}, "deployments", "respond starts old.py:respond", "mlrunbook deploy"),
        ({"more": {"pull_steps": [{"a.step": {}}]}}, "deployments", "its runs are refused", "mlrunbook deploy"),
        ({"more": {"job_variables": {"command": "id"}}}, "deployments", "its runs are refused", "mlrunbook deploy"),
    ],
)
def test_what_keeps_runs_from_starting_is_found(cli: Cli, changes: dict[str, Any], name: str, said: str, fix: str) -> None:
    from mlrunbook.diagnostics.services import prefect as check

    with prefect(**changes) as api:
        found = {f.name: f for f in examine([Check("Prefect", check)], Ask(Settings(prefect_api_url=api, home=ROOT), Policy(), "m"))}
    assert found[name].level is Level.FAIL
    assert said in found[name].said
    assert fix in found[name].fix


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool": {"type": "process", "is_paused": False, "base_job_template": BASE_JOB_TEMPLATE}}, "its limit is None, not 4"),
        ({"pool": {"type": "process", "concurrency_limit": 4, "base_job_template": {}}}, "its job template was changed"),
        ({"queues": []}, "queue critical is not as deployed"),
    ],
)
def test_a_pool_that_somebody_has_changed_is_found(changes: dict[str, Any], said: str) -> None:
    from mlrunbook.diagnostics.services import prefect as check

    with prefect(**changes) as api:
        found = {f.name: f for f in examine([Check("Prefect", check)], Ask(Settings(prefect_api_url=api, home=ROOT), Policy(), "m"))}
    assert (found["work pool"].level, said in found["work pool"].said) == (Level.WARN, True)


@pytest.mark.parametrize(("auth", "level"), [(None, Level.WARN), ("mlrunbook:word", Level.OK)])
def test_what_prefects_login_is_worth_is_said(auth: str | None, level: Level) -> None:
    from mlrunbook.diagnostics.services import prefect as check

    basic = f"Basic {base64.b64encode(auth.encode()).decode()}" if auth else None
    with prefect(auth=basic) as api:
        asked = Settings(prefect_api_url=api, prefect_auth=auth, home=ROOT)
        found = {f.name: f for f in examine([Check("Prefect", check)], Ask(asked, Policy(), "m"))}["Prefect's login"]
    assert (found.level, "equals a shell on a worker" in found.said) == (level, True)


def test_a_flow_that_is_not_in_the_checkout_is_found(tmp_path: Path) -> None:
    from mlrunbook.diagnostics.services import prefect as check

    (tmp_path / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    with prefect() as api:
        found = {f.name: f for f in examine([Check("Prefect", check)], Ask(Settings(prefect_api_url=api, home=tmp_path), Policy(), "m"))}
    assert "flows.incident.respond is not in" in found["deployments"].said


def test_a_clock_that_is_off_is_found(cli: Cli) -> None:
    from mlrunbook.diagnostics.services import prefect as check

    with prefect(clock=lambda: datetime.now(UTC) - timedelta(seconds=90)) as api:
        found = {f.name: f for f in examine([Check("Prefect", check)], Ask(Settings(prefect_api_url=api, home=ROOT), Policy(), "m"))}
    assert found["clock of Prefect"].level is Level.FAIL
    assert "behind this machine's" in found["clock of Prefect"].said


@pytest.mark.parametrize(
    ("theirs_s", "level"),
    [(0, Level.OK), (1.9, Level.OK), (5.9, Level.OK), (8, Level.WARN), (-2.9, Level.OK), (-3.1, Level.WARN), (40, Level.FAIL)],
)
def test_a_slow_answer_is_no_wrong_clock(theirs_s: float, level: Level) -> None:
    """Sent at 0, received at 4 s, their reading cut to whole seconds: only what no clock in time can say counts."""
    at = datetime(2026, 3, 29, tzinfo=UTC)
    assert skew("c", at + timedelta(seconds=theirs_s), at, at + timedelta(seconds=4), resolution_s=1.0).level is level


def test_a_schema_that_is_not_there_or_old_is_told(cli: Cli, postgres: EmbeddedPostgres) -> None:
    from sqlalchemy import create_engine, text

    from mlrunbook.base.db import normalise_url

    name = "doctor_empty"
    postgres.create_database(name)
    _, found = looked(cli, MLRUNBOOK_DATABASE_URL=postgres.url(name))
    assert (found["schema"]["level"], found["schema"]["fix"]) == ("fail", "mlrunbook db upgrade")
    with create_engine(normalise_url(postgres.url(name))).begin() as conn:
        conn.execute(text("CREATE TABLE alembic_version (version_num text)"))
        conn.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
    _, found = looked(cli, MLRUNBOOK_DATABASE_URL=postgres.url(name))
    assert "the schema is newer" in found["schema"]["fix"]


def test_nobody_who_may_approve_is_a_warning_with_the_command(cli: Cli, postgres: EmbeddedPostgres) -> None:
    from sqlalchemy import create_engine

    from mlrunbook.base import db

    postgres.create_database("doctor_bare")
    db.upgrade(create_engine(db.normalise_url(postgres.url("doctor_bare"))))
    _, found = looked(cli, MLRUNBOOK_DATABASE_URL=postgres.url("doctor_bare"))
    assert found["approvers"]["level"] == "warn"
    assert found["approvers"]["fix"].endswith("--role ml_team_lead")
    assert (found["gateway token"]["level"], found["gateway token"]["said"]) == ("fail", "this token is unknown or revoked")
    lead = {"MLRUNBOOK_DATABASE_URL": postgres.url("doctor_bare")}
    assert cli("token", "create", "Kim", "--scope", "approve", "--role", "ml_team_lead", **lead).exit_code == 0
    _, found = looked(cli, MLRUNBOOK_DATABASE_URL=postgres.url("doctor_bare"))
    assert "isolation" in found["approvers"]["said"], "whom the lead cannot stand in for"
    assert not found["approvers"]["fix"].endswith("--role ml_team_lead"), "another one would change nothing"


def test_tokens_that_end_soon_and_those_of_the_old_scope_are_named(cli: Cli) -> None:
    for name, days in (("ends soon", 13), ("lasts", 30)):
        assert cli("token", "create", name, "--scope", "read", "--expires", f"{days}d").exit_code == 0
    assert "deprecated" in cli("token", "create", "an old sender", "--scope", "intake").stderr
    _, found = looked(cli)
    ending, old = found["tokens that expire"], found["tokens with the scope intake"]
    assert (ending["level"], "ends soon" in ending["said"], "lasts" in ending["said"]) == ("warn", True, False)
    assert (old["level"], "an old sender" in old["said"], "alerts" in old["fix"]) == ("warn", True, True)
    assert "deprecated" in cli("token", "list").stderr


def test_channels_are_tried_and_nothing_is_sent(cli: Cli, dead_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as pager:
        said: list[bytes] = []

        def take() -> None:
            connection, _ = pager.accept()
            said.append(connection.recv(100))
            connection.close()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        port = pager.getsockname()[1]
        page, mail = f"json://localhost:{port}/hook-word", f"mailto://me:pass-word@localhost:{dead_port}?smtp=127.0.0.1"
        _, found = looked(cli, MLRUNBOOK_CHANNEL_PAGE=page, MLRUNBOOK_CHANNEL_EMAIL=mail, MLRUNBOOK_CHANNEL_PAGER="json://x.example")
        thread.join(120)
    assert (found["channel page"]["level"], said) == ("ok", [b""])
    assert found["channel email"]["level"] == "fail"
    assert "MLRUNBOOK_CHANNEL_PAGER" in found["channels"]["said"]
    assert Role.COMPLIANCE_OFFICER.words in found["who is reached"]["said"]
    assert Role.ONCALL_ML_ENGINEER.words not in found["who is reached"]["said"]


def test_roles_that_share_a_pager_are_not_called_one_after_the_other(cli: Cli) -> None:
    key = "0123456789abcdef0123456789abcdef"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        _, found = looked(cli, MLRUNBOOK_CHANNEL_PAGE=f"pagerduty-events://{key}?host={host}&tls=no")
    assert found["who is called"]["level"] == "warn"
    assert "On-Call ML Engineer, ML Team Lead, Engineering Manager, VP Engineering share one" in found["who is called"]["said"]
    assert key not in str(found), "it is a secret"


def test_a_policy_that_names_no_critical_asset_is_warned_of(cli: Cli, tmp_path: Path) -> None:
    assert looked(cli)[1]["critical assets"]["level"] == "warn"
    (tmp_path / "runbook.yaml").write_text("safety:\n  critical_assets: [press_1]\n")
    assert "critical assets" not in looked(cli)[1]


def test_a_wrong_policy_is_one_failure_and_the_rest_is_looked_at(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runbook.yaml").write_text("nonsense: 1\n")
    code, found = looked(cli)
    assert (code, found["policy"]["level"], found["policy"]["fix"]) == (1, "fail", "mlrunbook policy check")
    assert found["database"]["level"] == "ok"


@contextmanager
def cluster(
    folder: Path, *, lacking: tuple[str, str] | None = None, missing: str = "", status: int = 200, reviews: bool = True
) -> Iterator[dict[str, str]]:
    """The environment for an API server that knows the runbook's objects, and may forbid one verb or miss one object. `reviews`: every
    permission must be asked for."""
    app = FastAPI()
    reviewed: list[dict[str, Any]] = []

    @app.get("/version/")
    def version() -> Any:
        if status != 200:
            return JSONResponse({"kind": "Status", "message": "Unauthorized"}, status)
        words = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "major", "minor", "platform")
        return {"gitVersion": "v1.20.2"} | dict.fromkeys(words, "-")

    @app.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    async def review(request: Request) -> Any:
        spec = (await request.json())["spec"]
        reviewed.append(spec["resourceAttributes"])
        asked = spec["resourceAttributes"]
        return JSONResponse({"spec": spec, "status": {"allowed": (asked["verb"], asked["resource"]) != lacking}}, 201)

    @app.get("/{path:path}")
    def read(path: str) -> Any:
        name = path.rpartition("/")[2]
        if name == missing:
            return JSONResponse({"kind": "Status", "message": f"{name} not found"}, 404)
        if name in ("pods", "horizontalpodautoscalers"):
            return {"items": [{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}] if name == "pods" else []}
        return {
            "metadata": {"name": name},
            "data": {"model-config.json": "{}"},
            "spec": {"template": {"metadata": {"labels": {"app": "model-server"}}}},
        }

    with running(app, {}) as client:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": str(client.base_url).rstrip("/")}}],
            "users": [{"name": "u", "user": {"token": "cluster-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}}],
        }
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        yield {"KUBECONFIG": str(folder / "kubeconfig"), "MLRUNBOOK_RUNTIME": "kubernetes", "MLRUNBOOK_KUBE_NAMESPACE": "ml-serving"}
    assert all(asked["namespace"] == "ml-serving" for asked in reviewed)
    if status == 200 and reviews:
        assert {(a["group"], a["resource"], a["subresource"], a["verb"]) for a in reviewed} == {
            (access.api_group, access.resource, access.subresource, access.verb) for access in NEEDED
        }


def runtime(cli: Cli, env: dict[str, str]) -> Findings:
    return looked(cli, **env)[1]


def test_every_permission_is_asked_for_and_the_objects_looked_up(cli: Cli, tmp_path: Path) -> None:
    with cluster(tmp_path) as env:
        found = runtime(cli, env)
    assert found["runtime"]["said"] == "Kubernetes v1.20.2, namespace ml-serving; serves predictive_maintenance"
    assert found["permissions"]["said"] == f"all {len(NEEDED)} verbs that the runbook uses in ml-serving"
    assert found["cluster objects"]["level"] == found["model server's pods"]["level"] == found["autoscaler"]["level"] == "ok"


def test_a_verb_that_the_role_lacks_is_named_with_the_rule_to_add(cli: Cli, tmp_path: Path) -> None:
    with cluster(tmp_path, lacking=("patch", "services")) as env:
        found = runtime(cli, env)
    assert found["patch services"]["level"] == "fail"
    assert 'apiGroups: [""], resources: ["services"], verbs: ["patch"]' in found["patch services"]["fix"]
    assert "permissions" not in found


def test_an_object_that_the_policy_names_and_the_cluster_lacks_is_named(cli: Cli, tmp_path: Path) -> None:
    with cluster(tmp_path, missing="model-service") as env:
        found = runtime(cli, env)
    assert (found["cluster objects"]["level"], "service/model-service" in found["cluster objects"]["said"]) == ("fail", True)


@pytest.mark.parametrize(
    ("policy", "said", "fix"),
    [
        ("cluster: {default_model: null}", "names no model for `cluster.default`", "cluster.default_model"),
        ("cluster: {default_model: churn}", "objects of churn, not of predictive_maintenance", "models.predictive_maintenance.cluster"),
    ],
)
def test_a_cluster_in_which_the_model_has_no_objects_is_a_failure(cli: Cli, tmp_path: Path, policy: str, said: str, fix: str) -> None:
    (tmp_path / "runbook.yaml").write_text(policy)
    with cluster(tmp_path, reviews=False) as env:
        code, found = looked(cli, **env, MLRUNBOOK_POLICY=str(tmp_path / "runbook.yaml"))
    assert (code, found["cluster objects"]["level"]) == (1, "fail")
    assert said in found["cluster objects"]["said"]
    assert fix in found["cluster objects"]["fix"]


def test_a_model_that_this_machine_does_not_serve_is_warned_of(cli: Cli, tmp_path: Path) -> None:
    claim(Settings(data_dir=tmp_path / "data").serving_state_file)
    _, found = looked(cli, "--model", "churn", MLRUNBOOK_DATA_DIR=str(tmp_path / "data"))
    assert (found["model served"]["level"], "serves predictive_maintenance, not churn" in found["model served"]["said"]) == ("warn", True)
    assert "model served" not in looked(cli, MLRUNBOOK_DATA_DIR=str(tmp_path / "data"))[1]


def test_an_expired_login_says_so(cli: Cli, tmp_path: Path) -> None:
    with cluster(tmp_path, status=401) as env:
        found = runtime(cli, env)
    assert (found["runtime"]["level"], found["runtime"]["fix"]) == ("fail", "log in again, or renew the token of the kubeconfig")
