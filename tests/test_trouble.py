"""What errors of real databases mean; those of PostgreSQL are met in test_postgresql.py."""

import sqlite3

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mtlsk.trouble import Trouble, reason, trouble


def met(url, *statements):
    """Return the error of the last statement in an SQLite database."""
    engine = create_engine(url, connect_args={"timeout": 0})
    try:
        with engine.connect() as connection:
            for statement in statements[:-1]:
                connection.exec_driver_sql(statement)
            with pytest.raises(DBAPIError) as caught:
                connection.exec_driver_sql(statements[-1])
    finally:
        engine.dispose()
    return caught.value


def test_a_locked_database(tmp_path):
    other = sqlite3.connect(tmp_path / "a.db")
    other.execute("CREATE TABLE t (a)")
    other.execute("BEGIN EXCLUSIVE")
    error = met(f"sqlite:///{tmp_path}/a.db", "SELECT * FROM t")
    other.close()
    assert trouble(error) is Trouble.LOCKED
    assert reason(error) == "database is locked"


def test_a_full_disk():
    full = ["CREATE TABLE t (a)", "PRAGMA max_page_count = 3"]
    error = met("sqlite://", *full, "INSERT INTO t VALUES (zeroblob(100000))")
    assert trouble(error) is Trouble.FULL
    assert Trouble.FULL.may_pass


@pytest.mark.parametrize("content", [b"torn" * 1000, b"SQLite format 3\0" + b"torn" * 1000])
def test_a_torn_file(tmp_path, content):
    (tmp_path / "a.db").write_bytes(content)
    error = met(f"sqlite:///{tmp_path}/a.db", "SELECT * FROM t")
    assert trouble(error) is Trouble.TORN
    assert not Trouble.TORN.may_pass


def test_a_folder_that_is_not_there(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/none/a.db")
    with pytest.raises(DBAPIError) as caught:
        engine.connect()
    assert trouble(caught.value) is Trouble.REFUSED


def test_a_statement_that_is_wrong_is_no_trouble_of_the_database():
    assert trouble(met("sqlite://", "SELECT * FROM nothing")) is None
    assert trouble(ValueError("database is locked")) is None


class Psycopg(Exception):  # noqa: N818
    def __init__(self, text, sqlstate=None):
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("57P01", Trouble.AWAY),
        ("57P03", Trouble.AWAY),
        ("08006", Trouble.AWAY),
        ("53300", Trouble.AWAY),
        ("53100", Trouble.FULL),
        ("40P01", Trouble.LOCKED),
        ("28P01", Trouble.REFUSED),
        ("3D000", Trouble.REFUSED),
        ("42P07", None),
    ],
)
def test_codes_of_postgresql(state, expected):
    error = OperationalError("SELECT 1", {}, Psycopg("in any language", state))
    assert trouble(error) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connection refused", Trouble.AWAY),
        ('FATAL:  password authentication failed for user "a"', Trouble.REFUSED),
        ('FATAL:  database "b" does not exist', Trouble.REFUSED),
    ],
)
def test_connections_that_failed_have_no_code(text, expected):
    assert trouble(OperationalError("", {}, Psycopg(text))) is expected
    assert trouble(InterfaceError("", {}, Psycopg(text))) is expected


def test_the_cause_is_looked_for():
    error = StorageInternalError("an exception is raised during the commit")
    error.__cause__ = OperationalError("SELECT 1", {}, Psycopg("gone\nand more.", "57P01"))
    assert trouble(error) is Trouble.AWAY
    assert reason(error) == "gone"


def test_a_pool_that_has_no_connection_left_may_have_one_later():
    assert trouble(PoolTimeout("QueuePool limit")) is Trouble.AWAY
