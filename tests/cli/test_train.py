"""`mlrunbook train`: what can be wrong is said in one line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mlrunbook.cli.train import moment
from tests.cli.conftest import Cli, one_line

PAST = ("--start-date", "2026-01-01", "--end-date", "2026-02-01")
WHAT = ("--model-name", "m", "--version", "v2.1.0")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--start-date", "2026-02-01", "--end-date", "2026-01-01", *WHAT), "swap them"),
        (("--start-date", "2026-02-01", "--end-date", "2999-01-01", *WHAT), "in the future"),
        (("--start-date", "last week", "--end-date", "2026-01-01", *WHAT), "'last week' is no date; write 2026-03-29"),
        ((*PAST, "--model-name", "m", "--version", "../v2"), "1-64 letters"),
        ((*PAST, *WHAT), "no prediction of m"),
    ],
)
def test_what_cannot_be_trained_on_is_said_in_one_line(cli: Cli, arguments: tuple[str, ...], why: str) -> None:
    done = cli("train", *arguments)
    assert done.exit_code == 1
    assert why in one_line(done.stderr)


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2026-03-29", "--start-date") == datetime(2026, 3, 29, tzinfo=UTC)
    assert moment("2026-03-29T02:30:00+02:00", "--start-date") == datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
