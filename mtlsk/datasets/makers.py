"""The data sets that a study can name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_linnerud
from sklearn.utils import Bunch

from .arm import make_arm
from .digits import make_multi_digits
from .sarcos import fetch_sarcos

__all__ = ["MAKERS", "make_linnerud"]


def make_linnerud() -> Bunch:
    """Exercise and physiology of 20 men: 3 exercises predict weight (lb), waist (in) and pulse.

    Returns
    -------
    Bunch
        ``data`` and ``target`` (20, 3) DataFrames, ``feature_names``, ``target_names``, ``DESCR``.

    References
    ----------
    Tenenhaus, "La regression PLS: theorie et pratique", 1998; shipped with scikit-learn.
    """
    source = load_linnerud(as_frame=True)
    return Bunch(
        data=source.data.astype(np.float64),
        target=source.target.astype(np.float64),
        feature_names=list(source.data.columns),
        target_names=list(source.target.columns),
        DESCR="Exercise and physiology of 20 men: three exercises predict weight, waist and pulse.",
    )


MAKERS: dict[str, Callable[..., Bunch]] = {
    "arm": make_arm,
    "multi_digits": make_multi_digits,
    "sarcos": fetch_sarcos,
    "linnerud": make_linnerud,
}
