"""HTML from Jinja2 templates, which lie in the folder `templates` beside the code that fills them.

Whatever is printed is made one printable line and escaped, unless it is `Markup` of ours. A name that a template misses is an error.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.communication.messages import line

if TYPE_CHECKING:
    from jinja2 import Environment


def render(package: str, template: str, /, **values: Any) -> str:
    """The template of `package` (`__package__` of the caller) with these values."""
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, finalize=_printable, trim_blocks=True, lstrip_blocks=True
    )


def _printable(value: object) -> object:
    return value if hasattr(value, "__html__") else line(str(value))
