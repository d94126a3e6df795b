"""`mlrunbook deploy` on a Prefect server whose work pool somebody made of another type."""

from __future__ import annotations

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
            pools[POOL]["base_job_template"] = "ours"
        return httpx.Response(200, json=pools[POOL])

    ensure_pool(httpx.Client(base_url="http://prefect", transport=httpx.MockTransport(answer)))
    assert (pools[POOL]["base_job_template"] == "ours") is patched
