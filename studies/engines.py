"""What each engine gives up: its updates against the exact ones, and what a net trained by it is.

python studies/engines.py                                   the simulated arm
python studies/engines.py --sarcos FILE --tox21 FILE        more data
python studies/engines.py --quick                           a minute

At the start, in the middle and at the end of a training with exact updates every engine proposes
an update for the same batch at the same parameters: its cosine with the exact one, and the progress
of the worst task per unit length, min_k <g_k, d> / (|d| |g0|), beside the exact one's. The online
engine's dual weights follow the same training. Then each engine trains a net of its own.
SARCOS: a table whose last 7 columns are the torques. Tox21: an .npz with bit-packed rows in
"Xpacked" and labels with NaN in "Y". The report goes to studies/engines/report.md.
"""

from __future__ import annotations

import argparse
import datetime
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from mtlsk import Descent, MultiTaskRegressor
from mtlsk.aggregators import MGDA, CAGrad, ConicGrad
from mtlsk.datasets import blocked_split, load_table, make_arm
from mtlsk.engines import Forward, build_engine
from mtlsk.estimators import r2_per_task
from mtlsk.linear_graph import Columns
from mtlsk.machine import machine, versions
from mtlsk.modules import HardSharing

AGGREGATORS = {"MGDA": MGDA(), "CAGrad": CAGrad(c=0.5), "ConicGrad": ConicGrad(c=0.5)}
ENGINES = {
    "budget": "budget",
    "features": "features",
    "online": "online",
    "exact, every 4th": {"name": "exact", "every": 4},
    "exact, every 10th": {"name": "exact", "every": 10},
}
PHASES = ("start", "middle", "end")


def cross_entropy(prediction, label):
    """Return the logistic loss of labels 0 and 1 for each row."""
    return binary_cross_entropy_with_logits(prediction[:, 0], label, reduction="none")


def standardised(x, train):
    mean, spread = np.nanmean(x[train], 0), np.nanstd(x[train], 0)
    return ((x - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)


def load(arguments):
    """Yield (name, X, Y, training rows, test rows, whether the labels are classes)."""
    arm = make_arm(1500 if arguments.quick else 4000, random_state=0)
    rows = np.random.default_rng(0).permutation(len(arm.data))
    cut = len(rows) * 3 // 4
    yield "arm", np.asarray(arm.data), np.asarray(arm.target), rows[:cut], rows[cut:], False
    if arguments.sarcos:
        table = load_table(arguments.sarcos, 7)
        held_out = blocked_split(len(table.data))
        train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        yield "sarcos", np.asarray(table.data), np.asarray(table.target), train, test, False
    if arguments.tox21:
        found = np.load(arguments.tox21)
        x = np.unpackbits(found["Xpacked"], axis=1).astype(np.float32)
        x, y = x[:, x.any(0)], found["Y"]
        rows = np.random.default_rng(0).permutation(len(x))
        yield "tox21", x, y, rows[:6000], rows[6000:], True


def task_losses(outputs, y, classes):
    """Return the mean loss of each task over its labels (K,)."""
    there = ~y.isnan()
    target = torch.where(there, y, 0.0)
    element = (
        binary_cross_entropy_with_logits(outputs, target, reduction="none")
        if classes
        else (outputs - target) ** 2
    )
    return torch.where(there, element, 0.0).sum(0) / there.sum(0).clamp_min(1)


def proposals(x, y, classes, aggregator, seed, epochs, batch_size, measured):
    """Yield (phase, engine, cosine, progress, exact progress) for updates at the same place."""
    torch.manual_seed(seed)
    k = y.shape[1]
    module = HardSharing(x.shape[1], k, (64, 64))
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.0)
    columns = Columns([slice(i, i + 1) for i in range(k)], k)
    others = {
        name: Descent(module, optimizer, clone(aggregator), n_tasks=k, gramian=build_engine(spec))
        for name, spec in ENGINES.items()
    }
    exact = Descent(module, optimizer, clone(aggregator), n_tasks=k, gramian="exact")
    n_steps = epochs * (len(x) // batch_size)
    # the first steps after one epoch's tenth, so that the online dual has begun to follow
    begin = {"start": n_steps // (10 * epochs), "middle": n_steps // 2, "end": n_steps - measured}
    for step in range(n_steps):
        if step % (len(x) // batch_size) == 0:
            order = torch.randperm(len(x))
        place = step % (len(x) // batch_size) * batch_size
        rows = order[place : place + batch_size]
        phase = next((p for p in PHASES if begin[p] <= step < begin[p] + measured), None)

        def forward(rows=rows):
            outputs = module(x[rows])
            return task_losses(outputs, y[rows], classes), Forward(outputs, columns)

        found = {}
        for name, descent in others.items():
            losses, known = forward()
            record = descent.backward(losses, forward=known)
            if phase:
                found[name] = record.direction
        losses, known = forward()
        gradients = build_engine("exact").differentiate(losses, exact.shared, known)
        j = torch.stack([flat(gradients.combine(w)) for w in torch.eye(k)])
        best = flat(exact.backward(losses, forward=known).direction)
        optimizer.step()
        if phase is None:
            continue
        for name, direction in {"mean gradient": None, **found}.items():
            d = j.mean(0) if direction is None else flat(direction)
            yield phase, name, cosine(d, best), progress(j, d), progress(j, best)


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors]).double()


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-30))


def progress(j, d):
    """Return min_k <g_k, d> / (|d| |g0|)."""
    return float((j @ d).min() / (d.norm() * j.mean(0).norm()).clamp_min(1e-30))


def trained(x, y, train, test, classes, aggregator, engine, seed, epochs, batch_size):
    """Return (mean, worst) test score over the tasks of a net trained by an engine."""
    net = MultiTaskRegressor(
        (64, 64),
        aggregator=aggregator,
        gramian=engine,
        update_norm="mean",  # one length for all: nets differ by directions
        criterion=cross_entropy if classes else "squared_error",
        max_epochs=epochs,
        batch_size=batch_size,
        random_state=seed,
    ).fit(x[train], y[train])
    found = net.predict(x[test])
    if classes:
        labels = (~np.isnan(y[test])).T
        columns = zip(y[test].T, found.T, labels, strict=True)
        scores = np.array([roc_auc_score(t[m], f[m]) for t, f, m in columns])
    else:
        scores = r2_per_task(y[test], found)
    return float(scores.mean()), float(scores.min())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sarcos", metavar="FILE", help="table with the 7 torques last")
    parser.add_argument("--tox21", metavar="FILE", help=".npz with Xpacked and Y")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a minute, one seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "engines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(1 if arguments.quick else arguments.seeds)
    epochs, measured = (4, 10) if arguments.quick else (30, 40)
    lines = page(arguments, epochs, measured, len(seeds))
    for name, x, y, train, test, classes in list(load(arguments)):
        batch_size = 256 if classes else 128
        if not classes:
            x, y = standardised(x, train), standardised(y, train)
        xt, yt = torch.from_numpy(x[train]), torch.from_numpy(y[train].astype(np.float32))
        lines += updates(name, xt, yt, classes, seeds, epochs, batch_size, measured)
        lines += endings(name, x, y, train, test, classes, seeds, epochs, batch_size)
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = "\n".join([*lines, *verdict(lines)])
        (arguments.out / "report.md").write_text(text + "\n")
    print(text)


def updates(name, x, y, classes, seeds, epochs, batch_size, measured):
    """Return the table of proposed updates for one data set."""
    values = defaultdict(list)
    for label, aggregator in AGGREGATORS.items():
        for seed in seeds:
            steps = proposals(x, y, classes, aggregator, seed, epochs, batch_size, measured)
            for phase, engine, *rest in steps:
                values[label, engine, phase].append(rest)
        print(f"{name}: updates of {label} measured", flush=True)
    lines = [
        f"## {name}: one update ({len(x)} rows, {y.shape[1]} tasks, batches of {batch_size})",
        "",
        "Cosine with the exact update: median (tenth percentile). Worst-task progress per unit "
        "length: mean, beside the exact update's mean.",
        "",
        "| aggregator | engine | "
        + " | ".join(f"{p}: cosine | {p}: progress" for p in PHASES)
        + " |",
        "| --- " * 8 + "|",
    ]
    for label in AGGREGATORS:
        for engine in ("mean gradient", *ENGINES):
            cells = []
            for phase in PHASES:
                cos, mine, best = np.array(values[label, engine, phase]).T
                cells.append(f"{np.median(cos):.3f} ({np.quantile(cos, 0.1):.3f})")
                cells.append(f"{mine.mean():.3f} of {best.mean():.3f}")
            lines.append(f"| {label} | {engine} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def verdict(lines):
    """Return what the tables of a report say of each engine, in a sentence each."""
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    said = ["## Verdict", "", "**Asked**: what does a cheaper Gramian give up?", ""]
    exact, ends = None, defaultdict(list)  # of the nets at the end, engine by engine
    for name, *cells in rows:
        if len(cells) == len(AGGREGATORS) and "±" in cells[0]:
            scores = np.array([float(cell.split()[0]) for cell in cells])
            exact = scores if name == "exact" else exact
            ends[name].append(scores - exact)
    for engine in (name for name in ends if name != "exact"):
        own = [row for row in rows if len(row) == 8 and row[1] == engine]
        cosines = [float(row[4].split()[0]) for row in own]
        shares = [float(a) / float(b) for a, b in (row[5].split(" of ") for row in own)]
        apart = np.concatenate(ends[engine])
        said.append(
            f"- **{engine}**: half-way a median cosine of {min(cosines):.2f} to "
            f"{max(cosines):.2f} with the exact update and {min(shares):.0%} to {max(shares):.0%} "
            "of its worst-task progress; the nets at the end score "
            f"{apart.min():+.3f} to {apart.max():+.3f} beside exact ones."
        )
    return said


def endings(name, x, y, train, test, classes, seeds, epochs, batch_size):
    """Return the table of nets trained by each engine."""
    score = "AUC" if classes else "R2"
    lines = [
        f"## {name}: the net at the end",
        "",
        f"Test {score}, mean over the tasks / worst task: mean over {len(seeds)} seeds ± standard "
        "deviation.",
        "",
        "| engine | " + " | ".join(AGGREGATORS) + " |",
        "| --- " * (len(AGGREGATORS) + 1) + "|",
    ]
    for label, spec in {"exact": "exact", **ENGINES}.items():
        cells = []
        for aggregator in AGGREGATORS.values():
            both = [
                trained(x, y, train, test, classes, aggregator, spec, s, epochs, batch_size)
                for s in seeds
            ]
            (mean, worst), (d_mean, d_worst) = np.mean(both, 0), np.std(both, 0)
            cells.append(f"{mean:.3f} ± {d_mean:.3f} / {worst:.3f} ± {d_worst:.3f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    plain = [
        trained(x, y, train, test, classes, "LinearScalarization", "auto", s, epochs, batch_size)
        for s in seeds
    ]
    (mean, worst), (d_mean, d_worst) = np.mean(plain, 0), np.std(plain, 0)
    lines.append("")
    lines.append(
        f"The mean gradient (LinearScalarization): {mean:.3f} ± {d_mean:.3f} / "
        f"{worst:.3f} ± {d_worst:.3f}."
    )
    return [*lines, ""]


def page(arguments, epochs, measured, n_seeds):
    described = ", ".join(f"{k} {v}" for k, v in {**machine(), **versions()}.items())
    return [
        "# What each engine gives up",
        "",
        f"{datetime.date.today()}; {n_seeds} seeds; a net of 64, 64 trained for {epochs} epochs by "
        f"AdamW at 3e-3; {measured} steps measured at the start, in the middle and at the end of "
        "each training. The nets at the end are trained with update_norm='mean', so that they "
        f"differ by the directions of updates, not by lengths. {described}.",
        "",
    ]


if __name__ == "__main__":
    main()
