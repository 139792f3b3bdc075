"""Open questions of ConicGrad: a moving cone, the multiplier set to 1, a gamma for each task.

python studies/conicgrad_questions.py --data FOLDER      four data sets, three seeds: an hour
python studies/conicgrad_questions.py --report           the report again, from trials.csv
python studies/conicgrad_questions.py --quick            the simulated arm, few rows and epochs

Every compared arm has as many trials: its variants of the aggregator at each learning rate. The
best on validation rows is scored on test rows, and arms are compared by data set and seed. A run
that was interrupted goes on where trials.csv ends; guesses.csv has what needs no net.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from common import append, classes, numbers, parser, scored, write
from conicgrad_questions_arms import (
    ARMS,
    BATCH,
    EPOCHS,
    FEW_EPOCHS,
    FEW_ROWS,
    HIDDEN,
    KEYS,
    KINDS,
    MEAN,
    MGDA,
    PAIRS,
    RATES,
    ROWS,
    SINGLE,
    variants,
)
from conicgrad_questions_text import page
from joblib import Parallel, delayed
from sklearn.metrics import r2_score

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor


def fitted(data, kind, components, lr, seed, epochs):
    """Return (scores of validation, scores of test, history) of one net."""
    X, y, (train, validation, test) = data
    made = MultiTaskRegressor if kind == "numbers" else MultiTaskClassifier
    options = {"max_epochs": epochs, "batch_size": BATCH, "update_norm": "mean"}
    net = made(HIDDEN, *components, lr=lr, random_state=seed, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rates that are too large
        net.fit(X[train], y[train])
    return *(scored(net, X[rows], y[rows], kind) for rows in (validation, test)), net.history


def alone(data):
    """Yield the data of each task by itself, without the rows that have no label."""
    X, y, masks = data
    for column in y.T:
        known = ~np.isnan(column)
        yield X[known], column[known][:, None], [mask[known] for mask in masks]


def trial(data, kind, variant, components, lr, seed, epochs):
    """Return the scores of one trial as columns of its row, NaN if it diverged."""
    parts = alone(data) if variant == SINGLE else [data]
    try:
        runs = [fitted(part, kind, components, lr, seed, epochs) for part in parts]
    except DivergenceError:
        return dict.fromkeys(("valid", "mean", "worst", "c_first", "c_last"), np.nan)
    valid, test = (np.concatenate([run[i] for run in runs]) for i in (0, 1))
    cosines = [row.get("aggregator__c", np.nan) for row in runs[0][2]]
    row = {"valid": np.nanmean(valid), "mean": np.nanmean(test), "worst": np.nanmin(test)}
    row |= {"c_first": cosines[0], "c_last": cosines[-1]}  # means of the epoch's steps
    return row | {"tasks": " ".join(f"{score:.6g}" for score in test)}


def table(name, arguments):
    """Return (X, y, masks of the parts) of a data set, cut to the rows of this run."""
    make = numbers if KINDS[name] == "numbers" else classes
    return make(name, arguments.data, FEW_ROWS if arguments.quick else ROWS)


def guess(data, kind):
    """Return the scores of what is known without inputs: the means of the training rows."""
    _, y, (train, *others) = data
    if kind == "classes":  # whatever the constant, its area is this
        return dict.fromkeys(("valid", "mean", "worst"), 0.5)
    known = y[train].mean(axis=0)
    valid, test = (
        r2_score(y[rows], np.broadcast_to(known, y[rows].shape), multioutput="raw_values")
        for rows in others
    )
    return {"valid": valid.mean(), "mean": test.mean(), "worst": test.min()}


def run(name, seed, data, old, arguments):
    """Return the rows of the trials that are not in a table yet."""
    kind, quick = KINDS[name], arguments.quick
    epochs = FEW_EPOCHS if quick else EPOCHS[name]
    labels = data[1][data[2][0]]
    steps = -(-int((~np.isnan(labels)).any(axis=1).sum()) // BATCH) * epochs
    made = variants(seed, labels.shape[1], steps)
    there = set(old[KEYS].itertuples(index=False, name=None)) if len(old) else set()
    rates = RATES[:2] if quick else RATES
    jobs = [
        (arm, variant, lr)
        for variant, arm in {v: a for a, own in reversed(ARMS.items()) for v in own}.items()
        for lr in rates
        if (name, seed, variant, lr) not in there
    ]
    found = Parallel(n_jobs=arguments.jobs)(
        delayed(trial)(data, kind, v, made[v], lr, seed, epochs) for _, v, lr in jobs
    )
    return [
        {"data": name, "seed": seed, "arm": arm, "variant": v, "lr": lr, **scores}
        for (arm, v, lr), scores in zip(jobs, found, strict=True)
    ]


def run_all(arguments, file, beside):
    """Add what is not there yet to the tables of trials and of guesses."""
    names = ["arm"] if arguments.quick or arguments.data is None else list(EPOCHS)
    tables = {name: table(name, arguments) for name in names}
    guessed = set(pd.read_csv(beside).data) if beside.exists() else set()
    for name in (n for n in names if n not in guessed):
        append(beside, [{"data": name, **guess(tables[name], KINDS[name])}])
    for seed in range(min(arguments.seeds, 2) if arguments.quick else arguments.seeds):
        for name in names:
            old = pd.read_csv(file) if file.exists() else pd.DataFrame()
            rows = run(name, seed, tables[name], old, arguments)
            if rows:
                append(file, rows)
                print(f"{name}, seed {seed}: {len(rows)} trials", flush=True)


def main():
    options = parser(__doc__, "conicgrad_questions")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file, beside = (arguments.out / name for name in ("trials.csv", "guesses.csv"))
    if not arguments.report:
        run_all(arguments, file, beside)
    trials, guesses = pd.read_csv(file), pd.read_csv(beside).set_index("data")
    text = page(trials, guesses, ARMS, PAIRS, KINDS, (MEAN, MGDA, SINGLE), arguments.out)
    lengths = ", ".join(f"{name} {EPOCHS[name]}" for name in trials.data.unique())
    how = (
        f"nets of {', '.join(map(str, HIDDEN))}, batches of {BATCH}, AdamW, "
        + (
            f"{FEW_EPOCHS} epochs, {FEW_ROWS} rows"
            if arguments.quick
            else f"epochs: {lengths}; at most {ROWS} rows"
        )
        + " a table (3/5 of them, in blocks, to train; of tox21 5/8, drawn); heads descend by "
        "their own gradients, whatever the trunk does."
    )
    write(arguments.out, "Open questions of ConicGrad", text, how)


if __name__ == "__main__":
    main()
