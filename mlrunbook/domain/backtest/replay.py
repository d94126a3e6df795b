"""Every look at the log in turn: against which baseline, what would have been called real and when it was over.

The baseline is pinned on the first blocks that can prove a planned fall, and stays. A new version is judged against that of the one before,
until it has a baseline of its own in which nothing was called. A call is over when F1 is back; where it never is, the outcomes after it
become the new baseline, as nobody in a log acts on a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import ceil

from mlrunbook.domain.backtest.blocks import BlockLog, VersionBlocks, confusion
from mlrunbook.domain.evaluation.accumulated import PinnedBaseline, Trace, pin, trace
from mlrunbook.domain.evaluation.block_score import SCORES, Rates, Scores, Stacked, score
from mlrunbook.domain.evaluation.long_run_variance import LEAST_BATCHES, LEAST_BLOCKS
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeHistory
from mlrunbook.domain.evaluation.outcome_history import judge_history
from mlrunbook.domain.evaluation.performance import Verdict
from mlrunbook.domain.policy.judging import F1, PRECISION, RECALL, RecoveryPolicy, SeverityPolicy

WATCHED = (F1, RECALL, PRECISION)
SHARP = 0.7  # of a planned fall: a baseline that barely proves one takes very long to
QUARTER = 0.25  # of the log: so much is spent on a sharp baseline, no more
USELESS = 0.5
HALF_WAY = 0.5  # to the limit: looks below it cannot prove anything, and are not judged one by one
DAY_S = 86_400.0
SURELY = 1.64  # standard errors: one-sided 95 %
LOOKS_AFTER = 14  # a call, at which it may be graded worse
MOST_JUDGED = 400  # looks between two pinnings; of more, every second, third, ...


@dataclass(frozen=True)
class Pinned:
    """Blocks [since, until) of a version, and the smallest fall that they can ever prove."""

    version: VersionBlocks
    since: int
    until: int
    rates: Rates
    f1: PinnedBaseline
    provable: float

    @property
    def blocks(self) -> int:
        return self.until - self.since


@dataclass(frozen=True)
class Watch:
    """Looks [since, until) at a version against one baseline; `against` None: no baseline could prove a fall, as `why` says."""

    version: VersionBlocks
    against: Pinned | None
    since: int
    until: int
    why: str = ""


@dataclass(frozen=True)
class Called:
    """`began`: the block in which the evidence last left nothing; `over`: the look at which F1 was back; `until`: to before which look the
    incident stands open; `window`: the first block that was judged
    with it; `raised`: the look at which it was graded worse."""

    look: int
    began: int
    over: int | None
    until: int
    watch: Watch
    verdict: Verdict
    window: int
    raised: tuple[int, Verdict] | None = None


@dataclass
class Replay:
    log: BlockLog
    policy: SeverityPolicy
    recovery: RecoveryPolicy
    progress: Callable[[float], None] = lambda _: None
    watches: list[Watch] = field(default_factory=list)
    called: list[Called] = field(default_factory=list)

    def run(self) -> Replay:
        for version in self.log.versions:
            self._watch(version)
            self.progress(version.end / max(self.log.blocks, 1))
        self.called.sort(key=lambda c: c.look)
        return self

    def history(self, watch: Watch, look: int) -> OutcomeHistory | None:
        if watch.against is None:
            return None
        before = self.log.outcomes(watch.against.version, watch.against.since, watch.against.until)
        return OutcomeHistory(before, self.log.outcomes(watch.version, watch.since, look + 1))

    def judged(self, watch: Watch, look: int) -> Verdict | None:
        history = self.history(watch, look)
        return judge_history(history, self.log.closes(look), self.policy) if history else None

    def _watch(self, version: VersionBlocks) -> None:
        against = self._inherited(version)
        own = self._pinned(version, version.first)
        since = version.first
        if against is None:
            against, since = own, own.until if own else version.first
        while since < version.end:
            if against is None:
                self.watches.append(Watch(version, None, since, version.end, self._too_short(version, since)))
                return
            own_from = own.until if own and against.version is not version else version.end
            watch = Watch(version, against, since, own_from if since < own_from else version.end)
            found = self._first_call(watch)
            if found is None:
                self.watches.append(watch)
                against, since = own, watch.until
                continue
            self.called.append(found)
            self.watches.append(Watch(version, against, since, found.look + 1))
            since = found.until
            if found.over is None and since < version.end:
                own = against = self._pinned(version, found.look + 1, least=against.blocks // 2)  # its memory was that long
                since = against.until if against else found.look + 1
                self.called[-1] = replace(found, until=since) if against else found

    def _inherited(self, version: VersionBlocks) -> Pinned | None:
        """The newest baseline that was pinned before this version came."""
        pinned = [w.against for w in self.watches if w.against and w.against.until <= version.first]
        return max(pinned, key=lambda p: p.until, default=None)

    def _pinned(self, version: VersionBlocks, since: int, *, least: int = 0) -> Pinned | None:
        """On the first blocks from `since` on that prove a planned fall sharply; else on those that prove the smallest fall, within the
        first quarter of the log. None: nothing below half can be proven."""
        planned, most = self.policy.run_length.planned_fall, QUARTER * self.log.blocks
        best: Pinned | None = None
        size = max(LEAST_BLOCKS, least)
        while since + size <= version.end and (best is None or size <= most):
            tried = self._pin(version, since, since + size)
            if tried and (best is None or tried.provable < best.provable) and tried.provable < USELESS:
                best = tried
            if best and best.provable <= SHARP * planned:
                return best
            size = ceil(size * 1.25)
        return best

    def _pin(self, version: VersionBlocks, since: int, until: int) -> Pinned | None:
        counts = version.between(since, until)
        rates = Rates.of(counts.total)
        if rates is None:
            return None
        held = version.assets_between(since, until)
        assets = score(held, rates) if held is not None else None
        made = pin(score(counts, rates), assets, outcomes=confusion(counts).n, block_s=self.log.block_s)
        return Pinned(version, since, until, rates, made, made.provable(self.policy.run_length)) if made else None

    def _too_short(self, version: VersionBlocks, since: int) -> str:
        if version.end - since < LEAST_BLOCKS:
            return f"the outcomes span {version.end - since} of the {LEAST_BLOCKS} time blocks that a baseline needs"
        held = confusion(version.between(since, version.end))
        made = self._pin(version, since, version.end)
        if made is None:
            return f"{held.n:,} outcomes with {held.positives:,} failures are too few for a baseline"
        few = f"{held.n:,} outcomes with {held.positives:,} failures are too few for a baseline"
        return f"{few}: no fall under {made.provable:.0%} could be proven"

    def _first_call(self, watch: Watch) -> Called | None:
        for look in self._worth_judging(watch):
            verdict = self.judged(watch, look)
            if verdict is None or not verdict.is_real:
                continue
            fell = next((name for name in verdict.fell if name in WATCHED), F1)
            began = max(look - int(self._trace(watch, fell, look + 1).run[-1]) + 1, watch.since)
            over, waited = self._back(watch, fell, look + 1), look + 1 + self._patience(watch)
            if over is not None and over >= waited:
                over = None
            judged = max(LEAST_BATCHES, self._enough(watch.against)) if watch.against else LEAST_BATCHES
            window = max(min(began, look + 1 - judged), watch.since)
            until = over + 1 if over is not None else min(waited, watch.version.end)
            return Called(look, min(began, look), over, until, watch, verdict, window, self._raised(watch, verdict, look + 1, until))
        return None

    def _raised(self, watch: Watch, first: Verdict, since: int, until: int) -> tuple[int, Verdict] | None:
        """The look at which it shows as worse than at first: the outcomes before it set in still soften the first one."""
        for look in range(since, min(until, since + LOOKS_AFTER)):
            verdict = self.judged(watch, look)
            if verdict and verdict.severity and first.severity and verdict.severity.rank > first.severity.rank:
                return look, verdict
        return None

    def _worth_judging(self, watch: Watch) -> list[int]:
        import numpy as np

        near = np.zeros(watch.until - watch.since, bool)
        for name in WATCHED:
            if self.policy.drops.rule(name):
                seen = self._trace(watch, name, watch.until)
                near |= (seen.height >= HALF_WAY * seen.limit) & (seen.fall > 0)
        looks = np.flatnonzero(near) + watch.since
        found: list[int] = looks[:: max(1, len(looks) // MOST_JUDGED)].tolist()
        return found

    def _trace(self, watch: Watch, metric: str, until: int) -> Trace:
        made, rates = self._pinned_for(watch, metric)
        return trace(made, SCORES[metric](watch.version.between(watch.since, until), rates), self.policy.run_length)

    def _pinned_for(self, watch: Watch, metric: str) -> tuple[PinnedBaseline, Rates]:
        against = watch.against
        assert against is not None
        of, rates = SCORES[metric], against.rates
        before, held = against.version.between(against.since, against.until), against.version.assets_between(against.since, against.until)
        assets = of(held, rates) if held is not None else None
        return pin(of(before, rates), assets, outcomes=confusion(before).n, block_s=self.log.block_s) or against.f1, rates

    def _back(self, watch: Watch, metric: str, since: int) -> int | None:
        """The look at which what fell is back within the recovery's tolerance, over outcomes enough to say so."""
        against, until = watch.against, watch.version.end
        if against is None or since >= until:
            return None
        counts = watch.version.between(since, until)
        made, rates = self._pinned_for(watch, metric)
        scored, window = SCORES[metric](counts, rates), self._enough(against)
        variance = made.known_for(scored).variance
        found = [self._back_within(scored, counts, variance, window * times) for times in (1, 2, 4)]
        looks = [look for look in found if look is not None]
        return since + min(looks) if looks else None

    def _back_within(self, scored: Scores, counts: Stacked, variance: float, window: int) -> int | None:
        """The first look at which the window before it is within tolerance, and surely not past the limit of a medium incident."""
        import numpy as np

        fall, weight, failures = (np.concatenate([[0.0], np.cumsum(x)]) for x in (scored.fall, scored.weight, counts.tp + counts.fn))
        at = np.arange(window, len(fall))
        held = np.maximum(weight[at] - weight[at - window], 1e-12)
        size = (fall[at] - fall[at - window]) / held
        surely = size + SURELY * np.sqrt(variance / held) < self.policy.drops.most(F1)
        enough = failures[at] - failures[at - window] >= self.recovery.min_positives
        found = np.flatnonzero((size <= self.recovery.tolerance) & surely & enough)
        return window + int(found[0]) - 1 if len(found) else None

    def _patience(self, watch: Watch) -> int:
        """Blocks that recovery is waited for: a baseline's length, and never less than the longest window."""
        longest = ceil(self.policy.window.most_days * DAY_S / self.log.block_s)
        return max(longest, watch.against.blocks if watch.against else 0)

    def _enough(self, against: Pinned) -> int:
        held = confusion(against.version.between(against.since, against.until))
        shares = (self.recovery.min_labelled / max(held.n, 1), self.recovery.min_positives / max(held.positives, 1))
        return max(1, ceil(2 * max(shares) * against.blocks))


def watch_at(replay: Replay, look: int) -> Iterator[Watch]:
    """Of the version that served then."""
    serving = replay.log.serving(look)
    return (w for w in replay.watches if w.version is serving and w.since <= look < w.until)
