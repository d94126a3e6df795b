"""MLflow model registry webhooks as recent changes: a version that got the production alias was deployed.

Fields: mlflow/mlflow mlflow/webhooks (entity, action, timestamp, data). Delivery is made by MLflow's own process and may be lost.
"""

from __future__ import annotations

from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.observed import Change
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, ReportedChange, nothing_of, strings, text, time, within


def read(received: Received) -> list[Reading]:
    payload, data = received.payload, within(received.payload, "data")
    entity, action = text(within(payload, "entity")), text(within(payload, "action"))
    if not isinstance(data, dict) or not entity or not action:
        return nothing_of(received, "not an MLflow webhook: it has `entity`, `action` and `data`")
    delivery = received.headers.get("x-mlflow-delivery-id")
    kind = _kind(entity, action, text(data.get("alias")), received.policy.production_aliases)
    if kind is None:  # prompts, experiments and the like
        return [Reading(passed_over=f"{entity}.{action} changes no model that serves", delivery_id=delivery)]
    said = strings(data)
    name = said.get("name", "")
    ref = said.get("version") or said.get("alias") or said.get("key") or name
    change = Change(kind, ref, "MLflow registry", time(within(payload, "timestamp")) or received.at, said | {"event": f"{entity}.{action}"})
    because = (
        f"its alias {text(data.get('alias'))!r} is in intake.production_aliases" if kind == "deployment" else "by its entity and action"
    )
    facts = Facts(
        identity=name,
        state=State.FIRING,
        state_because=because,
        title=f"{entity}.{action}",
        said={"registered_model": name},
        model_fields=("registered_model",),
    )
    return [Reading(changes=[ReportedChange(facts, change)], delivery_id=delivery)]


def _kind(entity: str, action: str, alias: str, production_aliases: tuple[str, ...]) -> str | None:
    if entity == "model_version_alias":
        return "deployment" if alias in production_aliases and action == "created" else "config"
    if entity == "model_version" and action == "created":
        return "staging"
    return "config" if entity in ("model_version_tag", "registered_model") else None


FORMAT = Format("mlflow", read, header_names=("x-mlflow-delivery-id",))
