"""Several sources read at once: one that is away costs its time-out once, not once for each thing that is asked of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from mlrunbook.domain.errors import Refused, RunbookError, Transient

log = logging.getLogger(__name__)

AT_ONCE = 8  # the connections that a client of a cluster keeps open


def read_all(sources: Mapping[str, Callable[[], Any]], *, within_s: float) -> dict[str, Any]:
    """By name, in the order of `sources`: what each gave, or the RunbookError that it raised; any other error is Refused.
    One that has not answered `within_s` seconds is Transient; its thread ends with its own time-out, and nobody waits for it."""
    pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="read")
    try:
        asked = {name: pool.submit(read) for name, read in sources.items()}
        wait(asked.values(), timeout=within_s)
        found: dict[str, Any] = {}
        for name, answer in asked.items():
            try:
                found[name] = answer.result() if answer.done() else Transient(f"no answer within {within_s:g} s")
            except RunbookError as error:
                found[name] = error
            except Exception as error:  # one source must not take the others along
                log.exception("the reading of %s failed on an error that nobody expected", name)
                found[name] = Refused(f"failed unexpectedly ({type(error).__name__}: {' '.join(str(error).split())[:200]}); see the log")
        return found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
