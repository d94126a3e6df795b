"""Step 4, Path C before the gate: nobody is asked about a candidate that has not proved better."""

from typing import Any

from prefect import flow

from tasks.candidate import (
    proven_candidate,
    register_candidate,
    shadow_candidate,
    stage_candidate,
    train_candidate,
    unstage_candidate,
    validate_candidate,
    wanted_retraining,
)


@flow(name="prepare-candidate", flow_run_name="prepare-candidate-of-{incident_id}", persist_result=False)
async def prepare_candidate(incident_id: str) -> dict[str, Any]:
    """Train, register, validate, shadow. `verdict`: promote, do_not_promote, not_enough_evidence, waiting, or None where path C is not
    the way; with `sentence` and `version`."""
    if proven := await proven_candidate(incident_id):
        return proven
    wanted = await wanted_retraining(incident_id)
    if wanted is None:
        return {"verdict": None, "sentence": "", "version": None}
    version = wanted["version"]
    if version is None:
        return {"verdict": "not_enough_evidence", "sentence": wanted["sentence"], "version": None}
    await train_candidate(incident_id, version)
    await register_candidate(incident_id, version)
    validation = await validate_candidate(incident_id, version)
    if validation["verdict"] != "promote":
        return validation
    await stage_candidate(incident_id, version)
    shadow = await shadow_candidate(incident_id, version)
    if shadow["verdict"] in ("do_not_promote", "not_enough_evidence"):
        await unstage_candidate(incident_id, version)
    return shadow
