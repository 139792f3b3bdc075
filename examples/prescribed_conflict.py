"""One objective, cut into tasks of a prescribed conflict: how long it holds, and what it costs.

usage: python examples/prescribed_conflict.py [--steps 100] [--out prescribed_conflict.png]
"""

# %% Data, and the Gramian of the targets' gradients where training starts
import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.preprocessing import StandardScaler

from mtlsk import MultiTaskRegressor
from mtlsk.datasets import make_arm
from mtlsk.decomposition import make_tasks_with_cosine
from mtlsk.estimators import DecomposedRegressor
from mtlsk.gramian import condition_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--out", default="prescribed_conflict.png")
options = parser.parse_args()

arm = make_arm(200, random_state=0)
X = StandardScaler().fit_transform(arm.data)
y = StandardScaler().fit_transform(arm.target)[:, :3]
common = {"module__activation": "tanh", "optimizer": "SGD", "lr": 0.05, "dtype": "float64"}
common |= {"batch_size": -1, "random_state": 0}  # an epoch is a step
gramian, _ = MultiTaskRegressor(**common).initialize_for(X, y).task_gramian(X, y)


# %% Tasks T L with a prescribed kappa at the start, the same mean loss, and one rule to join them
def run(kappa, aggregator):
    """Return kappa and the mean loss before each step."""
    mixing = make_tasks_with_cosine(gramian, condition_number=kappa).tolist()
    net = DecomposedRegressor(mixing=mixing, aggregator=aggregator, **common).initialize_for(X, y)
    rows = []
    for _ in range(options.steps + 1):
        now, losses = net.task_gramian(X, y)
        rows.append((condition_number(now), float(losses.mean())))
        net.partial_fit(X, y)
    return np.transpose(rows)


# %% Pictures: kappa over the steps, and the mean loss of both rules
figure = Figure(figsize=(11, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for i, kappa in enumerate([1, 10, 100, 1000]):
    for aggregator, look in {"LinearScalarization": "-", "MGDA": "--"}.items():
        kappas, losses = run(float(kappa), aggregator)
        away = np.abs(np.log(kappas / kappa)) > np.log(2)
        held = int(away.argmax()) if away.any() else options.steps
        print(
            f"kappa {kappa:4} by {aggregator:19}: within a factor 2 for {held:3} steps, "
            f"{kappas[-1]:6.4g} and mean loss {losses[-1]:.3f} at the end"
        )
        left.loglog(np.arange(len(kappas)) + 1, kappas, look, color=f"C{i}")
        right.plot(losses, look, color=f"C{i}", label=f"{kappa}, {aggregator}")
left.set(title="condition number of the task gradients", xlabel="step, from 1")
right.set(title="mean loss: the same for any cut by equal weights", xlabel="step", yscale="log")
right.legend(title="kappa at the start", fontsize=7)
figure.savefig(options.out, dpi=120)
print("picture in", options.out)
