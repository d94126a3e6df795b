"""An incident acts on its own model alone: each adapter, each verb, any model that it does not serve, and the world is as it was."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, MetaData, select

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.runtime import LocalRuntime
from mlrunbook.adapters.local.serving_state import claim
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.cluster import ClusterPolicy
from mlrunbook.local.platform import tables, work_orders
from mlrunbook.local.platform.api import create_app
from mlrunbook.ports import MISSING, ModelPlatform, ServingRuntime
from tests.adapters.own_model import PLATFORM_VERBS, VERBS, names, port_methods
from tests.fake_kubernetes import FakeKubernetes, kubeconfig, serving
from tests.fakes import MODEL, Clock, FileWorld
from tests.kubernetes_kit import Kit
from tests.local.platform.kit import bearer, log, release, running, settings_for

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Serves:
    """`world`: all that the adapter could change, as bytes."""

    adapter: Any
    model: str
    world: Callable[[], bytes]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[FakeKubernetes, str]]:
    fake = FakeKubernetes()
    with serving(fake) as url:
        yield fake, url


def _local(tmp_path: Path) -> Iterator[Serves]:
    """Its server is dead: nobody can be asked whose it is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = Settings(data_dir=tmp_path, model_server_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        claim(config.serving_state_file, MODEL)
        serving_config.ensure(config.serving_config_file, threshold=0.5)
        files = (config.serving_state_file, config.serving_config_file)
        yield Serves(LocalRuntime(config), MODEL, lambda: b"".join(f.read_bytes() for f in files))


def _cluster(tmp_path: Path, fake: FakeKubernetes, url: str) -> Iterator[Serves]:
    fake.objects.clear()
    fake.allowed = {(a.api_group, a.rule_resource, a.verb) for a in NEEDED}
    kit = Kit(kubeconfig(tmp_path / "admin", url, "admin"), kubeconfig(tmp_path / "worker", url, "worker"))
    kit.seed(autoscaled=True)
    kit.start_pods()
    kit.runtime().isolate(MODEL, isolated=True)  # there is something to lift
    objects = lambda: json.dumps({"/".join(key): body for key, body in fake.objects.items()}, sort_keys=True).encode()  # noqa: E731
    yield Serves(kit.runtime(), MODEL, objects)


@pytest.fixture(params=["local", "cluster", "fake"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serves]:
    if request.param == "local":
        yield from _local(tmp_path)
    elif request.param == "cluster":
        yield from _cluster(tmp_path, *request.getfixturevalue("cluster"))
    else:
        fake = FileWorld(tmp_path / "world.json", Clock())
        yield Serves(fake, MODEL, fake.path.read_bytes)


@pytest.fixture(scope="module")
def in_the_box(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serves]:
    """The platform over HTTP, with a model, predictions and a pending work order of it."""
    config = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url="http://127.0.0.1:9")
    release(engine, config.models_dir, MODEL, "v1.5.0", "v2.0.0")
    log(engine, MODEL, tp=2, fn=1, tn=3, version="v2.0.0", at=datetime.now(UTC))
    switches = serving_config.ensure(config.serving_config_file, threshold=0.5)
    claim(config.serving_state_file, MODEL)
    with transaction(engine) as conn:
        work_orders.create(conn, [(1, "asset_1", 0.9)], model=MODEL, config=switches, at=datetime.now(UTC))
    files = (config.serving_state_file, config.serving_config_file)

    def world() -> bytes:
        with transaction(engine) as conn:
            rows = [str(conn.execute(select(t).order_by(*t.primary_key)).all()) for t in _tables(tables.models.metadata)]
        return "".join(rows).encode() + b"".join(f.read_bytes() for f in files)

    headers = bearer(engine, Scope.OPERATE, Scope.READ)
    with running(create_app(config, engine, evaluate_every_s=None), headers) as client:
        yield Serves(HttpPlatform(str(client.base_url), headers["Authorization"].removeprefix("Bearer ")), MODEL, world)
    with transaction(engine) as conn:
        for table in reversed(_tables(tables.models.metadata)):
            conn.execute(table.delete())


def _tables(metadata: MetaData) -> list[Any]:
    return [t for t in metadata.sorted_tables if t.schema == tables.models.schema]


@pytest.fixture(params=["box", "fake"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serves]:
    if request.param == "box":
        yield request.getfixturevalue("in_the_box")
    else:
        fake = FileWorld(tmp_path / "world.json", Clock())
        yield Serves(fake, MODEL, fake.path.read_bytes)


def test_every_verb_of_the_ports_is_tried() -> None:
    def of(verbs: Any) -> set[str]:
        return {next((m for m in sorted(port_methods(port), key=len, reverse=True) if verb.startswith(m)), verb) for verb in verbs}

    port: type = ServingRuntime
    assert of(VERBS) == port_methods(port) - {"preserve"} | {"lift"}
    port = ModelPlatform
    assert of(PLATFORM_VERBS) - {"unstage"} == port_methods(port) - {"models", "alerts", "feature_schedules", "resume_feature_schedules"}


@given(st.data())
@MANY
def test_no_verb_of_a_runtime_acts_on_a_model_that_it_does_not_serve(runtime: Serves, data: st.DataObject) -> None:
    verb, model = data.draw(st.sampled_from(sorted(VERBS))), data.draw(names(runtime.model))
    before = runtime.world()
    with pytest.raises(Refused):
        VERBS[verb](runtime.adapter, model)
    assert runtime.world() == before


@given(st.data())
@MANY
def test_no_evidence_of_another_model_is_taken_for_that_of_one_that_is_not_served(runtime: Serves, data: st.DataObject) -> None:
    kept = runtime.adapter.preserve(data.draw(names(runtime.model)))
    assert kept
    assert all(name.endswith(MISSING) for name in kept)


@given(st.data())
@MANY
def test_no_verb_of_a_platform_acts_on_a_model_that_is_not_registered(platform: Serves, data: st.DataObject) -> None:
    verb, model = data.draw(st.sampled_from(sorted(PLATFORM_VERBS))), data.draw(names(platform.model))
    before = platform.world()
    with pytest.raises(Refused):
        PLATFORM_VERBS[verb](platform.adapter, model)
    assert platform.world() == before


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_where_policy_names_no_model_for_the_default_objects_they_belong_to_nobody(verb: str) -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            def asked(*_: Any, **__: Any) -> Any:
                raise AssertionError(f"the cluster is asked to {name}")

            return asked

    with pytest.raises(Refused, match="policy maps no cluster objects"):
        VERBS[verb](KubernetesRuntime(Untouched(), ClusterPolicy()), MODEL)  # type: ignore[arg-type]


@contextmanager
def _answering(body: Any) -> Iterator[HttpPlatform]:
    yield HttpPlatform("http://platform.example", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)))


STATUS = {"model": "churn", "servingVersion": "v1", "serverHealthy": True}


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        *((verb, STATUS) for verb in ("status", "rollback", "stage", "unstage", "promote")),
        ("versions", {"versions": [{"model": "churn", "version": "v1"}]}),
        ("register", {"model": "churn", "version": "v1"}),
        ("work_orders", {"model": "churn", "workOrders": []}),
        ("flag_pending_work_orders", {"model": "churn", "workOrders": []}),
        ("changes", {"model": "churn", "changes": []}),
        ("history", {"model": "churn", "days": []}),
        ("outcome_blocks", {"model": "churn", "since": "2026-03-01T00:00:00Z", "blockS": 3600, "blocks": [[0, 0, 0, 0]] * 24}),
        ("metrics", {"model": "churn", "current": {}, "baseline": {}}),
        ("prediction_log", {"predictions": [{"model": "churn"}]}),
        ("replay", {"model": "churn", "rows": [], "versions": []}),
    ],
)
def test_an_answer_about_another_model_than_the_one_asked_about_is_refused(verb: str, body: Any) -> None:
    with _answering(body) as asked, pytest.raises(Refused, match="was asked about predictive_maintenance and answers about churn"):
        PLATFORM_VERBS[verb](asked, MODEL)


def test_alerts_of_other_models_are_left_out_where_a_platform_gives_them_all() -> None:
    mine, theirs, unnamed = ({"labels": {"alertname": "A", "model": MODEL}}, {"labels": {"model": "churn"}}, {"labels": {"alertname": "B"}})
    with _answering({"alerts": [mine, theirs, unnamed]}) as asked:
        assert asked.alerts(MODEL) == [mine, unnamed]
        assert len(asked.alerts()) == 3
