"""Which metrics of a Prometheus measure a model's requests, and the PromQL of each live figure. Names are those that the instrumentations
give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlrunbook.domain.connecting.guesses import Guess, likely, nothing, resemblance, sure, undecided
from mlrunbook.domain.connecting.seen import MetricsSeen

_JOBS = ("deployment", "service", "app", "job", "container", "kubernetes_name")


@dataclass(frozen=True)
class Family:
    """One instrumentation. `labels`: those that may name the model or its Deployment, the best first. `scale`: seconds in one unit of the
    histogram. `failed`: the matchers of requests that failed; "" with `errors`, the counter of them."""

    name: str
    labels: tuple[str, ...]
    histogram: str | None = None
    scale: float = 1.0
    requests: str | None = None
    failed: str = ""
    errors: str | None = None
    matchers: str = ""


FAMILIES = (
    Family(
        "KServe", ("model_name", "inferenceservice", *_JOBS), "request_predict_seconds_bucket", requests="request_predict_seconds_count"
    ),
    Family(
        "Seldon Core",
        ("model_name", "deployment_name", *_JOBS),
        "seldon_api_executor_client_requests_seconds_bucket",
        requests="seldon_api_executor_client_requests_seconds_count",
        failed='code=~"5.."',
    ),
    Family(
        "TensorFlow Serving",
        ("model_name", *_JOBS),
        ":tensorflow:serving:request_latency_bucket",
        1e-6,
        ":tensorflow:serving:request_count",
        'status!="OK"',
    ),
    Family(
        "Triton",
        ("model", *_JOBS),
        requests="nv_inference_request_success",
        errors="nv_inference_request_failure",
    ),
    Family(
        "BentoML",
        ("service_name", *_JOBS),
        "bentoml_api_server_request_duration_seconds_bucket",
        requests="bentoml_api_server_request_total",
        failed='http_response_code=~"5.."',
    ),
    Family(
        "Ray Serve",
        ("deployment", "application", *_JOBS),
        "ray_serve_deployment_processing_latency_ms_bucket",
        1e-3,
        "ray_serve_deployment_request_counter_total",
        errors="ray_serve_deployment_error_counter_total",
    ),
    Family(
        "FastAPI instrumentator",
        ("model", "model_name", *_JOBS),
        "http_request_duration_seconds_bucket",
        requests="http_requests_total",
        failed='status=~"5.."',
    ),
    Family(
        "HTTP histogram",
        ("model", "model_name", *_JOBS),
        "http_server_requests_seconds_bucket",
        requests="http_server_requests_seconds_count",
        failed='status=~"5.."',
    ),
    Family(
        "OpenTelemetry",
        ("service_name", "model", *_JOBS),
        "http_server_request_duration_seconds_bucket",
        requests="http_server_request_duration_seconds_count",
        failed='http_response_status_code=~"5.."',
    ),
    Family(
        "Istio",
        ("destination_workload", "destination_canonical_service", "destination_service_name"),
        "istio_request_duration_milliseconds_bucket",
        1e-3,
        "istio_requests_total",
        'response_code=~"5.."',
        matchers='reporter="destination"',
    ),
)
LOOKED_AT = tuple(dict.fromkeys(m for f in FAMILIES for m in (f.histogram, f.requests, f.errors) if m))


@dataclass(frozen=True)
class LiveGuess:
    """Expressions by figure, as the policy calls them. `family`: whose metrics they are, and what names the model there."""

    family: Guess
    figures: Mapping[str, str] = field(default_factory=dict)


def guess_live(model: str, deployments: Sequence[str], seen: MetricsSeen) -> LiveGuess:
    """`deployments`: the model's own, where they are known: many metrics name those and no model."""
    found: list[tuple[float, Family, str, str]] = []
    present = [f for f in FAMILIES if {f.histogram, f.requests} & seen.names]
    for family in present:
        best = _label(family, model, deployments, seen)
        if best is not None:
            found.append((best[0], family, best[1], best[2]))
    if not found:
        there = ", ".join(f.name for f in present)
        reason = f"metrics of {there} are there, and no label of them names {model}" if there else "no metrics of requests that we know"
        return LiveGuess(nothing(reason))
    top = max(score for score, *_ in found)
    equal = [(family, label, value) for score, family, label, value in found if score == top]
    values = {(label, value) for _, label, value in equal}
    if len(equal) > 1 and len({value for _, value in values}) > 1:
        said = [f'{f.name}: {label}="{value}"' for f, label, value in equal]
        return LiveGuess(undecided(said, f"several metrics may be of {model}"))
    family, label, value = equal[0]
    reason = f'{family.name}: {label}="{value}"'
    return LiveGuess(
        (sure if top >= 1.0 else likely)(reason, f"of its metrics, {label} names {value}"), _figures(family, label, value, seen)
    )


def _label(family: Family, model: str, deployments: Sequence[str], seen: MetricsSeen) -> tuple[float, str, str] | None:
    """The label that names the model, or its Deployment: how well, the label, and its value."""
    series = [s for metric in (family.requests, family.histogram) if metric for s in seen.series.get(metric, ())]
    scored: list[tuple[float, str, str]] = []
    for label in family.labels:
        for value in dict.fromkeys(s[label] for s in series if s.get(label)):
            score = 1.0 if value == model or value in deployments else min(resemblance(value, model), 0.95)
            if score >= 0.5:
                scored.append((score, label, value))
        if scored:
            break
    best = max((score for score, *_ in scored), default=0.0)
    top = [one for one in scored if one[0] == best]
    return top[0] if len(top) == 1 else None


def _figures(family: Family, label: str, value: str, seen: MetricsSeen) -> dict[str, str]:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    ours = ", ".join(m for m in (f'{label}="{escaped}"', family.matchers) if m)
    result = {}
    if family.histogram in seen.names:
        quantile = f"histogram_quantile(0.95, sum by (le) (rate({family.histogram}{{{ours}}}[{{window}}])))"
        result["latency_p95_s"] = quantile if family.scale == 1.0 else f"{quantile} * {family.scale:g}"
    if family.requests in seen.names:
        all_ = f"sum(increase({family.requests}{{{ours}}}[{{window}}]))"
        if family.errors:
            failed = f"sum(increase({family.errors}{{{ours}}}[{{window}}]))"
            result["requests"] = f"{all_} + ({failed} or vector(0))" if family.name == "Triton" else all_
        else:
            failed = f"sum(increase({family.requests}{{{ours}, {family.failed}}}[{{window}}]))"
            result["requests"] = all_
        if family.errors or family.failed:
            result["error_rate"] = f"({failed} or vector(0)) / ({result['requests']})"
    return result
