"""The Alertmanager configurations as the one that is installed here can read them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

URL_FILE_SINCE = (0, 26)


def readable(config: Path, *, heartbeat_url: str = "http://127.0.0.1:9/heartbeat") -> str:
    """Its text. Before 0.26 Alertmanager takes a webhook's URL only in the configuration itself; files lie beside it otherwise."""
    text = config.read_text()
    assert text.count("url_file: heartbeat.url") == 1
    return text if _version() >= URL_FILE_SINCE else text.replace("url_file: heartbeat.url", f"url: {heartbeat_url}")


def _version() -> tuple[int, int]:
    said = subprocess.run(["amtool", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    assert found
    return int(found[1]), int(found[2])
