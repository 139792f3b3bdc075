"""From a table to the numbers a net takes, and from its numbers back to the table's units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

Array = NDArray[np.float64]

MAX_CATEGORIES = 50
"""One-hot columns a text column may become; its rarer values share one."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What was learnt from the training rows of a table about how to prepare any rows.

    Numbers are imputed by the median and scaled to unit variance, text is imputed by the most
    frequent value and one-hot encoded; targets are scaled to unit variance.

    Attributes
    ----------
    columns : ColumnTransformer
        Fitted on the features.
    text : list of str
        Features that are text.
    scaler : StandardScaler or None
        Fitted on the targets; None leaves them as they are.
    """

    columns: ColumnTransformer
    text: list[str]
    scaler: StandardScaler | None

    @classmethod
    def fit(cls, data: pd.DataFrame, target: Array, *, scale_X: bool, scale_y: bool) -> Self:
        """Learn from the features (n, d) and targets (n, K) of the training rows."""
        text = [str(c) for c in data if not pd.api.types.is_numeric_dtype(data[c])]
        numbers = [c for c in data if c not in text]
        as_numbers: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
        as_text = make_pipeline(
            SimpleImputer(strategy="most_frequent", missing_values=None, keep_empty_features=True),
            OneHotEncoder(
                handle_unknown="ignore", sparse_output=False, max_categories=MAX_CATEGORIES
            ),
        )
        scaling = [StandardScaler()] if scale_X else []
        columns = ColumnTransformer(
            [
                ("numbers", make_pipeline(*as_numbers, *scaling), numbers),
                ("text", as_text, text),
            ]
        )
        columns.fit(_plain(data, text))
        return cls(columns, text, StandardScaler().fit(target) if scale_y else None)

    def features(self, data: pd.DataFrame) -> Array:
        """Return X (n, features of the net) of any rows."""
        return np.asarray(self.columns.transform(_plain(data, self.text)), dtype=np.float64)

    def targets(self, target: Array) -> Array:
        """Return y (n, K) as the net is trained on; NaN stays NaN."""
        return target if self.scaler is None else np.asarray(self.scaler.transform(target))

    def restore(self, prediction: Array) -> Array:
        """Return predictions (n, K) in the targets' own units."""
        if self.scaler is None:
            return prediction
        return np.asarray(self.scaler.inverse_transform(prediction))


def _plain(data: pd.DataFrame, text: list[str]) -> pd.DataFrame:
    """Return the table with one kind of missing value in its text columns, for the imputer."""
    table = data.copy()
    for column in text:
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table
