"""CANON's claims about certificates, on the simulated arm: conditioning, moments, steps, zeros.

python studies/certificates.py            minutes
python studies/certificates.py --quick    less than a minute, shorter trainings
"""

from __future__ import annotations

import numpy as np
import torch
from certificate_claims import counterexamples, zeros
from common import parser, rows_of, standardised, with_spread, write
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from skorch.callbacks import LRScheduler

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.curvature import moment_correlation
from mtlsk.datasets import make_arm
from mtlsk.decomposition import make_tasks_with_cosine
from mtlsk.drawing import COLOURS
from mtlsk.estimators import DecomposedRegressor

KAPPAS = (1.0, 10.0, 100.0, 1000.0)
RATES = (0.1, 0.3, 1.0, 3.0)


def arm(rows, seed, tasks=7):
    """Return X and y of the arm, standardised."""
    made = make_arm(rows, random_state=seed)
    X, y = (standardised(table, slice(None)) for table in (made.data, made.target))
    return X, y[:, :tasks]


def prescribed(seeds, quick, file):
    """Train the same objective cut into tasks of a prescribed kappa; draw and return the text."""
    steps = 40 if quick else 400
    ends = {a: np.empty((seeds, len(KAPPAS))) for a in ("LinearScalarization", "MGDA", "ConicGrad")}
    for seed in range(seeds):
        X, y = arm(200, seed, 3)
        common = {"module__activation": "tanh", "optimizer": "SGD", "lr": 0.05, "batch_size": -1}
        common |= {"dtype": "float64", "random_state": seed, "update_norm": "mean"}
        gramian, _ = MultiTaskRegressor(**common).initialize_for(X, y).task_gramian(X, y)
        for j, kappa in enumerate(KAPPAS):
            mixing = make_tasks_with_cosine(gramian, condition_number=kappa).tolist()
            for name, found in ends.items():
                net = DecomposedRegressor((64, 64), name, mixing=mixing, max_epochs=steps, **common)
                _, losses = net.fit(X, y).task_gramian(X, y)
                found[seed, j] = float(losses.mean())
    plain = ends["LinearScalarization"]
    same = float(np.ptp(plain, axis=1).max())
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    rows, said = [], []
    for n, (name, found) in enumerate(ends.items()):
        axes.errorbar(
            KAPPAS, found.mean(0), found.std(0), label=name, marker="o^s"[n], color=COLOURS[n]
        )
        ranks = [spearmanr(KAPPAS, own).statistic if np.ptp(own) > 1e-9 else 0.0 for own in found]
        rows.append([name, *(with_spread(v) for v in found.T), with_spread(ranks, 2)])
        worse = found[:, -1] - found[:, 0]
        if name != "LinearScalarization":
            verb = "slower" if (worse > 1e-3).all() else "not slower in every seed"
            said.append(f"{name} is {verb} at kappa 1000 than at 1 ({with_spread(worse)})")
    axes.set(xscale="log", xlabel="condition number of the task gradients at the start")
    axes.set(ylabel=f"mean loss after {steps} steps", title="One objective, cut into other tasks")
    axes.legend()
    figure.savefig(file, dpi=110)
    held = "holds" if all("not slower" not in s for s in said) else "does not hold in general"
    return [
        "## Conditioning and convergence",
        "**Claimed**: the condition number kappa of the task gradients governs convergence.",
        f"**Run**: 200 rows, three torques, full batches, SGD at .05, {steps} steps, updates of "
        f"the mean gradient's length; {seeds} seeds of data and nets. The same objective is cut "
        "into tasks whose kappa at the start is prescribed: the sum of the losses never changes.",
        "**Found**: mean loss at the end, and its rank correlation with kappa.",
        rows_of(["aggregator", *(f"kappa {k:g}" for k in KAPPAS), "rank correlation"], rows),
        f"![Mean loss against kappa]({file.name})",
        f"**Verdict**: {held}: equal weights train the same net however the objective is cut (to "
        f"{same:.0e}), so kappa cannot govern them; {'; '.join(said)}.",
    ]


def moments(seeds, quick):
    """Return the text about Adam's second moment and the diagonal of Gauss-Newton."""
    steps = 100 if quick else 1000
    kinds = ("classes", "noisy numbers", "numbers")
    found = {kind: {batch: [] for batch in (8, 64, 512)} for kind in kinds}
    for seed in range(seeds):
        X, y = arm(512, seed)
        noise = np.random.default_rng(seed).normal(size=y.shape)
        labels = {"classes": np.digitize(y, (-0.4, 0.4)), "noisy numbers": y + noise, "numbers": y}
        for kind, target in labels.items():
            made = MultiTaskClassifier if kind == "classes" else MultiTaskRegressor
            for batch in (8, 64, 512):
                net = made(
                    (16,), activation="tanh", batch_size=batch, random_state=seed, lr=0.003,
                    max_epochs=max(1, steps * batch // 512),
                )  # fmt: skip
                value, _ = moment_correlation(net.fit(X, target), X, target)
                found[kind][batch].append(value)
    rows = [[kind, *(with_spread(v, 2) for v in own.values())] for kind, own in found.items()]
    above = [np.mean(own[b]) > 0.88 for own in found.values() for b in (8, 64)]
    full = [np.mean(own[512]) for own in found.values()]
    small = [np.mean(own[8]) for own in found.values()]
    fall = all(f < s for f, s in zip(full, small, strict=True))
    return [
        "## Adam's second moment and the Gauss-Newton diagonal",
        "**Claimed**: they are correlated, Spearman above .88.",
        f"**Run**: 512 rows, a tanh layer of 16, AdamW at .003 for {steps} steps at each batch "
        f"size, {seeds} seeds; targets in three classes, with noise as large as they are, and "
        "without.",
        "**Found**:",
        rows_of(["targets", "batches of 8", "64", "512 (all)"], rows),
        f"**Verdict**: above .88 in {sum(above)} of 6 cells of small batches and in "
        f"{sum(v > 0.88 for v in full)} of 3 of full batches; it "
        + ("falls for all three kinds of target" if fall else "does not fall for every target")
        + " from batches of 8 to full batches: "
        + ("an effect of small batches." if fall else "no mere effect of small batches."),
    ]


def schedules(seeds, quick):
    """Return the text about the safe step, a constant rate and a warmup with a cosine."""
    epochs, table = (3 if quick else 25), {}
    for seed in range(seeds):
        X, y = arm(1000, seed)
        train, valid, test = np.split(np.arange(1000), [600, 750])
        total = epochs * -(-600 // 64)

        def warm(step, total=total):
            start = min(1.0, (step + 1) / (0.1 * total))
            return start * (1 + np.cos(np.pi * min(step / total, 1))) / 2

        cosine = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=warm, step_every="batch")
        safe = [("self-bounding", 1.0), ("self-bounding", 0.3), ("gram", 1.0), ("gram", 0.3)]
        tried = {
            "constant": [{"lr": lr} for lr in RATES],
            "warmup and cosine": [{"lr": lr, "callbacks": [cosine]} for lr in RATES],
            "safe step": [
                {"lr": RATES[-1], "controller": {"name": "SafeStep", "bound": b, "share": s}}
                for b, s in safe
            ],
        }
        for name, options in tried.items():
            scores = []
            for option in options:
                net = MultiTaskRegressor(
                    (32, 32), activation="tanh", optimizer="SGD", batch_size=64, max_epochs=epochs,
                    random_state=seed, **option,
                )  # fmt: skip
                try:
                    net.fit(X[train], y[train])
                except DivergenceError:
                    scores.append([-np.inf, np.nan])
                    continue
                pair = [r2_score(y[part], net.predict(X[part])) for part in (valid, test)]
                scores.append(pair if min(pair) > -1 else [-np.inf, np.nan])
            table.setdefault(name, []).append(scores)
    best = {n: [max(own)[1] for own in runs] for n, runs in table.items()}
    rows = [[n, *(with_spread([o[i][1] for o in table[n]], 3) for i in range(4)),
             with_spread(v, 3)] for n, v in best.items()]  # fmt: skip
    gaps = [np.subtract(best["safe step"], best[n]) for n in ("constant", "warmup and cosine")]
    said = [
        f"{'above' if (g > 0).all() else 'below' if (g < 0).all() else 'not told apart from'} {n} "
        f"({g.mean():+.3f}, {(g > 0).sum()} of {seeds} seeds above)"
        for n, g in zip(("a tuned constant", "warmup and cosine"), gaps, strict=True)
    ]
    means = {n: np.mean([[score[0] for score in own] for own in table[n]], axis=0) for n in table}
    tops = [n for n in ("constant", "warmup and cosine") if means[n].argmax() in (0, 3)]
    edge = f" The best rate of {' and of '.join(tops)} is at the grid's edge." if tops else ""
    return [
        "## The safe step",
        "**Claimed**: a step length from a certificate, short at first and growing, makes "
        "schedules and their tuning unnecessary.",
        f"**Run**: 1000 rows, 600 to train, tanh 32, 32, plain SGD, batches of 64, {epochs} "
        f"epochs, {seeds} seeds. Four trials each, the best on validation rows: rates "
        f"{', '.join(f'{r:g}' for r in RATES)}; the same as the peak of a warmup and cosine; "
        "`SafeStep` with both bounds, whole and at a share of .3, its "
        f"limit at a rate of {RATES[-1]:g}. A net that diverges (R2 below -1) has none.",
        "**Found**: test R2 of the four trials in this order, and of the best on validation.",
        rows_of(["step", "1", "2", "3", "4", "chosen"], rows),
        f"**Verdict**: the safe step is {' and '.join(said)}.{edge}",
    ]


def main():
    arguments = parser(__doc__, "certificates").parse_args()
    quick, seeds, out = arguments.quick, arguments.seeds, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    text = prescribed(seeds, quick, out / "kappa.png")
    for part in (moments(seeds, quick), schedules(seeds, quick), counterexamples(seeds)):
        text += part
        print(part[-1], flush=True)
    text += zeros(arm, seeds, quick)
    text.append(
        "The controller that watches conditioning has a study of its own: "
        "[certificate_controller](../certificate_controller/report.md)."
    )
    title = "What the task gradients certify"
    write(out, title, text, f"{seeds} seeds; the simulated arm (no noise), standardised.")


if __name__ == "__main__":
    main()
