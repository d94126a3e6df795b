"""HTML pages: what they print is escaped, what they miss is an error, and their templates are where they are needed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel
from jinja2 import UndefinedError

from mlrunbook.base import pages

ROOT = Path(__file__).parents[2]


def test_what_is_printed_is_one_line_and_escaped() -> None:
    page = pages.render("mlrunbook.gateway.console", "waiting.html.j2", count="1\x1b\n\"><script>alert('1')</script>")
    assert ">1 &#34;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;<" in page


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        pages.render("mlrunbook.gateway.console", "waiting.html.j2")


def test_the_wheel_has_every_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        packed = set(wheel.namelist())
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "mlrunbook").rglob("*.j2")}
    assert templates
    assert templates <= packed
