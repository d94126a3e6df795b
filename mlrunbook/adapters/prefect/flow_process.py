"""The process of one flow run: `python -m mlrunbook.adapters.prefect.flow_process`, the fixed command of our work pool.

Prefect's own engine does what a deployment says on the server: it runs its pull steps and imports its entrypoint, so whoever has the
server's login runs any code here. This one runs flows of its own checkout alone, those that prefect.yaml names, and never a pull step.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import yaml

from mlrunbook.base.settings import settings
from mlrunbook.domain.errors import Invalid, Refused

if TYPE_CHECKING:
    import logging

    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

FLOWS = "flows."


def entrypoints(home: Path) -> dict[str, str]:
    """Deployment -> the flow it starts, as the checkout's prefect.yaml says."""
    file = home / "prefect.yaml"
    if not file.exists():
        raise Invalid(
            f"no prefect.yaml in {home}: start the worker by `mlrunbook worker` in the checkout, or set MLRUNBOOK_HOME", field="home"
        )
    return {str(one["name"]): str(one["entrypoint"]) for one in yaml.safe_load(file.read_text())["deployments"]}


def refusal(
    name: str | None,
    entrypoint: str | None,
    *,
    pull_steps: Sequence[Any] | None,
    job_variables: Mapping[str, Any] | None,
    ours: Mapping[str, str],
) -> str | None:
    """Why a run is not carried out; None where it asks for a flow of ours and nothing else.

    >>> refusal("respond", "flows.incident.respond", pull_steps=[], job_variables={}, ours={"respond": "flows.incident.respond"})
    >>> refusal("respond", "os.system", pull_steps=[], job_variables={}, ours={"respond": "flows.incident.respond"})
    "deployment 'respond' starts 'os.system', which is no flow of this checkout (prefect.yaml)"
    """
    if name is None:
        return "it belongs to no deployment"
    if not entrypoint or not entrypoint.startswith(FLOWS) or entrypoint not in ours.values():
        return f"deployment {name!r} starts {entrypoint!r}, which is no flow of this checkout (prefect.yaml)"
    if name in ours and entrypoint != ours[name]:
        return f"deployment {name!r} starts {entrypoint!r}, not {ours[name]!r}"
    if pull_steps:
        steps = ", ".join(str(next(iter(step), "?")) if isinstance(step, Mapping) else str(step) for step in pull_steps)
        return f"deployment {name!r} has pull steps ({steps}): flows come from this checkout alone"
    if job_variables:
        return f"job variables are set ({', '.join(sorted(map(str, job_variables)))}): command, environment and folder of a run are fixed"
    return None


def load(run: FlowRun, home: Path) -> Any:
    """The flow that the run is of; Refused, and the run crashed, where it asks for anything else."""
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        deployment: DeploymentResponse | None = client.read_deployment(run.deployment_id) if run.deployment_id else None
        why = refusal(
            deployment.name if deployment else None,
            deployment.entrypoint if deployment else None,
            pull_steps=deployment.pull_steps if deployment else None,
            job_variables={**((deployment.job_variables if deployment else None) or {}), **(run.job_variables or {})},
            ours=entrypoints(home),
        )
        if why is None:
            assert deployment is not None
            module, _, name = str(deployment.entrypoint).rpartition(".")
            return getattr(importlib.import_module(module), name)
        text = (
            f"Refused: {why}. Nothing was run. `mlrunbook deploy` puts the deployments right; ask who changed them on the Prefect server."
        )
        client.set_flow_run_state(run.id, Crashed(message=text), force=True)
    raise Refused(text)


def read_no_stored_results() -> None:
    """Ours keep none. One that a state on the server points to would be unpickled here: code of whoever has written that state."""
    from prefect.results import ResultStore

    async def refuse(metadata: Any) -> Any:
        raise Refused(f"a state on the Prefect server points to a stored result ({metadata.storage_key}), and our flows store none")

    assert hasattr(ResultStore, "_from_metadata"), "Prefect reads stored results by another way: close that one"
    ResultStore._from_metadata = staticmethod(refuse)  # type: ignore[method-assign]


def main() -> None:
    """As `python -m prefect.engine`, but for where the flow comes from."""
    from prefect._internal.control_listener import configure_from_env
    from prefect._internal.metrics import RunMetrics
    from prefect.engine import _drive_run_flow_result, handle_engine_signals

    run_id, home = UUID(os.environ["PREFECT__FLOW_RUN_ID"]), settings().home.resolve()
    sys.path.insert(0, str(home))
    configure_from_env()
    read_no_stored_results()
    with handle_engine_signals(run_id):
        from prefect.flow_engine import load_flow_run, run_flow
        from prefect.logging.loggers import flow_run_logger

        run = load_flow_run(flow_run_id=run_id)
        log = flow_run_logger(flow_run=run)
        try:
            flow = load(run, home)
        except Refused as error:
            log.error("%s", error)
            sys.exit(1)
        except Exception:
            log.exception("The flow cannot be loaded from %s", home)
            raise
        with RunMetrics(run, flow):
            _drive_run_flow_result(flow, run_flow(flow, flow_run=run, error_logger=cast("logging.Logger", log)))


if __name__ == "__main__":
    main()
