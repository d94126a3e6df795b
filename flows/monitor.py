"""Monitoring: the automated alerts, for a team whose model platform and Prometheus do not raise them."""

from prefect import flow

from tasks.monitor import evaluate_rules, read_feature_store, read_log, read_metrics, read_status


@flow(name="monitor", flow_run_name="monitor-{model}", persist_result=False)
async def monitor(model: str = "predictive_maintenance") -> str:
    """Look at one model and judge every rule of the runbook's "Automated Alerts".

    What fires opens or joins an incident, as an alert from a webhook does; what ended is noted there.

    Args:
        model: The model to look at, such as predictive_maintenance.
    """
    status = await read_status(model)
    metrics = await read_metrics(model, status)
    store = await read_feature_store(model)
    log = await read_log(model, metrics)
    sentences = await evaluate_rules(model, status, metrics, store, log)
    return f"{model}: {'; '.join(sentences) or 'all is well'}"
