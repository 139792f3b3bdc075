"""A file's bytes as a table, or one line that says why not."""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from importlib import import_module
from pathlib import Path

import pandas as pd

from ._naming import did_you_mean, listing

__all__ = ["SUFFIXES", "read_bytes", "read_frame"]

# suffix -> separator; None is Parquet
SUFFIXES: dict[str, str | None] = {
    ".csv": ",",
    ".csv.gz": ",",
    ".tsv": "\t",
    ".tsv.gz": "\t",
    ".parquet": None,
}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return what a file holds; one line for a file that is not there or cannot be read."""
    file = Path(path)
    try:
        return file.read_bytes()
    except FileNotFoundError:
        siblings = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        guess = did_you_mean(file.name, siblings) or "; check the path"
        raise FileNotFoundError(f"there is no file {os.fspath(path)}{guess}") from None
    except OSError as error:
        if file.is_dir():
            raise ValueError(f"{path} is a directory; give one file in it") from error
        raise ValueError(f"{path} cannot be read ({error.strerror}); check its rights") from error


def _unique(names: list[str], label: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{label}: the header names {listing(twice)} more than once; rename one")


def _check_rows(text: str, separator: str, label: str) -> None:
    """See what pandas would mend in silence: a repeated name, a row too long or cut short."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            raise ValueError(f"{label} is empty; the first line must name the columns")
        _unique(header, label)
        for row in reader:
            if row and len(row) != len(header):
                raise ValueError(
                    f"{label}: line {reader.line_num} has {len(row)} cells and the header "
                    f"{len(header)}; the file may be cut short: mend that line or fetch it again"
                )
    except csv.Error as error:
        raise ValueError(
            f"{label}: line {reader.line_num} cannot be read ({error}); "
            "mend that line or fetch the file again"
        ) from error


def _parse(text: str, separator: str, decimal: str) -> pd.DataFrame:
    return pd.read_csv(
        io.StringIO(text), sep=separator, decimal=decimal, index_col=False, low_memory=False
    )


def _numbers(table: pd.DataFrame) -> int:
    """Return how many columns are numbers."""
    return sum(pd.api.types.is_numeric_dtype(table[name]) for name in table)


def unpacked(content: bytes, label: str) -> bytes:
    """Return the bytes of a file, those within where its name ends in .gz."""
    if not label.lower().endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{label} is no whole gzip file ({error}); fetch it again") from error


def _read_text(content: bytes, separator: str, label: str) -> pd.DataFrame:
    content = unpacked(content, label)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{label} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    header = text.lstrip("\n").partition("\n")[0]
    if separator == "," and ";" in header and "," not in header:
        separator = ";"
    _check_rows(text, separator, label)
    try:
        tables = [_parse(text, separator, d) for d in (".," if separator == ";" else ".")]
        return max(tables, key=_numbers)
    except (ValueError, pd.errors.ParserError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{label} cannot be read as text cells ({reason}); mend it") from error


def _read_parquet(content: bytes, label: str) -> pd.DataFrame:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            f"{label} needs pyarrow: pip install 'mtlsk[parquet]', or save the table as .csv"
        ) from error
    try:
        _unique(list(parquet.read_schema(io.BytesIO(content)).names), label)
        return pd.read_parquet(io.BytesIO(content), engine="pyarrow").reset_index(drop=True)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{label} is no whole Parquet file ({reason}); fetch it again") from error


def read_frame(content: bytes, label: str) -> pd.DataFrame:
    """Parse the bytes by the suffix of the file's name; ValueError for what cannot be read."""
    known = [suffix for suffix in SUFFIXES if label.lower().endswith(suffix)]
    if not known:
        raise ValueError(f"{label} has no suffix that load_table reads: {listing(SUFFIXES)}")
    if not content:
        raise ValueError(f"{label} is empty (0 bytes); write or fetch it again")
    separator = SUFFIXES[known[0]]
    if separator is None:
        return _read_parquet(content, label)
    return _read_text(content, separator, label)
