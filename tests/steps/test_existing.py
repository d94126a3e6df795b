"""A version is looked up in the registry before anything is planned with it."""

from __future__ import annotations

import pytest

from mlrunbook.domain.errors import Invalid, Transient
from mlrunbook.steps.existing import check_version
from mlrunbook.wiring import World
from tests.fakes import MODEL, FileWorld


def test_a_version_that_is_not_registered_is_invalid_with_those_that_are(world: World) -> None:
    check_version(world, MODEL, "v1.5.0")
    with pytest.raises(Invalid, match=r"v9\.9\.9 is not registered for predictive_maintenance; registered: v1\.4\.0, v1\.5\.0") as refused:
        check_version(world, MODEL, "v9.9.9")
    assert refused.value.field == "version"
    with pytest.raises(Invalid, match="knows no model churn"):
        check_version(world, "churn", "v1.5.0")


def test_while_the_registry_cannot_be_read_nothing_is_said_to_exist(world: World, file_world: FileWorld) -> None:
    file_world.down = True
    with pytest.raises(Transient, match=r"whether v1\.5\.0 is registered for predictive_maintenance cannot be checked"):
        check_version(world, MODEL, "v1.5.0")
