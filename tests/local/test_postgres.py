"""The embedded PostgreSQL: ours alone, durable, found again after a kill, gone without a trace after stop."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from mlrunbook.base import db
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.waiting import gone, until


@pytest.fixture
def data(scratch: Path, request: pytest.FixtureRequest) -> Path:
    return scratch / f"pg-{request.node.name[:60]}"


def test_both_databases_answer_and_only_with_the_password(postgres: EmbeddedPostgres) -> None:
    for database in ("mlrunbook", "prefect"):
        with psycopg.connect(postgres.url(database)) as conn:
            assert conn.execute("SHOW timezone").fetchone() == ("UTC",)
            assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url().replace(postgres.password, "guess"))


def test_the_password_is_private_and_on_no_command_line(postgres: EmbeddedPostgres, scratch: Path) -> None:
    stored = scratch / "store" / "secrets" / "postgres-password"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.socket.stat().st_mode) == 0o700
    assert len(str(postgres.socket / ".s.PGSQL.5432")) < 107
    server = psutil.Process(postgres.pid)
    assert not any(postgres.password in part for process in (server, *server.children()) for part in process.cmdline())


def test_a_test_database_is_migrated(engine: object, database_url: str) -> None:
    assert db.engine(database_url) is engine
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM incidents").fetchone() == (0,)


def test_data_outlives_a_restart_and_stop_leaves_no_process_and_no_folder(data: Path) -> None:
    with EmbeddedPostgres(data, durable=False) as server, psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS one")
        pid, socket = server.pid, server.socket
    assert pid is not None
    assert gone(pid)
    assert not socket.exists()
    with EmbeddedPostgres(data, durable=False) as server, psycopg.connect(server.url()) as conn:
        assert conn.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_server_left_over_by_a_killed_run_is_adopted(data: Path) -> None:
    left = EmbeddedPostgres(data, durable=False)
    left.start()
    with EmbeddedPostgres(data, durable=False) as adopted:
        assert adopted.pid == left.pid
        assert adopted.url() == left.url()
    assert not left.alive()
    assert not left.socket.exists()


def test_it_comes_back_at_the_same_address_after_kill_9(data: Path) -> None:
    with EmbeddedPostgres(data, durable=False) as server:
        url = server.url()
        psutil.Process(server.pid).kill()
        until(lambda: not server.alive())
        server.start()
        assert server.url() == url
        psycopg.connect(url).close()


def test_a_stale_pid_file_with_a_strangers_number_is_no_problem_and_the_stranger_lives(data: Path) -> None:
    with EmbeddedPostgres(data, durable=False):
        pass
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (data / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n{data / 'postgres'}\n0\n5432\n/tmp/none\n\n0\nready\n")
        with EmbeddedPostgres(data, durable=False) as server:
            psycopg.connect(server.url()).close()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_it_ends_with_a_killed_parent_and_the_next_start_clears_the_socket_folder(data: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from mlrunbook.local.postgres import EmbeddedPostgres as E;"
        "s = E(Path(sys.argv[1]), durable=False); s.start(); print(s.pid, s.socket, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(data)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, socket = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    with EmbeddedPostgres(data, durable=False) as server:
        psycopg.connect(server.url()).close()
        assert server.pid != int(pid) or str(server.socket) == socket  # ended with its parent, or not yet and then adopted
    until(lambda: gone(int(pid)))
    assert not Path(socket).exists()


def test_a_half_made_cluster_is_made_anew(data: Path) -> None:
    (data / "postgres.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(data, durable=False) as server:
        psycopg.connect(server.url()).close()
    assert not (data / "postgres.new").exists()


def test_a_lost_password_and_a_broken_cluster_say_what_to_do(data: Path) -> None:
    with EmbeddedPostgres(data, durable=False):
        pass
    folders = set(Path("/tmp").glob("mlrb-*"))
    version = data / "postgres" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(Refused, match="incompatible with"):
        EmbeddedPostgres(data, durable=False).start()
    (data / "secrets" / "postgres-password").unlink()
    with pytest.raises(Invalid, match="restore it, or move the folder away"):
        EmbeddedPostgres(data, durable=False).start()
    assert set(Path("/tmp").glob("mlrb-*")) <= folders


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the cluster to another user")
def test_as_root_the_folders_above_get_the_search_bit_and_no_more(scratch: Path) -> None:
    above = scratch / "private"
    above.mkdir(mode=0o700)
    with EmbeddedPostgres(above / "data", durable=False) as server:
        assert psutil.Process(server.pid).username() != "root"
    assert stat.S_IMODE(above.stat().st_mode) == 0o701
