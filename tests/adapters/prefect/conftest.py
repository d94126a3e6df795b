from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.prefect.checkout import Checkout, checkout


@pytest.fixture(scope="session")
def ours(scratch: Path) -> Iterator[Checkout]:
    with checkout(scratch / "checkout") as made:
        yield made
