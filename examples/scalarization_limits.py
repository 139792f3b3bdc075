"""What no task weights reach in linear multi-task learning, and what a draw makes of it."""

# %% Three targets that depend on two shared directions and a third that all of them fight over
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd

from mtlsk import (
    RandomizedFront,
    ReducedRankRegressor,
    exploration_test,
    plot_feasible,
    reachability_gap,
)

rng = np.random.default_rng(1)
X = rng.normal(size=(400, 3))
angles = 2 * np.pi * np.arange(3) / 3 + 0.1
mixing = np.vstack([np.cos(angles), np.sin(angles), np.full(3, 0.4)])
Y = pd.DataFrame(X @ mixing + 0.2 * rng.normal(size=(400, 3)), columns=["lift", "roll", "yaw"])

# %% One shared feature, rank q = 1: do weighted sums of the losses reach every trade-off?
found = exploration_test(X, Y, rank=1)
print(found)

# %% Weights all over the simplex: the worst task is never as good as the balanced model's
worst = []
for weights in rng.dirichlet(np.ones(3), 200):
    model = ReducedRankRegressor(1, weights).fit(X, Y)
    worst.append(((model.predict(X) - Y.to_numpy()) ** 2).mean(axis=0).max())
front = RandomizedFront(rank=1, random_state=0).fit(X, Y)
print(f"worst mse: weights {min(worst):.3f}, balanced model {front.point_mse_.max():.3f}")

# %% Yet the balanced model lies below the hull of all models
squares = ((Y - Y.mean()) ** 2).sum().to_numpy()
v = squares - len(X) * front.point_mse_
gap = reachability_gap(v, front.estimators_[0].gram_, rank=1)
print(f"gap {gap:.3f}: a draw among {len(front.estimators_)} models gains that share on every task")
print("expected mse of the draw", front.expected_mse_.round(3))

# %% One draw for each row
drawn = ((front.predict(X) - Y.to_numpy()) ** 2).mean(axis=0)
print("mse of one draw         ", drawn.round(3))

# %% The picture: all models, what weights reach, the balanced model, the mixture
display = plot_feasible(X, Y, rank=1)
path = Path(mkdtemp()) / "scalarization_limits.png"
display.figure_.savefig(path)
print(f"picture in {path}")
