"""A model's objects in a namespace, its metrics and its feature views."""

from __future__ import annotations

from collections.abc import Mapping

from mlrunbook.domain.connecting.guesses import Sure
from mlrunbook.domain.connecting.objects import guess_objects
from mlrunbook.domain.connecting.promql import guess_live
from mlrunbook.domain.connecting.seen import ClusterSeen, ConfigMapSeen, DeploymentSeen, MetricsSeen, ServiceSeen, ViewSeen
from mlrunbook.domain.connecting.views import guess_views


def deployment(
    name: str, image: str = "registry/py:1", *, config_maps: tuple[str, ...] = (), text: str = "", **labels: str
) -> DeploymentSeen:
    labels = labels or {"app": name}
    return DeploymentSeen(name, {"server": image}, labels, {"app": labels.get("app", name)}, config_maps, text)


def seen(*deployments: DeploymentSeen, services: tuple[ServiceSeen, ...] = (), maps: tuple[ConfigMapSeen, ...] = ()) -> ClusterSeen:
    return ClusterSeen("ml", deployments, services, maps)


def test_a_model_whose_name_the_deployment_has_is_found_with_what_belongs_to_it() -> None:
    churn = deployment("churn-server", config_maps=("churn-config",), app="churn-server", version="v3")
    services = (ServiceSeen("churn", {"app": "churn-server"}), ServiceSeen("fraud", {"app": "fraud-server"}))
    maps = (ConfigMapSeen("churn-config", {"config.json": ("threshold", "note")}), ConfigMapSeen("other", {"config.json": ("threshold",)}))
    found = guess_objects("churn", seen(churn, deployment("fraud-server"), services=services, maps=maps))
    assert (found.deployment.value, found.deployment.sure) == ("churn-server", Sure.SURE)
    assert (found.container.value, found.service.value, found.version_label.value) == ("server", "churn", "version")
    assert (found.config_map.value, found.config_key.value) == ("churn-config", "config.json")
    assert found.pod_selector == {"app": "churn-server"}


def test_a_deployment_without_a_threshold_is_taken_and_that_is_said() -> None:
    found = guess_objects("churn", seen(deployment("churn-api", config_maps=("log-config",)), maps=(ConfigMapSeen("log-config"),)))
    assert found.deployment.value == "churn-api"
    assert (found.config_map.value, found.service.value, found.version_label.value) == (None, None, None)
    assert "path D ends at a person" in found.config_map.reason


def test_the_image_or_an_argument_tells_where_no_name_does() -> None:
    by_image = guess_objects(
        "churn", seen(deployment("scorer-a", "registry/ml/churn-model:1.2"), deployment("scorer-b", "registry/ml/fraud:7"))
    )
    assert (by_image.deployment.value, by_image.deployment.sure) == ("scorer-a", Sure.LIKELY)
    by_text = guess_objects(
        "churn", seen(deployment("a", text="MODEL_URI=models:/churn@champion"), deployment("b", text="models:/fraud@champion"))
    )
    assert by_text.deployment.value == "a"


def test_two_deployments_that_fit_equally_are_left_open() -> None:
    found = guess_objects("churn", seen(deployment("churn-eu"), deployment("churn-us")))
    assert (found.deployment.value, found.deployment.choices) == (None, ("churn-eu", "churn-us"))


def test_a_deployment_of_another_model_is_not_taken() -> None:
    assert guess_objects("churn", seen(deployment("fraud-server"), deployment("web"))).deployment.value is None
    assert guess_objects("churn", seen()).deployment.choices == ()


def test_a_sidecar_is_not_the_model_server() -> None:
    both = DeploymentSeen("churn", {"istio-proxy": "istio:1", "predictor": "p:1"}, {"app": "churn"}, {"app": "churn"})
    assert guess_objects("churn", seen(both)).container.value == "predictor"
    two = DeploymentSeen("churn", {"alpha": "a:1", "beta": "b:1"}, {"app": "churn"}, {"app": "churn"})
    assert guess_objects("churn", seen(two)).container.sure is Sure.OPEN


def metrics(**series: tuple[Mapping[str, str], ...]) -> MetricsSeen:
    return MetricsSeen(frozenset(series), series)


FASTAPI = {
    "http_request_duration_seconds_bucket": ({"app": "churn-server", "handler": "/predict"}, {"app": "web", "handler": "/"}),
    "http_requests_total": ({"app": "churn-server", "status": "2xx"}, {"app": "web", "status": "2xx"}),
}


def test_promql_names_the_deployment_where_the_metrics_do() -> None:
    found = guess_live("churn_model_eu", ["churn-server"], metrics(**FASTAPI))
    assert found.family.sure is Sure.SURE
    assert found.figures == {
        "latency_p95_s": 'histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{app="churn-server"}[{window}])))',
        "requests": 'sum(increase(http_requests_total{app="churn-server"}[{window}]))',
        "error_rate": '(sum(increase(http_requests_total{app="churn-server", status=~"5.."}[{window}])) or vector(0))'
        ' / (sum(increase(http_requests_total{app="churn-server"}[{window}])))',
    }


def test_milliseconds_become_seconds() -> None:
    label = ({"destination_workload": "churn", "reporter": "destination"},)
    found = guess_live("churn", [], metrics(istio_request_duration_milliseconds_bucket=label, istio_requests_total=label))
    assert found.figures["latency_p95_s"].endswith("* 0.001")
    assert 'reporter="destination"' in found.figures["requests"]


def test_metrics_of_other_services_are_not_the_models() -> None:
    found = guess_live("fraud", [], metrics(**FASTAPI))
    assert (found.family.value, found.figures) == (None, {})
    assert "FastAPI instrumentator" in found.family.reason
    assert guess_live("fraud", [], metrics(up=())).figures == {}


def test_two_servers_with_the_models_name_are_not_one() -> None:
    both = ({"app": "churn-eu"}, {"app": "churn-us"})
    assert guess_live("churn", [], metrics(http_requests_total=both)).figures == {}


def test_views_are_those_that_hold_an_input() -> None:
    views = [ViewSeen("activity", ("logins_7d", "calls")), ViewSeen("billing", ("planPrice",)), ViewSeen("weather", ("rain",))]
    found, guess = guess_views(("logins_7d", "plan_price"), views)
    assert (found, guess.sure) == (("activity", "billing"), Sure.SURE)
    assert guess_views(("logins_7d", "tenure"), views)[1].sure is Sure.LIKELY
    assert guess_views(None, views)[0] == guess_views(("x",), views)[0] == ()
