"""Step 4, Path C before the gate: only a candidate that has proved better is put up for approval."""

from prefect import flow

from mlrunbook.domain.evaluation.version_comparison import Decision
from mlrunbook.domain.resolution.candidate import Outlook
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
async def prepare_candidate(incident_id: str) -> Outlook:
    """Train, register, validate and shadow a candidate. Returns where path C stands."""
    if proven := await proven_candidate(incident_id):
        return proven
    wanted = await wanted_retraining(incident_id)
    if wanted is None:
        return Outlook(None)
    version = wanted.version
    if version is None:
        return Outlook(Decision.NOT_ENOUGH_EVIDENCE, wanted.sentence)
    await train_candidate(incident_id, version)
    await register_candidate(incident_id, version)
    validation = await validate_candidate(incident_id, version)
    if validation.verdict is not Decision.PROMOTE:
        return validation
    await stage_candidate(incident_id, version)
    shadow = await shadow_candidate(incident_id, version)
    if shadow.verdict in (Decision.DO_NOT_PROMOTE, Decision.NOT_ENOUGH_EVIDENCE):
        await unstage_candidate(incident_id, version)
    return shadow
