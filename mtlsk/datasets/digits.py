"""Two overlaid digits in one picture, one task each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.utils import Bunch, check_random_state

__all__ = ["make_multi_digits"]

SIDE = 8  # pixels of scikit-learn's digits
BRIGHTEST = 16.0  # their largest value
TASKS = ("left", "right")


def make_multi_digits(
    n_samples: int = 2000,
    *,
    shift: int = 4,
    as_regression: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Pictures of two handwritten digits that overlap: tell the upper left and the lower right.

    Two of scikit-learn's 8 x 8 digits, drawn with replacement, are laid ``shift`` pixels apart
    along the diagonal of a canvas of side ``8 + shift``; where both have ink the brighter pixel
    stays. Values lie in [0, 1].

    Parameters
    ----------
    n_samples : int
        Pictures to draw, at least 1.
    shift : int
        0 (one upon the other) to 8 (apart) and beyond, in pixels.
    as_regression : bool
        Whether the targets are the one-hot columns of both digits, for a regressor.
    random_state : int, RandomState or None
        Seed of the draw.

    Returns
    -------
    Bunch
        ``data`` (n, side^2) DataFrame and ``images`` (n, side, side), side = 8 + shift;
        ``target`` DataFrame: the labels left, right (n, 2), or left0..left9, right0..right9
        (n, 20) as 0.0 or 1.0; ``feature_names``, ``target_names``, ``DESCR``.

    Raises
    ------
    ValueError
        For `n_samples` below 1 or a negative `shift`.

    References
    ----------
    Sabour, Frosst and Hinton, "Dynamic routing between capsules", 2017, and Sener and Koltun,
    "Multi-task learning as multi-objective optimization", 2018, overlay MNIST in this way.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples!r}; give an integer of at least 1")
    if shift < 0:
        raise ValueError(f"shift is {shift!r}; give an integer of at least 0 pixels")
    source = load_digits()
    pick = check_random_state(random_state).randint(len(source.target), size=(n_samples, 2))
    digits, labels = source.images[pick] / BRIGHTEST, source.target[pick]
    side = SIDE + shift
    images = np.zeros((n_samples, side, side))
    images[:, :SIDE, :SIDE] = digits[:, 0]
    images[:, shift:, shift:] = np.maximum(images[:, shift:, shift:], digits[:, 1])
    features = [f"pixel_{row}_{column}" for row in range(side) for column in range(side)]
    if as_regression:
        targets = [f"{task}{digit}" for task in TASKS for digit in range(10)]
        values = np.eye(10)[labels].reshape(n_samples, 20)
    else:
        targets, values = list(TASKS), labels.astype(np.int64)
    return Bunch(
        data=pd.DataFrame(images.reshape(n_samples, -1), columns=features),
        target=pd.DataFrame(values, columns=targets),
        images=images,
        feature_names=features,
        target_names=targets,
        DESCR=f"Two handwritten digits overlaid {shift} pixels apart in one picture: "
        "tell the upper left and the lower right.",
    )
