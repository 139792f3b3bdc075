"""A user's own table: features and several targets from one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._columns import feature_column, target_column
from ._naming import did_you_mean, listing
from ._read import read_bytes, read_frame

__all__ = ["load_table", "read_table", "write_table"]


def _names(asked: str | Sequence[str], columns: list[str], what: str) -> list[str]:
    if not isinstance(asked, str | Sequence):
        raise ValueError(f"{what} is {asked!r}; give a name or a list of names")
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in columns:
            raise ValueError(
                f"{what} names {name!r}, which is no column; the columns are "
                f"{listing(columns)}{did_you_mean(str(name), columns)}"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} names {listing(twice)} more than once; name each once")
    return names


def _choose(
    targets: str | int | Sequence[str], drop: str | Sequence[str], columns: list[str]
) -> tuple[list[str], list[str]]:
    """Feature and target names, in the table's and in the user's order."""
    dropped = _names(drop, columns, "drop")
    left = [name for name in columns if name not in dropped]
    if len(left) < 2:
        raise ValueError(f"drop leaves {len(left)} of the columns; leave a feature and a target")
    if isinstance(targets, int | np.integer):
        if isinstance(targets, bool) or not 1 <= targets <= len(left) - 1:
            raise ValueError(
                f"targets is {targets!r}, a count of the last columns; give 1 to "
                f"{len(left) - 1}, or names"
            )
        return left[:-targets], left[-targets:]
    chosen = _names(targets, columns, "targets")
    if not chosen:
        raise ValueError(f"targets is empty; name at least one of {listing(left)}")
    both = [name for name in chosen if name in dropped]
    if both:
        raise ValueError(f"{listing(both)} stands in targets and in drop; take it out of one")
    features = [name for name in left if name not in chosen]
    if not features:
        raise ValueError("targets and drop leave no column to predict from; take one out of them")
    return features, chosen


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a whole table as :func:`load_table` does, with as many columns as it has.

    Raises
    ------
    FileNotFoundError, ImportError or ValueError
        In one line, for a file that cannot be read as a whole or has no rows.
    """
    return _frame(read_bytes(path), Path(path).name)


def _frame(content: bytes, label: str) -> pd.DataFrame:
    frame = read_frame(content, label)
    if frame.empty:
        raise ValueError(f"{label} has no rows under its header; add some")
    frame.columns = [str(name) for name in frame.columns]
    return frame


def load_table(
    path: str | os.PathLike[str],
    targets: str | int | Sequence[str],
    *,
    drop: str | Sequence[str] = (),
) -> Bunch:
    """Read features and targets from one file: CSV, TSV (both also .gz) or Parquet.

    An empty cell, and what pandas takes for one ("NA", "nan", ...), is missing. A missing target
    is a missing label. A .csv whose header has semicolons and no comma is separated by those, and
    its decimal sign is the point or the comma: what makes more columns numbers. Booleans
    become 0 and 1. An index stored in a Parquet file is left out.

    Parameters
    ----------
    path : path
        File whose suffix says what it is: .csv, .csv.gz, .tsv, .tsv.gz, .parquet.
    targets : list of str, str or int
        The names of the target columns, one name, or how many of the last columns they are
        (counted after `drop`).
    drop : str or sequence of str
        Columns that are no features, such as groups, dates and split marks. `frame` keeps them.

    Returns
    -------
    Bunch
        ``data`` (n, d) DataFrame, text columns as text; ``target`` (n, K) DataFrame of float64,
        NaN where a label is missing; ``frame`` the whole table as read; ``feature_names``,
        ``target_names``, ``text_columns``; ``n_missing``, the empty cells of ``data``; ``name``
        of the file, without its folder; ``sha256`` of the file's bytes; ``DESCR``.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ImportError
        For Parquet without pyarrow.
    ValueError
        For a file that cannot be read as a whole, columns that are not there or named twice, a
        target that is no number or has no label, inf, dates, and a table without rows. A row
        is counted from 1 under the header.
    """
    content = read_bytes(path)
    label = Path(path).name
    frame = _frame(content, label)
    if frame.shape[1] < 2:
        raise ValueError(
            f"{label} has one column, {frame.columns[0]!r}; separate a feature and a target "
            "at least, by commas or semicolons in .csv and by tabs in .tsv"
        )
    features, chosen = _choose(targets, drop, list(frame.columns))
    data = pd.DataFrame({name: feature_column(frame[name], name) for name in features})
    text = [name for name in features if not pd.api.types.is_numeric_dtype(data[name].dtype)]
    return Bunch(
        data=data,
        target=pd.DataFrame({name: target_column(frame[name], name) for name in chosen}),
        frame=frame,
        feature_names=features,
        target_names=chosen,
        text_columns=text,
        n_missing=int(data.isna().to_numpy().sum()),
        name=label,
        sha256=hashlib.sha256(content).hexdigest(),
        DESCR=f"{label}: {len(frame)} rows, {len(features)} features, {len(chosen)} targets.",
    )


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table without its index, whole or not at all, by the suffix: .csv, .tsv, .parquet.

    Raises
    ------
    ValueError
        For any other suffix.
    ImportError
        For Parquet without pyarrow.
    OSError
        If the file cannot be written.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        try:
            content = frame.to_parquet(index=False, engine="pyarrow")
        except ImportError:
            raise ImportError(
                f"{file.name} needs pyarrow: pip install 'mtlsk[parquet]', or write a .csv"
            ) from None
    elif suffix in (".csv", ".tsv"):
        content = frame.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()
    else:
        raise ValueError(f"{path}: the suffix {suffix!r} is none of .csv, .tsv, .parquet")
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
