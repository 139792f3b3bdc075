"""What studies/apt.py writes: statistics of its runs, tables and verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from apt_drawing import draw_arms, draw_preservation, draw_shares
from apt_parts import BASE, CONSTANT, HOSTS
from common import rows_of, with_spread
from scipy.stats import t as student
from scipy.stats import wilcoxon

MARGINAL = 0.2
COLUMNS = ["data", "optimizer", "aggregator", "lr", "score", "score, APT"]
COLUMNS += ["Delta_m%", "Delta_m%, APT", "difference", "p"]


def holm(p):
    """Return p-values corrected for their number; the order is kept."""
    order, out = np.argsort(p), np.empty(len(p))
    out[order] = np.minimum(1, np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)))
    return out


def tested(differences):
    """Return (mean, half width of the 95 % interval by t, p of t) of paired differences."""
    d, n = np.asarray(differences), len(differences)
    error = d.std(ddof=1) / np.sqrt(n)
    p = 2 * student.sf(abs(d.mean()) / error, n - 1) if error > 0 else 1.0
    return d.mean(), error * student.ppf(0.975, n - 1), p


def paired(frame, other="plain"):
    """Return the differences APT - other of Delta_m and of the score, rows matched by seed."""
    keys = ["data", "optimizer", "aggregator", "seed"]
    a, b = (frame[frame.arm == arm].set_index(keys)[["delta", "score"]] for arm in ("APT", other))
    return (a - b).dropna().reset_index()


def grouped(differences, by):
    """Return (rows of a table, words) per group: blocks of data and seed, all else averaged."""
    names, tests, cells = [], [], []
    for name, own in differences.groupby(by, sort=False):
        blocks = own.groupby(["data", "seed"])["delta"].mean().to_numpy()
        mean, half, _ = tested(blocks)
        tests.append(wilcoxon(blocks).pvalue)
        names.append((name, mean))
        wins = f"{int((own.delta < 0).sum())} of {len(own)}"
        cells.append(
            [name, f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]", len(blocks), wins]
        )
    corrected = holm(tests)
    rows = [[*c, f"{p:.4f}"] for c, p in zip(cells, corrected, strict=True)]
    verdict = {n: ("better" if m < 0 else "worse") if p < 0.05 else "not told apart"
               for (n, m), p in zip(names, corrected, strict=True)}  # fmt: skip
    return rows, verdict


def ranks(frame):
    """Return rows (optimizer, arm): mean rank of a method over tasks, seeds and data sets."""
    part = frame[frame.arm != "constant"]
    found = []
    for (name, optimizer, seed), own in part.groupby(["data", "optimizer", "seed"]):
        table = np.stack(own.found) * (-1 if name in ("digits", "tox21") else 1)
        table = pd.DataFrame(table).dropna(axis=1).rank().mean(axis=1).to_numpy()
        scaled = (table - 1) / (len(own) - 1)
        found += [[optimizer, seed, a, r] for a, r in zip(own.arm, scaled, strict=True)]
    found = pd.DataFrame(found, columns=["optimizer", "seed", "arm", "rank"])
    return found.groupby(["optimizer", "arm", "seed"], sort=False)["rank"].mean().to_dict()


def of_arms(frame, datas, epochs, out):
    """Return the paragraphs about the claim that APT augments each aggregator."""
    change = paired(frame)
    cells, tests, counts = [], [], {"better": 0, "worse": 0}
    for key, own in change.groupby(["data", "optimizer", "aggregator"], sort=False):
        mean, half, p = tested(own.delta)
        counts["better"] += mean + half < 0
        counts["worse"] += mean - half > 0
        cells.append([*key, mean, half])
        tests.append(p)
    corrected = holm(tests)
    kept = frame.set_index(["data", "optimizer", "aggregator", "arm"]).sort_index()
    rows = []
    for (*key, mean, half), p in zip(cells, corrected, strict=True):
        plain, apt = (kept.loc[(*key, arm)] for arm in ("plain", "APT"))
        rows.append(
            [*key, f"{plain.lr.iloc[0]:g}, {apt.lr.iloc[0]:g}"]
            + [with_spread(f[c], d) for c, d in (("score", 3), ("delta", 1)) for f in (plain, apt)]
            + [f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]", f"{p:.2f}"]
        )
    by = [("aggregator", "a"), ("optimizer", "an")]
    tables, verdicts = zip(*(grouped(change, name) for name, _ in by), strict=True)
    titles = ["mean difference in Delta_m% [95 % by t]", "blocks", "runs that APT improves"]
    constant = grouped(paired(frame, "constant"), "optimizer")
    words = [
        ", ".join(f"{row[0]} {verdict[row[0]]} ({row[1].split()[0]})" for row in rows_)
        for rows_, verdict in zip((*tables, constant[0]), (*verdicts, constant[1]), strict=True)
    ]
    if all(v == "better" for v in verdicts[0].values()):
        verdict = "The claim holds here: APT improves every aggregator"
    elif "worse" in verdicts[0].values():
        verdict = "The claim does not hold here: with some aggregator APT is worse than without"
    elif "better" in verdicts[0].values():
        verdict = "The claim is not shown: APT improves some aggregators, not all"
    else:
        verdict = "The claim is not shown: no aggregator is told apart with and without APT"
    by_host = set(verdicts[1].values())
    if {"better", "worse"} <= by_host:
        verdict += "; the optimizer decides: it gains with some and loses with others"
    if "better" not in constant[1].values():
        verdict += (
            f"; nowhere is adapting told apart as better than a constant momentum of {CONSTANT}"
        )
    rank = ranks(frame)
    rank_rows = [
        [
            name,
            *(
                with_spread([r for (o, a, _), r in rank.items() if (o, a) == (name, arm)], 3)
                for arm in ("plain", "APT")
            ),
        ]
        for name in frame.optimizer.unique()
    ]
    arms = frame.groupby(["data", "optimizer", "aggregator", "arm"], sort=False)["lr"].first()
    upper = sum(lr == HOSTS[key[1]][2][1] for key, lr in arms.items())
    draw_arms(cells, out / "differences.png")
    shapes = "; ".join(
        f"{n} {len(d[0])} rows ({int(d[2][0].sum())} of them train), {d[1].shape[1]} tasks, "
        f"{', '.join(frame[frame.data == n].optimizer.unique())}, "
        f"{frame[frame.data == n].aggregator.nunique()} aggregators"
        for n, d in datas.items()
    )
    seeds = frame.seed.nunique()
    return [
        "## APT augments each aggregator",
        "**Claimed** (arXiv 2604.08939): adaptive momentum improves any aggregator it is put on.",
        f"**Run**: {shapes}. Nets of 32, 32, batches of 64, {epochs} epochs, {seeds} seeds; hosts "
        "as they come (SGD with momentum and dampening .9, AdamW with weight decay .01; Adam and "
        "AdamW differ in nothing else), APT with its defaults, which are our reading: the paper's "
        "formula is not public. Delta_m% is against one net for each task with AdamW (smaller is "
        "better; MSE, accuracy or area under the curve); differences are APT minus the same "
        f"arm without, paired by seed. {len(cells)} comparisons, Holm's correction over them.",
        f"**Found**: the larger of the two learning rates was chosen for {upper} of {len(arms)} "
        f"arms: the best one may lie beyond. Of {len(cells)} comparisons by themselves, "
        f"{counts['better']} have a 95 % interval below 0 (APT better), {counts['worse']} above "
        "(worse); after Holm "
        f"{int((corrected < 0.05).sum())} are left. "
        "Lower in the tables below: averaged to one number for each data set and seed (a block) "
        "and tested by Wilcoxon, Holm over the table; blocks vary in seed, not in data split, and "
        "those of one data set are alike, so these p are rather too small.",
        rows_of(["aggregator", *titles, "p"], tables[0]),
        rows_of(["optimizer", *titles, "p"], tables[1]),
        "Mean rank over tasks, data sets and seeds among all methods of an optimizer with and "
        "without APT (0 first of all, 1 last; ± over seeds):",
        rows_of(["optimizer", "without APT", "with APT"], rank_rows),
        f"Against a constant momentum of {CONSTANT}, the middle of APT's bounds, which APT takes "
        f"at a cosine of 0 ({BASE} only): is it the adapting, or only less momentum?",
        rows_of(["optimizer", *titles, "p"], constant[0]),
        "![differences](differences.png)",
        f"**Verdict**: {verdict} (by aggregator: {words[0]}; by optimizer: {words[1]}; against "
        f"the constant: {words[2]}).",
        "Every comparison (score: R2, accuracy or area under the curve; lr without, with APT):",
        rows_of(
            COLUMNS,
            rows,
        ),
    ]


def of_shares(found, name, out):
    """Return the paragraphs about the share of the instant gradient."""
    means = {key: np.mean(runs, axis=0) for key, runs in found.items()}
    draw_shares(means, found, MARGINAL, out / "shares.png")
    rows = [
        [*key, *(with_spread(np.transpose(runs)[i], 3) for i in range(4))]
        for key, runs in found.items()
    ]
    plain = {opt: m[1] for (opt, arm), m in means.items() if arm == "plain"}
    marginal = {opt: share < MARGINAL for opt, share in plain.items()}
    held = "holds" if all(marginal.values()) else "does not hold for all"
    listed = ", ".join(f"{opt} {share:.0%}" for opt, share in plain.items())
    apt = ", ".join(f"{opt} {m[1]:.0%}" for (opt, arm), m in means.items() if arm == "APT")
    return [
        "## The instant gradient is a marginal share of the update in Adam and Muon",
        "**Claimed** (arXiv 2604.08939): so it is, which is why momentum should adapt.",
        f"**Run**: {name}, {BASE}, {len(next(iter(found.values())))} seeds, the first learning "
        "rate, every step but the first ten, over the trunk's matrices. *coefficient*: 1 - beta_t "
        "(Muon, with its look-ahead: 1 - beta_t^2). *share*: <u_g, u> / |u|^2 of the update u "
        "(Adam's divided by its root mean squares, Muon's before it is orthogonalised), u_g the "
        "instant gradient's part of it. *cosine*: of the update with that without the "
        "instant gradient (Muon's both orthogonalised). *length*: |u_g| / |u|. Marginal is called "
        f"a share below {MARGINAL:.0%} (our threshold).",
        "**Found**:",
        rows_of(["optimizer", "arm", "coefficient", "share", "cosine", "length"], rows),
        "![shares](shares.png)",
        f"**Verdict**: The claim {held} at this threshold: the share is {listed}; with APT it is "
        f"{apt}.",
    ]


def of_preservation(found, name, out):
    """Return the paragraphs about Muon's direction preservation."""
    draw_preservation(found, out / "preservation.png")
    rows = [
        [batch, rho, *(with_spread(np.transpose(runs)[i], 3) for i in range(5))]
        for (batch, rho), runs in found.items()
    ]
    said = []
    for batch in dict.fromkeys(b for b, _ in found):
        base = np.array(found[batch, 0.0])
        largest = max(r for _, r in found)
        for rho in (0.2, largest):
            d = np.array(found[batch, rho]) - base
            n = len(d)
            half = d.std(axis=0, ddof=1) / np.sqrt(n) * student.ppf(0.975, n - 1)
            mean = d.mean(axis=0)
            verdict = [
                "up" if m - h > 0 else "down" if m + h < 0 else "not told apart"
                for m, h in zip(mean, half, strict=True)
            ]
            said.append(
                [batch, rho, *(f"{m:+.3f} {v}" for m, v in zip(mean, verdict, strict=True))]
            )
    better = sum("up" in row[-1] for row in said)
    worse = sum("down" in row[-1] for row in said)
    most = max(abs(float(row[-1].split()[0])) for row in said)
    if better and not worse:
        verdict = f"It improves the test R2 in {better} of {len(said)} comparisons and harms none"
    elif better or worse:
        verdict = f"Test R2 rises in {better} and falls in {worse} of {len(said)} comparisons"
    else:
        verdict = (
            f"No benefit is shown: the test R2 is told apart in none of {len(said)} comparisons"
        )
    ranks_down = sum("down" in row[3] for row in said)
    worst_up = sum("up" in row[5] for row in said)
    titles = ["gradient noise", "effective rank", "mean cosine", "worst task's cosine", "test R2"]
    return [
        "## Direction preservation in Muon",
        "**Claimed** (arXiv 2604.08939): a light direction preservation helps Muon; no formula is "
        "public, and M + rho |M| (mean of unit task gradients) is our reading.",
        f"**Run**: {name}, {BASE}, Muon, lr .01, {len(next(iter(found.values())))} seeds, about as "
        "many steps for each batch size; every 20th step the update is held against the task "
        "gradients of all training rows. *gradient noise*: |g_batch - g_all| / |g_all|; "
        "*effective rank* of what is orthogonalised (mean of the matrices); *cosines* between the "
        "update and the task gradients.",
        "**Found**:",
        rows_of(["batch", "rho", *titles], rows),
        "Change against rho = 0, paired by seed (up or down: the 95 % interval leaves 0 out; no "
        "correction for their number):",
        rows_of(["batch", "rho", *titles], said),
        "![preservation](preservation.png)",
        f"**Verdict**: {verdict} (by {most:.3f} at most, uncorrected); it lowers "
        f"the effective rank in {ranks_down} and raises the worst task's "
        f"cosine in {worst_up} of them.",
        "## How well momentum follows a changing gradient",
        "This has a study of its own: [apt_tracking](../apt_tracking/report.md).",
    ]
