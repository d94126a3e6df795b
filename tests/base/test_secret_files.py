"""Secrets that are mounted as files reach what reads variables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlrunbook.base import secret_files
from mlrunbook.domain.errors import Invalid
from tests.cli.conftest import Cli, environment

PRINT = "import os; print(os.environ['MLRUNBOOK_DATABASE_URL'], os.environ.get('PREFECT_API_AUTH_STRING'))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Kubernetes mounts a Secret: links into a folder whose name begins with dots."""
    real = tmp_path / "..2026_03_29"
    real.mkdir()
    (real / "MLRUNBOOK_DATABASE_URL").write_text("postgresql://db/store\n")
    (real / "PREFECT_API_AUTH_STRING").write_text("mlrunbook:s3cret")
    (tmp_path / "..data").symlink_to(real)
    for name in ("MLRUNBOOK_DATABASE_URL", "PREFECT_API_AUTH_STRING"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    return tmp_path


def test_each_file_is_a_variable_and_one_that_is_set_counts_more(folder: Path) -> None:
    found = secret_files.read({"MLRUNBOOK_SECRETS_DIR": str(folder), "PREFECT_API_AUTH_STRING": "mine"})
    assert found == {"MLRUNBOOK_DATABASE_URL": "postgresql://db/store"}
    assert secret_files.read({}) == {}


def test_a_program_that_knows_variables_alone_gets_them(folder: Path) -> None:
    argv = [sys.executable, "-m", "mlrunbook.base.secret_files", sys.executable, "-c", PRINT]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    done = subprocess.run(argv, env=env | {"MLRUNBOOK_SECRETS_DIR": str(folder)}, capture_output=True, text=True, check=True)
    assert done.stdout == "postgresql://db/store mlrunbook:s3cret\n"


def test_the_command_line_reads_them(folder: Path) -> None:
    (folder / "MLRUNBOOK_CHANNEL_PAGE").write_text("smtp://mail.example.com/?to=a@example.com&from=b@example.com")
    env = {"MLRUNBOOK_SECRETS_DIR": str(folder), "MLRUNBOOK_DATA_DIR": str(folder), "MLRUNBOOK_HOME": str(folder), "COLUMNS": "200"}

    def listed(**more: str) -> str:
        argv = [str(Path(sys.executable).parent / "mlrunbook"), "channel", "list"]
        return subprocess.run(argv, env=environment(Cli(env | more)), capture_output=True, text=True, check=True).stdout

    assert re.search(r"page .* set +$", listed(), re.MULTILINE)
    assert "not set: MLRUNBOOK_CHANNEL_PAGE" in listed(MLRUNBOOK_SECRETS_DIR="")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"MLRUNBOOK_SECRETS_DIR is .*nowhere"):
        secret_files.read({"MLRUNBOOK_SECRETS_DIR": str(tmp_path / "nowhere")})
