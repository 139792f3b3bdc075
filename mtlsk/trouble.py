"""What an error of a database means: whether waiting may mend it, and what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import Enum

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Trouble(Enum):
    """Why a storage takes nothing; the value is what is said of it."""

    AWAY = "the database does not answer"
    LOCKED = "the database is locked by another process"
    FULL = "the disk of the storage is full: free some space"
    TORN = "the database is damaged"
    REFUSED = "the database refuses"

    @property
    def may_pass(self) -> bool:
        """Say whether it is worth while to try again later."""
        return self in (Trouble.AWAY, Trouble.LOCKED, Trouble.FULL)


SQLITE = {
    sqlite3.SQLITE_BUSY: Trouble.LOCKED,
    sqlite3.SQLITE_LOCKED: Trouble.LOCKED,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_IOERR: Trouble.AWAY,
    sqlite3.SQLITE_CORRUPT: Trouble.TORN,
    sqlite3.SQLITE_NOTADB: Trouble.TORN,
    sqlite3.SQLITE_PERM: Trouble.REFUSED,
    sqlite3.SQLITE_READONLY: Trouble.REFUSED,
    sqlite3.SQLITE_CANTOPEN: Trouble.REFUSED,
}
"""Primary result codes, https://sqlite.org/rescode.html; others speak of what was asked."""

SQLSTATES = {
    "08": Trouble.AWAY,  # connection
    "57P": Trouble.AWAY,  # shutting down, crashed, starting up
    "533": Trouble.AWAY,  # too many connections
    "40": Trouble.LOCKED,  # deadlock, serialization
    "55P03": Trouble.LOCKED,
    "53100": Trouble.FULL,
    "58030": Trouble.AWAY,  # input or output
    "XX": Trouble.TORN,
    "28": Trouble.REFUSED,  # authorization
    "3D": Trouble.REFUSED,  # no such database
    "42501": Trouble.REFUSED,  # privileges
    "25006": Trouble.REFUSED,  # read only
}
"""Beginnings of PostgreSQL's error codes; others speak of what was asked."""

REFUSALS = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "is not permitted to log in",
    "permission denied",
)
"""Words of a PostgreSQL connection that failed, for which there is no code."""


def trouble(error: BaseException) -> Trouble | None:
    """Return what an error says of the database, None where it speaks of something else."""
    for each in _chain(error):
        if isinstance(each, PoolTimeout):
            return Trouble.AWAY
        if isinstance(each, DBAPIError):
            return _of_driver(each)
    return None


def reason(error: BaseException) -> str:
    """Return the first line of what the database's driver says."""
    for each in _chain(error):
        if isinstance(each, DBAPIError) and each.orig is not None:
            return first_line(each.orig)
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Return an error's first line without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_driver(error: DBAPIError) -> Trouble | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return SQLITE.get(code & 0xFF)  # the lower byte is the primary code
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if isinstance(state, str):
        return next((t for start, t in SQLSTATES.items() if state.startswith(start)), None)
    if any(words in str(error.orig) for words in REFUSALS):
        return Trouble.REFUSED
    connection = isinstance(error, OperationalError | InterfaceError)
    return Trouble.AWAY if connection or error.connection_invalidated else None
