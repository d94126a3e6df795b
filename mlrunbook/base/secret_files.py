"""Secrets as files: each file of the folder MLRUNBOOK_SECRETS_DIR is the variable of its name, as Kubernetes mounts a Secret.

`mlrunbook` reads them itself. For a program that knows variables alone: `python -m mlrunbook.base.secret_files prefect server start`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from mlrunbook.domain.errors import Invalid

FOLDER = "MLRUNBOOK_SECRETS_DIR"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def read(environment: Mapping[str, str]) -> dict[str, str]:
    """What the files say. A variable that is set counts more than a file: somebody has set it for this one command."""
    if not (named := environment.get(FOLDER)):
        return {}
    try:
        files = [file for file in Path(named).iterdir() if _NAME.fullmatch(file.name) and not environment.get(file.name)]
        return {file.name: file.read_text().strip() for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{FOLDER} is {named}, and its files cannot be read ({error}): correct the folder or its rights", field=FOLDER
        ) from error


def main(argv: list[str]) -> None:
    if not argv:
        sys.exit("usage: python -m mlrunbook.base.secret_files PROGRAM [ARGUMENT]...")
    try:
        os.environ.update(read(os.environ))
        os.execvp(argv[0], argv)  # noqa: S606 - this program's place is the other's
    except (Invalid, OSError) as error:
        sys.exit(f"{argv[0]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
