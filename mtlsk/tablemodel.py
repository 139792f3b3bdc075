"""TableModel: a fitted net with the table it came from: columns in, columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtlsk.certificate_report import CertificateReport
from mtlsk.certification import certify
from mtlsk.component import closest
from mtlsk.datasets._columns import feature_column, target_column
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.estimators.scores import r2_per_task
from mtlsk.machine import versions
from mtlsk.preparation import Preparation
from mtlsk.tablefile import load_model, save_model

Array = NDArray[np.float64]


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
        Where it comes from: ``data`` (name, sha256), ``params``, ``versions``, and of a study's
        trial ``study``, ``trial`` (study's part and number).

    Examples
    --------
    >>> from mtlsk.datasets import make_linnerud
    >>> from mtlsk.tablemodel import fit_table
    >>> bunch = make_linnerud()
    >>> table = bunch.data.join(bunch.target)
    >>> model = fit_table(table, list(bunch.target), {"max_epochs": 2, "random_state": 0})
    >>> list(model.predict(table.head(3)))
    ['Weight', 'Waist', 'Pulse']
    """

    net: MultiTaskRegressor
    preparation: Preparation
    feature_names: list[str]
    target_names: list[str]
    about: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return predictions (n, K) in the targets' own units, with the table's index.

        Columns that the model does not know are left aside, values of a text column that it has
        not seen count as none of those it has, empty cells are imputed as in training.

        Raises
        ------
        ValueError
            For a column that is missing or holds text where numbers were, in one line.
        """
        prediction = np.asarray(self.net.predict(self._features(data)), dtype=np.float64)
        restored = self.preparation.restore(prediction.reshape(len(data), -1))
        return pd.DataFrame(restored, columns=self.target_names, index=data.index)

    def losses(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return of each target the labelled rows, the mean squared error and R^2.

        Parameters
        ----------
        data : DataFrame
            With the targets' columns; an empty cell is a missing label.

        Returns
        -------
        DataFrame indexed by target: ``rows``, ``mse`` in squared units of the target and ``r2``.
        """
        y, prediction = self._targets(data), self.predict(data).to_numpy()
        return pd.DataFrame(
            {
                "rows": (~np.isnan(y)).sum(axis=0),
                "mse": pd.DataFrame((y - prediction) ** 2).mean().to_numpy(),  # NaN without labels
                "r2": r2_per_task(y, prediction),
            },
            index=pd.Index(self.target_names, name="target"),
        )

    def score(self, data: pd.DataFrame) -> float:
        """Return the mean over the targets of R^2, each over its labelled rows."""
        return float(self.losses(data)["r2"].mean())

    def certify(self, data: pd.DataFrame, **options: Any) -> CertificateReport:
        """Return what :func:`mtlsk.certify` says of the net on rows with the targets' columns.

        Losses are those of the targets as the net sees them: scaled, if they were in training.
        """
        y = self.preparation.targets(self._targets(data))
        return certify(
            self.net, self._features(data), pd.DataFrame(y, columns=self.target_names), **options
        )

    def save(self, path: str | Path) -> None:
        """Write to a file, whole or not at all; the suffix says how.

        ``.skops`` can be opened without trusting where it comes from; ``.pkl`` and ``.joblib`` are
        pickles, which run code when they are opened.
        """
        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, *, trusted: Sequence[str] = ()) -> Self:
        """Read what :meth:`save` wrote, and warn where it was fitted with other versions.

        Never open a ``.pkl`` or ``.joblib`` of unknown origin: it can run any code.

        Parameters
        ----------
        path : path
        trusted : list of str
            Types of your own in a ``.skops`` file, such as "my_module.MyCriterion".

        Raises
        ------
        FileNotFoundError or ValueError
            In one line, for a file that is none, or holds types that are not trusted.
        """
        return load_model(path, cls, trusted)

    # ---- a table as the net wants it

    def _features(self, data: pd.DataFrame) -> Array:
        """Return X (n, features of the net), every column of the kind it had in training."""
        if not isinstance(data, pd.DataFrame):
            raise ValueError(
                f"a table model takes a DataFrame, not a {type(data).__name__}; its columns: "
                f"{_some(self.feature_names)}"
            )
        if not len(data):
            raise ValueError("the table has no rows; give one at least")
        table = self._columns(data, self.feature_names, "column")
        text = set(self.preparation.text)
        kept = {n: (_as_text if n in text else _as_number)(table[n], n) for n in self.feature_names}
        return self.preparation.features(pd.DataFrame(kept, index=data.index))

    def _targets(self, data: pd.DataFrame) -> Array:
        table = self._columns(data, self.target_names, "target").reset_index(drop=True)
        if table.isna().all(axis=None):
            raise ValueError(f"no row has a label of {_some(self.target_names)}; add some")
        empty = np.full(len(table), np.nan)
        names = self.target_names
        there = {n: bool(table[n].notna().any()) for n in names}
        return np.column_stack([target_column(table[n], n) if there[n] else empty for n in names])

    def _columns(self, data: pd.DataFrame, names: list[str], what: str) -> pd.DataFrame:
        table = data.set_axis([str(c) for c in data.columns], axis=1)
        for name in names:
            if name not in table:
                missing = [n for n in names if n not in table]
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                raise ValueError(
                    f"the table has no {what} {name!r}{more}, which the model was trained with"
                    f"{closest(name, table.columns)}; add it or rename one"
                )
            if isinstance(table[name], pd.DataFrame):
                raise ValueError(f"the table has {name!r} more than once; rename one")
        return table[names]


def fit_table(
    frame: pd.DataFrame,
    targets: Sequence[str],
    params: Mapping[str, Any] | None = None,
    *,
    scale_X: bool = True,
    scale_y: bool = True,
    about: Mapping[str, Any] | None = None,
) -> TableModel:
    """Prepare a table, fit a net on all of its rows and return both as a model of the table.

    Parameters
    ----------
    frame : DataFrame (n, d + K)
        Features and targets; numbers and text, empty cells allowed.
    targets : list of K str
        Columns to predict; all others are features.
    params : dict
        Keyword arguments of :class:`mtlsk.MultiTaskRegressor`.
    scale_X, scale_y : bool
        Standardise numeric features, and targets (a loss of 1 is then that of predicting the mean).
    about : dict
        Added to the model's ``about``.

    Raises
    ------
    ValueError or TypeError
        For a column that cannot be used, or parameters that do not go together.
    """
    names = [str(c) for c in frame.columns]
    table = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name in targets:
        if name not in names:
            raise ValueError(f"targets names {name!r}, which is no column{closest(name, names)}")
    features = [n for n in names if n not in targets]
    if not features or not targets:
        raise ValueError("a table needs a feature and a target at least; name the targets")
    data = pd.DataFrame({n: feature_column(table[n], n) for n in features})
    y = np.column_stack([target_column(table[n], n) for n in targets])
    preparation = Preparation.fit(data, y, scale_X=scale_X, scale_y=scale_y)
    params = dict(params or {})
    net = MultiTaskRegressor(**params).fit(
        preparation.features(data), pd.DataFrame(preparation.targets(y), columns=list(targets))
    )
    return TableModel(
        net,
        preparation,
        features,
        list(targets),
        {"params": params, "versions": versions(), **(about or {})},
    )


def _as_number(values: pd.Series, name: str) -> pd.Series:
    """Return a column that was numeric in training as numbers."""
    if not pd.api.types.is_numeric_dtype(values.dtype) and not values.isna().all():
        if pd.api.types.infer_dtype(values, skipna=True) == "boolean":
            return values.astype(np.float64)
        numbers = pd.to_numeric(values.astype(object), errors="coerce")
        bad = np.flatnonzero(numbers.isna() & values.notna())
        if len(bad):
            row = int(bad[0])
            raise ValueError(
                f"column {name!r} was numeric in training, and row {row + 1} holds "
                f"{str(values.iloc[row])!r}; write a number, or leave the cell empty"
            )
        values = numbers
    return feature_column(values.astype(np.float64), name)


def _as_text(values: pd.Series, name: str) -> pd.Series:
    """Return a column that was text in training as text: the 3 and 3.0 of a table are its "3"."""
    if not pd.api.types.is_numeric_dtype(values.dtype):
        return feature_column(values, name)
    words = [None if pd.isna(v) else str(int(v)) if v == int(v) else str(v) for v in values]
    return pd.Series(words, index=values.index, dtype=object)


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
