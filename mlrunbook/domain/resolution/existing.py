"""What a request names must exist before anything is planned: versions, thresholds and feature views. Each check is Invalid with what there
is, by the name of the field."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlrunbook.domain.errors import Invalid


def check_registered(model: str, version: str, registered: Collection[str], *, field: str = "version") -> None:
    """The registry knows the version.

    >>> check_registered("churn", "v9.9.9", ["v1.5.0", "v2.0.0"])
    Traceback (most recent call last):
    mlrunbook.domain.errors.Invalid: v9.9.9 is not registered for churn; registered: v1.5.0, v2.0.0
    """
    if version not in registered:
        raise Invalid(f"{version} is not registered for {model}; registered: {', '.join(registered) or 'no version'}", field=field)


def check_threshold(threshold: object, *, field: str = "threshold") -> None:
    """A number that a model server takes: at 0 it would flag everything, at 1 nothing."""
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 < threshold < 1:  # NaN is neither
        raise Invalid(f"the threshold must be a number over 0 and under 1, not {threshold!r}", field=field)


def check_views(model: str, views: Sequence[str], own: Collection[str], *, field: str = "featureViews") -> None:
    """The model reads these feature views: an incident of it touches those of no other."""
    if foreign := [view for view in views if view not in own]:
        raise Invalid(
            f"{model} does not read {', '.join(foreign)}; its feature views: {', '.join(own) or 'none'} "
            f"(`models.{model}.feature_views` or `features.views` of the policy)",
            field=field,
        )
