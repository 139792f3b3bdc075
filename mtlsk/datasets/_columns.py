"""One column's values as numbers or text, or one line that names the column and the cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api import types

__all__ = ["feature_column", "target_column"]


def _check_finite(values: pd.Series, name: str, what: str) -> None:
    infinite = np.isinf(values.to_numpy(dtype=np.float64))
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0]) + 1
        raise ValueError(
            f"{what} {name!r} is infinite in row {row}; leave the cell empty or drop the column"
        )


def _check_no_time(values: pd.Series, name: str, what: str) -> None:
    time = types.is_datetime64_any_dtype(values.dtype) or types.is_timedelta64_dtype(values.dtype)
    if time or types.infer_dtype(values, skipna=True) in ("date", "datetime", "time", "timedelta"):
        raise ValueError(
            f"{what} {name!r} holds dates or times; convert them to a number (days since a "
            "start, hour of the day) or drop the column"
        )


def _is_boolean(values: pd.Series) -> bool:
    return types.infer_dtype(values, skipna=True) == "boolean"


def feature_column(values: pd.Series, name: str) -> pd.Series:
    """Keep text as it is, make booleans 0 and 1; ValueError for times, inf and other objects."""
    _check_no_time(values, name, "column")
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values
    if _is_boolean(values):
        return values.astype(np.float64)
    if types.is_numeric_dtype(values.dtype):
        if types.is_extension_array_dtype(values.dtype):
            values = values.astype(np.float64)
        _check_finite(values, name, "column")
        return values
    for row, value in enumerate(values):
        if not isinstance(value, str) and not (pd.api.types.is_scalar(value) and pd.isna(value)):
            raise ValueError(
                f"column {name!r} holds a {type(value).__name__} in row {row + 1}; "
                "convert it to numbers or text, or drop the column"
            )
    return values


def target_column(values: pd.Series, name: str) -> pd.Series:
    """Return float64 with NaN for a missing label; ValueError for what is no finite number."""
    _check_no_time(values, name, "target")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if not _is_boolean(values) and not types.is_numeric_dtype(values.dtype):
        numbers = pd.to_numeric(values, errors="coerce")
        bad = np.flatnonzero(numbers.isna() & values.notna())
        if len(bad):
            row = int(bad[0])
            raise ValueError(
                f"target {name!r} is not numeric: row {row + 1} holds {str(values[row])!r}; "
                "code the labels as numbers, or leave a missing one empty"
            )
        values = numbers
    values = values.astype(np.float64)
    _check_finite(values, name, "target")
    if values.isna().all():
        raise ValueError(f"target {name!r} has no label at all; drop it from targets")
    return values
