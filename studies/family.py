"""Every aggregator on the same nets, each at its own learning rate, against the mean loss.

usage: python studies/family.py [--sarcos FILE] [--seeds 3] [--quick]

Each aggregator trains at every learning rate of a grid with random states 0, 1, ...; the rate is
chosen by the mean R2 on a validation part over the seeds, the table shows the test part. So what
is compared is methods with a tuned learning rate, not the lengths of their updates.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import r2_score

from mtlsk import DivergenceError, MultiTaskRegressor
from mtlsk.aggregators import AGGREGATORS
from mtlsk.datasets import load_table, make_arm, split_rows
from mtlsk.machine import machine, versions

RATES = (3e-3, 1e-2, 3e-2)
BASE = "LinearScalarization"


def parts(n):
    """Return the rows of training, validation and test: blocks of rows, spread over the table."""
    part = split_rows(n, "blocked")
    return [part == name for name in ("train", "validation", "test")]


def load(arguments):
    """Yield (name, X, y), standardised by their training rows."""
    arm = make_arm(600 if arguments.quick else 3000, random_state=0)
    tables = [("arm", arm.data, arm.target)]
    if arguments.sarcos:
        sarcos = load_table(arguments.sarcos, targets=7)
        tables.append(("SARCOS", sarcos.data, sarcos.target))
    for name, X, y in tables:
        train, _, _ = parts(len(X))
        X, y = (np.asarray(a, dtype=float) for a in (X, y))
        scaled = [(a - a[train].mean(0)) / a[train].std(0) for a in (X, y)]
        yield name, *scaled


def fitted(X, y, aggregator, lr, seed, epochs):
    """Return (validation mean, test mean, test worst R2) of one net, NaN if it diverged."""
    train, validation, test = parts(len(X))
    net = MultiTaskRegressor(
        (64, 64), aggregator, lr=lr, max_epochs=epochs, batch_size=256, random_state=seed
    )
    try:
        net.fit(X[train], y[train])
    except DivergenceError:
        return (np.nan,) * 3
    scores = [
        r2_score(y[part], net.predict(X[part]), multioutput="raw_values")
        for part in (validation, test)
    ]
    return scores[0].mean(), scores[1].mean(), scores[1].min()


def table(name, X, y, arguments):
    """Return the lines of one data set, methods in order of their mean test R2."""
    epochs = 3 if arguments.quick else 30
    names = sorted(AGGREGATORS.members())
    if arguments.quick:
        names = [BASE, "ConicGrad", "UPGrad"]
    runs = [(a, lr, s) for a in names for lr in RATES for s in range(arguments.seeds)]
    found = Parallel(n_jobs=arguments.jobs)(delayed(fitted)(X, y, *r, epochs) for r in runs)
    frame = pd.DataFrame(runs, columns=["aggregator", "lr", "seed"])
    frame[["valid", "mean", "worst"]] = found
    chosen = frame.groupby(["aggregator", "lr"])["valid"].mean().dropna()
    best = chosen.loc[chosen.groupby("aggregator").idxmax()].index
    kept = frame.set_index(["aggregator", "lr"]).loc[best].reset_index()
    rows = []
    for aggregator, own in kept.groupby("aggregator"):
        base = kept[kept.aggregator == BASE]
        wins = [int((own[c].to_numpy() > base[c].to_numpy()).sum()) for c in ("mean", "worst")]
        cells = [aggregator, f"{own.lr.iloc[0]:g}"]
        cells += [f"{own[c].mean():.4f} ± {own[c].std(ddof=1):.4f}" for c in ("mean", "worst")]
        cells += ["" if aggregator == BASE else f"{w} of {len(own)}" for w in wins]
        rows.append((own["mean"].mean(), cells))
    rows.sort(key=lambda row: -row[0])
    titles = ["aggregator", "lr", "mean R2", "worst task's R2"]
    titles += ["mean better", "worst better"]
    lines = [f"## {name}: {len(X)} rows, {y.shape[1]} tasks, {epochs} epochs", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles))]
    lines += [f"| {' | '.join(cells)} |" for _, cells in rows]
    return [*lines, ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sarcos", metavar="FILE", help="table with the 7 torques last")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--quick", action="store_true", help="seconds: three methods, a few epochs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "family")
    arguments = parser.parse_args()
    described = ", ".join(f"{k} {v}" for k, v in {**machine(), **versions()}.items())
    page = [
        "# Every aggregator, each at its own learning rate",
        "",
        f"{datetime.date.today()}; {arguments.seeds} seeds; nets of 64, 64, batches of 256, "
        f"AdamW, learning rate chosen among {', '.join(f'{r:g}' for r in RATES)} by the mean R2 "
        f"of validation rows (blocked split). {described}.",
        "",
        "Test R2, mean ± standard deviation over the seeds. *better*: in how many seeds it beats "
        f"{BASE} of the same seed.",
        "",
    ]
    for name, X, y in load(arguments):
        page += table(name, X, y, arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.md").write_text("\n".join(page))
    print("\n".join(page))


if __name__ == "__main__":
    main()
