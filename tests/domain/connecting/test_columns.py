"""Columns as real teams call them: each is found with its reason, or left open; none is guessed wrongly in silence."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.domain.connecting.columns import LogGuess, guess_log
from mlrunbook.domain.connecting.guesses import Sure
from mlrunbook.domain.connecting.seen import ColumnSeen, Holds, RegisteredModel, TableSeen

CHURN = RegisteredModel("churn", versions=("1", "2", "3"), features=("tenure", "plan_price"))


def text(name: str, *values: str, distinct: int | None = None) -> ColumnSeen:
    return ColumnSeen(name, Holds.TEXT, values=values, distinct=distinct or len(values) or 5000)


def number(name: str, low: float = 0.0, high: float = 1.0) -> ColumnSeen:
    return ColumnSeen(name, Holds.NUMBER, low, high, values=(str(low), str((low + high) / 3), str(high)), distinct=5000)


def whole(name: str, low: float = 1, high: float = 90_000, **more: Any) -> ColumnSeen:
    return ColumnSeen(name, Holds.INTEGER, low, high, values=(f"{low:.0f}", f"{high:.0f}"), distinct=more.get("distinct", 5000))


def bit(name: str) -> ColumnSeen:
    return ColumnSeen(name, Holds.INTEGER, 0, 1, values=("0", "1"), distinct=2)


def word(name: str) -> ColumnSeen:
    return text(name, "no", "yes")


def flag(name: str) -> ColumnSeen:
    return ColumnSeen(name, Holds.BOOLEAN, values=("false", "true"), distinct=2)


def time(name: str, *, zoned: bool = False) -> ColumnSeen:
    return ColumnSeen(name, Holds.ZONED if zoned else Holds.TIME, distinct=5000)


def date(name: str) -> ColumnSeen:
    return ColumnSeen(name, Holds.DATE, values=("2026-11-29", "2026-11-30"), distinct=2)


def log(*columns: ColumnSeen, outcomes: tuple[ColumnSeen, ...] | None = None, model: RegisteredModel = CHURN) -> LogGuess:
    return guess_log(model, TableSeen("preds", columns, 5000), TableSeen("truth", outcomes, 5000) if outcomes else None)


def chosen(guess: LogGuess) -> dict[str, str]:
    return {part: g.value for part, g in guess.predictions.items() if g.value}


SHAPES: dict[str, tuple[tuple[ColumnSeen, ...], dict[str, str]]] = {
    "snake case with a day folder": (
        (text("prediction_id"), time("prediction_ts"), number("p_churn"), whole("model_version", 1, 3), date("dt"), number("lat_s")),
        {"key": "prediction_id", "at": "prediction_ts", "score": "p_churn", "version": "model_version", "day": "dt"},
    ),
    "camel case": (
        (text("inferenceId"), time("scoredAt", zoned=True), number("predictedProbability"), text("modelVersion", "1", "2"), number("x")),
        {"key": "inferenceId", "at": "scoredAt", "score": "predictedProbability", "version": "modelVersion"},
    ),
    "upper case, as an unquoted Snowflake table has it": (
        (text("REQUEST_ID"), time("SCORED_AT"), number("SCORE"), text("MODEL_VERSION", "3"), text("REGION", "EU", "US")),
        {"key": "REQUEST_ID", "at": "SCORED_AT", "score": "SCORE", "version": "MODEL_VERSION", "segment": "REGION"},
    ),
    "unix milliseconds": (
        (text("request_id"), whole("ts", 1_764_000_000_000, 1_764_086_400_000), number("prob"), bit("y_pred")),
        {"key": "request_id", "at": "ts_as_time", "score": "prob", "label": "y_pred"},
    ),
    "epoch seconds beside a latency that has a time's name": (
        (text("inference_id"), whole("event_time", 1_764_000_000, 1_764_086_400), number("score"), number("inference_time", 3.1, 912.0)),
        {"key": "inference_id", "at": "event_time_as_time", "score": "score", "latency_ms": "inference_time"},
    ),
    "a text label and a customer": (
        (text("pred_id"), time("created_at"), text("decision", "churn", "stay"), number("score"), text("customer_id")),
        {"key": "pred_id", "at": "created_at", "score": "score", "label": "decision", "asset_id": "customer_id"},
    ),
    "the probability of both classes": (
        (text("scoring_id"), time("scoring_time"), number("prob_0"), number("prob_1"), number("cutoff", 0.4, 0.4)),
        {"key": "scoring_id", "at": "scoring_time", "score": "prob_1", "threshold": "cutoff"},
    ),
    "days as text": (
        (text("uuid"), time("timestamp"), number("churn_probability"), text("ds", "2026-11-29", "2026-11-30")),
        {"key": "uuid", "at": "timestamp", "score": "churn_probability", "day": "ds"},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_are_found_as_teams_call_them(shape: str) -> None:
    columns, expected = SHAPES[shape]
    assert chosen(log(*columns, outcomes=(text("prediction_id"), flag("outcome")))) == expected


@pytest.mark.parametrize(
    ("columns", "part", "choices"),
    [
        ((text("id"), time("predicted_at"), time("scored_at"), number("score")), "at", ("predicted_at", "scored_at")),
        ((text("id"), time("ts"), time("event_ts"), number("score")), "at", ("ts", "event_ts")),
        ((text("id"), time("ts"), number("score_a"), number("score_b")), "score", ("score_a", "score_b")),
        ((text("request_id"), text("inference_id"), time("ts"), number("score")), "key", ("request_id", "inference_id")),
        ((text("id"), time("ts"), whole("score", 300, 850)), "score", ("score",)),
        ((text("id"), time("ts"), number("score"), number("latency", 0.01, 2.2)), "latency_ms", ("latency",)),
        ((text("id"), time("ts"), number("score"), text("region", "eu", "us"), text("channel", "web")), "segment", ("region", "channel")),
    ],
)
def test_what_could_be_two_things_is_left_open(columns: tuple[ColumnSeen, ...], part: str, choices: tuple[str, ...]) -> None:
    guess = log(*columns, outcomes=(text("id"), flag("outcome"))).predictions[part]
    assert (guess.value, guess.sure, guess.choices) == (None, Sure.OPEN, choices)


@pytest.mark.parametrize(
    ("name", "made"),
    [("y_true", bit), ("ground_truth", word), ("is_fraud", flag), ("Actual", bit), ("LABEL", bit), ("target", bit), ("trueLabel", word)],
)
def test_an_outcome_in_a_table_of_its_own_is_found(name: str, made: Any) -> None:
    outcomes = (text("prediction_id"), made(name), time("label_ts"))
    found = log(text("prediction_id"), time("ts"), number("score"), outcomes=outcomes).outcomes
    assert {part: g.value for part, g in found.items() if g.value} == {"key": "prediction_id", "outcome": name, "reported_at": "label_ts"}


def test_the_key_is_what_stands_in_both_tables() -> None:
    guess = log(
        text("request_id"), text("event_id"), time("ts"), number("score"), outcomes=(text("EVENT_ID"), bit("y_true"), time("updated_at"))
    )
    assert (guess.predictions["key"].value, guess.outcomes["key"].value) == ("event_id", "EVENT_ID")


def test_a_customer_in_both_tables_is_no_key_of_a_prediction() -> None:
    guess = log(text("customer_id"), time("ts"), number("score"), outcomes=(text("customer_id"), bit("churned")))
    assert (guess.predictions["key"].sure, guess.predictions["key"].choices) == (Sure.OPEN, ("customer_id",))


def test_an_input_that_is_a_yes_or_no_is_not_taken_for_the_outcome() -> None:
    guess = log(text("id"), time("ts"), number("score"), flag("is_weekend"))
    assert (guess.outcomes["outcome"].value, guess.outcomes["outcome"].sure) == (None, Sure.OPEN)
    assert log(text("id"), time("ts"), number("score"), flag("is_weekend"), flag("churned")).outcomes["outcome"].value is None


def test_an_outcome_that_names_the_model_is_found_in_the_predictions_own_table() -> None:
    fraud = RegisteredModel("fraud_detection", ("1",))
    guess = log(text("txn_id"), time("scored_at"), number("score"), flag("is_fraud"), flag("is_weekend"), model=fraud)
    assert guess.outcomes["outcome"].value == "is_fraud"


def test_a_label_beside_a_score_may_be_the_truth_so_a_person_says() -> None:
    assert log(text("id"), time("ts"), number("score"), bit("label")).predictions["label"].sure is Sure.OPEN


def test_no_outcome_column_is_said() -> None:
    outcome = log(text("id"), time("ts"), number("score")).outcomes["outcome"]
    assert (outcome.value, outcome.choices) == (None, ())


def test_one_log_of_several_models_is_read_by_the_models_own_rows() -> None:
    columns = (text("id"), time("ts"), number("score"))
    guess = log(*columns, text("model_name", "churn", "fraud"))
    assert (guess.model_column.value, guess.model_value) == ("model_name", "churn")
    guess = log(*columns, text("model_name", "Churn-Model", "fraud"))
    assert (guess.model_column.sure, guess.model_value) == (Sure.LIKELY, "Churn-Model")
    guess = log(*columns, text("model_name", "a17", "b22"))
    assert (guess.model_column.sure, guess.model_value) == (Sure.OPEN, None)


def test_the_score_of_this_model_is_told_from_that_of_another() -> None:
    assert log(text("id"), time("ts"), number("p_upsell"), number("p_churn")).predictions["score"].value == "p_churn"


def test_versions_that_the_registry_does_not_know_are_said() -> None:
    columns = (text("id"), time("ts"), number("score"))
    assert log(*columns, text("model_version", "2", "3")).predictions["version"].sure is Sure.SURE
    strange = log(*columns, text("model_version", "v2", "v3")).predictions["version"]
    assert (strange.value, strange.sure) == ("model_version", Sure.LIKELY)
    assert "v2" in strange.reason
    assert log(*columns, text("release", "2026.11", "2026.12")).predictions["version"].value is None


def test_a_time_that_is_a_number_is_read_by_a_query_and_one_that_is_text_is_trouble() -> None:
    guess = log(text("id"), whole("ts", 1_764_000_000_000, 1_764_086_400_000), number("score"))
    assert guess.query == 'SELECT *, to_timestamp("ts" / 1000.0) AS "ts_as_time" FROM "preds"'
    assert guess.predictions["at"].value == "ts_as_time"
    guess = log(text("id"), text("predicted_at", "2026-11-30 10:00"), number("score"))
    assert guess.predictions["at"].value is None
    assert "predicted_at" in guess.trouble[0]


def test_the_words_for_yes_are_known_or_asked_for() -> None:
    columns = (text("id"), time("ts"), number("score"))
    words = log(*columns, outcomes=(text("id"), text("outcome", "churned", "active")))
    assert (words.positive.value, words.negative) == ("churned", ("active",))
    assert log(*columns, outcomes=(text("id"), text("outcome", "yes", "no"))).positive.value is None
    strange = log(*columns, outcomes=(text("id"), text("outcome", "A", "B"))).positive
    assert (strange.sure, strange.choices) == (Sure.OPEN, ("A", "B"))
    assert log(*columns, outcomes=(text("id"), flag("outcome"))).positive.sure is Sure.SURE


def test_inputs_are_the_signatures_names_as_the_table_spells_them() -> None:
    columns = (text("id"), time("ts"), number("score"))
    assert log(*columns, number("TENURE", 0, 80), number("planPrice", 0, 99)).features == ("TENURE", "planPrice")
    guess = log(*columns, ColumnSeen("features", Holds.OTHER))
    assert (guess.features, guess.predictions["features_json"].value) == ((), "features")
