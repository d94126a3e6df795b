"""The monitor's reads, one system each, and the evaluation of the rules."""

from __future__ import annotations

from prefect import get_run_logger, task

from mlrunbook.bootstrap import world
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, ServingStatus
from mlrunbook.response.detection import monitor
from mlrunbook.response.detection.monitor import LogSeen
from tasks._step import RETRY_TRANSIENT, world_step
from tasks.run import off_loop

read_status = world_step(monitor.read_status, "read-status-of-{model}")
read_metrics = world_step(monitor.read_metrics, "read-metrics-of-{model}")
read_feature_store = world_step(monitor.read_feature_store, "read-feature-store-for-{model}")
read_log = world_step(monitor.read_log, "read-log-of-{model}")


@task(task_run_name="evaluate-rules-of-{model}", **RETRY_TRANSIENT)
async def evaluate_rules(
    model: str,
    status: ServingStatus | Missing,
    metrics: ModelMetrics | Missing,
    store: FeatureServerAnswer | Missing,
    log: LogSeen | Missing,
) -> list[str]:
    """Judge every rule and take in what fires. Returns a sentence for each rule that is not well."""
    what = await off_loop(monitor.seen, world(), model, status, metrics, store, log)
    sentences = await off_loop(monitor.evaluate, world(), what)
    run_log = get_run_logger()
    for sentence in sentences:
        run_log.info("%s", sentence)
    return sentences
