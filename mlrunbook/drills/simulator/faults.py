"""What the simulator can break, and what a correct response to each is. Only the simulator and those who check the outcome read this.

A fault changes data or settings, through the platform's public API, as a careless human would. Nobody downstream is told its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import IncidentType, Severity, Status

if TYPE_CHECKING:
    import pandas as pd

CRITICAL_ASSET = "press_1"
Labels = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Truth:
    """The known answer: how the incident must be graded, by which path it is resolved, and how it must end.

    `path` None with a closed incident: no automatic path may be taken, people mend it (`FleetSimulator.repair`) and say so.
    """

    severity: Severity
    type: IncidentType
    path: Path | None
    cause: str
    status: Status
    diagnosed: Cause | None = None  # what the diagnosis must name first; None: nothing is diagnosed
    refused: str | None = None  # a version that training made and validation must refuse
    quiet_s: float | None = None  # all is well, also when no incident has opened after this long


@dataclass(frozen=True)
class Fault:
    name: str
    truth: Truth


@dataclass(frozen=True)
class BadRelease(Fault):
    """A new version trained on wrong labels. `mislabel(frame, magnitude, rng)` gives the labels the careless team believed.

    Magnitude 1 is the full fault, 0 none.
    """

    version: str
    mislabel: Callable[[pd.DataFrame, float, np.random.Generator], Labels]
    magnitude: float = 1.0


@dataclass(frozen=True)
class ThresholdSlip(Fault):
    """The decision threshold set to a number far too low."""

    threshold: float


@dataclass(frozen=True)
class Blip(Fault):
    """Nothing is wrong: a small window of `rows` honest readings whose F1 lies `drop` (least, most; of baseline) too low by chance.

    No other traffic afterwards until the platform has raised an alert, for `quiet_s` at most.
    """

    rows: int
    drop: tuple[float, float]
    quiet_s: float


@dataclass(frozen=True)
class StaleFeatures(Fault):
    """The scheduled materialisation of `views` suspended, "for a moment", and forgotten."""

    views: tuple[str, ...]


@dataclass(frozen=True)
class NullFeature(Fault):
    """`feature` arrives empty from upstream, for every asset."""

    feature: str


@dataclass(frozen=True)
class LockedStore(Fault):
    """A forgotten session holds an exclusive lock on the online rows of `view`: the feature server stays up, reads hang."""

    view: str


@dataclass(frozen=True)
class NewType(Fault):
    """Assets of a type that no version has seen join the fleet, with tools that break sooner. Needs the simulated fleet."""

    type: str
    share: float
    wear_per_use_min: float
    overstrain_min_nm: float


@dataclass(frozen=True)
class ConceptDrift(Fault):
    """Drives fail outside other limits of power than before: the same readings, other outcomes. Needs the simulated fleet.

    Those of `asset_type` alone, where one is named. At the same time a faulty backfill may overwrite the features `poison` in the offline
    history with values of other assets, so that whoever trains on it learns nonsense.
    """

    limits_w: tuple[float, float]
    poison: tuple[str, ...] = ()
    asset_type: str | None = None


@dataclass(frozen=True)
class SensorOffset(Fault):
    """After a recalibration `feature` reads `offset` too high (in its own unit) on every asset; the machines run as before."""

    feature: str
    offset: float


@dataclass(frozen=True)
class LateLabels(Fault):
    """The feed of outcomes stops: predictions go on, and what became of the assets is not told until somebody mends it."""


@dataclass(frozen=True)
class AdversarialBurst(Fault):
    """A caller looks for the decision boundary: one asset again and again with readings that hardly differ, and readings no machine can
    have; so many of each kind with every batch of ordinary requests."""

    near: int
    impossible: int


@dataclass(frozen=True)
class MissedFailure(Fault):
    """`asset`, which the policy of the exercise calls critical and no ordinary traffic is about, fails right after a low score."""

    asset: str


@dataclass(frozen=True)
class OrdinaryWeek(Fault):
    """Nothing is wrong: days are warm and busy, nights cool and quiet. `uses_a_day` uses of an asset make a day. Needs the simulated
    fleet."""

    uses_a_day: int
    air_k: float
    load_nm: float


@dataclass(frozen=True)
class SlowServer(Fault):
    """A forgotten limiter lets the model server's process run for `share` of each `period_s`."""

    share: float
    period_s: float


@dataclass(frozen=True)
class HungServer(Fault):
    """The model server's process hangs: it takes connections and never answers."""


@dataclass(frozen=True)
class BrokenCaller(Fault):
    """A caller's new release sends `share` of the readings in a form that no model can take."""

    share: float


@dataclass(frozen=True)
class UnloadableRelease(Fault):
    """A release that the registry takes and the model server cannot score with: the version before goes on serving."""

    version: str


def swap_stop_codes(frame: pd.DataFrame, magnitude: float, rng: np.random.Generator) -> Labels:
    """Two maintenance codes mixed up in the label export: failures of slow machines count as planned stops, planned changes of worn tools
    as failures. Systematic, so the release looks fine on its own validation rows and no threshold can mend it.
    """
    failed = frame["failed"].to_numpy(dtype=bool)
    speed, wear = frame["rotational_speed_rpm"].to_numpy(), frame["tool_wear_min"].to_numpy()
    lost = failed & (speed < np.quantile(speed[failed], 0.4 * magnitude))
    invented = ~failed & (wear > np.quantile(wear, 1 - 0.02 * magnitude))
    labels: Labels = (failed & ~lost) | invented
    return labels


def missing_outcomes_as_failures(frame: pd.DataFrame, magnitude: float, rng: np.random.Generator) -> Labels:
    """Outcomes that had not arrived when the data were exported were filled in as failures: nearly all of them."""
    failed = frame["failed"].to_numpy(dtype=bool)
    labels: Labels = failed | (rng.random(len(failed)) < 0.98 * magnitude)
    return labels


_BAD_RELEASE = BadRelease(
    name="bad-release",
    truth=Truth(
        severity=Severity.HIGH,
        type=IncidentType.PERFORMANCE_DEGRADATION,
        path=Path.ROLLBACK,
        cause="v2.0.0 was trained on mislabelled data",
        status=Status.CLOSED,
        diagnosed=Cause.BAD_DEPLOYMENT,
    ),
    version="v2.0.0",
    mislabel=swap_stop_codes,
)

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        _BAD_RELEASE,
        replace(_BAD_RELEASE, name="mild-release", truth=replace(_BAD_RELEASE.truth, severity=Severity.MEDIUM), magnitude=0.35),
        BadRelease(
            name="all-high-risk",
            truth=Truth(
                severity=Severity.CRITICAL,
                type=IncidentType.PREDICTION_ERROR,
                path=Path.ROLLBACK,
                cause="v2.0.0 counts missing outcomes as failures and flags every asset",
                status=Status.CLOSED,
                diagnosed=Cause.BAD_DEPLOYMENT,
            ),
            version="v2.0.0",
            mislabel=missing_outcomes_as_failures,
        ),
        ThresholdSlip(
            name="threshold-slip",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=Path.THRESHOLD,
                cause="the decision threshold was set far too low",
                status=Status.CLOSED,
                diagnosed=Cause.THRESHOLD_CHANGE,
            ),
            threshold=0.002,  # a per cent where a share was wanted: flags 6 to 18 % of assets, where 3.4 % fail
        ),
        StaleFeatures(
            name="stale-features",
            truth=Truth(
                severity=Severity.CRITICAL,  # sensor readings that old miss nearly every failure
                type=IncidentType.PREDICTION_ERROR,
                path=Path.MATERIALIZE,
                cause="the scheduled materialisation was suspended",
                status=Status.CLOSED,
                diagnosed=Cause.STALE_FEATURES,
            ),
            views=("asset_sensors", "asset_wear"),
        ),
        NullFeature(
            name="null-feature",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=None,
                cause="torque arrives empty from upstream: materialising would load the same gap",
                status=Status.CLOSED,
                diagnosed=Cause.NULL_OR_BROKEN_FEATURE,
            ),
            feature="torque_nm",
        ),
        LockedStore(
            name="feature-store-down",
            truth=Truth(
                severity=Severity.CRITICAL,
                type=IncidentType.INFRASTRUCTURE,
                path=None,
                cause="the online store is locked by a forgotten session",
                status=Status.CLOSED,
                diagnosed=Cause.FEATURE_STORE_OUTAGE,
            ),
            view="asset_sensors",
        ),
        NewType(
            name="new-asset-type",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=Path.RETRAIN,
                cause="assets of type XL, which no version was trained on, joined the fleet",
                status=Status.CLOSED,
                diagnosed=Cause.NEW_SEGMENT,
            ),
            type="XL",
            share=0.5,
            wear_per_use_min=8.0,
            overstrain_min_nm=3500.0,
        ),
        ConceptDrift(
            name="concept-drift",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=Path.RETRAIN,
                cause="drives fail at other powers than before",
                status=Status.CLOSED,
                diagnosed=Cause.CONCEPT_DRIFT,
            ),
            limits_w=(4200.0, 8300.0),
        ),
        ConceptDrift(
            name="bad-candidate",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=None,
                cause="drives fail at other powers than before, and the history to retrain on is poisoned",
                status=Status.CLOSED,
                diagnosed=Cause.CONCEPT_DRIFT,
                refused="v1.6.0",
            ),
            limits_w=(4200.0, 8300.0),
            poison=("torque_nm", "rotational_speed_rpm", "tool_wear_min"),
        ),
        SensorOffset(
            name="sensor-offset",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=None,  # a sensor is mended by people; a model trained on its error is wrong once it is
                cause="the torque sensors read too high since their recalibration",
                status=Status.CLOSED,
                diagnosed=Cause.DATA_DRIFT,
            ),
            feature="torque_nm",
            offset=6.0,
        ),
        ConceptDrift(
            name="biased-segment",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.BIAS_FAIRNESS,
                path=None,  # a candidate that wins over all may leave the one type as it is
                cause="drives of type H, a tenth of the fleet, fail at other powers than before",
                status=Status.CLOSED,
                diagnosed=Cause.CONCEPT_DRIFT,
            ),
            limits_w=(1000.0, 8000.0),
            asset_type="H",
        ),
        MissedFailure(
            name="missed-critical-failure",
            truth=Truth(
                severity=Severity.CRITICAL,
                type=IncidentType.PREDICTION_ERROR,
                path=None,  # one missed failure is no bad model: people look at the asset
                cause="a bearing of press_1 broke in a way that none of its sensors sees",
                status=Status.CLOSED,
                diagnosed=Cause.UNKNOWN,
            ),
            asset=CRITICAL_ASSET,
        ),
        LateLabels(
            name="late-labels",
            truth=Truth(
                severity=Severity.MEDIUM,
                type=IncidentType.INFRASTRUCTURE,
                path=None,
                cause="the feed of outcomes from the maintenance records stopped",
                status=Status.CLOSED,
                diagnosed=Cause.LABEL_PROBLEM,
            ),
        ),
        AdversarialBurst(
            name="adversarial-burst",
            truth=Truth(
                severity=Severity.HIGH,
                type=IncidentType.SECURITY,
                path=None,
                cause="a caller probes the model for its decision boundary",
                status=Status.CLOSED,
                diagnosed=Cause.ATTACK,
            ),
            near=80,
            impossible=20,
        ),
        OrdinaryWeek(
            name="nothing-wrong",
            truth=Truth(
                severity=Severity.LOW,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=None,
                cause="days and nights",
                status=Status.FALSE_ALARM,
                quiet_s=60.0,
            ),
            uses_a_day=6,
            air_k=2.0,
            load_nm=3.0,
        ),
        SlowServer(
            name="slow-server",
            truth=Truth(
                severity=Severity.MEDIUM,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=Path.RESTART,
                cause="a CPU limiter was left on the model server's process",
                status=Status.CLOSED,
                diagnosed=Cause.SERVING_INFRASTRUCTURE,
            ),
            share=0.06,
            period_s=0.5,
        ),
        HungServer(
            name="server-down",
            truth=Truth(
                severity=Severity.CRITICAL,
                type=IncidentType.INFRASTRUCTURE,
                path=Path.RESTART,
                cause="the model server's process hangs",
                status=Status.CLOSED,
                diagnosed=Cause.SERVING_INFRASTRUCTURE,
            ),
        ),
        BrokenCaller(
            name="error-burst",
            truth=Truth(
                severity=Severity.MEDIUM,
                type=IncidentType.INFRASTRUCTURE,
                path=None,  # the server is right to refuse them, and would after a restart
                cause="a gateway's new release sends the speed as text",
                status=Status.CLOSED,
                diagnosed=Cause.SERVING_INFRASTRUCTURE,
            ),
            share=0.2,
        ),
        UnloadableRelease(
            name="failed-deployment",
            truth=Truth(
                severity=Severity.MEDIUM,
                type=IncidentType.INFRASTRUCTURE,
                path=Path.ROLLBACK,
                cause="v2.0.0 takes no missing values, so the model server cannot load it",
                status=Status.CLOSED,
                diagnosed=Cause.BAD_DEPLOYMENT,
            ),
            version="v2.0.0",
        ),
        Blip(
            name="blip",
            truth=Truth(
                severity=Severity.MEDIUM,
                type=IncidentType.PERFORMANCE_DEGRADATION,
                path=None,
                cause="a small window scored low by chance",
                status=Status.FALSE_ALARM,
            ),
            rows=500,  # about 17 failures: too few for anybody to call a drop of 10 % real
            drop=(0.10, 0.20),
            quiet_s=30.0,
        ),
    )
}


def fault(name: str) -> Fault:
    """The fault of that name; NotFound lists those there are."""
    try:
        return FAULTS[name]
    except KeyError as error:
        raise NotFound(f"there is no fault {name!r}; choose one of {', '.join(FAULTS)}") from error
