"""The registry over the fake MLflow that the flow's tests use, and what only a fake can show."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.composed_platform import ComposedPlatform, Parts
from mlrunbook.adapters.mlflow.client import MlflowClient, inputs_of
from mlrunbook.adapters.mlflow.registry import MlflowRegistry
from mlrunbook.adapters.no_runtime import NoRuntime
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient, Unknown
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.policy.connections import Connection, Kind, PlatformParts, RegistryPart, Serving
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.measurement.registry_ledger import StoreLedger
from tests.adapters.mlflow.registry_contract import CONNECTION, RegistryContract, policy_with, registry_of
from tests.fake_mlflow import URL, FakeMlflow
from tests.fakes import T0, Clock, FileWorld


class Faked(FakeMlflow):
    def client(self, *, page: int = 200) -> MlflowClient:
        return MlflowClient(CONNECTION, URL, page=page, transport=self)


@pytest.fixture
def server(tmp_path: Path) -> Faked:
    return Faked(tmp_path / "mlflow.json")


class TestFake(RegistryContract):
    pass


def client_of(answer: httpx.Response | Exception, *, address: str = URL, token: str | None = None) -> MlflowClient:
    def answered(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return MlflowClient(CONNECTION, address, token, transport=httpx.MockTransport(answered))


class TestWhatGoesWrong:
    @pytest.mark.parametrize("status", [401, 403])
    def test_credentials_that_do_not_do_name_the_variable(self, status: int) -> None:
        with pytest.raises(Refused, match="MLRUNBOOK_CONNECTION_ML"):
            client_of(httpx.Response(status, text="no")).registered_models()

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_server_in_trouble_is_worth_another_try(self, status: int) -> None:
        with pytest.raises(Transient):
            client_of(httpx.Response(status, text="later")).registered("churn")

    def test_one_that_is_away_is_worth_another_try_and_names_the_variable(self) -> None:
        with pytest.raises(Transient, match="MLRUNBOOK_CONNECTION_ML"):
            client_of(httpx.ConnectError("refused")).registered("churn")

    def test_a_certificate_that_is_not_trusted_is_refused_with_what_to_set(self) -> None:
        with pytest.raises(Refused, match="ca_file"):
            client_of(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")).registered("churn")

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, text="<html>Sign in</html>", headers={"content-type": "text/html"}),
            httpx.Response(404, text="<html>nginx</html>"),
            httpx.Response(302, headers={"location": "https://login"}),
            httpx.Response(200, json={"registered_models": "many"}),
        ],
    )
    def test_a_page_of_a_proxy_is_no_answer_of_mlflow(self, answer: httpx.Response) -> None:
        with pytest.raises(Refused, match="address of MLflow itself"):
            client_of(answer).registered_models()

    @pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), httpx.Response(502), httpx.Response(200, text="<html>")])
    def test_a_change_whose_answer_is_lost_is_unknown(self, trouble: httpx.Response | Exception) -> None:
        with pytest.raises(Unknown):
            client_of(trouble).write("POST", "/registered-models/alias", {})

    def test_a_change_that_was_never_sent_is_worth_another_try(self) -> None:
        with pytest.raises(Transient):
            client_of(httpx.ConnectError("refused")).write("POST", "/registered-models/alias", {})

    @pytest.mark.parametrize("address", [None, "", "mlflow:5000", "ftp://mlflow", "http://"])
    def test_an_address_that_is_none_is_refused_by_the_variables_name(self, address: str | None) -> None:
        with pytest.raises(Invalid, match="MLRUNBOOK_CONNECTION_ML"):
            MlflowClient(CONNECTION, address)

    def test_user_and_password_of_the_address_go_as_basic_and_stand_in_no_error(self, tmp_path: Path) -> None:
        server = FakeMlflow(tmp_path / "m.json", password="Basic dTpwQHNz")
        server.create("churn", champion="1")
        client = MlflowClient(CONNECTION, "http://u:p%40ss@mlflow.test", transport=server)
        assert client.aliases("churn") == {"champion": "1"}
        server.down = True
        with pytest.raises(Transient) as caught:
            client.aliases("churn")
        assert "p@ss" not in str(caught.value)
        assert "p%40ss" not in str(caught.value)

    def test_a_token_goes_as_bearer(self, tmp_path: Path) -> None:
        server = FakeMlflow(tmp_path / "m.json", password="Bearer s3cret")
        server.create("churn", champion="1")
        assert MlflowClient(CONNECTION, URL, "s3cret", transport=server).aliases("churn") == {"champion": "1"}

    @pytest.mark.parametrize(
        "text", ["", "signature: null", "signature:\n  inputs: '[]'", "[", 'signature:\n  inputs: \'[{"type": "tensor"}]\'']
    )
    def test_a_model_without_named_inputs_has_no_features(self, text: str) -> None:
        assert inputs_of(text) is None


class TestServers:
    """Where a server runs, a move of the alias is told to it, and what it answers is read back."""

    def test_servers_are_restarted_once_and_answer_when_the_restart_is_through(self, server: Faked, engine: Engine, tmp_path: Path) -> None:
        clock, runtime = Clock(), _Rolling(tmp_path / "world.json", Clock(), model="served")
        server.create("served", champion="2")
        registry = registry_of(server, engine, clock, policy_with(serving=Serving.KUBERNETES), runtime)
        move = {"target_version": "1", "reason": "", "rolled_back_by": "mlrunbook", "idempotency_key": "served-1"}
        runtime.done = False
        assert registry.rollback("served", **move).server_version == "2"
        assert registry.rollback("served", **move).server_version == "2"
        assert runtime.applied == {"restart": 1}
        runtime.done = True
        assert registry.status("served").server_version in (None, "1")
        runtime.set(restart_id="another, later")
        assert registry.status("served").server_version in (None, "1")

    def test_servers_that_follow_the_alias_are_left_alone(self, server: Faked, engine: Engine, tmp_path: Path) -> None:
        runtime = _Rolling(tmp_path / "world.json", Clock(), model="following")
        server.create("following", champion="2")
        policy = policy_with(RegistryPart(CONNECTION, server_follows=True), serving=Serving.KUBERNETES)
        registry = registry_of(server, engine, Clock(), policy, runtime)
        registry.rollback("following", target_version="1", reason="", rolled_back_by="mlrunbook", idempotency_key="following-1")
        assert runtime.applied == {}

    def test_a_server_that_does_not_answer_is_not_healthy(self, server: Faked, engine: Engine, tmp_path: Path) -> None:
        runtime = FileWorld(tmp_path / "world.json", Clock(), model="hung")
        runtime.down = True
        server.create("hung", champion="2")
        registry = registry_of(server, engine, Clock(), policy_with(serving=Serving.KUBERNETES), runtime)
        assert registry.status("hung").server_healthy is False


class _Rolling(FileWorld):
    """A restart is through when the test says so."""

    done = True

    def observe(self, model: str) -> ServingState:
        seen = super().observe(model)
        return seen if self.done else replace(seen, restart_id=None)


def test_a_version_that_is_made_of_something_else_than_before_is_a_change(server: Faked, engine: Engine) -> None:
    clock = Clock()
    server.create("tampered", champion="2")
    registry = registry_of(server, engine, clock)
    registry.versions("tampered")
    server.tamper("tampered", "1", "s3://elsewhere/model")
    clock.advance(minutes=1)
    registry.versions("tampered")
    registry.versions("tampered")
    (change,) = registry.changes("tampered", since=clock.at - timedelta(hours=1))
    assert change.kind == "config"
    assert "s3://elsewhere/model" in change.ref


def test_a_model_without_parts_is_the_rest_platforms(server: Faked, engine: Engine, tmp_path: Path) -> None:
    rest = FileWorld(tmp_path / "world.json", Clock(), model="plain")
    policy = policy_with(name="churn*")
    platform = ComposedPlatform(policy, Parts(rest, False, registry_of(server, engine, Clock(), policy)))
    assert platform.status("plain").serving_version == "v2.0.0"
    assert len(platform.prediction_log("plain", limit=3)) == 3
    assert platform.alerts("plain") == []


def test_what_no_part_answers_is_not_found_and_says_what_is_not_judged(server: Faked, engine: Engine, tmp_path: Path) -> None:
    server.create("churn", champion="2")
    rest = FileWorld(tmp_path / "world.json", Clock(), model="churn")
    policy = policy_with(name="churn")
    platform = ComposedPlatform(policy, Parts(rest, False, registry_of(server, engine, Clock(), policy)))
    for ask in (
        lambda: platform.metrics("churn"),
        lambda: platform.prediction_log("churn"),
        lambda: platform.work_orders("churn"),
        lambda: platform.replay("churn", versions=["1"]),
        platform.feature_schedules,
    ):
        with pytest.raises(NotFound):
            ask()
    assert platform.alerts() == []
    assert platform.models() == ["churn"]


def test_a_pattern_gives_nobody_the_registered_model_of_another(server: Faked, engine: Engine) -> None:
    server.create("prod", champion="2")
    models = {"churn": RegistryPart(CONNECTION, name="prod"), "*": RegistryPart(CONNECTION)}
    policy = Policy(
        connections={CONNECTION: Connection(Kind.MLFLOW)},
        models={name: ModelRules(platform=PlatformParts(registry=one, serving=Serving.NONE)) for name, one in models.items()},
    )
    registry = registry_of(server, engine, Clock(), policy)
    assert "churn" in registry.models()
    assert "prod" not in registry.models()
    with pytest.raises(Refused, match="churn"):
        registry.rollback("prod", target_version="1", reason="r", rolled_back_by="b", idempotency_key="k")
    assert server.aliases("prod") == {"champion": "2"}


def test_a_look_whose_answer_comes_late_takes_nothing_down_that_is_over(server: Faked, engine: Engine) -> None:
    server.create("churn", champion="2")
    ours, meanwhile = registry_of(server, engine, Clock()), [True]
    ours.status("churn")

    class Late(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = server.handle_request(request)
            if meanwhile and "registered-models/get" in str(request.url):
                meanwhile.clear()
                ours.rollback("churn", target_version="1", reason="r", rolled_back_by="mlrunbook", idempotency_key="k")
            return answer

    client = MlflowClient(CONNECTION, URL, transport=Late())
    late = MlflowRegistry(policy_with(), lambda _: client, StoreLedger(lambda: engine, Clock()), NoRuntime(), Clock())
    late.changes("churn", since=T0 - timedelta(days=1))
    changes = ours.changes("churn", since=T0 - timedelta(days=1))
    assert [(one.detail["seen_by"], one.detail["to_version"]) for one in changes] == [("us", "1")]
    assert ours.status("churn").previous_version == "2"
