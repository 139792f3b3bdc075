"""What studies/scalarization_linear.py computes: tables, closed forms, and nets trained on them."""

from __future__ import annotations

import sys

import numpy as np
import torch

from mtlsk import Descent, RandomizedFront, exploration_test, reachability_gap
from mtlsk.aggregators import AGGREGATORS, LinearScalarization
from mtlsk.datasets import load_table
from mtlsk.linear_mtl import balanced_solution, fit_linear, scalarization_optimum
from mtlsk.modules import HardSharing

TRIPLES = {"SARCOS 3, 4, 5": (2, 3, 4), "SARCOS 1, 4, 5": (0, 3, 4), "SARCOS 1, 5, 7": (0, 4, 6)}
SPECIAL = ["MGDA", "ConicGrad", "CAGrad", "UPGrad", "Tchebycheff"]
EQUAL, SWEEP = "equal weights", "best of the weights"
RATE = 0.02


def made(rows=2000):
    """Return a table whose three tasks disagree in pairs: an odd cycle of negative entries."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(rows, 6))
    turn = 2 * np.pi * np.arange(3) / 3 + 0.1
    mixing = np.vstack([np.cos(turn), np.sin(turn), np.full((4, 3), 0.2)])
    return X, X @ mixing + 0.2 * rng.normal(size=(rows, 3))


def tables(arguments):
    """Return {name: (X, Y)}: X whitened, Y standardised, both on all rows."""
    found = {} if arguments.data else {"made": made()}
    if arguments.data:
        table = load_table(arguments.data / "sarcos_4449.csv.gz", targets=7)
        X, Y = table.data.to_numpy(), table.target.to_numpy()
        found |= {name: (X, Y[:, three]) for name, three in TRIPLES.items()}
    whitened = {}
    for name, (X, Y) in found.items():
        U = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)[0]
        whitened[name] = U * np.sqrt(len(X)), (Y - Y.mean(axis=0)) / Y.std(axis=0)
    return whitened


def folded(X, Y):
    """Return d + K rows whose mean squared errors are those of X and Y, for every linear model."""
    R = np.linalg.qr(np.column_stack([X, Y]), mode="r") * np.sqrt((X.shape[1] + 3) / len(X))
    return torch.tensor(R[:, : X.shape[1]]), torch.tensor(R[:, X.shape[1] :])


class Exact:
    """The closed forms of one table, at q = 1."""

    def __init__(self, X, Y):
        self.fit = fit_linear(X, Y, fit_intercept=False)
        self.test = exploration_test(X, Y, rank=1, fit_intercept=False)
        self.v = balanced_solution(self.fit.G, 1, self.fit.squares).v
        self.balanced = self.fit.mse(self.v)
        self.gap = reachability_gap(self.v, self.fit.G, 1)
        weights = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
        self.optima = np.array(
            [self.fit.mse(scalarization_optimum(w, self.fit.G, 1).v) for w in weights]
        )
        self.draw = RandomizedFront(1, fit_intercept=False).fit(X, Y)
        self.least_squares = self.fit.mse(self.fit.G.diagonal())

    def placed(self, mse):
        """Return (gap below the hull, room to the Pareto front on all tasks at once) of errors."""
        v = self.fit.squares - self.fit.n * mse
        base = v + self.fit.squares.max()
        level = balanced_solution(self.fit.G, 1, base).level + self.fit.squares.max()
        return reachability_gap(v, self.fit.G, 1), max(level, 0.0) / self.fit.n


def trained(X, Y, aggregator, seed, steps, width=1):
    """Return the errors (K,) of a linear net of ``width`` hidden units after full-batch steps."""
    torch.manual_seed(seed)
    net = HardSharing(X.shape[1], 3, (width,), activation="identity", bias=False).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    descent = Descent(net, optimizer, aggregator, n_tasks=3)
    for _ in range(steps):
        descent.backward((net(X) - Y).square().mean(0))
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (net(X) - Y).square().mean(0).numpy()


def swept(X, Y, seed, steps, weights):
    """Return the errors (P, K) of one net a row of weights, all trained together the same way."""
    torch.manual_seed(seed)
    nets = [HardSharing(X.shape[1], 3, (1,), "identity", bias=False).double() for _ in weights]
    W = torch.stack([n.trunk[0].weight.detach() for n in nets]).requires_grad_()
    A = torch.stack([n.head.weight.detach() for n in nets]).requires_grad_()
    optimizer = torch.optim.Adam([W, A], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    factor = torch.tensor(weights)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = (X @ W.mT @ A.mT - Y).square().mean(1)
        (losses * factor).sum().backward()
        optimizer.step()
        schedule.step()
    return losses.detach().numpy()


def grid(parts):
    """Return weights inside the simplex, in steps of 1 / parts."""
    cells = [(i, j, parts - i - j) for i in range(1, parts) for j in range(1, parts - i)]
    return np.array(cells) / parts


def runs(exact, X, Y, arguments, steps):
    """Return {method: list of (errors, gap, room) a seed}."""
    X, Y = folded(X, Y)
    found = {}
    members = {EQUAL: LinearScalarization()} | {
        name: AGGREGATORS.build(name) for name in (SPECIAL[::4] if arguments.quick else SPECIAL)
    }
    for name, aggregator in members.items():
        ends = [trained(X, Y, aggregator, s, steps) for s in range(arguments.seeds)]
        found[name] = [(mse, *exact.placed(mse)) for mse in ends]
        print(name, *(mse.round(3) for mse in ends), file=sys.stderr, flush=True)
    weights = grid(arguments.parts)
    sweeps = [swept(X, Y, s, steps, weights) for s in range(arguments.seeds)]
    best = [sweep[sweep.max(axis=1).argmin()] for sweep in sweeps]
    return {EQUAL: found.pop(EQUAL), SWEEP: [(m, *exact.placed(m)) for m in best]} | found
