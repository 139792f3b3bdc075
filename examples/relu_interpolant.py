"""The simplest function through the data is not unique for one task, and is for two."""

# %% Eight numbers of one task, and another task for the same inputs
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

from mtlsk import ReLUInterpolator

x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])[:, None]
first = np.array([0.0, 0.0, 0.6, 2.0, 2.2, 1.0, 0.8, -0.1])
second = np.array([1.0, 1.6, 1.2, 1.5, 0.4, 0.9, 1.0, 0.2])

# %% One task: where the slope changes twice the same way, two networks cost the same
alone = ReLUInterpolator().fit(x, first)
dots, merged = alone.minimizers()
print(f"one task: cost {alone.norm_:.3f}, {alone.n_neurons_} neurons, unique: {alone.unique_}")
print(f"another interpolant with {len(merged.x) - 2} neurons costs {merged.cost:.3f}")

# %% Two tasks share their neurons, and connecting the dots is the one answer
together = ReLUInterpolator().fit(x, np.c_[first, second])
print(f"two tasks: cost {together.norm_:.3f}, {together.n_neurons_} neurons, ", end="")
print(f"unique: {together.unique_}")

# %% A picture
at = np.linspace(-0.5, 7.5, 801)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True, sharey=True)
axes[0].plot(at, dots(at), color="C0", label="connect the dots")
for i in alone.ambiguous_:
    part = (at >= x[i, 0]) & (at <= x[i + 1, 0])
    other = alone.minimizers(i)[1](at[part])
    label = "at the same cost" if i == alone.ambiguous_[0] else None
    axes[0].plot(at[part], other, color="C1", linestyle="--", label=label)
axes[0].plot(x, first, "o", color="black", markersize=4)
axes[0].set(title="one task: several minimizers", xlabel="x", ylabel="f(x)")
values = together.predict(at[:, None])
for k, (y, name) in enumerate([(first, "first task"), (second, "second task")]):
    axes[1].plot(at, values[:, k], color=f"C{2 * k}", label=name)
    axes[1].plot(x, y, "o", color="black", markersize=4)
axes[1].set(title="two tasks: a single one", xlabel="x")
for ax in axes:
    ax.legend(frameon=False)
path = Path(mkdtemp()) / "relu_interpolant.png"
figure.savefig(path, dpi=120)
print(f"the picture is {path}")
