"""The findings and the facts of one incident as the causes read them, and the lines of evidence that several causes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.investigation.serving_health import Trouble
from mlrunbook.domain.investigation.upstream import moved_features

DISTRIBUTIONS = "data_quality.feature_distributions"
MISSING = "data_quality.missing_features"
FRESHNESS = "data_quality.data_freshness"
READS = "data_quality.feature_store_connectivity"
AVAILABILITY = "infrastructure.feature_store_availability"
SERVER_LOGS = "infrastructure.server_logs"


@dataclass(frozen=True)
class Line:
    """One line of evidence. `holds` None: could not be checked. A required line rules the cause out when it is refuted, and keeps it below
    the bar while it is unknown."""

    weight: float
    holds: bool | None
    sentence: str
    required: bool = False


@dataclass(frozen=True)
class CaseFile:
    """`findings` by their key. `now` is only for saying how long ago things happened. `lines_of`: the evidence of every cause, once
    gathered."""

    findings: Mapping[str, Finding]
    facts: DiagnosisFacts
    now: datetime
    lines_of: Mapping[Cause, Sequence[Line]] = field(default_factory=dict)

    def suspect(self, *keys: str) -> bool | None:
        """Is any of these items suspect? None when none is and one could not be checked."""
        seen = [self.findings[k].state if k in self.findings else State.UNKNOWN for k in keys]
        return True if State.SUSPECT in seen else None if State.UNKNOWN in seen else False

    def sentence_of(self, key: str) -> str:
        return self.findings[key].sentence if key in self.findings else "not checked"

    def ago(self, at: datetime) -> str:
        hours = (self.now - at).total_seconds() / 3600
        return f"{hours:.0f} h ago" if hours >= 2 else f"{hours * 60:.0f} min ago"

    # --- what was changed

    @property
    def has_history(self) -> bool:
        return self.facts.changes is not None

    @property
    def unchanged(self) -> bool | None:
        """No deployment and no threshold change in the week before detection."""
        return None if not self.has_history else self.facts.deployment is None and self.facts.threshold_change is None

    # --- the data

    @property
    def drifted(self) -> bool | None:
        """Do features move so far that it explains a fall?"""
        suspect = self.suspect(DISTRIBUTIONS)
        if not suspect:
            return suspect
        found = self.findings[DISTRIBUTIONS]
        return not found.value or bool(moved_features(found))

    @property
    def drift_words(self) -> str:
        small = self.suspect(DISTRIBUTIONS) and not self.drifted
        return self.sentence_of(DISTRIBUTIONS) + (", too little to explain it" if small else "")

    @property
    def broken_inputs(self) -> str:
        """The features that are broken, where that may explain the fall; a prober's readings and a stale store are causes of their own."""
        inputs, probing = self.facts.inputs, self.facts.probing
        return inputs.sentence if inputs.matters and not (probing and probing.suspicious) else ""

    # --- the model server

    @property
    def server_healthy(self) -> bool | None:
        """None: not known, or stopped on purpose."""
        return self.facts.status.server_healthy if self.facts.status and not self.facts.stopped else None

    @property
    def serving_in_trouble(self) -> bool | None:
        """Slow answers or failed requests of a model that is wrong as well are the lesser trouble."""
        seen, healthy = self.facts.trouble, self.server_healthy
        if seen is None:
            return None if healthy is None else False
        nothing_serves = seen.trouble is Trouble.DOWN or (seen.trouble is Trouble.MISROUTED and healthy is False)
        return True if nothing_serves or self.facts.degraded is not True else None if healthy is None else False

    @property
    def server_words(self) -> str:
        unknown = "the model server was stopped on purpose" if self.facts.stopped else "the server's health is not known"
        return {True: "the model server answers", False: "the model server does not answer", None: unknown}[self.server_healthy]

    @property
    def trouble_words(self) -> str:
        return self.facts.trouble.sentence if self.facts.trouble else self.server_words

    @property
    def load_words(self) -> str:
        facts = self.facts
        return f"{facts.suspect_version} cannot be loaded" if facts.not_loaded else "the server has loaded what the registry names"

    # --- lines of evidence that several causes share

    def degraded(self, weight: float, *, required: bool = False) -> Line:
        return Line(weight, self.facts.degraded, self.facts.degraded_words, required)

    def not_degraded(self, weight: float, *, required: bool = False) -> Line:
        return Line(weight, negated(self.facts.degraded), self.facts.degraded_words, required)

    def sound_inputs(self, weight: float) -> Line:
        broken = self.broken_inputs
        sound = negated(any_of(self.drifted, self.suspect(MISSING), bool(broken)))
        said = [broken] if broken else []
        return Line(weight, sound, "; ".join([f"inputs: {self.drift_words}", self.sentence_of(MISSING), *said]))

    def no_broken_input(self) -> Line:
        """Holds unless one is known. A model that learns broken rows is wrong again once they are whole."""
        broken = self.broken_inputs
        return Line(0.0, not broken, f"broken inputs explain it: {broken}" if broken else "no broken input explains it", required=True)

    def no_threshold_slip(self) -> Line:
        """Holds unless going back to the threshold before is known to bring performance back."""
        before = self.facts.replay_before
        slipped = bool(before and before.recoverable)
        return Line(0.0, not slipped, before.sentence if before and slipped else "no threshold change explains it", required=True)

    def unhelped_by_a_threshold(self, weight: float) -> Line:
        """No other threshold brings performance back: the model itself is wrong."""
        best = self.facts.replay_best
        return Line(weight, negated(best.recoverable if best else None), best.sentence if best else "no other threshold was replayed")

    def nothing_changed(self) -> Line:
        words = "no deployment or threshold change came before it" if self.unchanged else "something else changed before it"
        return Line(0.20, self.unchanged, words)

    # --- the first why

    @property
    def model(self) -> str:
        return self.facts.model_version or "the model"

    @property
    def performance_fell(self) -> str:
        """Of all asset types together."""
        counts = self.facts.metrics.current.confusion if self.facts.metrics else Confusion()
        why = f"{self.model} gave wrong or no answers (not measured)"
        if counts.n:
            alarms = f"{counts.fp} of its {counts.tp + counts.fp} alarms were false"
            why = f"{self.model} missed {counts.fn} of {counts.positives} failures, and {alarms}"
        return f"Why did performance fall? Because {why}"

    @property
    def performance_of_a_type_fell(self) -> str:
        """Of the asset types that lost performance, where not all did."""
        hit = ", ".join(self.facts.fallen_types)
        why = f"{self.model} is wrong about asset type {hit}: {self.facts.degraded_words}"
        return f"Why did performance fall? Because {why}" if hit else self.performance_fell


def any_of(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value
