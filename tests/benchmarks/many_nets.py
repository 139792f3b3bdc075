"""Time P linear scalarizations trained together against one by one; prints a table of ratios.

    OMP_NUM_THREADS=1 python tests/benchmarks/many_nets.py [--hidden-layers 3] [--repeats 7]

All three ways run interleaved in one process, on one thread: "loop" is a bare torch loop a net
over sliced batches with a fused AdamW, "fit" is MultiTaskRegressor.fit a net, "together" is
ScalarizationFront's training. The first two train two of the P nets and count P / 2 times.
Medians of the repeats; ratios above 1 say that together is faster.
"""

import argparse
import itertools
import statistics
import time

import numpy as np
import torch
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.estimators.together import fit_together

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


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-layers", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print("  P    H batch | ms a step together | loop   fit | with a rate each: loop")
    for n_members, width, batch in CASES:
        steps = max(4, options.steps * 256 // max(batch, 256) * 64 // max(width, 64))
        X = rng.normal(size=(steps * batch, 21)).astype(np.float32)
        y = rng.normal(size=(steps * batch, N_TASKS)).astype(np.float32)
        weights = rng.dirichlet(np.ones(N_TASKS), n_members)
        hidden = (width,) * options.hidden_layers
        times: dict[str, list[float]] = {}
        for _ in range(options.repeats):
            for way in (loop, fit, together, together_with_rates):
                begin = time.perf_counter()
                way(weights, hidden, batch, X, y)
                share = n_members / 2 if way in (loop, fit) else 1
                times.setdefault(way.__name__, []).append((time.perf_counter() - begin) * share)
        t = {name: statistics.median(values) for name, values in times.items()}
        ours = t["together"]
        print(
            f"{n_members:3d} {width:4d} {batch:5d} | {1e3 * ours / steps:18.2f} |"
            f" {t['loop'] / ours:4.1f}  {t['fit'] / ours:4.1f} |"
            f" {t['loop'] / t['together_with_rates']:4.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
