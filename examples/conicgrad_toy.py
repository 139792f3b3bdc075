"""Trajectories of four aggregators on the two-task toy problem, over its loss contours.

usage: python examples/conicgrad_toy.py [--steps 2000] [--lr 0.01] [--out conicgrad_toy.png]

The papers take 50,000 steps of 0.001.
"""

# %% The step without any estimator: a module of two parameters, an optimizer, a Descent
import argparse

import numpy as np
import torch
from matplotlib.figure import Figure

from mtlsk import Descent
from mtlsk.datasets import TOY_STARTS, toy_losses, toy_minimum
from mtlsk.optimizers import Adam

METHODS = {
    "mean": "LinearScalarization",
    "MGDA": "MGDA",
    "CAGrad c=.5": {"name": "CAGrad", "c": 0.5},
    "ConicGrad c=.75": {"name": "ConicGrad", "c": 0.75},
}


def trajectory(aggregator, start, steps, lr):
    """Return the points (steps + 1, 2) that Adam visits from a start."""
    point = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))])
    optimizer = Adam(point.parameters(), lr=lr)
    # updates of one length, |d| = |g0|: the pictures differ in directions alone
    descent = Descent(point, optimizer, aggregator, n_tasks=2, update_norm="mean")
    points = [list(start)]
    for _ in range(steps):
        descent.backward(toy_losses(point[0]))
        optimizer.step()
        points.append(point[0].tolist())
    return np.array(points)


# %% Run and draw
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2_000)
parser.add_argument("--lr", type=float, default=1e-2)
parser.add_argument("--out", default="conicgrad_toy.png")
options = parser.parse_args()

axis = np.linspace(-11, 11, 221)
grid = torch.tensor(np.stack(np.meshgrid(axis, axis), axis=-1))
contours = toy_losses(grid).mean(-1).numpy()
(minimum, lowest) = toy_minimum()

figure = Figure(figsize=(13, 3.6), layout="constrained")
for axes, (name, aggregator) in zip(figure.subplots(1, 4), METHODS.items(), strict=True):
    axes.contour(axis, axis, contours, levels=25, cmap="Greys", linewidths=0.6)
    ends = []
    for start in TOY_STARTS:
        path = trajectory(aggregator, start, options.steps, options.lr)
        ends.append(float(toy_losses(torch.tensor(path[-1])).mean()))
        axes.plot(*path.T, lw=1.5)
        axes.plot(*start, "ko", ms=4)
    axes.plot(*minimum, "r*", ms=13, label="minimum of the mean")
    axes.set(title=name, xlabel="x1", ylabel="x2", xlim=(-11, 11), ylim=(-11, 11))
    print(f"{name:>16}: mean loss at the end", " ".join(f"{end:8.3f}" for end in ends))
axes.legend(loc="lower right", fontsize=7)
figure.savefig(options.out, dpi=120)
print(f"{'minimum':>16}: {lowest:.3f}; picture in {options.out}")
