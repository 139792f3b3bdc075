"""What the scripts beside it share: their arguments, data in parts, and the page they write."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student
from sklearn.metrics import r2_score, roc_auc_score

from mtlsk.datasets import load_table, make_arm, split_rows
from mtlsk.machine import machine, versions

FOLDER = Path(__file__).parent


class Parser(argparse.ArgumentParser):
    """Keeps a quick run from writing over a whole one's report; says what is not there."""

    def parse_args(self, *args, **kwargs):
        found = super().parse_args(*args, **kwargs)
        if found.quick and found.out == self.get_default("out"):
            found.out = found.out / "quick"  # tables that a whole run goes on from never mix
        if found.data is not None and not found.data.is_dir():
            self.error(f"--data {found.data}: no such folder; give the one with the tables")
        if getattr(found, "report", False) and not list(found.out.glob("*.csv")):
            self.error(f"--report: no tables in {found.out}; run without --report first")
        return found


def parser(doc, name, seeds=3):
    """Return a parser with the arguments that all studies have.

    ``doc`` is the module's text: its first paragraph is the help. ``name`` is the study's, whose
    folder beside the scripts gets the report.
    """
    made = Parser(description=doc.split("\n\n")[0])
    made.add_argument("--quick", action="store_true", help="less than a minute, to see it run")
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--jobs", type=int, default=2, help="worker processes")
    made.add_argument("--data", type=Path, metavar="FOLDER", help="sarcos_4449.csv.gz and others")
    made.add_argument("--out", type=Path, default=FOLDER / name)
    return made


def with_spread(values, digits=4):
    """Return "mean ± standard deviation" of values over the seeds, without those that are NaN."""
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return "-"
    spread = f" ± {kept.std(ddof=1):.{digits}f}" if len(kept) > 1 else ""
    return f"{kept.mean():.{digits}f}{spread}"


def rows_of(titles, rows):
    """Return a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def write(out, title, paragraphs, how):
    """Write report.md: a title, the date, how it was run and on what, and paragraphs; print it."""
    on = ", ".join(f"{k} {v}" for k, v in {**machine(), **versions()}.items())
    text = "\n\n".join([f"# {title}", f"{datetime.date.today()}; {how} {on}.", *paragraphs]) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(text)
    print(text)


def standardised(table, train):
    """Return a table (n, columns) with means 0 and deviations 1 on its training rows."""
    table = np.asarray(table, dtype=float)
    spread = np.nanstd(table[train], axis=0)
    return (table - np.nanmean(table[train], axis=0)) / np.where(spread > 0, spread, 1)


def parts(n):
    """Return masks of the rows of training, validation and test: blocks spread over the table."""
    part = split_rows(n, "blocked")
    return [part == name for name in ("train", "validation", "test")]


def numbers(name, folder, rows=3000):
    """Return (X, y, masks of the parts) of a table with numbers to predict, standardised.

    ``name`` is "arm", made here, or that of a file in ``folder``: "sarcos" (7 torques), "enb" (2),
    "wq" (14). Tables are cut to ``rows`` rows, evenly spaced.
    """
    if name == "arm":
        arm = make_arm(rows, random_state=0)
        X, y = np.asarray(arm.data), np.asarray(arm.target)
    else:
        file, k = {
            "sarcos": ("sarcos_4449.csv.gz", 7),
            "enb": ("enb.csv.gz", 2),
            "wq": ("wq.csv.gz", 14),
        }[name]
        table = load_table(folder / file, targets=k)
        X, y = table.data.to_numpy(), table.target.to_numpy()
    kept = np.unique(np.linspace(0, len(X) - 1, min(rows, len(X))).astype(int))
    X, y = X[kept], y[kept]
    masks = parts(len(X))
    return standardised(X, masks[0]), standardised(y, masks[0]), masks


def classes(name, folder, rows=3000):
    """Return (X, y, masks of the parts) of tables of zeros and ones: "yeast" (14), "tox21" (12).

    Missing labels of Tox21 are NaN.
    """
    if name == "tox21":
        found = np.load(folder / "tox21_ecfp1024.npz")
        X, y = np.unpackbits(found["Xpacked"], axis=1), found["Y"]
    else:
        table = pd.read_csv(folder / "yeast.csv.gz").drop(columns="_split", errors="ignore")
        X, y = table.iloc[:, :-14].to_numpy(), table.iloc[:, -14:].to_numpy(dtype=float)
    order = np.random.default_rng(0).permutation(len(X))[:rows]
    X, y = X[order].astype(float), y[order]
    part = np.arange(len(X)) * 8 // len(X)
    masks = [part < 5, part == 5, part > 5]
    return standardised(X, masks[0]) if name == "yeast" else X, y, masks


def scored(net, X, y, kind):
    """Return each task's score: R2 of "numbers", area under ROC of two classes, or accuracy."""
    if kind == "numbers":
        return r2_score(y, net.predict(X), multioutput="raw_values")
    if net.classes_[0].size > 2:
        return (net.predict(X) == y).mean(axis=0)
    there = [~np.isnan(column.astype(float)) for column in y.T]
    chances = net.predict_proba(X)
    pairs = [(column[t], p[t, 1]) for column, t, p in zip(y.T, there, chances, strict=True)]
    both = [len(set(labels)) == 2 for labels, _ in pairs]  # a task of one class here has no area
    return np.array(
        [roc_auc_score(*pair) if b else np.nan for pair, b in zip(pairs, both, strict=True)]
    )


def append(file, rows):
    """Add rows to a table on disk, whose first rows name its columns."""
    old = pd.read_csv(file) if file.exists() else pd.DataFrame()
    whole = file.with_suffix(".new")  # a run that is stopped while it writes loses nothing
    pd.concat([old, pd.DataFrame(rows)]).to_csv(whole, index=False, float_format="%.6g")
    whole.replace(file)


def chosen(trials, by):
    """Return the trial of each group that is best on validation rows; none if all diverged."""
    kept = trials.dropna(subset="valid")
    return kept.loc[kept.groupby(by).valid.idxmax()]


def tested(differences):
    """Return (mean, half width of the 95 % interval by t, p of t) of paired differences.

    Of fewer than two there is neither an interval nor a p: NaN.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < 2:
        return (d.mean() if len(d) else np.nan), np.nan, np.nan
    error = d.std(ddof=1) / np.sqrt(len(d))
    p = 2 * student.sf(abs(d.mean()) / error, len(d) - 1) if error > 0 else 1.0
    return d.mean(), error * student.ppf(0.975, len(d) - 1), p


def holm(p):
    """Return p-values corrected for their number by Holm's step-down method."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1)
    return corrected
