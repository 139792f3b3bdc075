"""The SARCOS arm, fetched from OpenML through scikit-learn's cache."""

from __future__ import annotations

import os
from http.client import HTTPException

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml
from sklearn.utils import Bunch

from .split import blocked_split

__all__ = ["fetch_sarcos"]

DATA_ID = 43873
TORQUES = 7
HELD_OUT = 0.25
SPLITS = ("blocked", "random", None)


def _split(n_samples: int, split: str | None) -> NDArray[np.str_] | None:
    if split is None:
        return None
    if split == "blocked":
        held_out = blocked_split(n_samples)
    else:
        held_out = np.zeros(n_samples, dtype=np.bool_)
        order = np.random.RandomState(0).permutation(n_samples)
        held_out[order[: round(HELD_OUT * n_samples)]] = True
    return np.where(held_out, "test", "train")


def fetch_sarcos(
    data_home: str | os.PathLike[str] | None = None, *, split: str | None = "blocked"
) -> Bunch:
    """Inverse dynamics of the SARCOS arm: 21 measured states predict 7 torques.

    OpenML 43873 as scikit-learn's cache holds it, downloaded on the first call. OpenML's default
    target is one torque; the tasks are all of the last seven columns. Rows are in time order and
    neighbours are alike, so a random split flatters: the default holds out whole blocks.

    Parameters
    ----------
    data_home : path or None
        scikit-learn's data folder; None is its default.
    split : "blocked", "random" or None
        20 contiguous blocks, every fourth held out; a quarter of the rows, always the same draw;
        or no split.

    Returns
    -------
    Bunch
        ``data`` (n, 21) DataFrame of positions, velocities and accelerations, ``target`` (n, 7)
        DataFrame of torques, ``split`` (n,) of "train" and "test" or None, ``feature_names``,
        ``target_names``, ``DESCR``.

    Raises
    ------
    OSError
        Where the data is neither cached nor can be downloaded.
    ValueError
        For another `split`.

    References
    ----------
    Vijayakumar and Schaal, "Locally weighted projection regression", 2000.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; give 'blocked', 'random' or None")
    home = None if data_home is None else os.fspath(data_home)
    try:
        frame = fetch_openml(
            data_id=DATA_ID, target_column=None, as_frame=True, parser="auto", data_home=home
        ).frame
    except (OSError, HTTPException) as error:
        where = "scikit-learn's data folder" if home is None else home
        raise OSError(
            f"SARCOS (OpenML {DATA_ID}) is not cached in {where} and cannot be downloaded "
            f"({error}): connect once, or give data_home= a folder whose cache holds it"
        ) from error
    frame = frame.astype(np.float64)
    features, torques = list(frame.columns[:-TORQUES]), list(frame.columns[-TORQUES:])
    return Bunch(
        data=frame[features],
        target=frame[torques],
        split=_split(len(frame), split),
        feature_names=features,
        target_names=torques,
        DESCR="Inverse dynamics of the SARCOS arm: positions, velocities and accelerations "
        "predict seven torques.",
    )
