"""Whether a rollout of the model server is what broke it, and which revision served last (`kubectl rollout undo`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, takewhile

from mlrunbook.domain.observed import Instance, Revision, Rollout
from mlrunbook.domain.policy.judging import RolloutPolicy

# What a container waits for or died of that no time mends: reasons of the kubelet ("Debug Running Pods" in the Kubernetes documentation).
_BROKEN = re.compile(
    r"CrashLoopBackOff|ImagePullBackOff|ErrImage\w*|InvalidImageName|ErrImageNeverPull|RunContainerError|CreateContainer\w*Error|OOMKilled"
)


@dataclass(frozen=True)
class RolloutVerdict:
    """`bad` None: nobody can tell. `target`: the revision to put back, `why` it is that one; None: none is known to have served."""

    bad: bool | None
    sentence: str
    suspect: Revision | None = None
    target: Revision | None = None
    why: str = ""


NO_HISTORY = RolloutVerdict(False, "this runtime keeps no rollout history")


def judge_rollout(
    history: Sequence[Revision],
    rollout: Rollout | None,
    instances: Sequence[Instance],
    *,
    detected_at: datetime,
    now: datetime,
    policy: RolloutPolicy | None = None,
) -> RolloutVerdict:
    """Bad is a new pod template, put in place in the day before the detection, of which no pod serves or whose rollout has failed.

    `history` newest first. A restart is no new template: the rollout that it repeats is judged. One that serves in part is no bad
    rollout; what ails a single pod, another template need not mend.
    """
    policy = policy or RolloutPolicy()
    current = next((r for r in history if r.current), None)
    if current is None:
        return NO_HISTORY
    same = list(takewhile(lambda r: r.spec == current.spec, (r for r in history if r.number <= current.number)))
    first, what = same[-1], f"revision {current.number} ({', '.join(current.images)})"
    if any(r.former for r in same):
        return RolloutVerdict(False, f"{what} was in place before: it is no new rollout", current)
    if not detected_at - timedelta(minutes=policy.suspect_for_min) <= first.at <= detected_at:
        return RolloutVerdict(False, f"{what} was rolled out at {first.at:%Y-%m-%d %H:%M} UTC, not shortly before the failure", current)
    rolled_out = f"{what} was rolled out at {first.at:%Y-%m-%d %H:%M} UTC" + (f" ({first.cause})" if first.cause else "")
    pods = [i for i in instances if any(_runs(i, r) for r in same)]
    deployment = current.deployment or current.name.rpartition("-")[0]
    failed = rollout is not None and rollout.state == "failed" and rollout.deployment == deployment
    starting = now - current.at <= timedelta(seconds=policy.starts_within_s)
    broken = [i for i in pods if not i.ready and i.problem != "terminating" and (not starting or _BROKEN.search(i.problem or ""))]
    if failed and rollout is not None:
        why = rollout.sentence
    elif broken and not any(i.ready for i in pods):
        why = f"none of its {len(pods)} pods serves: {broken[0].name}: {broken[0].problem}"
    else:
        serve = sum(i.ready for i in pods)
        return RolloutVerdict(False, f"{rolled_out}, and {serve} of its {len(pods)} pods serve", current)
    target, known = _last_that_served(history, current, policy)
    return RolloutVerdict(True, f"{rolled_out}, and {why}", current, target, known)


def _last_that_served(history: Sequence[Revision], current: Revision, policy: RolloutPolicy) -> tuple[Revision | None, str]:
    """One that still has pods that serve: a rolling update keeps them until a later revision serves. Else the last one that was in place
    for long enough. That one was put back says nothing: a broken one may have been tried twice."""
    former = [r for r in history if r.number < current.number and r.spec != current.spec]
    if serving := next((r for r in former if r.ready), None):
        return serving, f"{serving.ready} of its pods still serve"
    stood = _stood(history, current)
    for revision in former:
        if any(stood.get(n, timedelta(0)) >= timedelta(minutes=policy.proven_after_min) for n in (revision.number, *revision.former)):
            return revision, f"in place from {revision.at:%Y-%m-%d %H:%M} UTC on"
    return None, "no earlier revision is known to have served"


def _stood(history: Sequence[Revision], current: Revision) -> dict[int, timedelta]:
    """For how long, at least, each number was in place. When a template was first in place is known; when it was put back is not, only
    that it was between the first time of one before and the first time of one after."""
    began = {min((r.number, *r.former)): r.at for r in history}
    numbers = range(min(began), current.number + 1)
    known = [began.get(n) for n in numbers]
    earliest = list(accumulate(known, _known))
    latest = list(accumulate(reversed(known), _known))[::-1]
    return {
        number: ended - start
        for number, start, ended in zip(numbers, latest, earliest[1:], strict=False)
        if start is not None and ended is not None
    }


def _known(before: datetime | None, at: datetime | None) -> datetime | None:
    return at or before


def _runs(instance: Instance, revision: Revision) -> bool:
    """By its owner. Where that is not known by its name, which is the ReplicaSet's, cut to 58 characters, with five more."""
    if instance.owner is not None:
        return instance.owner == revision.name
    stem = f"{revision.name}-"[:58]
    return instance.name.startswith(stem) and "-" not in instance.name[len(stem) :]
