"""What a request names must exist: otherwise the answer names the field and what there is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.resolution.existing import check_registered, check_threshold, check_views

NAMES = st.text("abv.0123456789", min_size=1, max_size=8)


@given(NAMES, st.lists(NAMES, max_size=5))
def test_exactly_the_registered_versions_pass(version: str, registered: list[str]) -> None:
    if version in registered:
        check_registered("churn", version, registered)
        return
    with pytest.raises(Invalid) as refused:
        check_registered("churn", version, registered)
    assert refused.value.field == "version"
    assert all(name in str(refused.value) for name in registered)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_threshold_is_a_finite_number_between_0_and_1(threshold: float) -> None:
    if 0 < threshold < 1:
        check_threshold(threshold)
        return
    with pytest.raises(Invalid, match="over 0 and under 1"):
        check_threshold(threshold)


@pytest.mark.parametrize("threshold", [True, False, "0.5", None, math.nan, math.inf, -0.0, 10**400])
def test_what_is_no_number_is_no_threshold(threshold: object) -> None:
    with pytest.raises(Invalid, match="over 0 and under 1"):
        check_threshold(threshold)


def test_a_feature_view_of_another_model_is_named_with_those_there_are() -> None:
    check_views("churn", ["customer_activity"], ("customer_activity", "billing"))
    with pytest.raises(Invalid, match=r"churn does not read asset_wear; its feature views: customer_activity"):
        check_views("churn", ["customer_activity", "asset_wear"], ("customer_activity",))
