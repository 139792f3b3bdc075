"""P linear scalarizations trained together against one by one.

All three ways run interleaved in one process, on one thread: "loop" is a bare torch loop a net
over sliced batches with a fused AdamW, "fit" is MultiTaskRegressor.fit a net, "together" is
ScalarizationFront's training. The first two train two of the P nets and count P / 2 times.
Medians of the repeats; ratios above 1 say that together is faster.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time

import numpy as np
import torch
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.estimators.together import fit_together
from tests.benchmarks.report import Table, short
from tests.benchmarks.targets import Target

CASES = [
    (16, 64, 64),
    (16, 64, 256),
    (16, 64, 1024),
    (64, 64, 64),
    (64, 64, 256),
    (16, 32, 128),
    (16, 256, 64),
    (16, 256, 256),
    (4, 64, 256),
]
N_TASKS = 7
STEPS = 200


def loop(weights, hidden, batch, X, y):
    """Train two nets by the shortest loop that torch allows."""
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for w in torch.from_numpy(weights[:2]).float():
        sizes = [X.shape[1], *hidden]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        trunk = [part for layer in layers for part in (layer, nn.ReLU())]
        net = nn.Sequential(*trunk, nn.Linear(sizes[-1], y.shape[1]))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
        order = torch.randperm(len(X))
        Xs, ys = X[order], y[order]
        for start in range(0, len(X), batch):
            rows = slice(start, start + batch)
            loss = ((net(Xs[rows]) - ys[rows]) ** 2).mean(0) @ w
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def fit(weights, hidden, batch, X, y):
    """Train two nets by MultiTaskRegressor."""
    for w in weights[:2]:
        spec = {"name": "LinearScalarization", "weights": w.tolist()}
        regressor(hidden, batch, aggregator=spec).fit(X, y)


def together(weights, hidden, batch, X, y, lrs=None):
    """Train all nets at once."""
    fit_together(regressor(hidden, batch).initialize_for(X, y), weights, lrs, X, y)


def together_with_rates(weights, hidden, batch, X, y):
    """Train all nets at once, each at a learning rate of its own."""
    together(weights, hidden, batch, X, y, np.geomspace(1e-4, 1e-2, len(weights)))


def regressor(hidden, batch, **params):
    """Return a regressor for one epoch."""
    return MultiTaskRegressor(
        hidden, batch_size=batch, max_epochs=1, lr=1e-3, random_state=0, **params
    )


@functools.cache
def measured(quick: bool) -> dict[tuple[int, int, int], dict[str, float]]:
    """Return the median seconds of each way in each case (P, H, batch)."""
    rng = np.random.default_rng(0)
    found = {}
    for n_members, width, batch in CASES[1:2] if quick else CASES:
        steps = max(4, STEPS * 256 // max(batch, 256) * 64 // max(width, 64))
        X = rng.normal(size=(steps * batch, 21)).astype(np.float32)
        y = rng.normal(size=(steps * batch, N_TASKS)).astype(np.float32)
        weights = rng.dirichlet(np.ones(N_TASKS), n_members)
        times: dict[str, list[float]] = {}
        for _ in range(3 if quick else 7):
            for way in (loop, fit, together, together_with_rates):
                begin = time.perf_counter()
                way(weights, (width,) * 3, batch, X, y)
                share = n_members / 2 if way in (loop, fit) else 1
                times.setdefault(way.__name__, []).append((time.perf_counter() - begin) * share)
        found[n_members, width, batch] = {k: statistics.median(v) for k, v in times.items()}
    return found


def tables(quick: bool) -> list[Table]:
    """Return the table of speed-ups."""
    rows = [
        [
            f"P{p} H{width} b{batch}",
            short(t["loop"] / t["together"]),
            short(t["fit"] / t["together"]),
            short(t["loop"] / t["together_with_rates"]),
        ]
        for (p, width, batch), t in measured(quick).items()
    ]
    return [
        Table(
            "Many nets at once",
            f"How many times faster P nets of three hidden layers ({N_TASKS} tasks) are trained "
            "together than one by one, by a bare fused loop and by MultiTaskRegressor; in the last "
            "column each has a learning rate of its own.",
            ["", "over a bare loop", "over MultiTaskRegressor", "a rate each, over the loop"],
            rows,
        )
    ]


def targets(quick: bool) -> list[Target]:
    """Return the target of the sweep of 16."""
    t = measured(quick)[16, 64, 256]
    return [
        Target("16 small nets (H64 b256) over one by one", 2.5, t["loop"] / t["together"], True)
    ]
