"""Shallow ReLU nets of several tasks: uniqueness, the kernel limit, and what training finds.

python studies/relu.py            minutes; no data files are needed
python studies/relu.py --quick    seconds
"""

from __future__ import annotations

import numpy as np
import torch
from common import parser, rows_of, with_spread, write
from matplotlib.figure import Figure
from scipy.stats import binomtest

from mtlsk import MultiTaskRegressor
from mtlsk.drawing import COLOURS
from mtlsk.regularizers import multitask_path_norm
from mtlsk.relu import (
    PiecewiseLinear,
    ambiguous_intervals,
    convex_interpolant,
    kernel_approximation,
    relu_dictionary,
)

SHARES = {4: 0.25, 5: 0.48, 8: 0.83}  # for one task: mtlsk's own earlier simulation, two digits
DECAYS = (3e-2, 1e-2, 3e-3)
WIDTH, NEAR = 24, 0.05
AT = np.linspace(-1.5, 1.5, 301)
SQUARE = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
TWO_SQUARES = np.r_[SQUARE, SQUARE / 2]  # side 2 -> 0, side 1 -> 1
GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
HOW = "seeds are those of the drawn points and of the nets;"


def interval(count, draws):
    """Return "share [95 % interval]" of a binomial count."""
    low, high = binomtest(count, draws).proportion_ci()
    return f"{count / draws:.3f} [{low:.3f}, {high:.3f}]"


def uniqueness(draws):
    """Return the paragraphs on how often the solution is not unique."""
    rows, one, several, kept = [], [], 0, 0
    for n, share in SHARES.items():
        rng = np.random.default_rng(n)
        counts = {1: 0, 2: 0, 3: 0, "copies": 0}
        for _ in range(draws):
            x, y = np.sort(rng.standard_normal(n)), rng.standard_normal((n, 3))
            copies = np.c_[y[:, 0], 2 * y[:, 0] - 1, 0.3 * x - 0.7 * y[:, 0]]
            found = {
                k: len(ambiguous_intervals(PiecewiseLinear(x, v))) > 0
                for k, v in {**{t: y[:, :t] for t in (1, 2, 3)}, "copies": copies}.items()
            }
            counts = {k: counts[k] + found[k] for k in counts}
            kept += found[1] == found["copies"]
        low, high = binomtest(counts[1], draws).proportion_ci()
        one.append(low - 0.005 <= share <= high + 0.005)
        several += counts[2] + counts[3]
        rows.append([n, f"{share:.2f}", *(interval(counts[k], draws) for k in counts)])
    total = len(SHARES) * draws
    first = "holds" if several == 0 else f"fails in {several} draws"
    bound = binomtest(0, 2 * total).proportion_ci().high
    verdict = f"Uniqueness with two or more tasks {first}"
    if several == 0:
        verdict += f" (0 of {2 * total} draws, so less than {bound:.1e} at 95 %)"
    verdict += (
        "; affine copies of one task keep its ambiguity in "
        f"{kept} of {total} draws; the shares noted for one task are "
        f"{'all' if all(one) else 'not all'} inside their intervals (to two digits)."
    )
    return [
        "## Multi-task solutions are unique, single-task ones are not",
        "**Claimed** (arXiv 2410.21696): in one dimension with two or more tasks the interpolant "
        "of least weight decay is unique for almost all labels, and connects the dots; with one "
        "task it often is not. The shares in the second column are those noted with the library.",
        f"**Run**: x and labels standard normal, {draws} draws for each N, the criterion of the "
        "theorem (two neighbouring kinks that point the same way); copies: y, 2y - 1, .3x - .7y.",
        "**Found**: probability that the solution is not unique, 95 % binomial interval.",
        rows_of(["N", "noted, T = 1", "T = 1", "T = 2", "T = 3", "three affine copies"], rows),
        f"**Verdict**: {verdict}",
    ]


def kernel_limit(tasks, seeds, directions, out):
    """Return the paragraphs on the approach to a kernel method; draw the gap against T."""
    gaps = {}
    for T in tasks:
        for seed in range(seeds):
            others = np.random.default_rng(seed).standard_normal((8, T - 1))
            labels = np.c_[np.repeat([0.0, 1.0], 4), others]
            dictionary = relu_dictionary(TWO_SQUARES, directions, seed)
            optimum = convex_interpolant(TWO_SQUARES, labels, dictionary)
            try:
                found = kernel_approximation(optimum, 0, GRID)
                gap = (found.function_gap, found.cost_gap, optimum.gap)
            except ValueError as error:  # the other tasks' neurons do not interpolate
                print(T, seed, error, flush=True)
                gap = (np.nan, np.nan, optimum.gap)
            gaps.setdefault(T, []).append(gap)
        print("squares, T =", T, flush=True)
    table = {T: np.array(runs) for T, runs in gaps.items()}
    rows = [
        [
            T,
            int((~np.isnan(g[:, 0])).sum()),
            *(with_spread(g[:, i], 5) for i in range(2)),
            f"{np.nanmin(g[:, 0]):.5f} to {np.nanmax(g[:, 0]):.5f}",
            f"{g[:, 2].max():.0e}",
        ]
        for T, g in table.items()
    ]
    means = np.array([np.nanmean(table[T][:, 0]) for T in tasks])
    slope = np.polyfit(np.log(tasks), np.log(means), 1)[0]
    falls = bool((np.diff(means) < 0).all())
    figure = Figure(figsize=(5.6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for T in tasks:
        axes.plot([T] * seeds, table[T][:, 0], ".", color="0.6")
    axes.plot(tasks, means, "o-", color=COLOURS[0], label=f"mean, slope {slope:.2f}")
    axes.plot(tasks, means[0] * 2.0 / np.array(tasks), "--", color=COLOURS[1], label="1 / T")
    axes.set(
        xscale="log", yscale="log", xlabel="tasks T", ylabel="largest difference",
        title="One task of the optimum against the kernel's",
    )  # fmt: skip
    axes.set_xticks(tasks, tasks)
    axes.minorticks_off()
    axes.legend()
    figure.savefig(out / "gap.png")
    says = (
        "holds here: the gap falls with every T" if falls else "is not seen: the gap does not fall"
    )
    return [
        "## With many tasks one task's part is a kernel method's",
        "**Claimed** (arXiv 2410.21696): for many tasks each task's part of the optimum is nearly "
        "the interpolation by a kernel that the other tasks fix.",
        f"**Run**: two squares (corners of side 2 are 0, of side 1 are 1), all other tasks' labels "
        f"standard normal; {seeds} seeds of labels and of a dictionary of {directions} directions "
        "(with two features the optimum is that of the dictionary). *function gap*: largest "
        "difference on a grid over [-1, 1]^2 as a share of the function's range about its mean; "
        "*cost gap*: what the norm grows by with the kernel's weights.",
        "**Found**:",
        rows_of(
            ["T", "solved", "function gap", "cost gap", "range", "solver's gap, at most"], rows
        ),
        "![gap](gap.png)",
        f"**Verdict**: The claim {says}, from {means[0]:.3f} at T = {tasks[0]} to {means[-1]:.5f} "
        f"at T = {tasks[-1]}, about as T to the power {slope:.1f}.",
    ]


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
    import cvxpy as cp

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
        said[-1] += f": the unique multi-task solution is {word} found"
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


def main():
    arguments = parser(__doc__, "relu").parse_args()
    quick, out = arguments.quick, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    paragraphs = [
        *uniqueness(200 if quick else 3000),
        *kernel_limit(
            (2, 5, 20) if quick else (2, 5, 20, 101), 3 if quick else 5, 16 if quick else 32, out
        ),
        *training(3, 3 if quick else 4, 300 if quick else 8_000, 100 if quick else 3_000, out),
    ]
    write(out, "Shallow ReLU nets of several tasks", paragraphs, HOW)


if __name__ == "__main__":
    main()
