"""A net with complex parameters: its Levi form, the part that stays, and Gauss-Newton's steps.

usage: python examples/holomorphic.py [--epochs 600] [--out holomorphic.png]
"""

# %% Two complex targets of real features, as pairs of columns: re, im, re, im
import argparse

import numpy as np
from matplotlib.figure import Figure

from mtlsk import MultiTaskRegressor
from mtlsk.curvature import gauss_newton, levi_form
from mtlsk.modules import HolomorphicSharing

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=600)
parser.add_argument("--out", default="holomorphic.png")
options = parser.parse_args()

X = np.random.default_rng(0).normal(size=(12, 3))
y = np.stack([np.exp(1j * X[:, 0]), X[:, 1] * (1 + 1j * X[:, 2])], axis=1).view(float)

# %% The same estimator with another module: more parameters than residuals, so an exact fit exists
net = MultiTaskRegressor(
    module=HolomorphicSharing,
    module__hidden_layer_sizes=(24,),
    aggregator="ConicGrad",
    lr=0.01,
    max_epochs=0,
    dtype="float64",
    random_state=0,
).initialize_for(X, y)
forms = {"start": levi_form(net, X, y)}
for epoch in range(1, options.epochs + 1):
    net.partial_fit(X, y)
    if epoch in (20, options.epochs):
        forms[f"epoch {epoch}"] = levi_form(net, X, y)
for name, form in forms.items():
    print(
        f"{name:>9}: Levi form is J^H J / R to {form.defect:.0e}, S has {form.residual_share:.3f} "
        f"of the Hessian's norm, trace {form.residual_trace:+.0e}, asymmetry {form.asymmetry:.0e}"
    )

# %% Gauss-Newton from where training ended, on a copy
norms = np.array(gauss_newton(net, X, y, steps=6))
print("|Phi| of Gauss-Newton:", " ".join(f"{norm:.1e}" for norm in norms))

# %% Pictures: the spectrum of S, +- symmetric, and |Phi| after each step against before
figure = Figure(figsize=(11, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, form in forms.items():
    left.plot(form.residual_eigenvalues.numpy(), label=f"{name}: {form.residual_share:.3f}")
left.set(title="eigenvalues of the residual part S, real coordinates", xlabel="rank")
left.set_yscale("symlog", linthresh=1e-4)
left.axhline(0, color="grey", lw=0.5)
left.legend(title="share of the Hessian")
right.semilogy(norms, "o-", label="|Phi|")
steps = np.arange(len(norms))
right.semilogy(steps[1:], norms[:-1] ** 2, "x--", label="square of the |Phi| before")
right.set(title="Gauss-Newton near an exact fit", xlabel="step", ylim=(1e-17, None))
right.legend()
figure.savefig(options.out, dpi=120)
print("picture in", options.out)
