"""Trouble of the model server itself: what is seen of it, whether a restart answers it, and whether it is over.

Limits are those of the runbook's "Automated Alerts" (latency over 2 s at p95, error rate over 1 %), as the severity policy holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from mlrunbook.domain.evaluation.performance import WindowMetrics, percent
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.judging import SeverityPolicy

# After a restart the first requests wait for the feature store and fill caches: nothing is called failed before this is over.
SETTLES = timedelta(minutes=2)


class Trouble(StrEnum):
    """What is wrong with serving. What a new process is rid of: `DOWN`, `SLOW`, `FAILING` and `BLIND`."""

    DOWN = "down"  # it does not answer
    SLOW = "slow"
    FAILING = "failing"  # it cannot score
    BLIND = "blind"  # it cannot read features
    STORAGE = "storage"  # it cannot write the prediction log
    REFUSING = "refusing"  # callers ask what no model can answer
    MISROUTED = "misrouted"  # traffic is routed to a version that it cannot load
    UNEXPLAINED = "unexplained"  # requests fail, and nobody says how


# The kinds that the model server counts failed requests by.
_KINDS = {
    "scoring": Trouble.FAILING,
    "features": Trouble.BLIND,
    "storage": Trouble.STORAGE,
    "no_model": Trouble.DOWN,
    "invalid_features": Trouble.REFUSING,
    "internal": Trouble.FAILING,
    "busy": Trouble.SLOW,
}
_WORDS = {
    Trouble.FAILING: "the model server fails to score",
    Trouble.SLOW: "the model server gets more requests than it can work on",
    Trouble.BLIND: "the model server cannot read features",
    Trouble.STORAGE: "the model server cannot write its predictions",
    Trouble.DOWN: "the model server has nothing to serve",
    Trouble.REFUSING: "callers send features that no model can take",
    Trouble.UNEXPLAINED: "the platform does not say why",
}
LOOK = {
    Trouble.STORAGE: "look at the database of the prediction log: its locks, its disk, its connections; a restart would not help",
    Trouble.REFUSING: "the server is right to refuse them: find the caller by the model server's log and fix what it sends",
    Trouble.MISROUTED: "route traffic to a registered version, or take the route back: `mlrunbook incidents contain INCIDENT --take-back`; "
    "a restart loads no other version",
    Trouble.UNEXPLAINED: "look at the model server's log for why requests fail",
}


@dataclass(frozen=True)
class Seen:
    """The worst trouble there is, in a sentence."""

    trouble: Trouble
    sentence: str


def trouble_of(status: ServingStatus | None, now: WindowMetrics | None, policy: SeverityPolicy) -> Seen | None:
    """None: no trouble is seen, which without a status and metrics means little. A server that serves nothing comes first, then one
    that is slow (its time-outs are failed requests too), then failed requests by their most frequent kind, then a route that leads to
    nothing while another version goes on serving."""
    if status is not None and not status.server_healthy:
        if status.unloadable_route:
            return Seen(
                Trouble.MISROUTED, f"nothing serves: traffic is routed to a version that cannot be loaded, {status.unloadable_route}"
            )
        return Seen(Trouble.DOWN, "the model server does not answer")
    return _in_figures(now, policy) or _misrouted(status)


def _misrouted(status: ServingStatus | None) -> Seen | None:
    if status is None or not status.unloadable_route:
        return None
    instead = f"{status.server_version or 'the version before'} serves instead"
    return Seen(Trouble.MISROUTED, f"traffic is routed to a version that cannot be loaded, {status.unloadable_route}; {instead}")


def _in_figures(now: WindowMetrics | None, policy: SeverityPolicy) -> Seen | None:
    if now is None:
        return None
    p95_ms, rate = now.latency_p95_ms, now.error_rate
    if p95_ms is not None and now.predictions >= policy.min_predictions and p95_ms > policy.latency_p95_ms:
        sentence = f"95 % of {now.predictions} predictions took up to {p95_ms:.0f} ms (SLA {policy.latency_p95_ms:.0f} ms)"
        return Seen(Trouble.SLOW, sentence)
    if rate is None or rate <= policy.error_rate:
        return None
    total = sum(now.errors.values())
    kind = max(sorted(now.errors), key=lambda k: now.errors[k], default=None)
    trouble = _KINDS.get(kind or "", Trouble.UNEXPLAINED)
    share = f", {percent(now.errors[kind] / total)} of them by {kind}" if kind and total else ""
    return Seen(trouble, f"{percent(rate)} of requests failed{share}: {_WORDS[trouble]}")


def answer(seen: Seen, *, deployed: str | None) -> tuple[bool, str]:
    """Whether to restart the model server, and the advice in words.

    `deployed` names the release of the last 24 h, if any: a server that is slow or fails since a release does so again after a restart.
    """
    if seen.trouble in LOOK:
        return False, LOOK[seen.trouble]
    if deployed and seen.trouble in (Trouble.SLOW, Trouble.FAILING):
        back = "if it began with the release roll back (deployment `rollback`), else restart the server"
        return False, f"{deployed} was deployed within the last day: compare it with the version before; {back}"
    return True, "Restart the model server: a new process is rid of what ails this one"


def is_over(
    status: ServingStatus | None, fresh: WindowMetrics | None, policy: SeverityPolicy, *, since_change: timedelta
) -> tuple[bool | None, str]:
    """Whether the server answers, has loaded what it shall serve, and is within its limits on fresh requests; None: too early to say.

    `fresh` begins with the change, or a little later where the first requests would hide how it is by now.
    """
    waits = None if since_change < SETTLES else False
    if status is None or fresh is None:
        return None, "the model server cannot be looked at"
    if status.not_loaded:
        return waits, f"the model server cannot load {status.serving_version}: {status.not_loaded}"
    if seen := trouble_of(status, fresh, policy):
        return waits, f"serving is still in trouble: {seen.sentence}"
    if fresh.predictions < policy.min_predictions:
        return None, f"too early to say: {fresh.predictions} of {policy.min_predictions} requests since the change"
    p95 = f"{fresh.latency_p95_ms:.0f} ms at p95" if fresh.latency_p95_ms is not None else "latency not measured"
    rate = "no error rate is told" if fresh.error_rate is None else f"{percent(fresh.error_rate)} of requests fail"
    return True, f"the model server answers, {p95}, {rate}"
