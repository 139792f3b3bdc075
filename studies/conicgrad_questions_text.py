"""The report of conicgrad_questions.py: paragraphs, verdicts from its tables, and pictures."""

from __future__ import annotations

import numpy as np
from common import chosen
from conicgrad_questions_arms import CONE, COSINES, GAMMAS, WIDE
from conicgrad_questions_tables import (
    LEVEL,
    SCORES,
    best_of,
    compared,
    figure_of,
    interval,
    no_better,
    of_arms,
    of_guesses,
    of_pair,
    of_reach,
    of_tests,
    of_variants,
    taken,
    unfelt,
    with_change,
)
from matplotlib.figure import Figure

from mtlsk.aggregators import ConicGrad
from mtlsk.controllers import ConeAngle
from mtlsk.drawing import COLOURS, MARKERS

PAPER = "(arXiv 2502.00217)"


def said_of(found, arm):
    """Return "arm against base: score word (median difference, Holm's p), ..." of an arm."""
    own = found[found.arm == arm]
    words = [
        f"{SCORES[r.score]} {r.word} ({figure_of(r['median'])}, p {r.holm:.2g})"
        for _, r in own.iterrows()
    ]
    return f"{arm} against {own.base.iloc[0]}: {', '.join(words)}"


def judged(found, arms, yes, no, nothing):
    """Return the verdict on arms: ``yes`` if they are better, ``no`` if worse, or ``nothing``."""
    words = found[found.arm.isin(arms)].word
    told = set(words) - {"not told apart"}
    head = {"better": yes, "worse": no}[told.pop()] if len(told) == 1 else nothing
    if told:
        head = "Some of it is better and some worse"
    elif head != nothing and (words == "not told apart").any():
        head += ", in part"
    each = "; ".join(said_of(found, arm) for arm in arms)
    return f"{head}. By comparison (median difference, Holm's p): {each}."


def picks(best, arms, arm):
    """Return how often validation chose each variant of an arm, in words."""
    counts = best[best.arm == arm].variant.value_counts()
    return ", ".join(f"{name} {counts.get(name, 0)}" for name in arms[arm])


def against(best, arm, base, score):
    """Return the differences arm - base of the blocks that have both."""
    wide = best.pivot(index=["data", "seed"], columns="arm", values=score)
    wide = wide.reindex(columns=[arm, base])  # of a reference every trial may have diverged
    return (wide[arm] - wide[base]).dropna()


def first(trials, best, arms, found, references):
    """Return the paragraphs about a dynamic cone."""
    mean, mgda, _ = references
    names = [*arms["fixed c"], *arms["dynamic c"]]
    reference = [
        f"{name} {figure_of(d.median())} (mean score), {figure_of(w.median())} (worst task)"
        for name in (mean, mgda)
        for d, w in [[against(best, name, "fixed c", score) for score in SCORES]]
    ]
    own = trials[trials.variant == "critical"]
    rule, high, low = ConeAngle("critical"), COSINES[-1], COSINES[0]
    means = own[["c_first", "c_last"]]
    ends = np.array([means.min().min(), means.max().max()])
    taken_c = " and ".join(figure_of(c, 3, "") for c in ends)
    critical = " to ".join(figure_of(c, 2, "") for c in ends / rule.rho)
    return [
        "## 1. A fixed c, or one that follows the training",
        f"**Open** {PAPER}: the paper chooses c from a grid for each data set (.75 for NYUv2, .25 "
        "for CityScapes, at least .5 for CelebA) and leaves a c that changes while training open.",
        "**Run**: *fixed c*: the exact solver at "
        + ", ".join(n.split()[-1] for n in arms["fixed c"])
        + f'. *dynamic c*: `c="auto"` ({ConicGrad().rho:g} of the critical cosine of the very '
        f"step), and ConeAngle: *critical* ({rule.rho:g} of it, acting a step later and kept "
        f"within [{rule.c_min:g}, {rule.c_max:g}]), *linear* and *cosine* (from {high:g} to "
        f"{low:g} over the whole training). The plain mean gradient is the cone "
        "at c = 1 and MGDA at the mean gradient's length that at c = 0: they stand beside it with "
        "fewer trials (one variant, all rates).",
        "**Found**:",
        of_pair(best, found, "dynamic c", "fixed c"),
        f"Validation chose: {picks(best, arms, 'fixed c')}; {picks(best, arms, 'dynamic c')}. "
        f"Median differences to fixed c of the references: {'; '.join(reference)}.",
        "Each variant by itself, with equally many trials (its best rate; test mean score / worst "
        "task):",
        of_variants(trials, [mgda, *names, mean]),
        "The cosines that were taken, means over all rates and seeds (of `auto`, whose rule is "
        "that of *critical*, none are recorded):",
        taken(trials, arms["dynamic c"]),
        "The means of *critical* over the steps of a trial's first and last epoch lie between "
        f"{taken_c}: about rho ({rule.rho:g}) times a critical cosine of {critical}. "
        "How c moves from step to step within an epoch is not recorded. Where a cone is so wide "
        "that it holds MGDA's direction in every step, c does nothing: so at least in the trials "
        "whose scores, as "
        f"trials.csv has them, are MGDA's in every task: {unfelt(trials, arms['fixed c'], mgda)}.",
        "![angles](angles.png)",
        "**Verdict**: "
        + judged(
            found,
            ["dynamic c"],
            "A dynamic c is better than a tuned fixed one here",
            "A dynamic c is worse than a tuned fixed one here",
            "A dynamic c is not told apart from a fixed one given as many trials",
        ),
    ]


def guessed(trials, arms, guesses, arm):
    """Return how many trials of an arm are no better than guessing, by data set, in words."""
    own = trials[trials.variant.isin(arms[arm])]
    counts = no_better(own, guesses).groupby(own.data, sort=False).agg(["sum", "size"])
    words = ", ".join(f"{r.Index} {r.sum} of {r.size}" for r in counts.itertuples())
    return f"{arm}: {words} ({int(own.valid.isna().sum())} more diverged)"


def second(trials, best, arms, guesses, found):
    """Return the paragraphs about the multiplier."""
    weak = [guessed(trials, arms, guesses, arm) for arm in ("fixed c", "flip", "printed")]
    lost = [
        arm
        for arm in ("flip", "printed")
        if trials[trials.variant.isin(arms[arm])].valid.isna().all()
    ]
    return [
        "## 2. The exact maximiser, or the closed form with lambda = 1",
        f"**Claimed** {PAPER}: d* = Z^-1 g_w / lambda with the multiplier lambda set to 1, then "
        "rescaled to |g0|. **Noted**: any lambda > 0 divides out when d* is rescaled, so there is "
        "nothing to be won or lost by its value; lambda = 1 is the closed form itself. What can "
        "differ is the form: as *printed* its sign is such that for equal weights of the tasks it "
        "is -g0 and ascends; *flip* has the other sign (our reading of the slip). The *exact* "
        "solver (fixed c) maximises the worst task's progress in the cone instead.",
        f"**Run**: each at the same cosines and rates; gamma {GAMMAS[0]:g} for the closed forms' "
        "dual weights. Only the trunk follows the aggregator. Where it ascends, R2 has no lower "
        "end: intervals by t say little there, the rank test is what counts.",
        "**Found**: trials that ended no better on validation rows than guessing (table above): "
        f"{'; '.join(weak)}." + (f" Every trial of {', '.join(lost)} diverged." if lost else ""),
        of_pair(best, found, "flip", "fixed c"),
        of_pair(best, found, "printed", "fixed c"),
        f"Validation chose: {picks(best, arms, 'flip')}; {picks(best, arms, 'printed')}.",
        "**Verdict**: The multiplier divides out. "
        + judged(
            found,
            ["flip"],
            "The closed form with its sign corrected is better than the exact maximiser here",
            "The closed form is worse than the exact maximiser, even with its sign corrected",
            "With its sign corrected the closed form is not told apart from the exact maximiser",
        )
        + " "
        + judged(
            found,
            ["printed"],
            "As printed it is better than the exact maximiser",
            "As printed it is worse than the exact maximiser",
            "As printed it is not told apart from the exact maximiser",
        ),
    ]


def third(trials, best, arms, found):
    """Return the paragraphs about gamma."""
    table, middle = of_reach(trials, arms)
    seed, n = middle["seed"], len(middle["seed"])
    less = {name: int((own < seed).sum()) for name, own in middle.items()}
    above = [
        f"It is less than over seeds (medians): over the shared gammas on "
        f"{less['gamma, shared']} of {n} data sets, over the wide ones on "
        f"{less['gamma, shared, wide']}, over the fixed c on {less['c (exact)']}, over the rates "
        f"on {less['learning rate']}."
    ] * bool(seed.notna().all())  # one seed has no spread
    return [
        "## 3. One gamma, or one for each task",
        f"**Open** {PAPER}: the paper has one regulariser gamma of the dual weights for all tasks "
        "(grid .001, .005, .01); one a task is left open. The exact solver has no gamma.",
        f"**Run**: flip at c = {CONE:g}. *shared gamma*: {', '.join(map('{:g}'.format, GAMMAS))}; "
        f"*gamma a task*: {len(GAMMAS)} lists a seed, each task's drawn log-uniformly between "
        f"{GAMMAS[0]:g} and {GAMMAS[-1]:g}. *wide*: {', '.join(map('{:g}'.format, WIDE))} against "
        f"{len(WIDE)} lists between {WIDE[0]:g} and {WIDE[-1]:g}.",
        "**Found**:",
        of_pair(best, found, "gamma a task", "shared gamma"),
        of_pair(best, found, "gamma a task, wide", "shared gamma, wide"),
        f"Validation chose: {picks(best, arms, 'shared gamma')}; "
        f"{picks(best, arms, 'shared gamma, wide')}.",
        "Does gamma do anything at all? The standard deviation of the mean test score over one "
        f"thing with all else equal, median (largest); of flip at c = {CONE:g}, over c of the "
        "exact solver:",
        table,
        *above,
        "**Verdict**: "
        + judged(
            found,
            ["gamma a task", "gamma a task, wide"],
            "A gamma a task, of random lists, is better than a shared one here",
            "A gamma a task, of random lists, is worse than a shared one here",
            "A gamma a task, of random lists, is not told apart from a shared one",
        ),
    ]


def draw_pairs(found, pairs, datas, path):
    """Draw the paired differences, a panel a comparison, with intervals by t over seeds."""
    figure = Figure(figsize=(2.7 * len(pairs) + 0.8, 0.5 * len(datas) + 2), layout="constrained")
    for axes, (number, arm, base) in zip(
        figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs, strict=True
    ):
        own, reach = found[(found.arm == arm) & (found.base == base)], 0.0
        for i, row in enumerate(own.itertuples()):
            for place, data in enumerate(datas):
                d = row.d[row.d.index.get_level_values("data") == data]
                mean, low, high = interval(d)
                reach = np.nanmax([reach, *np.abs([mean, low, high])])
                look = {"color": COLOURS[i], "fmt": MARKERS[i], "ms": 5, "capsize": 2}
                label = SCORES[row.score] if place == 0 else None
                y = place + 0.24 * i - 0.12
                axes.errorbar(mean, y, xerr=[[mean - low], [high - mean]], label=label, **look)
        axes.axvline(0, color="0.5", lw=1)
        if reach > 10:
            axes.set_xscale("symlog", linthresh=1)
            axes.tick_params("x", rotation=90)
        else:
            axes.locator_params("x", nbins=4)
        axes.set_title(f"{number}. {arm}\nminus {base}", fontsize=9)
        axes.tick_params(labelsize=8)
    axes.set_yticks(range(len(datas)), datas)
    axes.set_ylim(len(datas) - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("Test score, right of 0 the first is better; 95 % by t over seeds", fontsize=10)
    figure.savefig(path, dpi=100)


def draw_angles(trials, names, mean, path):
    """Draw each variant's difference to the mean gradient of the same seed, a panel a data set."""
    datas = list(trials.data.unique())
    figure = Figure(figsize=(3.2 * len(datas) + 0.8, 4), layout="constrained")
    best = chosen(trials[trials.variant.isin([*names, mean])], ["data", "seed", "variant"])
    for axes, data in zip(figure.subplots(1, len(datas), squeeze=False)[0], datas, strict=True):
        own = best[best.data == data]
        for i, (score, title) in enumerate(SCORES.items()):
            wide = own.pivot(index="seed", columns="variant", values=score)
            wide = wide.reindex(columns=[*names, mean])  # one may have diverged in every trial
            found = np.array([interval(wide[n] - wide[mean]) for n in names])
            places = np.arange(len(names)) + 0.2 * i - 0.1
            spread = np.abs(found[:, 1:] - found[:, :1]).T
            look = {"color": COLOURS[i], "fmt": MARKERS[i], "ms": 5, "capsize": 2, "label": title}
            axes.errorbar(places, found[:, 0], spread, **look)
        axes.axhline(0, color="0.5", lw=1)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_title(data, fontsize=9)
        axes.tick_params("y", labelsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle("Test score minus the mean gradient's; 95 % by t over seeds", fontsize=10)
    figure.savefig(path, dpi=100)


def page(trials, guesses, arms, pairs, kinds, references, out):
    """Return the paragraphs of the report; pictures go to ``out``."""
    mean, mgda, single = references
    best = with_change(best_of(trials, arms), kinds, single)
    blocks = trials.set_index(["data", "seed"]).index.unique()
    found = compared(best, blocks, pairs)
    datas = list(trials.data.unique())
    draw_pairs(found, pairs, datas, out / "differences.png")
    draw_angles(trials, [mgda, *arms["fixed c"], *arms["dynamic c"]], mean, out / "angles.png")
    n, rates = len(arms[pairs[0][1]]), sorted(trials.lr.unique())
    return [
        f"{', '.join(datas)}; {trials.seed.nunique()} seeds; {len(trials)} trials, "
        f"{int(trials.valid.isna().sum())} diverged. Every compared arm has {n * len(rates)} "
        f"trials ({n} variants, rates {', '.join(f'{r:g}' for r in rates)}) a data set and seed; "
        "the best mean score on validation rows is scored on test rows: R2, of tox21 area under "
        "ROC without the missing labels. Differences are arm minus base of one data set and seed "
        "(a block). Wilcoxon's signed-rank test is over all blocks, Holm's correction over the "
        f"{len(found)} main comparisons of the whole report, told apart below {LEVEL:g}; a word is "
        "by the median's sign. An arm all of whose trials of a block diverged counts as lost "
        "there, below every other difference, and then no mean of the differences is given.",
        "Blocks of one data set share its rows: seeds change the nets' first weights, the order of "
        "batches and the lists drawn, not the split of the data. They are not independent, so "
        "these p are rather too small, and the intervals are about seeds alone.",
        "## Guessing",
        "R2 of 0 is the mean of the very rows that are scored, which nobody can know. What can be "
        "guessed without inputs is the mean of the training rows, of classes any constant. Where "
        "blocks of a table differ, R2 of that guess is below 0, and a score about 0 is better "
        "than guessing:",
        of_guesses(best, guesses, mean),
        "## All main comparisons",
        of_tests(found),
        "![differences](differences.png)",
        *first(trials, best, arms, found, references),
        *second(trials, best, arms, guesses, found),
        *third(trials, best, arms, found),
        "## Every arm",
        "Delta_m% is the mean change of error (of tox21: of area) against one net for each task "
        "(smaller is better). Fewer trials than the arms have the last three, which are "
        "references. A rate chosen at an end of the grid says that a better one may lie beyond.",
        of_arms(trials, best, arms, guesses),
    ]
