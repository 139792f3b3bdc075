"""What studies/apt.py writes: tables of its runs and the verdicts that they allow."""

from __future__ import annotations

import numpy as np
from apt_drawing import draw_arms, draw_preservation, draw_shares
from apt_parts import BASE, CONSTANT, HOSTS, KINDS, LAYERS, PRESERVATION, RATIO, RHOS, SHARES, rates
from apt_tables import ARM, TUNED, changes, edges, finals, grouped, paired
from common import holm, rows_of, tested, with_spread

from mtlsk import MultiTaskRegressor

MARGINAL = 0.2
COLUMNS = ["data", "optimizer", "aggregator", "lr", "pairs", "score", "score, APT"]
COLUMNS += ["Delta_m%", "Delta_m%, APT", "difference", "p"]
GROUPS = ["median", "blocks", "data sets better", "runs that APT improves", "p"]


def compared(change):
    """Return (data, optimizer, aggregator, mean, half width, pairs, p by Holm) of each."""
    cells = []
    for key, own in change.dropna(subset="delta").groupby(ARM[:3], sort=False):
        if len(own) > 1:
            mean, half, p = tested(own.delta)
            cells.append([*key, mean, half, len(own), p])
    return [[*cell[:-1], p] for cell, p in zip(cells, holm([c[-1] for c in cells]), strict=True)]


def every(frame, cells):
    """Return the table of every comparison."""
    kept = frame.set_index(ARM).sort_index()
    rows = []
    for *key, mean, half, pairs, p in cells:
        plain, apt = (kept.loc[(*key, arm)] for arm in ("plain", "APT"))
        rows.append(
            [*key, f"{plain.lr.iloc[0]:g}, {apt.lr.iloc[0]:g}", pairs]
            + [with_spread(f[c], d) for c, d in (("score", 3), ("delta", 1)) for f in (plain, apt)]
            + [f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]", f"{p:.2f}"]
        )
    return rows_of(COLUMNS, rows)


def where(cells):
    """Return the table of the mean differences of each data set and optimizer."""
    hosts = list(dict.fromkeys(c[1] for c in cells))
    rows = []
    for name in dict.fromkeys(c[0] for c in cells):
        row = [name]
        for host in hosts:
            own = [c[3] for c in cells if c[:2] == [name, host]]
            better = sum(mean < 0 for mean in own)
            row.append(f"{np.mean(own):+.1f} ({better} of {len(own)})" if own else "-")
        rows.append(row)
    return rows_of(["data", *hosts], rows)


def of_ranks(frame, change):
    """Return (rows, words) of the mean ranks without and with APT, by optimizer and aggregator."""
    rows, words = [], {}
    for by in ("optimizer", "aggregator"):
        own, verdict = grouped(change, by, "rank", 3)
        for name, difference, *rest in own:
            means = frame[frame[by] == name].groupby(["arm", "seed"])["rank"].mean()
            ranks = [with_spread(means[arm], 3) for arm in ("plain", "APT")]
            rows.append([name, *ranks, difference, *rest])
        words |= verdict
    return rows, words


def at_edges(trials):
    """Return the sentences on the edges of the grids that were chosen."""
    found = edges(trials)
    alone, arms = found[found.arm == "alone"], found[found.arm != "alone"]
    each = "; ".join(
        ", ".join(
            f"{name} {own.least.sum()} and {own.largest.sum()} of {len(own)}"
            for name, own in arms.groupby(by, sort=False)
        )
        for by in ("arm", "optimizer")
    )
    return (
        f"the least of its learning rates was chosen for {arms.least.sum()} of {len(arms)} arms, "
        f"the largest for {arms.largest.sum()} ({each}): there the best one may lie beyond. Of "
        f"the {len(alone)} nets for one task these are {alone.least.sum()} and "
        f"{alone.largest.sum()}."
    )


def shapes(trials, rows, epochs):
    """Return what was run on each data set, and at which learning rates."""
    said, grids = [], {}
    for name, own in trials.groupby("data", sort=False):
        n_tasks = own.arm[own.arm.str.startswith("task")].nunique()
        hosts = own.optimizer.unique()
        said.append(
            f"{name} {rows[name]} rows, {n_tasks} tasks, {epochs[name]} epochs, "
            f"{own.aggregator.nunique()} aggregators, {', '.join(hosts)}"
        )
        for host in hosts:
            grid = own.lr[own.optimizer == host]
            low, high = grid.min(), grid.max()
            grids.setdefault(f"{host} {low:g} to {high:g}", []).append(name)
    listed = ", ".join(f"{grid} ({', '.join(names)})" for grid, names in grids.items())
    return f"{'; '.join(said)}. Learning rates: {listed}"


def words_of(host):
    """Return an optimizer's own options as words."""
    return ", ".join(f"{word.replace('_', ' ')} {v:g}" for word, v in HOSTS[host][0].items())


def told(verdicts):
    """Return the verdict on the claim: of aggregators, of optimizers, against the constant."""
    by_aggregator, by_host, constant = (set(v.values()) for v in verdicts)
    if by_aggregator == {"better"}:
        verdict = "The claim holds here: APT improves every aggregator"
    elif "worse" in by_aggregator:
        verdict = "The claim does not hold here: with some aggregator APT is worse than without"
    elif "better" in by_aggregator:
        verdict = "The claim is not shown: APT improves some aggregators, not all"
    else:
        verdict = "The claim is not shown: no aggregator is told apart with and without APT"
    if {"better", "worse"} <= by_host:
        verdict += "; the optimizer decides: it gains with some and loses with others"
    if "better" not in constant:
        verdict += (
            f"; nowhere is adapting told apart as better than a constant momentum of {CONSTANT}"
        )
    return verdict


def of_arms(trials, rows, epochs, out):
    """Return the paragraphs about the claim that APT augments each aggregator."""
    frame = finals(trials)
    change = paired(frame)
    cells = compared(change)
    below = sum(mean + half < 0 for *_, mean, half, _, _ in cells)
    above = sum(mean - half > 0 for *_, mean, half, _, _ in cells)
    left = sum(p < 0.05 for *_, p in cells)
    lost = int(frame.delta.isna().sum())
    tables = [grouped(change, by) for by in ("aggregator", "optimizer")]
    tables.append(grouped(paired(frame, "constant"), "optimizer"))
    words = [
        ", ".join(f"{row[0]} {verdict[row[0]]} ({row[2]})" for row in own)
        for own, verdict in tables
    ]
    ranks, rank_words = of_ranks(frame, change)
    words.append(", ".join(f"{name} {word}" for name, word in rank_words.items()))
    draw_arms([cell[:5] for cell in cells], out / "differences.png")
    seeds = frame.seed.nunique()
    n_rates = trials.groupby(ARM).lr.nunique().max()
    titles = ["mean difference in Delta_m% [95 % by t]", *GROUPS]
    return [
        "## APT augments each aggregator",
        "**Claimed** (arXiv 2604.08939): adaptive momentum improves any aggregator it is put on.",
        f"**Run**: {shapes(trials, rows, epochs)}. About 5/8 of the rows train, 1/8 choose and "
        f"1/4 test. Nets of {', '.join(map(str, LAYERS))}, batches of "
        f"{MultiTaskRegressor().batch_size}, {seeds} seeds; hosts as they come (SGD with "
        f"{words_of('SGD')}, AdamW with {words_of('AdamW')}; Adam and "
        "AdamW differ in nothing else; the rate of the part of Muon that is AdamW is its default), "
        "APT with its defaults, which are our reading: the paper's formula is not public. "
        f"{n_rates} learning rates an arm, each {RATIO:g} times the last, placed beforehand by "
        "a few probes on validation rows, the same with and "
        f"without APT; the mean validation score of {TUNED} seeds chooses one for all seeds, which "
        "is a choice that intervals and p below know nothing of. Delta_m% is against one net for "
        "each task with AdamW, tuned in the same way (smaller is "
        "better; MSE, accuracy or area under the curve); differences are APT minus the same "
        f"arm without, paired by seed. {len(cells)} comparisons, Holm's correction over them.",
        f"**Found**: {at_edges(trials)} {int(trials.valid.isna().sum())} of {len(trials)} trials "
        f"diverged, {lost} of them at a rate that was chosen: those are last in rank and in no "
        f"difference of Delta_m%. Of {len(cells)} comparisons by themselves, "
        f"{below} have a 95 % interval below 0 (APT better), {above} above "
        f"(worse); after Holm {left} are left. "
        "In the tables further below: averages to one number for each data set and seed (a block), "
        "tested by Wilcoxon, Holm over the table; better and worse go by the median; "
        "blocks vary in seed, not in data split, and those of one data set are alike, so these p "
        "are rather too small. Ratios of MSE move more than those of accuracies or areas: means "
        "over the data sets are mostly of those with numbers to predict, ranks are not.",
        rows_of(["aggregator", *titles], tables[0][0]),
        rows_of(["optimizer", *titles], tables[1][0]),
        "Mean difference in Delta_m% (and of how many aggregators it is below 0):",
        where(cells),
        "Mean rank over tasks, data sets and seeds among all methods of an optimizer with and "
        "without APT (0 first of all, 1 last; ± over seeds):",
        rows_of(
            ["among", "without APT", "with APT", "mean difference [95 % by t]", *GROUPS], ranks
        ),
        f"Against a constant momentum of {CONSTANT}, the middle of APT's bounds, which APT takes "
        f"at a cosine of 0 ({BASE} only): is it the adapting, or only less momentum?",
        rows_of(["optimizer", *titles], tables[2][0]),
        "![differences](differences.png)",
        f"**Verdict**: {told([verdict for _, verdict in tables])} (medians; by aggregator: "
        f"{words[0]}; by optimizer: {words[1]}; against the constant: {words[2]}; by "
        f"mean rank: {words[3]}).",
        "Every comparison (score: R2, accuracy or area under the curve; lr without, with APT; "
        "pairs: seeds of which neither net diverged):",
        every(frame, cells),
    ]


def of_one(table):
    """Return (name, rows) of one data set of a table that may hold more: the first of KINDS."""
    name = next(name for name in KINDS if name in set(table.data))
    return name, table[table.data == name].sort_values("seed", kind="stable")


def judged(means, measure):
    """Return (optimizers where a measure is marginal, the others, words, words with APT)."""
    at = SHARES.index(measure)
    plain = {opt: m[at] for (opt, arm), m in means.items() if arm == "plain"}
    small = [opt for opt, value in plain.items() if value < MARGINAL]
    others = [opt for opt in plain if opt not in small]
    if small and others:
        word = f"marginal in {', '.join(small)}, not in {', '.join(others)}"
    else:
        word = "marginal" if small else "not marginal"
    listed = ", ".join(f"{opt} {value:.0%}" for opt, value in plain.items())
    apt = ", ".join(f"{opt} {m[at]:.0%}" for (opt, arm), m in means.items() if arm == "APT")
    return small, others, f"{word} ({listed})", apt


def of_shares(table, out):
    """Return the paragraphs about the share of the instant gradient."""
    name, table = of_one(table)
    groups = table.groupby(["optimizer", "arm"], sort=False)
    found = {key: own[list(SHARES)].to_numpy() for key, own in groups}
    means = {key: np.mean(runs, axis=0) for key, runs in found.items()}
    draw_shares(means, found, MARGINAL, out / "shares.png")
    rows = [
        [*key, *(with_spread(np.transpose(runs)[i], 3) for i in range(4))]
        for key, runs in found.items()
    ]
    small, others, projected, apt = judged(means, "share")
    small_too, _, long, apt_too = judged(means, "length")
    if small != small_too:
        verdict = "It depends on the measure"
    elif others:
        verdict = "The claim does not hold " + ("for all" if small else "at this threshold")
    else:
        verdict = "The claim holds at this threshold"
    return [
        "## The instant gradient is a marginal share of the update in Adam and Muon",
        "**Claimed** (arXiv 2604.08939): so it is, which is why momentum should adapt.",
        f"**Run**: {name}, {BASE}, {table.seed.nunique()} seeds, the second learning "
        "rate, every step but the first ten, over the trunk's matrices. *coefficient*: 1 - beta_t "
        "(Muon, with its look-ahead: 1 - beta_t^2). *share*: <u_g, u> / |u|^2 of the update u "
        "(Adam's divided by its root mean squares, Muon's before it is orthogonalised), u_g the "
        "instant gradient's part of it. *cosine*: of the update with that without the "
        "instant gradient (Muon's both orthogonalised). *length*: |u_g| / |u|. The paper's measure "
        f"is not public: marginal is called what is below {MARGINAL:.0%} (our threshold), by "
        "projection (*share*) and by *length*.",
        "**Found**:",
        rows_of(["optimizer", "arm", *SHARES], rows),
        "![shares](shares.png)",
        f"**Verdict**: {verdict}. By projection: {projected}; with APT {apt}. By length: {long}; "
        f"with APT {apt_too}.",
    ]


def of_preservation(table, out):
    """Return the paragraphs about Muon's direction preservation."""
    name, table = of_one(table)
    groups = table.groupby(["batch", "rho"], sort=False)
    found = {key: own[list(PRESERVATION)].to_numpy() for key, own in groups}
    draw_preservation(found, out / "preservation.png")
    rows = [
        [batch, rho, *(with_spread(np.transpose(runs)[i], 3) for i in range(5))]
        for (batch, rho), runs in found.items()
    ]
    told = changes(table)
    said = [
        [*key, *(f"{mean:+.3f} {word}" for mean, word, _ in cells), f"{cells[-1][2]:.3f}"]
        for key, cells in told.items()
    ]
    words = {
        measure: [cells[i][1] for cells in told.values()] for i, measure in enumerate(PRESERVATION)
    }
    better, worse = (words["test R2"].count(word) for word in ("up", "down"))
    lower = words["effective rank"].count("down")
    nearer = words["worst task's cosine"].count("up")
    most = max((cells[-1][0] for cells in told.values()), key=abs)
    if better and not worse:
        verdict = f"It improves the test R2 in {better} of {len(told)} comparisons and harms none"
    elif better or worse:
        verdict = f"Test R2 rises in {better} and falls in {worse} of {len(told)} comparisons"
    else:
        verdict = (
            f"No benefit is shown: the test R2 is told apart in none of {len(told)} comparisons"
        )
    return [
        "## Direction preservation in Muon",
        "**Claimed** (arXiv 2604.08939): a light direction preservation helps Muon; no formula is "
        "public, and M + rho |M| (mean of unit task gradients) is our reading.",
        f"**Run**: {name}, {BASE}, Muon, lr {rates(name, 'Muon')[1]:g}, "
        f"{table.seed.nunique()} seeds, about as many steps for each "
        "batch size; every 20th step the update is held against the task gradients "
        "of all training rows. *gradient noise*: |g_batch - g_all| / |g_all|; "
        "*effective rank* of what is orthogonalised (mean of the matrices); *cosines* between the "
        "update and the task gradients.",
        "**Found**:",
        rows_of(["batch", "rho", *PRESERVATION], rows),
        f"Change against rho = {RHOS[0]:g}, paired by seed (up or down: p of t below .05 by Holm "
        "over the column; few seeds, so that only what is much the same in all of them is told):",
        rows_of(["batch", "rho", *PRESERVATION, "p of test R2"], said),
        "![preservation](preservation.png)",
        f"**Verdict**: {verdict} (the largest change is {most:+.3f}); it lowers the effective rank "
        f"in {lower} and raises the worst task's cosine in {nearer} of them.",
        "## How well momentum follows a changing gradient",
        "This has a study of its own: [apt_tracking](../apt_tracking/report.md).",
    ]
