"""What a database says when it refuses, in our words: what happened, and what to do. Never an address with a password in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient
from mlrunbook.domain.policy.connections import connection_variable

INSTALL = 'pip install "mlrunbook[warehouse]"'
_NO_LOGIN = ("28000", "28P01")
_OUT_OF_TIME = "57014"
_NO_PERMISSION, _NO_TABLE, _NO_COLUMN = "42501", ("42P01", "3F000"), "42703"
# 08: the connection, 53: no room for another, 57: the server is stopping or starting, 40: two transactions collided
_MAY_PASS = ("08", "53", "57", "40")
_NO_VALUE = ("22", "42804", "42883")


def not_installed(error: ImportError) -> Refused:
    return Refused(f"the parts that read a warehouse are not installed ({error.name}): {INSTALL}")


def out_of_time(connection: str, timeout_s: float) -> Transient:
    return Transient(
        f"{connection}: a look took longer than {timeout_s:g} s and was stopped; name `columns.day` so that a look reads its days alone, "
        f"or raise `predictions.timeout_s`"
    )


def no_column(what: str, name: str, there: Sequence[str], key: str) -> Refused:
    """`what`: the table, in words; `key`: where policy says so."""
    near = get_close_matches(name.lower(), [one.lower() for one in there], 1)
    meant = next((one for one in there if near and one.lower() == near[0]), None)
    hint = f"did you mean {meant!r}?" if meant else f"it has {', '.join(there[:12])}{' and more' if len(there) > 12 else ''}"
    return Refused(f"{what} has no column {name!r} ({hint}): correct predictions.{key}")


def no_table(connection: str, name: str, there: Sequence[str]) -> NotFound:
    near = get_close_matches(name, there, 1)
    known = ", ".join(there[:12]) or "none"
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {known}"
    return NotFound(f"{connection} has no table {name!r} ({hint}): correct the table in predictions, or {connection_variable(connection)}")


def in_our_words(connection: str, error: Exception, *, secrets: Sequence[str] = (), timeout_s: float = 0.0) -> RunbookError:
    """What the error of a database means for the look that met it."""
    said = _first_line(error, secrets)
    if isinstance(error, ImportError):
        return not_installed(error)
    for translate in (_of_duckdb, _of_postgres, _of_ibis):
        if found := translate(connection, error, said, timeout_s):
            return found
    if isinstance(error, OSError):
        return Transient(f"{connection} does not answer ({said}): is it up, and is {connection_variable(connection)} right?")
    return Refused(f"{connection} cannot be asked ({type(error).__name__}: {said}): correct predictions in the policy")


def _of_duckdb(connection: str, error: Exception, said: str, timeout_s: float) -> RunbookError | None:
    name = type(error).__name__
    if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
        return None
    if name == "InterruptException":
        return out_of_time(connection, timeout_s)
    if name == "OutOfMemoryException":
        return Refused(f"{connection}: a look needs more memory than it may take ({said}); name `columns.day`, or ask for a shorter time")
    if "lock on file" in said:
        return Transient(f"{connection} is being written to by another process ({said}); a moment later it may be free")
    if name == "PermissionException" or "Permission denied" in said:
        return Refused(f"{connection}: no permission to read ({said}); let the account of mlrunbook read these files")
    if name == "IOException" and "No such file" not in said and "not a valid" not in said:
        return Transient(f"{connection} cannot be read right now ({said})")
    if name == "CatalogException":
        return NotFound(f"{connection}: {said}; correct predictions in the policy")
    return Refused(f"{connection}: {said}; correct predictions in the policy, or the files")


def _of_postgres(connection: str, error: Exception, said: str, timeout_s: float) -> RunbookError | None:
    if type(error).__module__.partition(".")[0] not in ("psycopg", "psycopg2"):
        return None
    state = getattr(error, "sqlstate", None) or ""
    variable = connection_variable(connection)
    if state == _OUT_OF_TIME:
        return out_of_time(connection, timeout_s)
    if state in _NO_LOGIN or "password authentication failed" in said or "no password supplied" in said:
        return Refused(f"{connection} does not let us in ({said}): correct user and password in {variable}, or {variable}_TOKEN")
    is_no_address = type(error).__name__ == "ProgrammingError" and not state
    if state == "3D000" or (not state and "does not exist" in said) or is_no_address:
        return Refused(f"{connection}: {said}; correct {variable}")
    if state == _NO_PERMISSION:
        return Refused(f"{connection}: {said}; GRANT SELECT on it to the role that {variable} names")
    if state in _NO_TABLE:
        return NotFound(f"{connection}: {said}; correct the table in predictions, or name its schema as schema.table")
    if state == _NO_COLUMN:
        return Refused(f"{connection}: {said}; correct predictions.columns")
    if state.startswith(_NO_VALUE):
        return Refused(f"{connection} holds a value of another kind than expected ({said}); CAST it in predictions.query")
    if not state or state.startswith(_MAY_PASS):
        return Transient(f"{connection} does not answer ({said}): is it up, and is {variable} right?")
    return Refused(f"{connection}: {said}")


def _of_ibis(connection: str, error: Exception, said: str, timeout_s: float) -> RunbookError | None:
    if type(error).__module__.partition(".")[0] != "ibis":
        return None
    if type(error).__name__ == "TableNotFound":
        return NotFound(f"{connection} has no table {said!r}; correct the table in predictions, or name its schema as schema.table")
    return Refused(f"{connection}: this database cannot be asked so ({type(error).__name__}: {said})")


def may_be_chained(error: BaseException, secrets: Sequence[str]) -> bool:
    """What is chained goes into logs, and a driver's own words may hold the address."""
    at: BaseException | None = error
    while at is not None:
        if any(secret in str(at) for secret in secrets) or type(at).__module__.partition(".")[0] == "urllib":
            return False
        at = at.__cause__ or at.__context__
    return True


def _first_line(error: Exception, secrets: Sequence[str]) -> str:
    text = str(error)
    for secret in secrets:
        text = text.replace(secret, "...") if secret else text
    text = re.sub(r"://[^@\s/]*@", "://...@", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = " ".join(lines[:2] if lines[1:] and lines[1].startswith(("LINE", "DETAIL")) else lines[:1])
    return said[:300] or type(error).__name__
