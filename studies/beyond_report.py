"""What beyond_scalarization.py found, as text and pictures: differences, tests, and a rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import chosen, holm, rows_of, with_spread
from matplotlib.figure import Figure
from scipy.stats import spearmanr, wilcoxon

from mtlsk.findings.balance import SCALES

SCORES = {"mean": "mean over the tasks", "worst": "worst task"}
GAIN = 0.02  # of a score: what is worth another aggregator
LEVEL = 0.05
SCALARIZATIONS = ("LinearScalarization", "tuned scalarization", "drawn weights")


def differences(best, score, base):
    """Return score - the base's of the same setting and seed: (setting, seed) x methods."""
    table = best.pivot(index=["setting", "seed"], columns="method", values=score)
    return table.drop(columns=base).sub(table[base], axis=0)


def tested(best, base):
    """Return a row for each method and score: differences over the settings, p, Holm's p."""
    rows = []
    for score in SCORES:
        of_settings = differences(best, score, base).groupby("setting").mean()
        for method, values in of_settings.items():
            d = values.dropna().to_numpy()
            p = wilcoxon(d).pvalue if len(d) > 1 and d.any() else 1.0
            rows.append((method, score, d.mean(), np.median(d), (d > 0).sum(), len(d), p))
    names = ["method", "score", "average", "median", "better", "settings", "p"]
    found = pd.DataFrame(rows, columns=names)
    found["holm"] = holm(found.p.to_numpy())
    return found


def table_of(found):
    """Return the methods' table, the best first."""
    wide = found.pivot(index="method", columns="score")
    order = wide["median"]["mean"].sort_values(ascending=False).index
    rows = []
    for method in order:
        cells = [f"`{method}`"]
        for score in SCORES:
            r = wide.loc[method].xs(score, level="score")
            cells += [f"{r['median']:+.4f}", f"{r['average']:+.4f}"]
            cells += [f"{r.better:.0f} of {r.settings:.0f}", f"{r.holm:.2g}"]
        rows.append(cells)
    titles = ["aggregator"]
    for score in ("mean score", "worst task"):
        titles += [f"{score}: median", "average", "settings better", "p (Holm)"]
    return rows_of(titles, rows)


def verdict(found, base):
    """Return the sentence that the tests allow."""
    sure = found[found.holm < LEVEL]
    above = sorted(set(sure[sure["median"] > 0].method))
    below = sorted(set(sure[sure["median"] < 0].method))
    n = len(found)
    said = (
        f"better than {base} after correction for {n} comparisons: {', '.join(above)}"
        if above
        else f"**no aggregator beats {base}** after correction for {n} comparisons"
    )
    worse = f"; worse: {', '.join(below)}" if below else "; none is worse for certain either"
    return f"Verdict: {said}{worse}."


def gains(trials, best, base):
    """Return, a setting and seed, what the aggregator best on validation gains over a base.

    It is chosen among all aggregators by the average validation score over the seeds, so it had as
    many times more trials as there are aggregators: an upper bound of what one could hope for.
    """
    others = best[~best.method.isin(SCALARIZATIONS)]
    valid = others.groupby(["setting", "method"]).valid.mean()
    winner = {s: v.idxmax()[1] for s, v in valid.groupby("setting")}
    d = differences(best, "mean", base)
    rows = [(s, seed, winner[s], d.loc[(s, seed), winner[s]]) for s, seed in d.index]
    return pd.DataFrame(rows, columns=["setting", "seed", "winner", "gain"])


def rule_of(joined, signs):
    """Return (sign, threshold, above, share right) of the best split at GAIN, the first if tied."""
    best = None
    wanted = joined.gain.to_numpy() > GAIN
    for sign in signs:
        values = joined[sign].to_numpy()
        levels = np.unique(values)
        both = levels[1:], levels[:-1]
        middles = np.sqrt(both[0] * both[1]) if levels[0] > 0 else (both[0] + both[1]) / 2
        for threshold in middles:
            for above in (True, False):
                right = ((values > threshold) == (wanted == above)).mean()
                if best is None or right > best[3] + 1e-9:
                    best = (sign, float(threshold), above, float(right))
    return best


def ruled(seen, gained, aside):
    """Return the paragraphs about what could have been told beforehand, and the joined table."""
    joined = gained.merge(seen, on=["setting", "seed"])
    signs = [c for c in seen.columns if c not in ("setting", "seed", "norm ratio")]
    signs = ["norm ratio", *signs]  # the simplest one first
    signs = [s for s in signs if not joined[s].isna().any() and joined[s].nunique() > 1]
    apart = joined.setting.isin(aside)
    search, held = joined[~apart], joined[apart]
    rows = []
    for sign in signs:
        of_settings = search.groupby("setting")[[sign, "gain"]].mean()
        r = spearmanr(of_settings[sign], of_settings.gain).statistic if len(of_settings) > 2 else 0
        rows.append([sign, f"{r:+.2f}", len(of_settings)])
    text = [rows_of(["seen after two epochs", "rank correlation with the gain", "settings"], rows)]
    wanted = search.gain > GAIN
    found = rule_of(search, signs)
    if not found or wanted.all() or not wanted.any():
        share = f"{int(wanted.sum())} of {len(wanted)}"
        text.append(f"The gain exceeds {GAIN:g} in {share} runs of the search: no rule to find.")
        return text, joined
    sign, threshold, above, right = found
    text.append(
        f"The split that is right most often on the search's {len(search)} runs: a gain above "
        f"{GAIN:g} where *{sign}* is {'above' if above else 'at most'} {threshold:.3g} (right in "
        f"{right:.0%}; always saying the commoner answer is right in "
        f"{max(wanted.mean(), 1 - wanted.mean()):.0%})."
    )
    if len(held):
        said = (held[sign] > threshold) == above
        truth = held.gain > GAIN
        hit = (said == truth).mean()
        plain = max(truth.mean(), 1 - truth.mean())
        text.append(
            f"On the {len(held)} runs put aside it is right in {hit:.0%} "
            f"(the commoner answer: {plain:.0%}): the rule "
            + ("**survives**." if hit >= max(plain, 0.75) else "**does not survive**.")
        )
    return text, joined


def advised(best, seen, equal, tuned, aside):
    """Return the paragraph that puts to the test what `certify` says of lengths of gradients."""
    gained = differences(best, "mean", equal)[tuned].rename("gain").reset_index()
    joined = gained.merge(seen, on=["setting", "seed"])
    said, truth = joined["norm ratio"] >= SCALES, joined.gain > GAIN
    apart = joined.setting.isin(aside)
    counts = []
    for name, part in (("of the search", ~apart), ("put aside", apart)):
        helped, quiet = said & truth & part, ~said & ~truth & part
        counts.append(
            f"{name}: it gains more than {GAIN:g} in {helped.sum()} of the "
            f"{(said & part).sum()} runs from {SCALES:g} on, and in "
            f"{(~said & part).sum() - quiet.sum()} of the {(~said & part).sum()} below"
        )
    return (
        f"`certify` advises other scales where the longest task gradient is {SCALES:g} or more "
        "times the shortest, a threshold set before this study. Weights 1/variance (known "
        "beforehand; of classes equal) against equal weights, runs " + "; ".join(counts) + "."
    )


def draw(best, base, file):
    """Draw the differences in mean score, methods by settings."""
    d = differences(best, "mean", base).groupby("setting", sort=False).mean()
    d = d[d.median().sort_values(ascending=False).index].T
    figure = Figure(figsize=(1.6 + 0.85 * d.shape[1], 1.6 + 0.3 * d.shape[0]), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(d.clip(-0.1, 0.1), cmap="PuOr", vmin=-0.1, vmax=0.1, aspect="auto")
    for (i, j), value in np.ndenumerate(d.to_numpy()):
        if not np.isnan(value):
            ink = "white" if abs(value) > 0.07 else "black"
            axes.text(j, i, f"{value:+.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(d)), d.index, fontsize=8)
    axes.set_xticks(range(d.shape[1]), [s.replace(", ", ",\n") for s in d], fontsize=8, rotation=60)
    axes.set_title(f"Test score minus that of {base}, mean over tasks and seeds", fontsize=10)
    figure.colorbar(shades, label="clipped at .1")
    figure.savefig(file, dpi=110)


def draw_gain(joined, aside, file):
    """Draw the gain against the ratio of the lengths of the gradients."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for n, (setting, own) in enumerate(joined.groupby("setting", sort=False)):
        face = "none" if setting in aside else f"C{n % 10}"
        look = {"facecolors": face, "edgecolors": f"C{n % 10}", "marker": "osD^v<>ph*X"[n % 11]}
        label = setting + " (put aside)" * (setting in aside)
        axes.scatter(own["norm ratio"], own.gain, s=40, label=label, **look)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="longest over shortest task gradient after two epochs")
    axes.set(ylabel="gain of the best aggregator\nover equal weights (test score)")
    figure.legend(loc="outside right", fontsize=7)
    figure.savefig(file, dpi=110)


def page(trials, seen, equal, tuned, aside, out):
    """Return the paragraphs of the report; pictures go to ``out``."""
    best = chosen(trials, ["setting", "seed", "method"])
    seeds, settings = best.seed.nunique(), best.setting.unique()
    plain = best[~best.setting.str.contains("badly")]
    others = set(best.method) - set(SCALARIZATIONS)
    text = [
        f"{len(others)} aggregators, {len(settings)} settings, {seeds} seeds, {len(trials)} trials "
        f"({int(trials.valid.isna().sum())} diverged). Scores are R2 of "
        "numbers, area under ROC of yeast and Tox21, accuracy of the digits. A difference is a "
        "paired one (same data, same seed); a setting's is the average over its seeds; Wilcoxon's "
        "signed-rank test is over settings, Holm's correction over all methods and both scores.",
    ]
    for title, part, base in (
        ("Against tuned scalarization, all settings", best, tuned),
        ("Against tuned scalarization, standardised targets", plain, tuned),
        ("Against equal weights at the same number of rates, all settings", best, equal),
    ):
        found = tested(part, base)
        n = part.setting.nunique()
        top = found[found.score == "mean"].sort_values("median").iloc[-1]
        power = (
            f"With {n} settings and {len(found)} comparisons the smallest corrected p there can be "
            f"is {min(2 * 0.5**n * len(found), 1):.2g}, of a method that is better in every one: "
            "the test is strict. The largest median difference in mean score is "
            f"{top['median']:+.4f}, of {top.method}."
        )
        text += [f"## {title}", verdict(found, base), power, table_of(found)]
    draw(best, tuned, out / "differences.png")
    text.append("![Differences, methods by settings](differences.png)")
    rows = []
    for setting in settings:
        own = best[best.setting == setting]
        cells = [setting]
        for method in (tuned, equal):
            for score in SCORES:
                cells.append(with_spread(own[own.method == method][score], 3))
        rows.append(cells)
    heads = [f"{m}: {s}" for m in ("tuned", "equal weights") for s in ("mean", "worst")]
    text += ["## The baselines' test scores", rows_of(["setting", *heads], rows)]
    text += ["## Do scales help where certify says so?", advised(best, seen, equal, tuned, aside)]
    for base, title in ((equal, "equal weights"), (tuned, "tuned scalarization")):
        gained = gains(trials, best, base)
        paragraphs, joined = ruled(seen, gained, aside)
        rows = [
            [s, ", ".join(sorted(set(g.winner))), with_spread(g.gain), "yes" if s in aside else ""]
            for s, g in gained.groupby("setting", sort=False)
        ]
        text += [
            f"## Can one tell beforehand? Gain over {title}",
            "The aggregator that is best on validation rows among all of them, so with many times "
            "the trials: more than one can hope for.",
            rows_of(["setting", "chosen", "gain in mean test score", "put aside"], rows),
            *paragraphs,
        ]
        if base == equal:
            draw_gain(joined, aside, out / "gain.png")
            text.append("![Gain over equal weights against the ratio of gradients](gain.png)")
    return text
