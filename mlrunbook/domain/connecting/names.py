"""What teams call the columns of a prediction log: for each part of the mapping its names, from the plainest to those that could be
something else too."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mlrunbook.domain.connecting.guesses import snake
from mlrunbook.domain.connecting.seen import ColumnSeen, Holds

NUMERIC = frozenset({Holds.INTEGER, Holds.NUMBER})
TIMES = frozenset({Holds.TIME, Holds.ZONED})
ANY = frozenset(Holds)
MOST_LABELS = 20
# Seconds since 1970 of 2001 to 2096; the same in milliseconds, microseconds, nanoseconds.
_EPOCHS = (("seconds", 1e9, 4e9), ("milliseconds", 1e12, 4e12), ("microseconds", 1e15, 4e15), ("nanoseconds", 1e18, 4e18))
_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")


def epoch_unit(column: ColumnSeen) -> str | None:
    """The unit of a number that is a time, None where it is none."""
    if column.holds not in NUMERIC or column.low is None or column.high is None:
        return None
    return next((unit for unit, low, high in _EPOCHS if low <= column.low and column.high <= high), None)


def is_time(column: ColumnSeen) -> bool:
    return column.holds in TIMES or epoch_unit(column) is not None


def is_day(column: ColumnSeen) -> bool:
    if column.holds is Holds.DATE:
        return True
    return column.holds in {Holds.TEXT, Holds.INTEGER} and bool(column.values) and all(_DAY.fullmatch(v) for v in column.values)


def is_share(column: ColumnSeen) -> bool:
    """Numbers from 0 to 1, and not the two alone."""
    within = column.low is not None and column.high is not None and column.low >= 0 and column.high <= 1
    return column.holds is Holds.NUMBER and (column.low is None or within) and not _two_numbers(column)


def _two_numbers(column: ColumnSeen) -> bool:
    return bool(column.values) and {_number(v) for v in column.values} <= {0.0, 1.0}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def is_label(column: ColumnSeen) -> bool:
    """A yes or no: a boolean, 0 and 1, or a few words."""
    if column.holds is Holds.BOOLEAN:
        return True
    if column.holds in NUMERIC:
        return _two_numbers(column) or (column.low is None and column.holds is Holds.INTEGER)
    return column.holds is Holds.TEXT and (column.distinct is None or column.distinct <= MOST_LABELS)


def is_group(column: ColumnSeen) -> bool:
    few = column.distinct is None or column.distinct <= 100
    return column.holds in {Holds.TEXT, Holds.BOOLEAN} and few and not is_day(column)


def is_name(column: ColumnSeen) -> bool:
    """Text, or a whole number: what an id or a version is."""
    return column.holds in {Holds.TEXT, Holds.INTEGER, Holds.OTHER} and epoch_unit(column) is None


@dataclass(frozen=True)
class Role:
    """One part of the mapping. `plain`: names that mean it; `maybe`: names that may mean something else; `ends`: a name that ends so may
    mean it. `holds`: whether a column's values can be it, `wanted` that in words."""

    part: str
    plain: frozenset[str]
    holds: Callable[[ColumnSeen], bool]
    wanted: str
    maybe: frozenset[str] = frozenset()
    ends: re.Pattern[str] | None = None

    def rank(self, name: str) -> int:
        """3: means it, 2: may mean it, 1: ends like it, 0: no."""
        said = snake(name)
        if said in self.plain or said.replace("_", "") in {p.replace("_", "") for p in self.plain}:
            return 3
        if said in self.maybe:
            return 2
        return 1 if self.ends and self.ends.search(said) else 0


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MADE = "predicted prediction pred scored scoring score inference inferred"
_WHEN = "at ts time timestamp date_time datetime"
AT = Role(
    "at",
    frozenset(f"{made}_{when}" for made in _MADE.split() for when in _WHEN.split()),
    is_time,
    "a time",
    _names("at ts timestamp time datetime event_ts event_time event_timestamp request_ts request_time request_timestamp requested_at"
           " logged_at log_time log_ts created_at created created_ts served_at occurred_at received_at ingested_at"),
)  # fmt: skip
KEY = Role(
    "key",
    _names("prediction_id pred_id predict_id prediction_uuid prediction_key inference_id inference_uuid scoring_id score_id request_id"
           " request_uuid req_id"),
    is_name,
    "text or a whole number",
    _names("event_id trace_id correlation_id transaction_id txn_id tx_id log_id record_id uuid guid id call_id"),
)  # fmt: skip
SCORE = Role(
    "score",
    _names("score prob proba probability p predicted_probability predicted_proba predicted_prob prediction_score prediction_probability"
           " pred_score pred_proba pred_prob y_score y_prob y_proba risk_score model_score p_hat probability_1 prob_1 proba_1 p_1 p1"),
    is_share,
    "numbers from 0 to 1",
    _names("prediction predicted pred y_pred y_hat output result likelihood propensity risk raw_score"),
    re.compile(r"^(p|prob|proba|probability|score)_|_(p|prob|proba|probability|score|propensity|likelihood)$"),
)  # fmt: skip
LABEL = Role(
    "label",
    _names("predicted_label prediction_label pred_label predicted_class prediction_class pred_class y_pred y_hat predicted prediction pred"
           " decision flagged is_flagged predicted_outcome model_decision"),
    is_label,
    "a yes or no, 0 and 1, or a few words",
    _names("alert action verdict class label"),
    re.compile(r"^(predicted|pred|is_predicted)_|_(pred|predicted|prediction|decision)$"),
)  # fmt: skip
VERSION = Role(
    "version",
    _names("model_version version model_ver model_version_id mv registry_version model_version_number served_version model_revision"),
    is_name,
    "text or a whole number",
    _names("release revision model_release run_id model_run_id ver"),
)
THRESHOLD = Role(
    "threshold",
    _names("threshold decision_threshold cutoff cut_off thr score_threshold classification_threshold"),
    lambda c: c.holds in NUMERIC and (c.high is None or 0 <= (c.low or 0) <= c.high <= 1),
    "numbers from 0 to 1",
)
LATENCY = Role(
    "latency_ms",
    _names("latency_ms duration_ms elapsed_ms inference_ms response_time_ms processing_ms latency_millis inference_time_ms took_ms"
           " latency_milliseconds duration_millis prediction_latency_ms"),
    lambda c: c.holds in NUMERIC and epoch_unit(c) is None,
    "numbers",
    _names("latency duration elapsed inference_time response_time processing_time took"),
    re.compile(r"_(latency|duration|ms|millis)$"),
)  # fmt: skip
SEGMENT = Role(
    "segment",
    _names("segment asset_type customer_segment user_segment device_type merchant_segment risk_segment"),
    is_group,
    "text of few kinds",
    _names("region country market channel plan tier category cohort product site customer_type product_line"),
    re.compile(r"_segment$"),
)
ASSET = Role(
    "asset_id",
    _names("asset_id entity_id subject_id"),
    is_name,
    "text or a whole number",
    _names("customer_id user_id account_id client_id device_id machine_id member_id subscriber_id merchant_id card_id policy_id patient_id"
           " item_id product_id order_id loan_id driver_id vehicle_id equipment_id customer account machine asset"),
)  # fmt: skip
DAY = Role(
    "day",
    _names("day dt ds p_date partition_date partition_day pt log_date prediction_date scoring_date event_date event_day log_day"
           " prediction_day"),
    is_day,
    "a date",
    _names("date"),
)  # fmt: skip
MODEL = Role(
    "model_column",
    _names("model model_name model_id model_key model_slug registered_model registered_model_name"),
    lambda c: c.holds is Holds.TEXT,
    "text",
    _names("use_case application service endpoint pipeline"),
)
JSON = Role(
    "features_json",
    _names("features feature_json features_json inputs input input_json feature_values model_input"),
    lambda c: c.holds in {Holds.TEXT, Holds.OTHER},
    "a JSON object",
    _names("payload request request_body body"),
)
OUTCOME = Role(
    "outcome",
    _names("outcome actual actuals actual_outcome actual_label y_true y_actual ground_truth groundtruth truth true_label true_class target"
           " observed actual_class observed_label observed_outcome gt real_label"),
    is_label,
    "a yes or no, 0 and 1, or a few words",
    _names("label y result fraud churn churned converted conversion defaulted clicked failed failure feedback response labels class"),
    re.compile(r"^(is|has|was|did|actual|true)_|_(actual|label|outcome|truth|flag|true)$"),
)  # fmt: skip
_TOLD = "reported label labeled labelled outcome ground_truth actual observed resolved confirmed feedback updated corrected settled truth"
REPORTED = Role(
    "reported_at",
    frozenset(f"{told}_{when}" for told in _TOLD.split() for when in _WHEN.split()),
    is_time,
    "a time",
    AT.maybe | _names("loaded_at inserted_at modified_at arrived_at updated arrival_ts arrival_time"),
)
EPOCH_DIVISOR = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
YES = _names("yes y true t 1 positive pos fraud fraudulent churn churned failure failed fail default defaulted bad converted clicked spam"
             " abuse anomaly anomalous high_risk risk accepted")  # fmt: skip
PLAIN = _names("true yes y t 1 false no n f 0")  # read without being told
NO = _names("no n false f 0 negative neg legit legitimate genuine active retained stayed ok good healthy normal paid not_fraud no_fraud"
            " not_churned none non_fraud no_churn not_converted ham low_risk rejected repaid no_failure alive")  # fmt: skip
