"""The simulated fleet with its faults: what `mlrunbook demo` and the tests break, and how people mend it.

A fault is injected through the platform's public API, the lake, the online store or the machines themselves, as a careless human or the
world would. Nobody downstream is told its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlrunbook.adapters.feast.api import CONFIG_FILE
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.drills.simulator.faults import (
    AdversarialBurst,
    BadRelease,
    Blip,
    BrokenCaller,
    ConceptDrift,
    Fault,
    HungServer,
    LateLabels,
    LockedStore,
    MissedFailure,
    NewType,
    NullFeature,
    OrdinaryWeek,
    SensorOffset,
    SlowServer,
    StaleFeatures,
    ThresholdSlip,
    UnloadableRelease,
)
from mlrunbook.drills.simulator.fleet import POWER_LIMITS_W, Fleet
from mlrunbook.drills.simulator.probing_burst import Burst
from mlrunbook.drills.simulator.serving_faults import CpuLimit, in_words, process, strict_estimator
from mlrunbook.drills.simulator.traffic import GOOD_VERSION, MODEL, PIPELINE, TRAINING_ROWS, FleetTraffic, History, Traffic, as_features
from mlrunbook.local.features import lake
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform.training import confusion, train

if TYPE_CHECKING:
    import pandas as pd
    import psycopg

__all__ = ["GOOD_VERSION", "MODEL", "FleetSimulator", "History", "Traffic", "as_features"]

DRAWN = 200  # readings, one of which a critical asset fails with
MAX_DRAWS = 2000  # honest windows tried for a blip; about one in ten crosses
LOST = timedelta(microseconds=1)  # a correction is stored after the reading it corrects


class FleetSimulator(FleetTraffic):
    """`inject` and `repair` may be called while `run` runs in another thread. `server_pid` knows the model server's process, where it runs
    on this machine."""

    def __init__(self, *args: Any, server_pid: Callable[[], int | None] = lambda: None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server_pid = server_pid
        self._cpu_limit: CpuLimit | None = None
        self._broken_share = 0.0  # of readings that a gateway sends as nobody can read them
        self._empty: str | None = None  # a feature that arrives empty
        self._offset: tuple[str, float] | None = None  # a feature, and by how much its sensor reads too high
        self._outcomes_stopped = False
        self._burst: Burst | None = None  # the caller who probes
        self._poison: tuple[str, ...] = ()  # features that a faulty backfill overwrites
        self._poisoned: list[Path] = []
        self._holder: psycopg.Connection | None = None  # the forgotten session
        self._quiet_until = 0.0  # time.monotonic(), for a blip

    # -- the fault

    def inject(self, fault: Fault) -> str:
        """Break what `fault` says and return one sentence on what was done. Raises when the platform would not let us."""
        how = INJECTED.get(type(fault))
        if how is None:
            raise Invalid(f"the simulator does not know how to inject {fault.name!r}", field="fault")
        return how(self, fault)

    def repair(self, fault: Fault) -> str:
        """What people do about a fault that no automatic path fixes; one sentence for the record."""
        how = REPAIRED.get(type(fault))
        if how is None:
            raise Invalid(f"{fault.name!r} is not for people to fix", field="fault")
        return how(self, fault)

    def _limit_cpu(self, fault: SlowServer) -> str:
        self._cpu_limit = CpuLimit(process(self._server_pid()), share=fault.share, period_s=fault.period_s)
        return f"a limit of {fault.share:.0%} of a core was put on the model server's process"

    def _hang(self, _: HungServer) -> str:
        process(self._server_pid()).suspend()
        return "the model server's process was stopped (SIGSTOP)"

    def _break_caller(self, fault: BrokenCaller) -> str:
        self._broken_share = fault.share
        return f"a gateway's new release sends {fault.share:.0%} of the readings with the speed as text"

    def _slip_threshold(self, fault: ThresholdSlip) -> str:
        url = f"{self._platform}/api/v1/ml/models/{self.model}"
        self._call("PATCH", f"{url}/config", {"threshold": fault.threshold, "changedBy": "ml_engineer"})
        self._call("POST", f"{url}/restart", {"restartedBy": "ml_engineer"})
        return f"threshold of {self.model} set to {fault.threshold:g} and the server restarted"

    def _suspend_materialisation(self, fault: StaleFeatures) -> str:
        body = {"views": list(fault.views), "changedBy": "data_engineer"}
        self._call("POST", f"{self._platform}/api/v1/ml/features/schedules/suspend", body)
        return f"scheduled materialisation of {', '.join(fault.views)} suspended"

    def _empty_feature(self, fault: NullFeature) -> str:
        self._empty = fault.feature
        return f"{fault.feature} arrives empty from upstream"

    def _lock_store(self, fault: LockedStore) -> str:
        self._lock_online_rows(fault.view)
        return f"a forgotten session holds a lock on the online rows of {fault.view}"

    def _introduce_type(self, fault: NewType) -> str:
        limits = {"wear_per_use_min": fault.wear_per_use_min, "overstrain_min_nm": fault.overstrain_min_nm}
        with self._lock:
            self._fleet().introduce_type(fault.type, share=fault.share, **limits)
        return f"{fault.share:.0%} of the fleet are now assets of the new type {fault.type}"

    def _change_concept(self, fault: ConceptDrift) -> str:
        with self._lock:
            self._fleet().limit_power(*fault.limits_w, asset_type=fault.asset_type)
            self._poison = fault.poison
        whose = f"drives of type {fault.asset_type}" if fault.asset_type else "drives"
        drift = f"{whose} now fail under {fault.limits_w[0]:.0f} W and over {fault.limits_w[1]:.0f} W"
        return f"{drift}, and a faulty backfill rewrites the history" if fault.poison else drift

    def _offset_sensor(self, fault: SensorOffset) -> str:
        self._offset = (fault.feature, fault.offset)
        return f"{fault.feature} reads {fault.offset:+g} on every asset since a recalibration"

    def _stop_outcomes(self, _: LateLabels) -> str:
        self._outcomes_stopped = True
        return "the feed of outcomes has stopped"

    def _probe(self, fault: AdversarialBurst) -> str:
        self._burst = Burst(fault.near, fault.impossible)
        return f"a caller probes the model with {fault.near + fault.impossible} crafted requests to every batch of ordinary ones"

    def _swing(self, fault: OrdinaryWeek) -> str:
        with self._lock:
            self._fleet().swing(fault.uses_a_day, air_k=fault.air_k, load_nm=fault.load_nm)
        return "an ordinary week: warm, busy days and cool, quiet nights"

    # -- what people do about it

    def _fix_caller(self, _: BrokenCaller) -> str:
        self._broken_share = 0.0
        return "the gateway's release is taken back"

    def _fill_feature(self, fault: NullFeature) -> str:
        self._empty = None
        return f"the pipeline that lost {fault.feature} is fixed"

    def _unlock_store(self, _: LockedStore) -> str:
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        return "the forgotten session that locked the online store is ended"

    def _calibrate_sensor(self, fault: SensorOffset) -> str:
        self._offset = None
        return f"the sensors of {fault.feature} are calibrated again"

    def _resume_outcomes(self, _: LateLabels) -> str:
        self._outcomes_stopped = False
        return "the feed of outcomes runs again, and what it held back is delivered"

    def _inspect_asset(self, fault: MissedFailure) -> str:
        return f"{fault.asset} is repaired, and inspected by hand until its new sensor is in"

    def _stop_probing(self, _: AdversarialBurst) -> str:
        self._burst = None
        return "the caller's token is taken away"

    def _restore_concept(self, fault: ConceptDrift) -> str:
        with self._lock:
            self._fleet().limit_power(*POWER_LIMITS_W)
            self._poison = ()
            for path in self._poisoned:
                path.unlink(missing_ok=True)
        backfill = ", and the faulty backfill is removed" if fault.poison else ""
        return f"the drives run with their former firmware again{backfill}"

    def _is_quiet(self) -> bool:
        """Whether ordinary traffic still waits for somebody to notice the blip."""
        if time.monotonic() >= self._quiet_until:
            return False
        try:
            noticed = self._call("GET", f"{self._platform}/api/v1/model-performance/alerts?model={self.model}")["alerts"]
        except (Transient, Refused) as error:
            self._count(error)
            return True
        if noticed:
            self._quiet_until = 0.0
        return not noticed

    def let_go(self) -> None:
        """Whatever a fault still holds, for a stack that is used again."""
        if self._cpu_limit is not None:
            self._cpu_limit.end()
        if self._holder is not None:
            self._holder.close()
        self._cpu_limit = self._holder = None

    def _fleet(self) -> Fleet:
        if not isinstance(self._source, Fleet):
            raise Invalid("this fault changes the machines: it needs the simulated fleet, run it without --data", field="data")
        return self._source

    def _delivered(self, readings: pd.DataFrame) -> pd.DataFrame:
        if self._offset:
            name, offset = self._offset
            readings = readings.assign(**{name: readings[name] + offset})
        return readings.assign(**{self._empty: None}) if self._empty else readings

    def _outcomes_flow(self) -> bool:
        return not self._outcomes_stopped

    def _send(self, readings: pd.DataFrame) -> None:
        super()._send(readings)
        if self._burst:
            self._burst.send(self._ask, readings)

    def _after_landing(self, readings: pd.DataFrame, at: datetime) -> None:
        """The faulty backfill: the same readings again, with values of other assets. What is online is past them and stays."""
        if not self._poison or self._lake is None:
            return
        order = np.random.default_rng(self._seed).permutation(len(readings))
        others = {name: readings[name].to_numpy()[order] for name in self._poison}
        self._poisoned.append(lake.land(self._lake, readings.assign(**others, event_timestamp=at, created=datetime.now(UTC) + LOST)))

    def _lock_online_rows(self, view: str) -> None:
        """As a person with `psql` would, and then go to lunch."""
        import psycopg
        import yaml
        from psycopg import sql

        if self._lake is None:
            raise Invalid("this fault locks the feature store's online rows: there is no feature store", field="fault")
        repo = yaml.safe_load((self._lake.parents[1] / CONFIG_FILE).read_text())
        at = repo["online_store"]
        address = {"host": at["host"], "port": at["port"], "dbname": at["database"], "user": at["user"], "password": at["password"]}
        self._holder = psycopg.connect(**address)
        self._holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(f"{repo['project']}_{view}")))

    def _predict(self, readings: pd.DataFrame, assets: list[dict[str, Any]]) -> None:
        whole = round(len(readings) * (1 - self._broken_share))
        if whole < len(readings):
            try:
                body = {"assets": in_words(readings.iloc[whole:])}
                self._call("POST", f"{self._server}/api/v1/ml/models/{self.model}/predict", body)
            except (Transient, Refused) as error:
                self._count(error)
        super()._predict(readings.iloc[:whole], assets[:whole])

    def _unloadable_release(self, fault: UnloadableRelease) -> str:
        with self._lock:
            frame = self._source.training(TRAINING_ROWS)
        version, now = self._free_version(fault.version), datetime.now(UTC)
        window: dict[str, Any] = {"trained_from": now - timedelta(days=30), "trained_to": now}
        _, manifest = train(frame, model=self.model, version=version, seed=self._seed, **window)
        estimator = strict_estimator(frame, frame["failed"].to_numpy(dtype=bool), columns=manifest.features)
        return self._deploy(estimator, manifest)

    def _release(self, fault: BadRelease) -> str:
        """Train on the labels the careless team believed, save, register, promote."""
        with self._lock:
            frame = self._source.training(TRAINING_ROWS)
        labels = fault.mislabel(frame, fault.magnitude, np.random.default_rng(self._seed))
        version, now = self._free_version(fault.version), datetime.now(UTC)
        window: dict[str, Any] = {"trained_from": now - timedelta(days=30), "trained_to": now}
        estimator, manifest = train(frame.assign(failed=labels), model=self.model, version=version, seed=self._seed, **window)
        return self._deploy(estimator, manifest)

    def _deploy(self, estimator: Any, manifest: artefacts.Manifest) -> str:
        version = manifest.version
        artefacts.save(estimator, self._models_dir / self.model / version, manifest)
        url = f"{self._platform}/api/v1/ml/models/{self.model}"
        self._call("POST", f"{url}/versions", {"version": version, "artefact": f"{self.model}/{version}"})
        self._call("POST", f"{url}/promote", {"version": version, "promotedBy": PIPELINE, "reason": f"scheduled release {version}"})
        return f"{version} of {self.model} released"

    def _free_version(self, wanted: str) -> str:
        """`wanted`, or with a higher last number when that version was released before."""
        stem, _, last = wanted.rpartition(".")
        number = int(last)
        while (self._models_dir / self.model / f"{stem}.{number}").exists():
            number += 1
        return f"{stem}.{number}"

    def _miss(self, fault: MissedFailure) -> str:
        """The reading of a sound asset, which scores lowest, is the critical asset's last one."""
        serving = artefacts.load(self._models_dir / self.model / self.good_version)
        with self._lock:
            readings = self._source.readings(DRAWN)
            sound = readings[~readings["failed"].to_numpy(dtype=bool)]
            last = sound.iloc[[int(np.argmin(serving.score(sound)))]]
            self._send(last.assign(asset_id=fault.asset, failed=True))
        return f"{fault.asset}, a critical asset, failed right after a low score"

    def _blip(self, fault: Blip) -> str:
        """Send the first honest window that is low by chance, and nothing else for a while."""
        if self._baseline is None or not self._baseline.f1:
            raise Invalid("a blip is low against the history: call build_history first", field="fault")
        serving = artefacts.load(self._models_dir / self.model / self.good_version)
        with self._lock:
            for _ in range(MAX_DRAWS):
                window = self._source.readings(fault.rows)
                f1 = confusion(window["failed"].to_numpy(), serving.score(window) >= serving.manifest.threshold).f1 or 0.0
                drop = 1 - f1 / self._baseline.f1
                if fault.drop[0] < drop < fault.drop[1]:
                    break
            else:
                raise Refused(f"none of {MAX_DRAWS} windows of {fault.rows} readings was low by chance; try another seed")
            self._quiet_until = time.monotonic() + fault.quiet_s
            self._send(window)
        return f"{fault.rows} ordinary readings whose F1 is {drop:.0%} below baseline by chance"


# How each fault is injected, and how people repair those that no automatic path fixes. A method takes the fault of its own class.
_Method = Callable[[FleetSimulator, Any], str]
INJECTED: dict[type[Fault], _Method] = {
    BadRelease: FleetSimulator._release,
    UnloadableRelease: FleetSimulator._unloadable_release,
    SlowServer: FleetSimulator._limit_cpu,
    HungServer: FleetSimulator._hang,
    BrokenCaller: FleetSimulator._break_caller,
    ThresholdSlip: FleetSimulator._slip_threshold,
    Blip: FleetSimulator._blip,
    StaleFeatures: FleetSimulator._suspend_materialisation,
    NullFeature: FleetSimulator._empty_feature,
    LockedStore: FleetSimulator._lock_store,
    NewType: FleetSimulator._introduce_type,
    ConceptDrift: FleetSimulator._change_concept,
    SensorOffset: FleetSimulator._offset_sensor,
    LateLabels: FleetSimulator._stop_outcomes,
    AdversarialBurst: FleetSimulator._probe,
    MissedFailure: FleetSimulator._miss,
    OrdinaryWeek: FleetSimulator._swing,
}
REPAIRED: dict[type[Fault], _Method] = {
    BrokenCaller: FleetSimulator._fix_caller,
    NullFeature: FleetSimulator._fill_feature,
    LockedStore: FleetSimulator._unlock_store,
    SensorOffset: FleetSimulator._calibrate_sensor,
    LateLabels: FleetSimulator._resume_outcomes,
    MissedFailure: FleetSimulator._inspect_asset,
    AdversarialBurst: FleetSimulator._stop_probing,
    ConceptDrift: FleetSimulator._restore_concept,
}
