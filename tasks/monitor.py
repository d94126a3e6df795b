"""The monitor's reads, one system each, and the evaluation of the rules."""

from __future__ import annotations

from prefect import get_run_logger, task

from mlrunbook.bootstrap import world
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, ServingStatus
from mlrunbook.response.detection import monitor
from mlrunbook.response.detection.monitor import LogSeen
from tasks._retry import RETRY_TRANSIENT, off_loop


@task(task_run_name="read-status-of-{model}", **RETRY_TRANSIENT)
async def read_status(model: str) -> ServingStatus | Missing:
    """What serves, whether the server is healthy, and what it says of its feature reads."""
    return await off_loop(monitor.read_status, world(), model)


@task(task_run_name="read-metrics-of-{model}", **RETRY_TRANSIENT)
async def read_metrics(model: str, status: ServingStatus | Missing) -> ModelMetrics | Missing:
    """The current window against the baseline."""
    return await off_loop(monitor.read_metrics, world(), model, status)


@task(task_run_name="read-feature-store-for-{model}", **RETRY_TRANSIENT)
async def read_feature_store(model: str) -> FeatureServerAnswer | Missing:
    """The feature server's health, and a read through it."""
    return await off_loop(monitor.read_feature_store, world(), model)


@task(task_run_name="read-log-of-{model}", **RETRY_TRANSIENT)
async def read_log(model: str, metrics: ModelMetrics | Missing) -> LogSeen | Missing:
    """Whether features moved against the baseline's, and whether somebody probes the model."""
    return await off_loop(monitor.read_log, world(), model, metrics)


@task(task_run_name="evaluate-rules-of-{model}", **RETRY_TRANSIENT)
async def evaluate_rules(
    model: str,
    status: ServingStatus | Missing,
    metrics: ModelMetrics | Missing,
    store: FeatureServerAnswer | Missing,
    log: LogSeen | Missing,
) -> list[str]:
    """Judge every rule and take in what fires; a sentence a rule that is not well."""
    what = await off_loop(monitor.seen, world(), model, status, metrics, store, log)
    sentences = await off_loop(monitor.evaluate, world(), what)
    run_log = get_run_logger()
    for sentence in sentences:
        run_log.info("%s", sentence)
    return sentences
