"""`mlrunbook deploy` on a Prefect server whose work pool somebody made of another type."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from mlrunbook.adapters.prefect.deployments import POOL, ensure_pool


@pytest.mark.parametrize(("kind", "patched"), [("process", True), ("kubernetes", False)])
def test_a_pool_of_another_type_keeps_its_template(kind: str, patched: bool) -> None:
    pools: dict[str, Any] = {POOL: {"type": kind, "base_job_template": "theirs"}}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(409)
        if request.method == "PATCH":
            pools[POOL] |= {"base_job_template": "ours"} if "base_job_template" in json.loads(request.content) else {}
            pools[POOL] |= (
                {"concurrency_limit": json.loads(request.content)["concurrency_limit"]} if "queues" not in request.url.path else {}
            )
        return httpx.Response(200, json=pools[POOL])

    ensure_pool(httpx.Client(base_url="http://prefect", transport=httpx.MockTransport(answer)), 7)
    assert pools[POOL]["concurrency_limit"] == 7
    assert (pools[POOL]["base_job_template"] == "ours") is patched
