"""A table fitted and measured on held-out rows, from words of a command line or a study file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtlsk.datasets import load_table, split_rows
from mtlsk.descent import DivergenceError
from mtlsk.tablemodel import TableModel, fit_table


@dataclass(frozen=True, eq=False)
class Source:
    """What is fitted: a table, which rows train, with which parameters.

    Attributes
    ----------
    frame : DataFrame
        Features and targets, nothing else.
    train : array (n,) of bool
    split : str
        How rows are held out; "none" for not at all.
    """

    frame: pd.DataFrame
    targets: list[str]
    train: NDArray[np.bool_]
    split: str
    params: dict[str, Any]
    scale_X: bool  # noqa: N815 (the study file's word)
    scale_y: bool
    data: dict[str, str]

    @property
    def n_rows(self) -> dict[str, int]:
        """Rows that train and rows held out."""
        return {"train": int(self.train.sum()), "held_out": int((~self.train).sum())}

    def sentence(self) -> str:
        """Say what was fitted to what."""
        rows, d = self.n_rows, self.frame.shape[1] - len(self.targets)
        held = f"{rows['held_out']} rows held out ({self.split})" if rows["held_out"] else "none"
        return (
            f"{self.data['name']}: {rows['train']} rows trained, {held}; {d} features, "
            f"{len(self.targets)} targets"
        )


def load_source(
    *,
    data: str | None,
    targets: Sequence[str] | None,
    drop: Sequence[str] | None,
    study: str | None,
    split: str | None,
    settings: Sequence[str],
    seed: int,
) -> Source:
    """Read what a command line names.

    Raises
    ------
    ValueError or OSError
        In one line, for a table or parameters that cannot be used.
    """
    params = {**parse_settings(settings)}
    if study is not None:
        return _of_study(study, data, targets, drop, split, params, seed)
    if data is None or targets is None:
        raise ValueError("give DATA and --targets, or --study FILE")
    split = split or "random"
    bunch = load_table(data, _targets(targets), drop=_dropped(drop, split))
    return _source(bunch, split, {"random_state": seed, **params}, seed, True, True)


def _of_study(
    path: str,
    data: str | None,
    targets: Sequence[str] | None,
    drop: Sequence[str] | None,
    split: str | None,
    params: dict[str, Any],
    seed: int,
) -> Source:
    from mtlsk.problem import load
    from mtlsk.studyfile import read_study

    file = read_study(path, data=data)
    update: dict[str, Any] = {"split": split} if split not in (None, "none") else {}
    if targets is not None:
        update["targets"] = _targets(targets)
    if drop is not None:
        update["drop"] = list(drop)
    section = file.data.model_copy(update=update)
    bunch = load(section)
    return _source(
        bunch,
        split or section.split,
        {"random_state": seed, **file.estimator, **params},
        file.study.seed,
        section.scale_X,
        section.scale_y,
    )


def _source(
    bunch: Any, split: str, params: dict[str, Any], seed: int, scale_x: bool, scale_y: bool
) -> Source:
    both = sorted(set(bunch.data) & set(bunch.target))
    if both:
        raise ValueError(f"{both[0]!r} is a feature and a target; rename one")
    n = len(bunch.data)
    train = np.ones(n, dtype=np.bool_)
    if split != "none":
        rows = split_rows(n, split, frame=bunch.get("frame", bunch.data), random_state=seed)
        train = rows != "test"
    return Source(
        frame=pd.concat([bunch.data, bunch.target], axis=1),
        targets=list(bunch.target),
        train=train,
        split=split,
        params=params,
        scale_X=scale_x,
        scale_y=scale_y,
        data={"name": bunch.name, "sha256": bunch.sha256},
    )


def fit_and_measure(source: Source) -> tuple[TableModel, pd.DataFrame | None]:
    """Fit on the training rows; return the model and its losses on the others, if there are any.

    The losses have a column more than :meth:`TableModel.losses`: ``mse of the mean``, that of
    predicting the mean of the training rows.

    Raises
    ------
    ValueError
        For parameters that do not go together, or a training that diverges.
    """
    seen = source.frame[source.train]
    empty = [t for t in source.targets if seen[t].isna().all()]
    if empty:
        raise ValueError(
            f"target {empty[0]!r} has no label in the rows that train; leave it out or choose "
            "another --split"
        )
    try:
        model = fit_table(
            seen,
            source.targets,
            source.params,
            scale_X=source.scale_X,
            scale_y=source.scale_y,
            about={"data": source.data, "split": source.split},
        )
    except (TypeError, DivergenceError) as error:
        raise ValueError(str(error)) from None
    held = source.frame[~source.train]
    if not len(held):
        return model, None
    losses = model.losses(held)
    of_mean = ((held[source.targets] - seen[source.targets].mean()) ** 2).mean()
    losses.insert(2, "mse of the mean", of_mean.to_numpy())
    return model, losses


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE texts as keyword arguments: a value is TOML, and a bare word itself."""
    found: dict[str, Any] = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise ValueError(f"--set {text} is no NAME=VALUE, e.g. --set max_epochs=50")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text.lower() == "none" else text


def _targets(words: Sequence[str]) -> Any:
    """Return column names, or how many are last."""
    return int(words[0]) if len(words) == 1 and words[0].isdecimal() else list(words)


def _dropped(drop: Sequence[str] | None, split: str) -> list[str]:
    """Return the columns that are no features: what the split looks at is none."""
    kind, _, column = split.partition(":")
    held = [column] if kind in ("group", "column") and column else []
    return [*(drop or []), *(c for c in held if c not in (drop or []))]
