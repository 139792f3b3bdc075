"""Which rows train, which validate, which test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils import check_random_state

from ._groups import assign_groups
from ._naming import did_you_mean, listing

__all__ = ["blocked_split", "fold_rows", "split_rows"]

BLOCKS = 20
PARTS = np.array(["train", "validation", "test"])
SHARES = np.array([0.60, 0.15, 0.25])
OF_TRAIN = 0.20  # what validates where a column names no validation rows
SPELLINGS = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}
ALLOWED = "'blocked', 'random', 'group:COLUMN' or 'column:NAME'"

Parts = NDArray[np.str_]


def _blocks(n_samples: int, n_blocks: int) -> NDArray[np.intp]:
    sizes = np.full(n_blocks, n_samples // n_blocks)
    sizes[: n_samples % n_blocks] += 1
    return np.repeat(np.arange(n_blocks), sizes)


def blocked_split(n_samples: int, *, n_blocks: int = BLOCKS, every: int = 4) -> NDArray[np.bool_]:
    """Hold out every fourth of 20 contiguous blocks: neighbours in time stay on one side.

    Parameters
    ----------
    n_samples : int
        Rows, at least `n_blocks`.
    n_blocks : int
        Contiguous blocks whose sizes differ by one row at most, at least `every`.
    every : int
        Block i is held out where ``i % every == every - 1``; at least 2.

    Returns
    -------
    ndarray (n_samples,) of bool
        True where the row is held out.

    Raises
    ------
    ValueError
        For fewer rows than blocks, fewer blocks than `every`, or `every` below 2.
    """
    if every < 2:
        raise ValueError(f"every is {every!r}; give at least 2, or nothing is left to train on")
    if n_blocks < every:
        raise ValueError(f"n_blocks is {n_blocks!r}; give at least every = {every}")
    if n_samples < n_blocks:
        raise ValueError(
            f"{n_samples} rows do not fill {n_blocks} blocks; give fewer blocks or a random split"
        )
    held_out: NDArray[np.bool_] = _blocks(n_samples, n_blocks) % every == every - 1
    return held_out


def _column(split: str, frame: pd.DataFrame | None, n_samples: int) -> pd.Series:
    kind, _, name = split.partition(":")
    if not name:
        raise ValueError(f"split {split!r} names no column; write {kind}:NAME")
    if frame is None:
        raise ValueError(f"split {split!r} needs the table; give frame=, or 'blocked' or 'random'")
    if len(frame) != n_samples:
        raise ValueError(f"split {split!r}: frame has {len(frame)} rows, the data {n_samples}")
    where = {str(column): i for i, column in enumerate(frame.columns)}
    if name not in where:
        raise ValueError(
            f"split {split!r}: the table has no column {name!r}, only "
            f"{listing(where)}{did_you_mean(name, where)}"
        )
    column = frame.iloc[:, where[name]].reset_index(drop=True)
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0]) + 1
        raise ValueError(f"split {split!r}: column {name!r} is empty in row {row}; fill it in")
    return column


def _by_block(n_samples: int) -> Parts:
    if n_samples < BLOCKS:
        raise ValueError(
            f"split 'blocked' needs at least {BLOCKS} rows, not {n_samples}; try 'random'"
        )
    block = _blocks(n_samples, BLOCKS)
    parts = np.where(block % 8 == 1, 1, 0)  # blocks 1, 9, 17: none of them is held out
    parts[blocked_split(n_samples)] = 2
    return PARTS[parts]


def _at_random(n_samples: int, rng: np.random.RandomState) -> Parts:
    if n_samples < len(PARTS):
        raise ValueError(f"split 'random' needs at least 3 rows, not {n_samples}; add rows")
    n_validation, n_test = (max(1, round(share * n_samples)) for share in SHARES[1:])
    order = rng.permutation(n_samples)
    parts = np.zeros(n_samples, dtype=np.intp)
    parts[order[:n_validation]] = 1
    parts[order[n_validation : n_validation + n_test]] = 2
    return PARTS[parts]


def _by_group(split: str, column: pd.Series, rng: np.random.RandomState) -> Parts:
    codes, groups = pd.factorize(column)
    if len(groups) < len(PARTS):
        raise ValueError(
            f"split {split!r} needs at least 3 groups, one for each part, and the column holds "
            f"{len(groups)}: {listing(groups)}; try 'blocked' or 'random'"
        )
    return PARTS[assign_groups(np.bincount(codes), SHARES, rng)[codes]]


def _by_column(split: str, column: pd.Series, rng: np.random.RandomState) -> Parts:
    words = [str(value).strip().lower() for value in column]
    for row, word in enumerate(words):
        if word not in SPELLINGS:
            raise ValueError(
                f"split {split!r}: row {row + 1} holds {str(column[row])!r}; allowed are "
                f"train, validation (or valid, val) and test{did_you_mean(word, SPELLINGS)}"
            )
    parts = np.array([SPELLINGS[word] for word in words], dtype=np.intp)
    for part in (0, 2):
        if not (parts == part).any():
            raise ValueError(
                f"split {split!r}: no row is marked {str(PARTS[part])!r}; "
                "mark some, or try 'random'"
            )
    if not (parts == 1).any():
        train = np.flatnonzero(parts == 0)
        if len(train) < 2:
            raise ValueError(
                f"split {split!r}: one train row cannot also give a validation row; "
                "mark more rows 'train', or some 'validation'"
            )
        parts[rng.permutation(train)[: max(1, round(OF_TRAIN * len(train)))]] = 1
    return PARTS[parts]


def split_rows(
    n_samples: int,
    split: str,
    *,
    frame: pd.DataFrame | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> Parts:
    """Mark each row train, validation or test, by 60, 15 and 25 per cent where that is free.

    Parameters
    ----------
    n_samples : int
        Rows of the data.
    split : str
        ``"blocked"``: of 20 contiguous blocks, i = 3, 7, .. test and i = 1, 9, 17 validate.
        ``"random"``: a permutation. ``"group:COLUMN"``: rows alike in that column of `frame`
        stay together, as near to the shares as a search finds, one group a part at least.
        ``"column:NAME"``: the column says it itself, in the words train, test and validation
        (or valid, val); without validation rows a fifth of the train rows validates.
    frame : DataFrame (n_samples, any), optional
        The whole table, for the last two.
    random_state : int, RandomState or None
        Seed of every draw; "blocked" draws nothing.

    Returns
    -------
    ndarray (n_samples,) of str
        "train", "validation" or "test"; each occurs.

    Raises
    ------
    ValueError
        For any other `split`, a missing column or cell, too few rows or groups, an unknown word.
    """
    rng = check_random_state(random_state)
    if split == "blocked":
        return _by_block(n_samples)
    if split == "random":
        return _at_random(n_samples, rng)
    kind = split.partition(":")[0] if isinstance(split, str) and ":" in split else ""
    if kind == "group":
        return _by_group(split, _column(split, frame, n_samples), rng)
    if kind == "column":
        return _by_column(split, _column(split, frame, n_samples), rng)
    guess = did_you_mean(str(split), ["blocked", "random", "group:COLUMN", "column:NAME"])
    raise ValueError(f"split is {split!r}; give {ALLOWED}{guess}")


def fold_rows(
    rows: Parts,
    split: str,
    folds: int,
    *,
    frame: pd.DataFrame | None = None,
    random_state: int | None = 0,
) -> NDArray[np.intp]:
    """Return the fold of each row that is not in the test part, cut as the parts were.

    Parameters
    ----------
    rows : ndarray (n_samples,) of str
        What :func:`split_rows` returned for ``split``.
    split : str
        ``"blocked"``: folds are contiguous. ``"group:COLUMN"``: rows alike in that column of
        `frame` stay together. Else a permutation.
    folds : int
    frame : DataFrame (n_samples, any), optional
    random_state : int or None

    Returns
    -------
    ndarray (n_samples,) of int
        0, 1, ... folds - 1, and -1 for the test part.

    Raises
    ------
    ValueError
        For fewer rows or groups than folds.
    """
    number = np.full(len(rows), -1)
    pool = np.flatnonzero(rows != "test")
    cutter: KFold | GroupKFold = KFold(folds, shuffle=True, random_state=random_state)
    groups, there = None, len(pool)
    if split == "blocked":
        cutter = KFold(folds)
    elif split.startswith("group:"):
        groups = pd.factorize(_column(split, frame, len(rows)))[0][pool]
        there = len(np.unique(groups))
        cutter = GroupKFold(folds, shuffle=True, random_state=random_state)
    if there < folds:
        what = "rows" if groups is None else "groups"
        raise ValueError(
            f"{folds} folds need as many {what} outside the test part, not {there}; use fewer"
        )
    for i, (_, held_out) in enumerate(cutter.split(pool, groups=groups)):
        number[pool[held_out]] = i
    return number
