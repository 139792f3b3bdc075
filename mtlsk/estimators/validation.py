"""What X and y must be: one clear line for what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import validate_data


def check_features(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Return X (n, d) as float32, feature names and their number checked or, by ``reset``, set.

    A sparse X comes back as a CSR matrix.

    Raises
    ------
    ValueError
        As scikit-learn words it; NaN and infinity with their place.
    """
    checked: Any = validate_data(
        estimator, X, reset=reset, dtype="numeric", ensure_all_finite=False, accept_sparse="csr"
    )
    with np.errstate(over="ignore"):
        array = checked.astype(np.float32)
    values = array.data if issparse(array) else array
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0]
        if issparse(array):
            row = int(np.searchsorted(array.indptr, place[0], side="right")) - 1
            column = int(array.indices[place[0]])
        else:
            row, column = (int(i) for i in place)
        names = getattr(estimator, "feature_names_in_", None)
        where = f"row {row}, column {column if names is None else repr(str(names[column]))}"
        if np.isnan(array[row, column]):
            raise ValueError(
                f"Input X contains NaN ({where}); fill missing values first, for example with "
                "make_pipeline(SimpleImputer(), ...)"
            )
        raise ValueError(
            f"Input X contains infinity or a value too large for dtype('float32') ({where}); "
            "clip or scale the column first"
        )
    return array


def refuse_weights(fit_params: Mapping[str, Any]) -> None:
    """Raise ValueError for sample weights: the module's forward would get them."""
    if fit_params.get("sample_weight") is not None:
        raise ValueError("sample_weight is not supported yet; leave it out")


def target_names(y: Any) -> list[str] | None:
    """Return the names that y brings: the columns of a DataFrame, the name of a Series."""
    if isinstance(y, pd.DataFrame):
        return [str(c) for c in y.columns]
    if isinstance(y, pd.Series) and y.name is not None:
        return [str(y.name)]
    return None


def check_targets(
    X: NDArray[Any], y: Any, *, part: bool = False
) -> tuple[NDArray[np.float32], bool, list[str]]:
    """Return y (n, K) as float32, whether it was one-dimensional, and the tasks' names.

    NaN means that the label is missing. ``part`` of a stream of data may have no label of some
    task, but must have one.

    Raises
    ------
    ValueError
        For infinity, a task without any label, text, or a length that is not X's.
    """
    if y is None:
        raise ValueError("y is required: the targets, of shape (n_samples,) or (n_samples, K)")
    names = target_names(y)
    plain = np.asarray(y)
    if plain.dtype.kind in "OSUT":
        for value in plain.reshape(-1):
            if isinstance(value, str):
                raise ValueError(f"y holds {value!r}, which is no number; targets must be numeric")
    array: NDArray[Any] = check_array(
        y,
        dtype="numeric",
        ensure_2d=False,
        ensure_all_finite=False,
        input_name="y",
        ensure_min_samples=1,
    )
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(f"y must have shape (n_samples,) or (n_samples, K), got {array.shape}")
    check_consistent_length(X, array)
    one_dimensional = array.ndim == 1
    array = array.reshape(len(array), -1)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    names = names or ([f"y{k}" for k in range(array.shape[1])] if array.shape[1] > 1 else ["y"])
    if np.isinf(array).any():
        row, task = np.argwhere(np.isinf(array))[0]
        raise ValueError(
            f"Input y contains infinity or a value too large for dtype('float32') (row {row}, task "
            f"{names[task]!r}); clip or scale the target, or set it to NaN to mean a missing label"
        )
    empty = np.isnan(array).all(axis=0)
    if part and empty.all():
        raise ValueError("Input y contains NaN only: no task has a label; leave these rows out")
    if empty.any() and not part:
        raise ValueError(
            f"Input y contains NaN only for task {names[int(empty.argmax())]!r}: "
            "it has no label at all; leave the task out"
        )
    return array, one_dimensional, names
