"""A shallow net of 60 neurons uses those that its tasks need: the multi-task path norm.

usage: python examples/path_norm.py [--epochs 3000] [--out path_norm.png]
"""

# %% Two tasks that bend at the same two places
import argparse

import numpy as np
from matplotlib.figure import Figure

from mtlsk import MultiTaskRegressor, neuron_sharing

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=3_000)
parser.add_argument("--out", default="path_norm.png")
options = parser.parse_args()

rng = np.random.default_rng(0)
X = np.linspace(-2, 2, 41)[:, None]
bends = np.maximum(X - [-0.5, 0.8], 0)  # (41, 2)
truth = bends @ [[2.0, -1.0], [-3.0, 2.0]] + [0.0, 0.5]
y = truth + 0.1 * rng.standard_normal(truth.shape)

# %% The same net with and without the regularizer; SGD, so that the proximal steps are exact
nets = {}
for name, params in {
    "no regularizer": {},
    "path norm": {"regularizer": "path_norm", "regularizer__strength": 0.01},
}.items():
    nets[name] = MultiTaskRegressor(
        (60,),
        optimizer="SGD",
        lr=0.1,
        batch_size=-1,
        max_epochs=options.epochs,
        module__skip=True,  # an affine part, which costs nothing
        random_state=0,
        **params,
    ).fit(X, y)

# %% What is left of the neurons
figure = Figure(figsize=(9, 3.6), layout="constrained")
for axes, (name, net) in zip(figure.subplots(1, 2, sharey=True), nets.items(), strict=True):
    hidden, head = net.module_.trunk[0], net.module_.head
    size = hidden.weight.norm(dim=1) * head.weight.norm(dim=0)
    zero, used = int((size == 0).sum()), int((size > 1e-3 * size.max()).sum())
    error = np.mean((net.predict(X) - truth) ** 2)
    print(
        f"{name}: {used} of 60 neurons are used, {zero} are zero; mean squared error to the truth "
        f"{error:.4f}, share of a neuron's largest task {neuron_sharing(net):.2f}"
    )
    axes.plot(X, y, ".", color="0.6")
    axes.plot(X, net.predict(X), lw=2)
    axes.set(title=f"{name}: {used} neurons", xlabel="x")
figure.savefig(options.out)
print("the picture is", options.out)
