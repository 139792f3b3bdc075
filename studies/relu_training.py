"""The part of studies/relu.py that trains nets: do they find the exact solution?"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import torch
from common import rows_of, with_spread
from matplotlib.figure import Figure

from mtlsk import MultiTaskRegressor
from mtlsk.drawing import COLOURS
from mtlsk.regularizers import multitask_path_norm
from mtlsk.relu import PiecewiseLinear, ambiguous_intervals

DECAYS = (3e-2, 1e-2, 3e-3)
WIDTH, NEAR = 24, 0.05
AT = np.linspace(-1.5, 1.5, 301)


def problems(count):
    """Return [(x, y)] of 6 points and 3 tasks whose first task alone has no unique solution."""
    rng, found = np.random.default_rng(0), []
    while len(found) < count:
        x, y = np.sort(rng.uniform(-1.5, 1.5, 6)), rng.standard_normal((6, 3))
        if np.diff(x).min() > 0.3 and len(ambiguous_intervals(PiecewiseLinear(x, y[:, :1]))):
            found.append((x, y))
    return found


def optimum(x, y, decay):
    """Return the exact least |f(x) - y|^2 / 2 + decay sum_k |v_k| |w_k|, and a function of it."""
    values = cp.Variable(y.shape)
    slopes = cp.multiply(cp.diff(values, axis=0), np.tile(1 / np.diff(x)[:, None], y.shape[1]))
    cost = cp.sum(cp.norm(cp.diff(slopes, axis=0), 2, axis=1))
    program = cp.Problem(cp.Minimize(cp.sum_squares(values - y) / 2 + decay * cost))
    program.solve(solver="CLARABEL")
    return float(program.value), PiecewiseLinear(x, values.value)


def trained(x, y, decay, kind, steps):
    """Train a batch of nets; return their values on AT, path norms, objectives, data errors.

    x (B, N), y (B, N, T), decay (B,). Objective: |f(x) - y|^2 / 2 + decay / 2 (|w|^2 + |v|^2)
    with f = sum_k v_k (w_k x + b_k)_+ + A x + c; b, A, c are free, as in the theorem.
    """
    (B, _, T), generator = y.shape, torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    w, v = drawn(B, 1, WIDTH), drawn(B, WIDTH, T) / WIDTH**0.5
    b = -w * 1.5 * torch.tanh(drawn(B, 1, WIDTH))  # kinks over the data's range
    slope, shift = torch.zeros(B, 1, T).double(), torch.zeros(B, 1, T).double()
    X, Y, strength = torch.tensor(x)[:, :, None], torch.tensor(y), torch.tensor(decay)
    everything = [p.requires_grad_() for p in (w, b, v, slope, shift)]

    def net(at):
        return (at * w + b).relu() @ v + at * slope + shift

    def objective():
        weights = w.square().sum((1, 2)) + v.square().sum((1, 2))
        return (net(X) - Y).square().sum((1, 2)) / 2 + strength / 2 * weights

    if kind == "Adam":
        optimizer = torch.optim.Adam(everything, lr=0.01)
    else:
        optimizer = torch.optim.SGD(everything, lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective().sum().backward()
        optimizer.step()
        if kind == "Adam":
            schedule.step()
    with torch.no_grad():
        norms = (w.abs()[:, 0] * v.norm(dim=2)).sum(1)
        errors = (net(X) - Y).abs().amax((1, 2))
        on = net(torch.tensor(AT)[None, :, None].expand(B, -1, -1))
        return [a.numpy() for a in (on, norms, objective(), errors)]


def spread_of(values):
    """Return the largest standard deviation over nets (first axis), over places and tasks."""
    return float(values.std(axis=0, ddof=1).max())


def cells_of(measured, inits):
    """Return the cells of a row, measured on each problem."""
    *columns, near = np.transpose(measured)
    return [*(with_spread(c, 3) for c in columns), f"{int(near.sum())} of {inits * len(near)}"]


def training(count, inits, steps, epochs, out):
    """Return the paragraphs on whether gradient descent finds the solution."""
    data, rows, shown, summary = problems(count), [], {}, {}
    for kind in ("gradient descent", "Adam"):
        for T in (1, 2, 3):
            grid = [(d, decay, i) for decay in DECAYS for d in range(count) for i in range(inits)]
            x = np.stack([data[d][0] for d, _, _ in grid])
            y = np.stack([data[d][1][:, :T] for d, _, _ in grid])
            found = trained(x, y, np.array([g[1] for g in grid]), kind, steps)
            for decay in DECAYS:
                measured = []
                for d in range(count):
                    chosen = [j for j, g in enumerate(grid) if g[:2] == (d, decay)]
                    values, norms, objectives, errors = (a[chosen] for a in found)
                    px, py = data[d][0], data[d][1][:, :T]
                    dots = PiecewiseLinear(px, py)
                    least, exact = optimum(px, py, decay)
                    inside = (px[0] <= AT) & (px[-1] >= AT)
                    values = values[:, inside]
                    far = [np.abs(values - f(AT[inside])).max(axis=(1, 2)) for f in (dots, exact)]
                    near = objectives < (1 + NEAR) * least
                    apart = spread_of(values[near]) if near.sum() > 1 else np.nan
                    shares = np.array([*np.median(far, axis=1), apart, np.median(errors)])
                    excess = np.median([norms / dots.cost - 1, objectives / least - 1], axis=1)
                    measured.append([*shares / np.ptp(py), *excess, near.sum()])
                    if kind == "gradient descent" and decay == DECAYS[1] and d == 0 and T < 3:
                        shown[T] = (AT[inside], values[:, :, 0], dots, exact)
                summary[kind, T, decay] = np.array(measured)
                rows.append([kind, T, f"{decay:g}", *cells_of(measured, inits)])
            print(kind, "T =", T, flush=True)
    rows += regularized(data, epochs)
    draw(shown, out / "functions.png")
    said = []
    for kind in ("gradient descent", "Adam"):
        got = {T: int(sum(summary[kind, T, d][:, -1].sum() for d in DECAYS)) for T in (1, 2, 3)}
        total = count * inits * len(DECAYS)
        said.append(
            f"{kind} comes within {NEAR:.0%} of the least objective in "
            + ", ".join(f"{n} of {total} nets (T = {T})" for T, n in got.items())
        )
        share = (got[2] + got[3]) / (2 * total)
        word = "usually" if share > 0.9 else "often, not always," if share > 0.5 else "mostly not"
        said[-1] += f": the least objective is {word} reached"
    apart = [
        np.concatenate([summary[k, T, DECAYS[1]][:, 2] for k in ("gradient descent", "Adam")])
        for T in (1, 2)
    ]
    one, two = (a[~np.isnan(a)] for a in apart)
    if len(one) and len(two):
        depends = "depends on" if one.mean() > 2 * two.mean() else "does not visibly depend on"
        said.append(
            f"of the nets that came so near at decay {DECAYS[1]:g}, those from different starts "
            f"lie {one.mean():.1%} of the labels' range apart with the ambiguous task alone and "
            f"{two.mean():.1%} with a second one, so which tied solution is picked {depends} the "
            "start"
        )
    else:
        said.append("too few nets came near to compare different starts")
    titles = ["from connect-the-dots", "from the exact minimiser", "between starts"]
    titles += ["error on the data", "path norm's excess", "objective's excess"]
    titles += [f"within {NEAR:.0%}"]
    return [
        "## Does training find it?",
        "**Claimed**: nothing; the paper leaves open whether gradient descent with weight decay "
        "finds the unique solution.",
        f"**Run**: {count} problems of 6 points whose first task alone is ambiguous, T = 1, 2, 3 "
        f"of the same labels; {inits} starts, {WIDTH} neurons with an affine skip, full batch, "
        f"{steps} steps of gradient descent (lr .01, momentum .9) or of Adam (lr .01, cosine "
        "schedule) on the sum of squares / 2 plus decay / 2 of all squared weights. The exact "
        "minimiser of the same objective is a convex program over the values at the data. "
        "*path_norm*: a MultiTaskRegressor with this regularizer at the strength that is the same "
        f"objective, SGD, {epochs} epochs, one start.",
        "**Found**: largest distances between the first and last datum and the standard deviation "
        f"between starts (of nets within {NEAR:.0%} of the least objective, the last column) as "
        "shares of the labels' range; medians over starts, then mean ± standard deviation over "
        "problems; excesses are over connect-the-dots' norm (negative: labels not reached) and the "
        "least objective.",
        rows_of(["training", "T", "decay", *titles], rows),
        "![functions](functions.png)",
        f"**Verdict**: {'; '.join(said)}.",
    ]


def regularized(data, epochs):
    """Return rows of the table for regularizer="path_norm", at the largest decay."""
    rows, decay = [], DECAYS[0]
    for T in (1, 2):
        measured = []
        for px, y in data:
            py = y[:, :T]
            net = MultiTaskRegressor(
                (WIDTH,), optimizer="SGD", lr=0.1, batch_size=-1, max_epochs=epochs,
                module__skip=True, random_state=0, regularizer="path_norm",
                regularizer__strength=2 * decay / py.size,
            ).fit(px[:, None], py if T > 1 else py[:, 0])  # fmt: skip
            at = AT[(px[0] <= AT) & (px[-1] >= AT)]
            dots, (least, exact) = PiecewiseLinear(px, py), optimum(px, py, decay)
            values = net.predict(at[:, None]).reshape(len(at), T)
            wrong = net.predict(px[:, None]).reshape(py.shape) - py
            norm = multitask_path_norm(net).item()
            far = [np.abs(values - f(at)).max() / np.ptp(py) for f in (dots, exact)]
            least = ((wrong**2).sum() / 2 + decay * norm) / least - 1
            error = np.abs(wrong).max() / np.ptp(py)
            measured.append([*far, np.nan, error, norm / dots.cost - 1, least, least < NEAR])
        rows.append(["path_norm", T, f"{decay:g}", *cells_of(measured, 1)])
        print("path_norm, T =", T, flush=True)
    return rows


def draw(shown, path):
    """Draw the first task's function, alone and with a second task, from all starts."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    names = {1: "Alone: not unique", 2: "With a second task: unique"}
    for axes, (T, (at, values, dots, exact)) in zip(
        figure.subplots(1, 2, sharey=True), shown.items(), strict=True
    ):
        lines = axes.plot(at, values.T, color=COLOURS[5], lw=1)
        lines[0].set_label("gradient descent, all starts")
        axes.plot(at, exact(at)[:, 0], "--", color=COLOURS[1], label="exact, same decay")
        axes.plot(at, dots(at)[:, 0], ":", color="black", label="connect-the-dots")
        axes.plot(dots.x, dots.y[:, 0], "o", color="black")
        axes.set(title=names[T], xlabel="x", ylabel="first task")
    axes.legend(fontsize=8)
    figure.savefig(path)
