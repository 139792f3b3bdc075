"""What X must be: one clear line for what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from mtlsk.estimators.targets import host


def check_features(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Return X (n, d) in the estimator's dtype; names and number of features checked or set.

    ``reset`` sets them. A sparse X comes back as a CSR matrix, a tensor as an array.

    Raises
    ------
    ValueError
        As scikit-learn words it; NaN and infinity with their place.
    """
    checked: Any = validate_data(
        estimator,
        host(X),
        reset=reset,
        dtype="numeric",
        ensure_all_finite=False,
        accept_sparse="csr",
    )
    with np.errstate(over="ignore"):
        array = checked.astype(estimator.dtype_)
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
            f"Input X contains infinity or a value too large for dtype({estimator.dtype_!r}) "
            f"({where}); "
            "clip or scale the column first"
        )
    return array
