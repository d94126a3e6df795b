"""Shared real parts: one throw-away PostgreSQL a session, a migrated database a module, one whole stack a session."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mlrunbook.local.postgres import EmbeddedPostgres
    from tests.flows.live import ChildStack

# A busy machine is no failure of what is tested: hypothesis measures time by the wall clock. Every run draws the same examples, so that
# what fails is what was changed; HYPOTHESIS_PROFILE=search looks for new ones.
for _profile, _same in (("same", True), ("search", False)):
    settings.register_profile(
        _profile,
        settings.get_profile("default"),
        deadline=None,
        derandomize=_same,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# In the background of a script Ctrl-C is ignored, and so it would be by all that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "migrated"
STACK_FILES = ("tests/flows/", "tests/docs/test_commands_on_a_stack.py", "tests/local/test_stack.py", "tests/drills/test_demo.py")
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start a whole stack take longest: they go first."""
    if strays := [i.nodeid for i in items if "stack" in getattr(i, "fixturenames", ()) and not _with_a_stack(i.nodeid)]:
        raise pytest.UsageError(f"{strays[0]} uses the stack: name its file in STACK_FILES, or two workers start two stacks")
    items.sort(key=lambda item: not _with_a_stack(item.nodeid))


def _with_a_stack(nodeid: str) -> bool:
    return nodeid.startswith(STACK_FILES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With `-n 2`: everything that starts a whole stack on one worker, the other files on the other."""
    from xdist.scheduler import LoadScopeScheduling

    class OneStack(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "stack" if _with_a_stack(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return OneStack(config, log)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for the session. Not pytest's own: as root PostgreSQL runs as another user, who must be able to enter it."""
    folder = Path(tempfile.mkdtemp(prefix="mlrb-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # one broken story, whose process still writes there, fails no other


@pytest.fixture(scope="session")
def postgres(scratch: Path) -> Iterator[EmbeddedPostgres]:
    """A throw-away server with an empty database TEMPLATE at the newest schema."""
    from sqlalchemy import NullPool, create_engine

    from mlrunbook.base import db
    from mlrunbook.local.postgres import EmbeddedPostgres

    with EmbeddedPostgres(scratch / "store", durable=False) as server:
        server.create_database(TEMPLATE)
        db.upgrade(create_engine(db.normalise_url(server.url(TEMPLATE)), poolclass=NullPool))
        yield server


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> str:
    """URL of a fresh migrated database, one for each test module."""
    name = f"test_{next(_numbers)}"
    postgres.create_database(name, template=TEMPLATE)
    return postgres.url(name)


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    """The engine of `database_url`, the same object that `mlrunbook.base.db.engine(database_url)` returns."""
    from mlrunbook.base import db

    engine = db.engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def stack(scratch: Path) -> Iterator[ChildStack]:
    """The whole embedded stack on free ports, in a process of its own. Mark the test `stack` (and `prefect` when it starts flows)."""
    from mlrunbook.local.addresses import Ports
    from tests.flows.live import ChildStack

    running = ChildStack(scratch / "stack", ports=Ports.free())
    with running:
        yield running
