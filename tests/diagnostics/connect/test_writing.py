"""What connect writes: a policy that holds, beside what the team wrote, and no line of theirs is touched."""

from __future__ import annotations

import pytest

from mlrunbook.base.policy_file import parse
from mlrunbook.diagnostics.connect.rendering import Names, rendered
from mlrunbook.diagnostics.connect.writing import write
from mlrunbook.domain.connecting.columns import guess_log
from mlrunbook.domain.connecting.guesses import nothing, sure, undecided
from mlrunbook.domain.connecting.model import ModelGuess, guess_candidate, guess_serving, model_id
from mlrunbook.domain.connecting.objects import guess_objects
from mlrunbook.domain.connecting.promql import guess_live
from mlrunbook.domain.connecting.seen import ClusterSeen, ColumnSeen, DeploymentSeen, Holds, MetricsSeen, RegisteredModel, TableSeen
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.connections import Kind, Serving
from mlrunbook.domain.policy.modes import Mode
from tests.docs.pages import ROOT

NAMES = Names("mlflow", "predictions", "prometheus")
CONNECTIONS = {"mlflow": "mlflow", "predictions": "sql", "prometheus": "prometheus"}
SHIPPED = (ROOT / "runbook.yaml").read_text()


def guess(name: str = "churn", *columns: ColumnSeen, aliases: dict[str, str] | None = None) -> ModelGuess:
    registered = RegisteredModel(name, ("1", "2", "3"), {"champion": "3"} if aliases is None else aliases)
    columns = columns or (
        ColumnSeen("inference_id", Holds.TEXT),
        ColumnSeen("scored_at", Holds.TIME),
        ColumnSeen("p_churn", Holds.NUMBER, 0, 1),
        ColumnSeen("model_version", Holds.TEXT, values=("2", "3")),
        ColumnSeen("latency_ms", Holds.NUMBER, 1, 80),
    )
    outcomes = TableSeen("labels", (ColumnSeen("inference_id", Holds.TEXT), ColumnSeen("y_true", Holds.BOOLEAN)))
    app = model_id(name).lower().replace("_", "-")
    cluster = ClusterSeen("ml", (DeploymentSeen(f"{app}-server", {"server": "i:1"}, {"app": app}, {"app": app}),))
    metrics = MetricsSeen(frozenset({"http_requests_total"}), {"http_requests_total": ({"app": f"{name}-server"},)})
    return ModelGuess(
        model_id(name),
        registered,
        serving=guess_serving(registered),
        candidate=guess_candidate(registered),
        log=guess_log(registered, TableSeen("preds", columns), outcomes),
        objects=guess_objects(name, cluster),
        live=guess_live(name, [f"{name}-server"], metrics),
        views_guess=nothing("no view holds an input of the model"),
    )


def put(text: str, *guesses: ModelGuess, replace: bool = False) -> str:
    return write(text, CONNECTIONS, {g.model: rendered(g, NAMES, "  ") for g in guesses}, replace=replace).text


@pytest.mark.parametrize(
    "before",
    [
        "",
        "triage: {looks: 4}",
        SHIPPED,
        "models: {}\n",
        "models: {} # ours\nconnections:\n",
        "models:\n    pump: {owner: us}\n\n# the end\n",
        "connections:\n  mlflow: {kind: mlflow}\nmodels:\n  pump:\n    owner: |\n      us\n\n\ntriage:\n  looks: 4\n",
    ],
)
def test_whatever_the_file_was_it_holds_and_keeps_every_line(before: str) -> None:
    after = put(before, guess("churn"), guess("fraud"))
    policy = parse(after)
    assert {"churn", "fraud"} <= set(policy.models)
    assert {name: one.kind for name, one in policy.connections.items()} == {name: Kind(kind) for name, kind in CONNECTIONS.items()}
    kept = [line for line in before.splitlines() if not line.startswith(("models:", "connections:"))]
    left = iter(after.splitlines())
    assert all(line in left for line in kept), "in their order too"
    assert ("# ours" in before) == ("# ours" in after)


def test_what_was_seen_becomes_the_policy() -> None:
    policy = parse(put("", guess("churn")))
    rules = policy.models["churn"]
    assert rules.mode is Mode.OBSERVE
    assert rules.platform is not None
    registry, log, live = rules.platform.registry, rules.platform.predictions, rules.platform.live
    assert registry is not None
    assert log is not None
    assert live is not None
    assert (registry.connection, registry.serving_alias, rules.platform.serving) == ("mlflow", "champion", Serving.KUBERNETES)
    assert (log.table, log.outcomes_table, log.columns.key, log.columns.at) == ("preds", "labels", "inference_id", "scored_at")
    assert (log.columns.score, log.columns.label, log.outcomes.outcome, log.outcomes.reported_at) == ("p_churn", None, "y_true", None)
    assert rules.cluster is not None
    assert (rules.cluster.scaled_deployment, rules.cluster.service, rules.cluster.config_map) == ("churn-server", None, None)
    assert live.requests == 'sum(increase(http_requests_total{app="churn-server"}[{window}]))'


def test_a_name_that_policy_cannot_have_is_kept_where_the_registry_has_it() -> None:
    rules = parse(put("", guess("Churn Model (EU)"))).models["Churn_Model_EU"]
    assert rules.platform
    assert rules.platform.registry
    assert rules.platform.registry.name == "Churn Model (EU)"


def test_running_again_changes_nothing_and_renews_only_what_nobody_edited() -> None:
    once = put(SHIPPED, guess("churn"), guess("fraud"))
    assert put(once, guess("churn"), guess("fraud")) == once
    anew = put(once, guess("churn", aliases={"production": "2"}))
    assert "serving_alias: production" in anew
    assert parse(anew).models.keys() == parse(once).models.keys()
    edited = once.replace("serving_alias: champion", "serving_alias: live", 1)
    written = write(edited, CONNECTIONS, {"churn": rendered(guess("churn"), NAMES, "  ")})
    assert (written.text, list(written.left)) == (edited, ["churn"])
    assert put(edited, guess("churn"), replace=True) == once


def test_a_model_written_by_hand_is_left_alone() -> None:
    own = "models:\n  churn: {owner: us}\n"
    written = write(own, {}, {"churn": rendered(guess("churn"), NAMES, "  ")}, replace=True)
    assert (written.text, written.models, list(written.left)) == (own, (), ["churn"])


def test_models_on_one_line_are_not_rewritten() -> None:
    with pytest.raises(Refused, match="line 1"):
        put("models: {pump: {owner: us}}\n", guess("churn"))


def test_what_nobody_has_decided_is_a_todo() -> None:
    open_ = guess("churn", ColumnSeen("id", Holds.TEXT), ColumnSeen("ts", Holds.TIME), ColumnSeen("event_ts", Holds.TIME))
    text = put("", open_)
    log = parse(text).models["churn"].platform.predictions  # type: ignore[union-attr]
    assert log
    assert (log.columns.at, log.columns.score) == ("TODO", "TODO")
    assert "ts and event_ts" in text


def test_what_was_read_from_outside_ends_no_comment_and_no_text() -> None:
    hostile = 'x\n  evil: {owner: them}\n#"'
    log = guess_log(
        RegisteredModel("churn"),
        TableSeen("t", (ColumnSeen(hostile, Holds.TEXT), ColumnSeen("ts", Holds.TIME), ColumnSeen("score", Holds.NUMBER))),
        None,
    )
    bad = ModelGuess(
        "churn",
        RegisteredModel("churn"),
        serving=undecided([hostile], f"which of {hostile}?"),
        log=log,
        views=(hostile,),
        views_guess=sure(hostile, hostile),
    )
    policy = parse(put("", bad))
    assert set(policy.models) == {"churn"}
    assert policy.models["churn"].feature_views == (hostile,)


def test_a_long_list_of_inputs_is_whole_and_a_name_of_any_letters_is_the_same() -> None:
    inputs = tuple(f"a_rather_long_input_{i}" for i in range(40))
    model = RegisteredModel("churn \U0001f600\x85\u2028: #\x1b[31m", ("1",), {"champion": "1"}, features=inputs)
    columns = (ColumnSeen("id", Holds.TEXT), ColumnSeen("ts", Holds.TIME), ColumnSeen("score", Holds.NUMBER, 0, 1))
    table = TableSeen("preds", (*columns, *(ColumnSeen(one, Holds.NUMBER) for one in inputs)))
    text = put("", ModelGuess("churn", model, serving=guess_serving(model), log=guess_log(model, table, None)))
    parts = parse(text).models["churn"].platform
    assert parts
    assert parts.registry
    assert parts.predictions
    assert parts.registry.name == model.name
    assert parts.predictions.columns.features == inputs
    assert "\x1b" not in text
