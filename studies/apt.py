"""APT on top of aggregators and optimizers, and what it acts on: the instant gradient's share.

python studies/apt.py --data FOLDER    four data sets, half an hour; without --data two
python studies/apt.py --report         the report again, from the tables beside it
python studies/apt.py --quick          seconds

Every arm (optimizer, aggregator, with or without APT) has four learning rates; the better mean
validation score of the first two seeds chooses, the test rows give the numbers of all seeds. A run
that was interrupted goes on where its tables end.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pandas as pd
from apt_parts import (
    BASE,
    BATCHES,
    HOSTS,
    KINDS,
    LAYERS,
    RHOS,
    options_of,
    preserved,
    rates,
    shared,
)
from apt_tables import ARM, TUNED, best_rates
from apt_text import of_arms, of_preservation, of_shares
from common import append, classes, numbers, parser, scored, write
from joblib import Parallel, delayed

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.datasets import make_multi_digits

AGGREGATORS = (BASE, "MGDA", "ConicGrad", "CAGrad")
ROWS = {"sarcos": 1200, "arm": 1200, "digits": 1200, "tox21": 2000}
EPOCHS = {"sarcos": 15, "arm": 15, "digits": 12, "tox21": 8}
HOW = (
    "small nets, few rows and epochs, so that all of it takes minutes: effects that need longer "
    "training are not seen here;"
)


def load(name, folder, rows):
    """Return (X, y, masks) of one data set."""
    if name == "digits":
        made = make_multi_digits(rows, random_state=0)
        part = np.arange(rows) * 8 // rows
        masks = [part < 5, part == 5, part > 5]
        return np.asarray(made.data, dtype=float), np.asarray(made.target), masks
    return (numbers if KINDS[name] == "numbers" else classes)(name, folder, rows)


def trial(data, epochs, name, optimizer, aggregator, arm, lr, seed):
    """Return the scores of one net (validation, test, each task's), none if it diverged."""
    X, y, masks = data
    if arm.startswith("task"):  # alone, on the rows that have its label
        k = int(arm.split()[1])
        known = ~np.isnan(y[:, k].astype(float))
        X, y, masks = X[known], y[known][:, [k]], [m[known] for m in masks]
    train, validation, test = masks
    kind = MultiTaskRegressor if KINDS[name] == "numbers" else MultiTaskClassifier
    controller = "APT" if arm == "APT" else None
    options = options_of(optimizer, arm)
    net = kind(LAYERS, aggregator, controller, optimizer, lr, epochs, random_state=seed, **options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rates that are too large
            net.fit(X[train], y[train])
            outputs = net.forward(X[~train].astype(np.float32))
        diverged = not outputs.isfinite().all()  # by the last step, which no loss has seen
    except DivergenceError:
        diverged = True
    if diverged:
        return {"valid": np.nan, "score": np.nan}
    valid, found = (scored(net, X[m], y[m], KINDS[name]) for m in (validation, test))
    tasks = [f"task {k}" for k in range(y.shape[1])]
    # a task whose rows hold one class has no score, NaN in its place: the mean is of the others
    means = {"valid": pd.Series(valid).mean(), "score": pd.Series(found).mean()}
    return means | dict(zip(tasks, found, strict=True))


def completed(file, keys, wanted, run, jobs):
    """Return a table on disk after running what it lacks of the wanted rows."""
    old = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=keys)
    there = set(old[keys].itertuples(index=False, name=None))
    missing = [key for key in wanted if key not in there]
    if not missing:
        return old
    found = Parallel(n_jobs=jobs)(delayed(run)(*key) for key in missing)
    rows = [
        dict(zip(keys, key, strict=True)) | row for key, row in zip(missing, found, strict=True)
    ]
    append(file, rows)
    print(f"{file.stem}, {' '.join(map(str, missing[-1][:2]))}: {len(rows)} runs", flush=True)
    return pd.read_csv(file)


def compared(name, data, optimizers, aggregators, epochs, file, arguments):
    """Run the arms of one data set, a block an optimizer, and a net for each task alone."""
    run, keys = partial(trial, data, epochs), [*ARM, "lr", "seed"]
    for optimizer in optimizers:
        arms = [(a, arm) for a in aggregators for arm in ("plain", "APT")] + [(BASE, "constant")]
        if optimizer == "AdamW":
            arms += [(BASE, f"task {k}") for k in range(data[1].shape[1])]
        arms = [(name, optimizer, *arm) for arm in arms]
        grid = [(*a, lr, s) for a in arms for lr in rates(name, optimizer) for s in range(TUNED)]
        best = best_rates(completed(file, keys, grid, run, arguments.jobs))
        rest = [(*arm, best[arm], s) for arm in arms for s in range(TUNED, arguments.seeds)]
        completed(file, keys, rest, run, arguments.jobs)


def inside(name, data, quick, of, arguments):
    """Run what is measured inside training, on one data set."""
    seeds = range(2 if quick else 3)
    hosts = [opt for opt in HOSTS if opt != "SGD"]  # the claim is of the others
    wanted = [(name, opt, arm, s) for opt in hosts for arm in ("plain", "APT") for s in seeds]
    run = partial(shared, data, 6 if quick else EPOCHS[name])
    completed(of["shares"], ["data", "optimizer", "arm", "seed"], wanted, run, arguments.jobs)
    wanted = [(name, batch, rho, s) for batch in BATCHES for rho in RHOS for s in seeds]
    run = partial(preserved, data, 40 if quick else 200)
    completed(of["preservation"], ["data", "batch", "rho", "seed"], wanted, run, arguments.jobs)


def main():
    options = parser(__doc__, "apt", seeds=5)
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    quick, out = arguments.quick, arguments.out
    rows = {**dict.fromkeys(ROWS, 240), "tox21": 1000} if quick else ROWS  # both of its classes
    epochs = dict.fromkeys(ROWS, 2) if quick else EPOCHS
    if quick:
        arguments.seeds = min(arguments.seeds, 3)
    out.mkdir(parents=True, exist_ok=True)
    tables = ("trials", "shares", "preservation")
    of = {table: out / f"{'quick_' * quick}{table}.csv" for table in tables}  # never mixed
    names = list(KINDS) if arguments.data else ["arm", "digits"]
    for name in [] if arguments.report else names:
        data = load(name, arguments.data, rows[name])
        few = ("AdamW", "Muon") if name in names[:1] else ("AdamW",)
        methods = AGGREGATORS[:2] if quick else AGGREGATORS
        hosts = few if quick else HOSTS
        compared(name, data, hosts, methods, epochs[name], of["trials"], arguments)
        if name == names[0]:
            inside(name, data, quick, of, arguments)
    trials, shares, preservation = (pd.read_csv(of[table]) for table in tables)
    paragraphs = [
        *of_arms(trials, rows, epochs, out),
        *of_shares(shares, out),
        *of_preservation(preservation, out),
    ]
    if "sarcos" not in set(trials.data):
        paragraphs.insert(0, "SARCOS and Tox21 are left out: no --data was given.")
    write(out, "APT on top of aggregators and optimizers", paragraphs, HOW)


if __name__ == "__main__":
    main()
