"""APT on top of aggregators and optimizers, and what it acts on: the instant gradient's share.

python studies/apt.py --data FOLDER    four data sets, minutes; without --data two of them
python studies/apt.py --quick          seconds

Every arm (optimizer, aggregator, with or without APT) has two learning rates; the better mean
validation score of the first two seeds chooses, the test rows give the numbers of all seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from apt_parts import BASE, CONSTANT, HOSTS, preservation, shares
from apt_text import of_arms, of_preservation, of_shares
from common import classes, numbers, parser, write
from sklearn.metrics import mean_squared_error, r2_score, roc_auc_score

from mtlsk import MultiTaskClassifier, MultiTaskRegressor
from mtlsk.datasets import make_multi_digits

AGGREGATORS = ("LinearScalarization", "MGDA", "ConicGrad", "CAGrad")
TUNED = 2
BIG = ("sarcos", "arm")
HOW = (
    "small nets, few rows and epochs, so that all of it takes minutes on one core: effects that "
    "need longer training are not seen here;"
)


def load(name, folder, quick):
    """Return (X, y, masks) of one data set."""
    rows = 240 if quick else 2000 if name == "tox21" else 1200
    if name == "digits":
        made = make_multi_digits(rows, random_state=0)
        part = np.arange(rows) * 8 // rows
        masks = [part < 5, part == 5, part > 5]
        return np.asarray(made.data, dtype=float), np.asarray(made.target), masks
    return (classes if name == "tox21" else numbers)(name, folder, rows)


def metrics(name, net, X, y):
    """Return (mean score, metric of each task): R2 and MSE, accuracies, or areas under curves."""
    if name == "digits":
        found = np.asarray(net.task_scores(X, y))
        return found.mean(), found
    if name == "tox21":
        found = np.full(y.shape[1], np.nan)
        probabilities = net.predict_proba(X)
        for k, p in enumerate(
            probabilities if isinstance(probabilities, list) else [probabilities]
        ):
            known = ~np.isnan(y[:, k])
            if len(set(y[known, k])) == 2:
                found[k] = roc_auc_score(y[known, k], p[known, 1])
        return np.nanmean(found), found
    values = np.reshape(net.predict(X), y.shape)
    return r2_score(y, values), mean_squared_error(y, values, multioutput="raw_values")


def fitted(name, data, optimizer, aggregator, arm, lr, seed, epochs):
    """Return (validation score, test score, test metric of each task) of one net."""
    X, y, (train, validation, test) = data
    options, words, _ = HOSTS[optimizer]
    if arm == "constant":
        options = {**options, **dict.fromkeys(words, CONSTANT)}
        if "beta1" in options:
            options["betas"] = (options.pop("beta1"), 0.999)
    kind = MultiTaskClassifier if name in ("digits", "tox21") else MultiTaskRegressor
    controller = "APT" if arm == "APT" else None
    given = {f"optimizer__{k}": v for k, v in options.items()}
    net = kind((32, 32), aggregator, controller, optimizer, lr, epochs, random_state=seed, **given)
    net.fit(X[train], y[train])
    score, found = metrics(name, net, X[test], y[test])
    return metrics(name, net, X[validation], y[validation])[0], score, found


def tuned(name, data, arm, rates, seeds, epochs):
    """Return (learning rate, [(test score, metrics) of each seed])."""
    first = {lr: [fitted(name, data, *arm, lr, s, epochs) for s in range(TUNED)] for lr in rates}
    lr = max(first, key=lambda r: np.mean([run[0] for run in first[r]]))
    rest = [fitted(name, data, *arm, lr, s, epochs) for s in range(TUNED, seeds)]
    return lr, [run[1:] for run in first[lr] + rest]


def compared(name, data, optimizers, aggregators, seeds, epochs):
    """Return a table with a row a net: Delta_m% against one AdamW net for each task."""
    X, y, masks = data
    single = []
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k].astype(float))
        own = (X[known], y[known][:, [k]], [m[known] for m in masks])
        runs = tuned(name, own, ("AdamW", BASE, "plain"), HOSTS["AdamW"][2], TUNED, epochs)[1]
        single.append(np.mean([run[1] for run in runs]))
    sign = -1 if name in ("digits", "tox21") else 1
    rows = []
    for optimizer in optimizers:
        for aggregator in aggregators:
            for arm in ("plain", "APT", *["constant"] * (aggregator == BASE)):
                rates = HOSTS[optimizer][2]
                full = (optimizer, aggregator, arm)
                lr, runs = tuned(name, data, full, rates, seeds, epochs)
                for seed, (score, found) in enumerate(runs):
                    delta = 100 * sign * np.nanmean((found - single) / single)
                    rows.append([name, *full, lr, seed, score, delta, found])
        print(name, optimizer, flush=True)
    columns = ["data", "optimizer", "aggregator", "arm", "lr", "seed", "score", "delta", "found"]
    return pd.DataFrame(rows, columns=columns)


def main():
    made = parser(__doc__, "apt", seeds=5)
    arguments = made.parse_args()
    quick = arguments.quick
    seeds, epochs = (3, 2) if quick else (arguments.seeds, 12)
    few = ("AdamW", "Muon")
    sets = {"arm": few if quick else tuple(HOSTS), "digits": few[:1] if quick else few}
    if arguments.data:
        sets = {"sarcos": sets["arm"], **sets, "tox21": few[:1]}
    frames, datas = [], {}
    for name, optimizers in sets.items():
        datas[name] = load(name, arguments.data, quick)
        aggregators = AGGREGATORS[:2] if quick else AGGREGATORS if name in BIG else AGGREGATORS[:3]
        frames.append(compared(name, datas[name], optimizers, aggregators, seeds, epochs))
    frame = pd.concat(frames)
    first = next(iter(sets))
    arguments.out.mkdir(parents=True, exist_ok=True)
    paragraphs = [
        *of_arms(frame, datas, epochs, arguments.out),
        *of_shares(shares(datas[first], 2 if quick else 3, max(epochs, 6)), first, arguments.out),
        *of_preservation(
            preservation(datas[first], 2 if quick else 3, 40 if quick else 200),
            first,
            arguments.out,
        ),
    ]
    if not arguments.data:
        paragraphs.insert(0, "SARCOS and Tox21 are left out: no --data was given.")
    write(arguments.out, "APT on top of aggregators and optimizers", paragraphs, HOW)


if __name__ == "__main__":
    main()
