"""Which feature views a model reads: by the names of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from mlrunbook.domain.connecting.guesses import Guess, likely, nothing, snake, sure
from mlrunbook.domain.connecting.seen import ViewSeen


def guess_views(features: Sequence[str] | None, views: Sequence[ViewSeen]) -> tuple[tuple[str, ...], Guess]:
    """The views that hold an input of the signature. A name in two views leaves both in: to watch one more view changes nothing."""
    if not views:
        return (), nothing("the feature store has no views")
    if not features:
        return (), nothing("the serving version has no signature: which of its inputs come from the feature store is not known")
    ours = {snake(f) for f in features}
    reading = [(v.name, ours & {snake(f) for f in v.features}) for v in views]
    found = tuple(name for name, shared in reading if shared)
    if not found:
        return (), nothing("no view holds an input of the model")
    covered = set().union(*(shared for _, shared in reading))
    reason = f"they hold {len(covered)} of its {len(ours)} inputs"
    return found, (sure if covered == ours else likely)(", ".join(found), reason)
