"""Does any aggregator beat a tuned linear scalarization that was given as many trials?

python studies/beyond_scalarization.py --data FOLDER      all data, three seeds: most of an hour
python studies/beyond_scalarization.py --report           the report again, from trials.csv
python studies/beyond_scalarization.py --quick            one small table, three methods

Every aggregator trains the same net at each learning rate of a grid; what is best on validation
rows is scored on test rows. Linear scalarization is tuned by as many trials: at the same rates with
weights that are known before any training (of numbers 1/variance, of classes equal). Another one
draws its weights, new ones in each trial. A run that was interrupted goes on where trials.csv ends.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from beyond_report import page
from common import append, classes, numbers, parser, scored, write
from joblib import Parallel, delayed

from mtlsk import DivergenceError, MultiTaskClassifier, MultiTaskRegressor
from mtlsk.aggregators import AGGREGATORS
from mtlsk.certificates import critical_cone, effective_tasks
from mtlsk.datasets import make_multi_digits
from mtlsk.gramian import condition_number, cosines
from mtlsk.linear_mtl import exploration_test

RATES = (5e-3, 1e-2, 2e-2, 4e-2)
EQUAL, TUNED, DRAWN = "LinearScalarization", "tuned scalarization", "drawn weights"
SETTINGS = {  # name -> kind of task, whether targets are badly scaled, whether put aside
    "arm": ("numbers", False, False),
    "arm, badly scaled": ("numbers", True, False),
    "sarcos": ("numbers", False, False),
    "sarcos, badly scaled": ("numbers", True, False),
    "enb": ("numbers", False, False),
    "enb, badly scaled": ("numbers", True, False),
    "yeast": ("classes", False, False),
    "wq": ("numbers", False, True),
    "wq, badly scaled": ("numbers", True, True),
    "tox21": ("classes", False, True),
    "digits": ("classes", False, True),
}


def load(setting, folder, quick):
    """Return (X, y, masks of training, validation and test) of a setting."""
    kind, bad, _ = SETTINGS[setting]
    name = setting.split(",")[0]
    rows = 400 if quick else 1500
    if name == "digits":
        made = make_multi_digits(rows, random_state=0)
        part = np.arange(rows) * 8 // rows
        masks = [part < 5, part == 5, part > 5]
        return made.data.to_numpy(), made.target.to_numpy(), masks
    X, y, masks = (numbers if kind == "numbers" else classes)(name, folder, rows)
    if bad:  # losses up to 1e4 apart, as where targets come in units of their own
        y = y * np.random.default_rng(0).permutation(np.geomspace(0.1, 10, y.shape[1]))
    return X, y, masks


def candidates(method, y, kind, seed):
    """Return the (aggregator, learning rate) of each trial of a method."""
    if method not in (TUNED, DRAWN):
        return [(method, lr) for lr in RATES]
    k = y.shape[1]
    inverse = 1 / np.nanvar(y, axis=0) if kind == "numbers" else np.ones(k)
    draws = np.random.default_rng(seed).dirichlet(np.ones(k), len(RATES))
    weights = inverse * (draws if method == DRAWN else np.ones_like(draws))
    weights = weights / weights.sum(axis=1, keepdims=True)
    named = [{"name": EQUAL, "weights": w.tolist()} for w in weights]
    return list(zip(named, RATES, strict=True))


def net_of(kind, aggregator, lr, seed, epochs):
    made = MultiTaskRegressor if kind == "numbers" else MultiTaskClassifier
    options = {"update_norm": "mean", "lr": lr, "max_epochs": epochs, "batch_size": 128}
    return made((32, 32), aggregator, random_state=seed, **options)


def trial(data, kind, aggregator, lr, seed, epochs):
    """Return (validation mean, test mean, test worst) of one net, NaN if it diverged."""
    X, y, (train, validation, test) = data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rates that are too large
            net = net_of(kind, aggregator, lr, seed, epochs).fit(X[train], y[train])
    except DivergenceError:
        return (np.nan,) * 3
    valid, tested = (scored(net, X[rows], y[rows], kind) for rows in (validation, test))
    return np.nanmean(valid), np.nanmean(tested), np.nanmin(tested)


def early(data, kind, seed):
    """Return what the task gradients of an equally weighted net say after two epochs."""
    X, y, (train, _, _) = data
    net = net_of(kind, EQUAL, RATES[1], seed, 2).fit(X[train], y[train])
    gramian, _ = net.task_gramian(X[train], y[train])
    gramian = gramian.double().cpu()
    k, c, norms = len(gramian), cosines(gramian), gramian.diagonal().sqrt()
    found = {
        "kappa": condition_number(gramian),
        "norm ratio": float(norms.max() / norms.min()),
        "smallest cosine": float(c[~np.eye(k, dtype=bool)].min()),
        "tasks hurt by the mean": int((gramian.sum(1) < 0).sum()),
        "critical cone": critical_cone(gramian),
        "effective tasks": effective_tasks(gramian) / k,
    }
    if kind == "numbers":
        found["explorable at rank 1"] = float(exploration_test(X[train], y[train], 1).explorable)
    return found


def run(setting, seed, methods, arguments):
    """Return the rows of one setting and seed: the trials, and what was seen early."""
    data, kind = load(setting, arguments.data, arguments.quick), SETTINGS[setting][0]
    epochs = 3 if arguments.quick else 20
    jobs = [(m, i, *c) for m in methods for i, c in enumerate(candidates(m, data[1], kind, seed))]
    found = Parallel(n_jobs=arguments.jobs)(
        delayed(trial)(data, kind, aggregator, lr, seed, epochs) for *_, aggregator, lr in jobs
    )
    keys = ("setting", "seed", "method", "trial", "lr", "valid", "mean", "worst")
    rows = [
        dict(zip(keys, (setting, seed, m, i, lr, *scores), strict=True))
        for (m, i, _, lr), scores in zip(jobs, found, strict=True)
    ]
    return rows, {"setting": setting, "seed": seed, **early(data, kind, seed)}


def main():
    options = parser(__doc__, "beyond_scalarization")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ["arm"] if arguments.quick else list(SETTINGS)
    if arguments.data is None:
        names = [n for n in names if n.split(",")[0] in ("arm", "digits")]
    methods = sorted(set(AGGREGATORS.members()) - {"Torchjd"})  # it is one of the others
    methods = [TUNED, DRAWN, *([EQUAL, "MGDA"] if arguments.quick else methods)]
    trials, seen = (arguments.out / f"{name}.csv" for name in ("trials", "early"))
    for seed in range(0 if arguments.report else arguments.seeds):
        for setting in names:
            old = pd.read_csv(trials) if trials.exists() else pd.DataFrame({"method": []})
            if len(old):
                old = old[(old.setting == setting) & (old.seed == seed)]
            missing = [m for m in methods if m not in set(old.method)]
            if not missing:
                continue
            rows, first = run(setting, seed, missing, arguments)
            append(trials, rows)
            append(seen, [] if len(old) else [first])
            print(f"{setting}, seed {seed}: {len(rows)} trials", flush=True)
    aside = [name for name, (_, _, apart) in SETTINGS.items() if apart]
    text = page(pd.read_csv(trials), pd.read_csv(seen), EQUAL, TUNED, aside, arguments.out)
    how = (
        f"nets of 32, 32, batches of 128, AdamW, {'3' if arguments.quick else '20'} epochs, at "
        "most 1500 rows a table (5/8 to train); updates of the mean gradient's length; "
        f"{len(RATES)} trials a method, setting and seed."
    )
    write(arguments.out, "Does anything beat tuned scalarization at equal budget?", text, how)


if __name__ == "__main__":
    main()
