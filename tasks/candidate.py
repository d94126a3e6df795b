"""Path C before the gate: the steps that train, prove and shadow a candidate."""

from prefect import get_run_logger, task

from mlrunbook.domain.resolution.candidate import Trained
from mlrunbook.response.resolution import candidate
from tasks._step import RETRY_TRANSIENT, labelled_step, step
from tasks.plan import A_CHANGE_S
from tasks.run import current_run, off_loop

A_DAY_S = 86_400  # the trainer itself keeps the policy's `training.timeout_min`

proven_candidate = step(candidate.proven, "has-a-candidate-proved-better")
wanted_retraining = step(candidate.wanted, "is-a-retraining-wanted")
register_candidate = labelled_step(candidate.register, "register-{label}", timeout_seconds=A_CHANGE_S)
validate_candidate = labelled_step(candidate.validate, "validate-{label}", timeout_seconds=A_CHANGE_S)
stage_candidate = labelled_step(candidate.stage, "stage-{label}", timeout_seconds=A_CHANGE_S)
shadow_candidate = labelled_step(candidate.shadow, "shadow-{label}", timeout_seconds=A_CHANGE_S)
unstage_candidate = labelled_step(candidate.unstage, "unstage-{label}", timeout_seconds=A_CHANGE_S)
staging_to_decide = step(candidate.staging_to_decide, "who-decides-about-a-candidate")
unstage_rejected = step(candidate.unstage_rejected, "unstage-what-was-rejected", timeout_seconds=A_CHANGE_S)


@task(task_run_name="train-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": A_DAY_S}))
async def train_candidate(incident_id: str, version: str) -> Trained:
    """The training command in a process of its own; its lines go to this task's log."""
    return await off_loop(candidate.train, current_run(incident_id), get_run_logger().info)
