"""What a cluster's objects say, where their values are unusual but valid."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.adapters.kubernetes.reading import used_share


def pods(limits: Any) -> list[dict[str, Any]]:
    return [{"metadata": {"name": "scorer-1"}, "spec": {"containers": [{"name": "server", "resources": limits}, {"name": "side"}]}}]


MEASURED = [{"metadata": {"name": "scorer-1"}, "containers": [{"name": "server", "usage": {"cpu": "250m"}}]}]


@pytest.mark.parametrize("zero", ["0", 0, 0.0, "0m", "0.0", "0e3", "0Gi", None])
def test_a_limit_of_0_is_no_limit(zero: Any) -> None:
    assert used_share("cpu", pods({"limits": {"cpu": zero}}), MEASURED) is None


@pytest.mark.parametrize("resources", [None, {}, {"limits": None}, {"limits": {}}, {"limits": {"memory": "1Gi"}}], ids=str)
def test_no_limit_is_no_limit(resources: Any) -> None:
    assert used_share("cpu", pods(resources), MEASURED) is None


def test_the_fullest_container_that_has_a_limit_counts() -> None:
    others = pods({"limits": {"cpu": "0"}}) + [dict(one, metadata={"name": "scorer-2"}) for one in pods({"limits": {"cpu": "500m"}})]
    measured = [*MEASURED, dict(MEASURED[0], metadata={"name": "scorer-2"})]
    assert used_share("cpu", others, measured) == 0.5
