"""TableModel: a fitted net with the table it came from: columns in, columns out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mtlsk.estimators import MultiTaskRegressor
from mtlsk.preparation import Preparation


@dataclass(eq=False)
class TableModel:
    """A fitted net that takes the columns of a table and gives columns of predictions.

    Attributes
    ----------
    net : MultiTaskRegressor
        Fitted on what ``preparation`` makes of the table.
    preparation : Preparation
    feature_names, target_names : list of str
        Columns of the table.
    about : dict
        Where it comes from: study, trial, parameters, data's name and sha256, versions.
    """

    net: MultiTaskRegressor
    preparation: Preparation
    feature_names: list[str]
    target_names: list[str]
    about: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return predictions (n, K) in the targets' own units, with the table's index."""
        X = self.preparation.features(data[self.feature_names])
        prediction = np.asarray(self.net.predict(X), dtype=np.float64).reshape(len(data), -1)
        restored = self.preparation.restore(prediction)
        return pd.DataFrame(restored, columns=self.target_names, index=data.index)
