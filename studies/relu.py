"""Shallow ReLU nets of several tasks: uniqueness, the kernel limit, and what training finds.

python studies/relu.py            minutes; no data files are needed
python studies/relu.py --quick    seconds
"""

from __future__ import annotations

import numpy as np
from common import parser, rows_of, with_spread, write
from matplotlib.figure import Figure
from relu_training import training
from scipy.stats import binomtest

from mtlsk.drawing import COLOURS
from mtlsk.relu import (
    PiecewiseLinear,
    ambiguous_intervals,
    convex_interpolant,
    kernel_approximation,
    relu_dictionary,
)

SHARES = {4: 0.25, 5: 0.48, 8: 0.83}  # for one task: mtlsk's own earlier simulation, two digits
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
