"""Statistics and tables of conicgrad_questions.py: choices, paired differences, tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import chosen, holm, rows_of, tested, with_spread
from scipy.stats import wilcoxon

SCORES = {"mean": "mean score", "worst": "worst task"}
LEVEL = 0.05


def figure_of(value, digits=4, sign="+"):
    """Return a number as text; large ones, of trunks that ascend, with few digits."""
    if np.isnan(value):
        return "-"
    if abs(value) >= 100:  # inf too
        return f"{value:{sign}.1e}"
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # no "-0.0000"


def over_seeds(values, digits=3):
    """Return "mean ± deviation" over the seeds, or "diverged" if there is none."""
    values = values.dropna()
    if not len(values):
        return "diverged"
    if len(values) == 1 or values.abs().max() < 10 ** (5 - digits):
        return with_spread(values, digits)
    return f"{values.mean():.1e} ± {values.std():.1e}"


def interval(d):
    """Return (mean, lower, upper end of the 95 % interval by t) of the finite differences."""
    mean, half, _ = tested(np.asarray(d)[np.isfinite(d)])
    return mean, mean - half, mean + half


def best_of(trials, arms):
    """Return the trial of each arm, data set and seed that is best on validation rows."""
    found = []
    for arm, own in arms.items():
        best = chosen(trials[trials.variant.isin(own)], ["data", "seed"])
        found.append(best.assign(arm=arm))
    return pd.concat(found)


def differences(best, blocks, arm, base, score):
    """Return arm - base by block (data, seed); an arm of which every trial diverged lost: -inf."""
    a, b = (
        best[best.arm == name].set_index(["data", "seed"])[score].reindex(blocks)
        for name in (arm, base)
    )
    d = a - b
    d[a.isna() & b.notna()] = -np.inf
    d[b.isna() & a.notna()] = np.inf
    return d  # NaN where neither has a trial


def rank_test(d):
    """Return Wilcoxon's p of differences, infinite ones ranked beyond all others."""
    d = d.dropna().to_numpy()
    finite = np.abs(d[np.isfinite(d)])
    beyond = 2 * finite.max(initial=0) + 1
    d = np.clip(d, -beyond, beyond)
    return wilcoxon(d).pvalue if d.any() else 1.0


def compared(best, blocks, pairs):
    """Return a row for each pair and score: differences over the blocks, p, and Holm's p."""
    rows = []
    for question, arm, base in pairs:
        for score in SCORES:
            d = differences(best, blocks, arm, base, score)
            known = d.dropna()
            row = {"question": question, "arm": arm, "base": base, "score": score, "d": d}
            mean = known.mean() if np.isfinite(known).all() else np.nan  # no mean of a lost arm
            row |= {"median": known.median(), "mean": mean, "p": rank_test(d)}
            rows.append(row | {"up": int((d > 0).sum()), "blocks": len(known)})
    found = pd.DataFrame(rows)
    found["holm"] = holm(found.p.to_numpy())
    found["word"] = [
        "not told apart" if p >= LEVEL else "better" if median > 0 else "worse"
        for p, median in zip(found.holm, found["median"], strict=True)
    ]
    return found


def change(best, base, kind):
    """Return Delta_m% of chosen trials of one data set against single-task scores (K,)."""
    rows = np.array([[float(v) for v in text.split()] for text in best.tasks])
    if kind == "numbers":  # R2 = 1 - MSE / variance, so errors are as these are
        return 100 * np.nanmean((1 - rows) / (1 - base) - 1, axis=1)
    return 100 * np.nanmean(1 - rows / base, axis=1)


def with_change(best, kinds, single):
    """Return the chosen trials with Delta_m%, against the seeds' mean of single-task nets."""
    parts = []
    for name, own in best.groupby("data", sort=False):
        alone = own[own.arm == single].tasks
        delta = np.nan  # if they diverged
        if len(alone):
            base = np.mean([[float(v) for v in text.split()] for text in alone], axis=0)
            delta = change(own, base, kinds[name])
        parts.append(own.assign(delta=delta))
    return pd.concat(parts)


def no_better(trials, guesses):
    """Return which trials are no better on validation rows than guessing."""
    return trials.valid <= trials.data.map(guesses.valid)


def of_guesses(best, guesses, mean):
    """Return the table of what guessing scores, beside the nets of the mean gradient."""
    rows = []
    for data in guesses.index[guesses.index.isin(best.data)]:
        row, own = guesses.loc[data], best[(best.data == data) & (best.arm == mean)]
        cells = [figure_of(row[score], 3, "") for score in ("valid", *SCORES)]
        rows.append([data, *cells, *(over_seeds(own[score]) for score in SCORES)])
    titles = ["data", "guess, validation", "guess, test", "guess, worst task"]
    return rows_of([*titles, f"{mean}, test", f"{mean}, worst task"], rows)


def of_pair(best, found, arm, base):
    """Return the table of one pair, a row a data set and score."""
    rows = []
    for name in found.d.iloc[0].index.unique("data"):
        own = best[best.data == name]
        for score, title in SCORES.items():
            row = found[(found.arm == arm) & (found.base == base) & (found.score == score)].iloc[0]
            d = row.d[row.d.index.get_level_values("data") == name]
            mean, low, high = interval(d)
            lost = int(np.isinf(d).sum() + d.isna().sum())
            scores = [over_seeds(own[own.arm == a][score]) for a in (base, arm)]
            said = f"{figure_of(mean)} [{figure_of(low)}, {figure_of(high)}]"
            said = "-" if np.isnan(mean) else said
            rows.append([name, title, *scores, said, f"{int((d > 0).sum())} of {len(d)}", lost])
    titles = ["data", "score", base, arm, "difference [95 % by t]", "seeds it is better"]
    return rows_of([*titles, "seeds an arm diverged in"], rows)


def of_tests(found):
    """Return the table of the main comparisons."""
    rows = []
    for _, r in found.iterrows():
        sizes = figure_of(r["median"]), figure_of(r["mean"])
        tests = f"{r.up} of {r.blocks}", f"{r.p:.3g}", f"{r.holm:.3g}"
        rows.append([r.arm, r.base, SCORES[r.score], *sizes, *tests, r.word])
    titles = ["arm", "against", "score", "median difference", "mean", "blocks it is better"]
    return rows_of([*titles, "p", "p (Holm)", "so"], rows)


def of_variants(trials, names):
    """Return the table of single variants, each at its best rate: mean score / worst task."""
    datas = trials.data.unique()
    best = chosen(trials[trials.variant.isin(names)], ["data", "seed", "variant"])
    rows = []
    for name in names:
        cells = [name]
        for data in datas:
            own = best[(best.variant == name) & (best.data == data)]
            cells.append(" / ".join(over_seeds(own[score]) for score in SCORES))
        rows.append(cells)
    return rows_of(["variant", *datas], rows)


def of_arms(trials, best, arms, guesses):
    """Return the table of all arms: scores, Delta_m%, and what became of their trials."""
    rows = []
    for data in trials.data.unique():
        for arm, names in arms.items():
            all_ = trials[(trials.data == data) & trials.variant.isin(names)]
            own = best[(best.data == data) & (best.arm == arm)]
            cells = [over_seeds(own[score]) for score in SCORES]
            cells.append(over_seeds(own.delta, 1) if own.delta.notna().any() else "-")
            counts = [len(all_), all_.valid.isna().sum(), no_better(all_, guesses).sum()]
            edges = [(own.lr == f(trials.lr)).sum() for f in (min, max)]
            rows.append([data, arm, *cells, *counts, f"{edges[0]}, {edges[1]} of {len(own)}"])
    titles = ["data", "arm", "mean score", "worst task", "Delta_m%", "trials", "diverged"]
    return rows_of([*titles, "no better than guessing", "smallest, largest rate chosen"], rows)


def unfelt(trials, names, mgda):
    """Return how many trials of each variant ended with MGDA's scores, as stored, in words."""
    keys = ["data", "seed", "lr"]
    end = trials[trials.variant == mgda].set_index(keys).tasks
    words = []
    for name in names:
        own = trials[trials.variant == name].set_index(keys).tasks
        words.append(f"{name}: {int((own == end.reindex(own.index)).sum())} of {len(own)}")
    return ", ".join(words)


def taken(trials, names):
    """Return the table of the cosines that controllers took, means over all rates and seeds."""
    own = trials[trials.c_first.notna()]
    rows = []
    for name in (n for n in names if n in set(own.variant)):
        cells = [name]
        for data in trials.data.unique():
            r = own[(own.variant == name) & (own.data == data)][["c_first", "c_last"]]
            cells.append(" to ".join(figure_of(c, 2, "") for c in r.mean()))
        rows.append(cells)
    return rows_of(["c, first to last epoch", *trials.data.unique()], rows)


def spreads(trials, names, over):
    """Return deviations of the test's mean score over variants, rates or seeds, all else equal.

    They are grouped by data set, and unlike ranges hardly grow with the number of values.
    """
    own = trials[trials.variant.isin(names)]
    same = ["data", *({"seed", "variant", "lr"} - {over})]
    return own.groupby(same)["mean"].std().groupby("data", sort=False)


def of_reach(trials, arms):
    """Return (table of the spreads over gammas, cones, rates and seeds, their medians)."""
    sets = {
        "gamma, shared": (arms["shared gamma"], "variant"),
        "gamma, shared, wide": (arms["shared gamma, wide"], "variant"),
        "c (exact)": (arms["fixed c"], "variant"),
        "learning rate": (arms["shared gamma"], "lr"),
        "seed": (arms["shared gamma"], "seed"),
    }
    found = {name: spreads(trials, *given) for name, given in sets.items()}
    middle = {name: r.median() for name, r in found.items()}
    rows = [[data] for data in trials.data.unique()]
    for row in rows:
        for name, r in found.items():
            pair = middle[name][row[0]], r.max()[row[0]]
            row.append("{} ({})".format(*(figure_of(value, sign="") for value in pair)))
    return rows_of(["data", *found], rows), middle
