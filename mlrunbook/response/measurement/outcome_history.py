"""All outcomes since a model was last proven healthy, read of the platform: `domain.evaluation.pinned_period` decides which."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from mlrunbook.domain.evaluation.outcome_blocks import MOST_BLOCKS, OutcomeBlocks, OutcomeHistory
from mlrunbook.domain.evaluation.outcome_history import judge_history
from mlrunbook.domain.evaluation.outcome_window import Span
from mlrunbook.domain.evaluation.outcomes import due_age_s
from mlrunbook.domain.evaluation.performance import Evidence, ModelMetrics
from mlrunbook.domain.evaluation.pinned_period import (
    USUAL,
    Course,
    block_length,
    may_be_pinned_anew,
    speaks_from,
    usual_period,
    with_the_open_block,
    without_a_beginning,
)
from mlrunbook.domain.observed import Missing
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.tried import tried
from mlrunbook.response.world import World
from mlrunbook.store import baseline_pins, incidents

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Look:
    """One look at a model. `until`: what was predicted by then is mature, and was predicted by the model as the look is about it."""

    seen: ModelMetrics
    version: str | None
    course: Course
    until: datetime


def with_history(world: World, seen: ModelMetrics, version: str | None, *, before: datetime | None = None) -> ModelMetrics:
    """`seen` with its history, where the platform counts outcomes by block. `before`: later changes are what was done about it."""
    world = replace(world, policy=world.policy.for_model(seen.model))
    history = tried("the outcomes since the baseline", lambda: _history(world, seen, version, before or world.now()))
    if isinstance(history, Missing):
        log.warning("%s is judged by its last outcomes alone: %s", seen.model, history.reason)
        return replace(seen, history=None)
    return replace(seen, history=history)


def _history(world: World, seen: ModelMetrics, version: str | None, before: datetime) -> OutcomeHistory | None:
    with world.transaction() as conn:
        pinned, ended = baseline_pins.get(conn, seen.model), incidents.last_ended(conn, seen.model, by=before)
        troubled = incidents.open_since(conn, seen.model)
    longest = timedelta(days=world.policy.severity.window.most_days)
    begin = seen.current.outcomes_since or seen.current.since
    oldest = pinned.since if pinned else begin - 2 * longest
    changes = sorted(c.at for c in recent_changes.that_bound_windows(world, seen.model, since=oldest))
    usual = seen.baseline
    age_s = usual.mature_age_s or due_age_s(usual.label_delay_s)  # a log that was loaded has no delays
    until = min([world.now() - timedelta(seconds=age_s), *(at for at in changes if at > before)])
    look = _Look(seen, version, Course([at for at in changes if at <= before], ended), until)
    if told := _told_by_the_platform(seen):
        return _read(world, look, told)
    found = _since_pinned(world, look, pinned) if pinned else None
    if found and _proves(world, found):
        return found
    healthy_until = min(begin, troubled) if troubled else begin  # what is being looked into is not known to be healthy
    return _pinned_now(world, look, healthy_until, longest, instead_of=pinned) or found


def _told_by_the_platform(seen: ModelMetrics) -> Span | None:
    """The baseline that an operator has pinned there: it ends long before the window."""
    given = seen.baseline
    return Span(given.since, given.until) if given.until < seen.current.since - USUAL else None


def _pinned_now(world: World, look: _Look, begin: datetime, longest: timedelta, *, instead_of: Span | None = None) -> OutcomeHistory | None:
    """The first look pins the usual time before the window; a longer one where that is too short to prove anything. So does one that finds
    too little left of the pinned time: platforms do not keep outcomes for ever."""
    found = None
    for length in dict.fromkeys((min(USUAL, longest), longest)):
        period = usual_period(begin, look.course, length)
        found = _read(world, look, period) if period else None
        if period and found and _proves(world, found):
            with world.transaction() as conn:
                why = "too few outcomes of the pinned time are left on the platform" if instead_of else "the first look at this model"
                baseline_pins.put(conn, look.seen.model, period, why=why, now=world.now(), instead_of=instead_of)
            return found
    return found


def _since_pinned(world: World, look: _Look, pinned: Span) -> OutcomeHistory | None:
    """A version that came since takes the place of the pinned one once it has served long enough and a fall is ruled out."""
    found = _read(world, look, pinned)
    anew = may_be_pinned_anew(pinned, look.course, look.until)
    if found is None or anew is None or judge_history(found, world.now(), world.policy.severity).evidence is not Evidence.FALSE_ALARM:
        return found
    if _proves(world, OutcomeHistory(found.since, replace(found.since, since=found.since.until, blocks=(), by_asset=()))):
        with world.transaction() as conn:
            why = "what serves since the last change is proven healthy"
            baseline_pins.put(conn, look.seen.model, anew, why=why, now=world.now(), instead_of=pinned)
    return found


def _proves(world: World, history: OutcomeHistory) -> bool:
    return judge_history(history, world.now(), world.policy.severity).evidence is not Evidence.INSUFFICIENT


def _read(world: World, look: _Look, baseline: Span) -> OutcomeHistory | None:
    """None where nothing has been counted, or blocks of no length would do."""
    since = speaks_from(baseline, look.course)
    block_s = block_length(look.seen.baseline, baseline, max(look.until - since, timedelta(0)))
    if block_s is None:
        return None
    since = max(since, look.until - timedelta(seconds=block_s * MOST_BLOCKS))
    read = partial(world.platform.outcome_blocks, look.seen.model)
    before = without_a_beginning(read(since=baseline.since, until=baseline.until, block_s=block_s))
    if not before.blocks:
        return None
    length = timedelta(seconds=block_s)
    now = OutcomeBlocks(since, block_s, ())
    if look.until - since >= length:
        now = read(since=since, until=look.until, block_s=block_s, version=look.version)
    if (begun := look.until - now.until) >= timedelta(seconds=1):
        open_ = read(since=now.until, until=look.until, block_s=begun.total_seconds(), version=look.version)
        now = with_the_open_block(now, open_, before)
    begins = look.seen.current.outcomes_since or look.seen.current.since
    return OutcomeHistory(before, now, after_change=begins == look.course.last_change)
