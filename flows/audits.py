"""The runbook's "Regular Audits". `prefect.yaml` says when each is held; by hand, start one from the UI or with `mlrunbook audit`."""

from prefect import flow

from tasks.audits import audit_escalation, examine, file_report, open_incidents, period, publish_audit, read_record


@flow(name="weekly-audit", flow_run_name="weekly-audit-of-{model}", persist_result=False)
async def weekly_audit(model: str = "predictive_maintenance", up_to_now: bool = False) -> str:
    """Weekly: review the performance metrics of the last week.

    Args:
        model: The model to review, such as predictive_maintenance.
        up_to_now: Look at the seven days up to this minute instead of the last calendar week.
    """
    return await hold("weekly", model, up_to_now)


@flow(name="monthly-audit", flow_run_name="monthly-audit-of-{model}", persist_result=False)
async def monthly_audit(model: str = "predictive_maintenance", up_to_now: bool = False) -> str:
    """Monthly: assess bias and fairness over the last month.

    Args:
        model: The model to assess, such as predictive_maintenance.
        up_to_now: Look at the thirty days up to this minute instead of the last calendar month.
    """
    return await hold("monthly", model, up_to_now)


@flow(name="quarterly-audit", flow_run_name="quarterly-audit-of-{model}", persist_result=False)
async def quarterly_audit(model: str = "predictive_maintenance", up_to_now: bool = False) -> str:
    """Quarterly: full audit of documentation, compliance, performance, access and upkeep.

    Args:
        model: The model to audit, such as predictive_maintenance.
        up_to_now: Look at the 91 days up to this minute instead of the last calendar quarter.
    """
    return await hold("quarterly", model, up_to_now)


@flow(name="annual-audit", flow_run_name="annual-audit-of-{model}", persist_result=False)
async def annual_audit(model: str = "predictive_maintenance", up_to_now: bool = False) -> str:
    """Annually: risk assessment and compliance review, along the functions of the NIST AI RMF.

    Args:
        model: The model to review, such as predictive_maintenance.
        up_to_now: Look at the 365 days up to this minute instead of the last calendar year.
    """
    return await hold("annual", model, up_to_now)


@flow(name="escalation-audit", flow_run_name="escalation-audit", persist_result=False)
async def escalation_audit() -> str:
    """Hourly: every open incident has had every page that was due. What is missing is paged now and recorded."""
    missing = await audit_escalation()
    return "; ".join(missing) or "every page that was due has gone out"


async def hold(kind: str, model: str, up_to_now: bool) -> str:
    """One audit from start to end. Started again, it shows what is filed."""
    of = period(kind, up_to_now)
    filed = await read_record(model, of)
    if filed is None:
        audit = await examine(model, of)
        audit = await open_incidents(audit)
        filed = await file_report(audit)
    return await publish_audit(filed)
