"""Two parts of certificates.py that train little: critical points, and certified exact fits."""

from __future__ import annotations

import numpy as np
import torch
from common import rows_of
from torch.func import jacrev

from mtlsk import MultiTaskRegressor
from mtlsk.curvature import copy_of, reachable_zero
from mtlsk.curvature.lipschitz import move, residual_jacobian


def holomorphic(x):
    """Return h of Phi = (1 - z^2, 3 z (z - 1)), K = 2, of five complex numbers as ten real ones."""
    z = torch.complex(x[0], x[1])
    phi = torch.stack([1 - z**2, 3 * z * (z - 1)])
    return (phi * phi.conj()).real.mean()  # the other numbers change nothing


def real(x):
    """Return h of Phi_1 = Phi_2 = 1 + |x|^2 - 5/16 |x|^4, K = 2, of ten real numbers."""
    s = (x**2).sum()
    return (1 + s - 5 / 16 * s**2) ** 2


def counterexamples(seeds):
    """Return the text about critical points that are no saddles."""
    rows, refuted = [], 0
    origin = torch.zeros(10, dtype=torch.float64)
    for name, h in (("holomorphic", holomorphic), ("real", real)):
        slope, bend = jacrev(h)(origin).abs().max(), jacrev(jacrev(h))(origin)
        around = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            for radius in (1e-3, 1e-2, 1e-1):
                d = torch.tensor(rng.normal(size=(2000, 10)))
                d = radius * d / d.norm(dim=1, keepdim=True)
                around.append(float(torch.stack([h(x) for x in d]).min()) - float(h(origin)))
        curvature = torch.linalg.eigvalsh(bend)
        refuted += float(slope) == 0 and float(curvature[0]) >= 0 and min(around) >= 0
        cells = [name, f"{float(h(origin)):g}", f"{float(slope):g}"]
        rows.append([*cells, f"{curvature[0]:g} to {curvature[-1]:g}", f"{min(around):.1e}"])
    return [
        "## Critical points",
        "**Claimed**: with K losses and more than 2K parameters every critical point with h > 0 is "
        "a saddle.",
        f"**Run**: two pairs of residuals of ten real parameters at the origin; {2000 * 3 * seeds} "
        "points around it at distances .001, .01 and .1.",
        "**Found**:",
        rows_of(
            ["residuals", "h", "gradient", "Hessian's eigenvalues", "least h around - h"], rows
        ),
        f"**Verdict**: the claim is {'false as stated' if refuted else 'not refuted here'}: "
        f"{refuted} of 2 critical points with h > 0 have no direction of descent.",
    ]


def newton(net, X, y):
    """Return the largest residual after Gauss-Newton from a net's parameters, and how far it is."""
    copy = copy_of(net, X, y, max_rows=None)
    there = ~copy.y.isnan()
    start = torch.cat([p.detach().flatten() for p in copy.parameters])
    for _ in range(12):
        phi = (copy.outputs() - copy.y)[there].detach()
        change = torch.linalg.pinv(residual_jacobian(copy, there)) @ phi
        pairs = zip(copy.parameters, copy.unflatten(change), strict=True)
        move(copy, [p.detach() - part for p, part in pairs])
    left = float((copy.outputs() - copy.y)[there].detach().abs().max())
    moved = torch.cat([p.detach().flatten() for p in copy.parameters]) - start
    return left, float(moved.norm())


def zeros(arm, seeds, quick):
    """Return the text about certified exact fits."""
    rows, certified, true = [], 0, 0
    for seed in range(seeds):
        X, y = arm(50, seed, 2)
        X, y = X[:3], y[:3]
        net = MultiTaskRegressor(
            (32,), activation="tanh", optimizer="Adam", lr=0.003, batch_size=-1, max_epochs=5,
            dtype="float64", random_state=seed, warm_start=True,
        )  # fmt: skip
        for _ in range(20 if quick else 400):
            found = reachable_zero(net.fit(X, y), X, y)
            if found.applicable:
                break
        steps, loss = net.n_steps_, float(net.task_gramian(X, y)[1].mean())
        if not found.applicable:
            rows.append([seed, steps, f"{loss:.1e}", "-", "-", "-"])
            continue
        left, moved = newton(net, X, y)
        certified += 1
        true += left < 1e-9 and moved <= found.value
        cells = [seed, steps, f"{loss:.1e}", f"{found.value:.2e}", f"{moved:.2e}", f"{left:.0e}"]
        rows.append(cells)
    heads = ["seed", "steps", "mean loss", "certified within", "found at", "residual left there"]
    return [
        "## Certified exact fits",
        "**Claimed**: zero loss can be certified to be reachable near given parameters.",
        "**Run**: three rows and two torques of the arm, a tanh layer of 32, full batches of Adam; "
        "every 5 steps `reachable_zero` with a Lipschitz bound derived from the weights. Where "
        "it first applies, 12 steps of Gauss-Newton look for the zero.",
        "**Found**:",
        rows_of(heads, rows),
        f"**Verdict**: the certificate applies in {certified} of {seeds} seeds and is true in "
        f"{true} of these {certified}; it takes a mean loss as small as in the table, on a handful "
        "of rows: it certifies the end of a fit, not its beginning.",
    ]
