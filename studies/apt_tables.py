"""What the trials of studies/apt.py say: the rates chosen, paired differences, ranks and tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from apt_parts import BATCHES, KINDS, PRESERVATION, RHOS
from common import holm, tested
from scipy.stats import wilcoxon

TUNED = 2  # seeds that choose the learning rate
ARM = ["data", "optimizer", "aggregator", "arm"]
MEASURES = ["score", "delta", "rank"]


def best_rates(trials):
    """Return {arm: learning rate} by the mean validation score of the first seeds.

    A rate at which one of them diverged is chosen only if all rates did.
    """
    first = trials[trials.seed < TUNED].fillna({"valid": -np.inf})
    means = first.groupby([*ARM, "lr"], sort=False).valid.mean().reset_index()
    best = means.loc[means.groupby(ARM, sort=False).valid.idxmax()]
    return {tuple(row[:4]): row[4] for row in best.itertuples(index=False)}


def finals(trials):
    """Return the trials at the rates chosen, with Delta_m% and the rank of each.

    Delta_m% is against nets for each task alone: of 1 - R2, whose ratios are those of the mean
    squared errors, or of accuracy or area under the curve. The rank is the mean one over the tasks
    among an optimizer's methods with and without APT, 0 first of all and 1 last.
    """
    best = best_rates(trials)
    rates = [best[arm] for arm in trials[ARM].itertuples(index=False, name=None)]
    kept = trials[trials.lr == rates].sort_values("seed", kind="stable")
    alone = kept.arm.str.startswith("task")
    found = []
    for name, own in kept[~alone].groupby("data", sort=False):
        single = kept[alone & (kept.data == name)].groupby("arm")["task 0"].mean()
        scores = own[list(single.index)]  # the tasks of this data set, others may have more
        scores = scores.loc[:, scores.notna().any()]  # and those that can be scored
        single = single[scores.columns]
        worse = (single - scores) / (1 - single if KINDS[name] == "numbers" else single)
        own = own.assign(delta=100 * worse.mean(axis=1, skipna=False))
        found.append(ranked(own, scores.columns))
    return pd.concat(found)


def ranked(frame, tasks):
    """Return the trials of a data set with the column "rank"; a net that diverged is the last."""
    ranks = pd.Series(np.nan, frame.index)
    for _, own in frame[frame.arm != "constant"].groupby(["optimizer", "seed"]):
        means = own[tasks].fillna(-np.inf).rank(ascending=False).mean(axis=1)
        ranks[own.index] = (means - 1) / (len(own) - 1)
    return frame.assign(rank=ranks)


def paired(frame, other="plain"):
    """Return the differences APT - other of the measures, rows matched by seed."""
    keys = [*ARM[:3], "seed"]
    a, b = (frame[frame.arm == arm].set_index(keys)[MEASURES] for arm in ("APT", other))
    return (a - b).reindex(a.index).dropna(how="all").reset_index()  # in the order of the trials


def worded(median, p):
    """Return the word for a group of differences of which less is better."""
    if p >= 0.05 or median == 0:
        return "not told apart"
    return "better" if median < 0 else "worse"


def grouped(differences, by, measure="delta", digits=2):
    """Return (rows of a table, words) per group: blocks of data and seed, all else averaged.

    The words go by the median, as the test is of ranks: few blocks far off may turn the mean.
    """
    medians, tests, cells = {}, [], []
    for name, own in differences.dropna(subset=measure).groupby(by, sort=False):
        blocks = own.groupby(["data", "seed"])[measure].mean()
        mean, half, _ = tested(blocks)
        tests.append(wilcoxon(blocks).pvalue if blocks.any() else 1.0)
        medians[name] = blocks.median()
        wins = f"{int((own[measure] < 0).sum())} of {len(own)}"
        sets = blocks.groupby("data").mean()
        interval = " [" + ", ".join(f"{x:+.{digits}f}" for x in (mean - half, mean + half)) + "]"
        better = f"{int((sets < 0).sum())} of {len(sets)}"
        median = f"{medians[name]:+.{digits}f}" if medians[name] else "0"
        cells.append([name, f"{mean:+.{digits}f}{interval}", median, len(blocks), better, wins])
    corrected = holm(tests)
    rows = [[*c, f"{p:.4f}"] for c, p in zip(cells, corrected, strict=True)]
    return rows, {n: worded(m, p) for (n, m), p in zip(medians.items(), corrected, strict=True)}


def changes(table):
    """Return {(batch, rho): (mean change against rho = 0, word, p by Holm) of each measure}.

    Paired by seed; the correction is over the changes of one measure.
    """
    kept = table.set_index(["batch", "rho", "seed"])[list(PRESERVATION)].sort_index()
    cells = [(batch, rho) for batch in BATCHES for rho in RHOS[1:]]
    apart = [(kept.loc[cell] - kept.loc[cell[0], RHOS[0]]).dropna() for cell in cells]
    columns = []
    for measure in PRESERVATION:
        means, _, p = zip(*(tested(d[measure]) for d in apart), strict=True)
        told = [
            (m, ("up" if m > 0 else "down") if q < 0.05 else "not told apart", q)
            for m, q in zip(means, holm(p), strict=True)
        ]
        columns.append(told)
    return dict(zip(cells, zip(*columns, strict=True), strict=True))


def edges(trials):
    """Return a row an arm, those of a task alone as "alone": which edges of its grid it chose."""
    grids = trials.groupby(ARM[:2]).lr.agg(["min", "max"])
    rows = []
    for (name, optimizer, _, arm), lr in best_rates(trials).items():
        low, high = grids.loc[(name, optimizer)]
        kind = "alone" if arm.startswith("task") else arm
        rows.append((optimizer, kind, lr == low, lr == high))
    return pd.DataFrame(rows, columns=["optimizer", "arm", "least", "largest"])
