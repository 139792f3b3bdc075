"""Open questions of ConicGrad: a moving cone, the multiplier set to 1, a gamma for each task.

python studies/conicgrad_questions.py --data FOLDER      four data sets, three seeds: an hour
python studies/conicgrad_questions.py --report           the report again, from trials.csv
python studies/conicgrad_questions.py --quick            the simulated arm, few rows and epochs

Every arm has as many trials: four variants of the aggregator at each of three learning rates. The
best on validation rows is scored on test rows, and arms are compared by data set and seed. A run
that was interrupted goes on where trials.csv ends.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from common import append, classes, numbers, parser, scored, write
from conicgrad_questions_text import page
from joblib import Parallel, delayed

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor

RATES = (3e-3, 1e-2, 3e-2)
COSINES = (0.25, 0.5, 0.75, 0.9)  # the paper's grid
GAMMAS = (0.001, 0.003, 0.005, 0.01)  # its grid and a value between
WIDE = (0.001, 0.01, 0.1, 1.0)
BATCH = 64
EPOCHS = {"sarcos": 40, "arm": 40, "tox21": 15, "wq": 15}  # the last two overfit from there on
KINDS = {"sarcos": "numbers", "arm": "numbers", "tox21": "classes", "wq": "numbers"}
KEYS = ["data", "seed", "variant", "lr"]
MEAN, MGDA, SINGLE = "mean gradient", "MGDA", "single-task nets"


def closed_form(solver, c=0.75, gamma=GAMMAS[0]):
    return f"{solver}, c {c:g}, gamma {gamma:g}"


def drawn(gammas):
    ends = f"{gammas[0]:g} to {gammas[-1]:g}"
    return [f"flip, c 0.75, gammas {ends}, list {i + 1}" for i in range(len(gammas))]


ARMS = {  # arm -> its variants; a variant may serve several arms and is trained once
    "fixed c": [f"exact, c {c:g}" for c in COSINES],
    "dynamic c": ["auto", "critical", "linear", "cosine"],
    "flip": [closed_form("flip", c) for c in COSINES],
    "printed": [closed_form("printed", c) for c in COSINES],
    "shared gamma": [closed_form("flip", gamma=g) for g in GAMMAS],
    "gamma a task": drawn(GAMMAS),
    "shared gamma, wide": [closed_form("flip", gamma=g) for g in WIDE],
    "gamma a task, wide": drawn(WIDE),
    **{name: [name] for name in (MEAN, MGDA, SINGLE)},
}
PAIRS = [  # (number of the question, arm, arm it is compared with)
    (1, "dynamic c", "fixed c"),
    (2, "flip", "fixed c"),
    (2, "printed", "fixed c"),
    (3, "gamma a task", "shared gamma"),
    (3, "gamma a task, wide", "shared gamma, wide"),
]


def variants(seed, n_tasks, n_steps):
    """Return variant -> (aggregator, controller) for one seed, which draws the lists of gammas."""

    def cone(c=0.75, **others):
        return {"name": "ConicGrad", "c": c, **others}

    def angle(schedule, **others):
        return cone(COSINES[-1]), {"name": "ConeAngle", "schedule": schedule, **others}

    ends = {"c_max": COSINES[-1], "c_min": COSINES[0], "n_steps": n_steps}
    made = {
        "auto": (cone("auto"), None),
        "critical": angle("critical"),
        "linear": angle("linear", **ends),
        "cosine": angle("cosine", **ends),
        MEAN: ("LinearScalarization", None),
        MGDA: ("MGDA", None),
        SINGLE: ("LinearScalarization", None),
    }
    for name, c in zip(ARMS["fixed c"], COSINES, strict=True):
        made[name] = cone(c), None
    for solver in ("flip", "printed"):
        for name, c in zip(ARMS[solver], COSINES, strict=True):
            made[name] = cone(c, solver=solver, gamma=GAMMAS[0]), None
    random = np.random.default_rng(seed)
    for end, gammas in (("", GAMMAS), (", wide", WIDE)):
        for name, gamma in zip(ARMS[f"shared gamma{end}"], gammas, strict=True):
            made[name] = cone(solver="flip", gamma=gamma), None
        lists = np.exp(random.uniform(*np.log([gammas[0], gammas[-1]]), (len(gammas), n_tasks)))
        for name, gamma in zip(ARMS[f"gamma a task{end}"], lists.tolist(), strict=True):
            made[name] = cone(solver="flip", gamma=gamma), None
    return made


def fitted(data, kind, components, lr, seed, epochs):
    """Return (scores of validation, scores of test, history) of one net."""
    X, y, (train, validation, test) = data
    made = MultiTaskRegressor if kind == "numbers" else MultiTaskClassifier
    options = {"max_epochs": epochs, "batch_size": BATCH, "update_norm": "mean"}
    net = made((32, 32), *components, lr=lr, random_state=seed, **options)
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
    row = {"valid": valid.mean(), "mean": test.mean(), "worst": test.min()}
    row |= {"c_first": cosines[0], "c_last": cosines[-1]}  # means of the epoch's steps
    return row | {"tasks": " ".join(f"{score:.6g}" for score in test)}


def run(name, seed, old, arguments):
    """Return the rows of the trials that are not in a table yet."""
    kind, quick = KINDS[name], arguments.quick
    make = numbers if kind == "numbers" else classes
    data = make(name, arguments.data, 300 if quick else 1500)
    epochs = 2 if quick else EPOCHS[name]
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


def main():
    options = parser(__doc__, "conicgrad_questions")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "trials.csv"
    names = ["arm"] if arguments.quick or arguments.data is None else list(EPOCHS)
    seeds = min(arguments.seeds, 2) if arguments.quick else arguments.seeds
    for seed in range(0 if arguments.report else seeds):
        for name in names:
            old = pd.read_csv(file) if file.exists() else pd.DataFrame()
            rows = run(name, seed, old, arguments)
            if rows:
                append(file, rows)
                print(f"{name}, seed {seed}: {len(rows)} trials", flush=True)
    trials = pd.read_csv(file)
    text = page(trials, ARMS, PAIRS, KINDS, (MEAN, MGDA, SINGLE), arguments.out)
    lengths = ", ".join(f"{name} {n}" for name, n in EPOCHS.items())
    how = (
        f"nets of 32, 32, batches of {BATCH}, AdamW, "
        + ("2 epochs, 300 rows" if arguments.quick else f"epochs: {lengths}; at most 1500 rows")
        + " a table (3/5 of them, in blocks, to train; of tox21 5/8, drawn); heads descend by "
        "their own gradients, whatever the trunk does."
    )
    write(arguments.out, "Open questions of ConicGrad", text, how)


if __name__ == "__main__":
    main()
