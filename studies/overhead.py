"""What a training step costs beside a plain one, against the numbers of tasks and parameters.

python studies/overhead.py             the report, in studies/overhead: some minutes
python studies/overhead.py --quick     small nets, few tasks

Routes are those of tests/benchmarks: each takes its steps in turn with the plain step (mean loss,
one backward pass, fused AdamW) of a net of its own, on one thread; the ratio is of median processor
times. The whole is repeated; the report has the median and the range of the repeats. ``--data`` and
``--jobs`` are of no use here.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from common import parser, rows_of, write
from matplotlib.figure import Figure

from mtlsk.drawing import COLOURS, MARKERS
from tests.benchmarks.checks import check, reference_gramian
from tests.benchmarks.peers import HAS_TORCHJD, SeparateGradients, TorchJDAutogram, torchjd_mgda
from tests.benchmarks.problem import Problem, Setting
from tests.benchmarks.routes import Ours, Plain

NOISE = 1.2  # a smaller factor between two ratios means nothing here
CHECKED = 1_000_000  # parameters up to which gradients and weights are compared first


def conic(gramian):
    return partial(Ours, aggregator="ConicGrad", gramian=gramian)


ROUTES = {
    "exact": conic("exact"),
    "online": conic("online"),
    "budget": conic("budget"),
    "features": conic("features"),
    "K gradients": SeparateGradients,
}
if HAS_TORCHJD:
    ROUTES |= {"TorchJD backward": torchjd_mgda, "TorchJD autogram": TorchJDAutogram}


def settings(quick):
    """Return {what varies: settings}."""
    if quick:
        few = [Setting(16, 32, k) for k in (2, 7)]
        return {"tasks": few, "parameters": [Setting(h, 32, 3) for h in (16, 48)]}
    tasks = (2, 7, 20, 40, 100)
    return {
        "tasks": [Setting(64, 256, k) for k in tasks],
        "parameters": [Setting(h, 32, 7) for h in (48, 160, 512, 1448, 4096)],
    }


def size(setting):
    """Return the number of parameters."""
    h = setting.width
    return 21 * h + 2 * h * h + 3 * h + (h + 1) * setting.tasks


def checked(setting):
    """Compare every route's gradients with autograd's where the net is small enough."""
    if size(setting) <= CHECKED:
        problem = Problem(setting)
        gramian = reference_gramian(problem)
        for make in ROUTES.values():
            check(make(problem), gramian)


def ratio(setting, name, quick):
    """Return the route's time relative to a plain step's, steps taken in turn.

    Time is the process's own on its one thread: what others run in between does not count.
    """
    problem = Problem(setting)
    large = size(setting) > CHECKED
    routes = {"plain": Plain(problem), name: ROUTES[name](problem)}
    spent = {n: [] for n in routes}
    begun, number = time.process_time(), 0
    while number < (3 if large or quick else 6) or (
        time.process_time() - begun < (0 if quick else 0.25) and number < 40
    ):
        for n, route in routes.items():
            for timed in (True,) if large else (False, True):  # the first fills the caches
                start = time.process_time()
                route.step(number)
                if timed and number:  # the first round warms up
                    spent[n].append(time.process_time() - start)
        number += 1
    del routes, route
    if large:
        gc.collect()  # hooks and graphs are cycles that hold hundreds of megabytes
    return statistics.median(spent[name]) / statistics.median(spent["plain"])


def measured(arguments):
    """Yield (settings, {what varies: {route: the repeats' ratios a setting}}) after each repeat."""
    every = settings(arguments.quick)
    for setting in {str(s): s for group in every.values() for s in group}.values():
        checked(setting)
    found = {what: {n: [[] for _ in group] for n in ROUTES} for what, group in every.items()}
    for repeat in range(arguments.seeds):
        for what, group in every.items():
            for i, setting in enumerate(group):
                for name in ROUTES:
                    found[what][name][i].append(ratio(setting, name, arguments.quick))
                print(repeat, what, setting, file=sys.stderr, flush=True)
        yield every, found, repeat + 1


def cell(values):
    """Return "median (smallest to largest)"."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def growth(first, last):
    """Return (factor of the medians, how it is called): ranges must be apart to be called grown."""
    factor = statistics.median(last) / statistics.median(first)
    if factor > NOISE and min(last) > max(first):
        return factor, "grows"
    if factor < 1 / NOISE and max(last) < min(first):
        return factor, "falls"
    return factor, "no clear change"


def axis(what, group):
    """Return (label, values) of what varies."""
    if what.startswith("tasks"):
        return "number of tasks K", [s.tasks for s in group]
    return "number of parameters", [size(s) for s in group]


def claim(what, group, found):
    """Return the paragraphs of one group."""
    label, at = axis(what, group)
    fixed = f"trunk of three layers of {group[0].width}" if what.startswith("tasks") else "K fixed"
    verdicts = {name: growth(values[0], values[-1]) for name, values in found.items()}
    grow = [n for n, (_, said) in verdicts.items() if said == "grows"]
    not_so = [n for n in verdicts if n not in grow]
    holds = "holds for all" if not not_so else "fails for all" if not grow else "holds for some"
    rows = [
        [name, *(cell(v) for v in values), f"{verdicts[name][0]:.2f}", verdicts[name][1]]
        for name, values in found.items()
    ]
    first, last = f"{at[0]:,}", f"{at[-1]:,}"
    return [
        f"## {what.capitalize()}",
        f"**Claimed**: the overhead of gradient methods grows with the {label}.",
        f"**Run**: {fixed}; {label} {', '.join(f'{x:,}' for x in at)}; batches of "
        f"{group[0].rows} rows"
        + ("." if what.startswith("tasks") else f"; K = {group[0].tasks}, widths ")
        + ("" if what.startswith("tasks") else ", ".join(str(s.width) for s in group) + "."),
        "**Found** (time of a step over a plain step's; *factor*: last column's over the first's):",
        rows_of(["route", *(f"{x:,}" for x in at), "factor", "by range and 20 %"], rows),
        f"**Verdict**: {holds} of the routes, from {first} to {last}: it grows for "
        f"{', '.join(f'{n} ({verdicts[n][0]:.1f} times)' for n in grow) or 'none'}; not for "
        + (", ".join(f"{n} ({verdicts[n][1]})" for n in not_so) or "none")
        + ".",
    ]


def draw(out, every, found):
    """Draw ratio against tasks and parameters."""
    figure = Figure(figsize=(4.3 * len(every), 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(every), sharey=True)
    for panel, (what, group) in zip(panels, every.items(), strict=True):
        label, at = axis(what, group)
        for i, (name, values) in enumerate(found[what].items()):
            middle = [statistics.median(v) for v in values]
            spread = [
                [m - min(v) for m, v in zip(middle, values, strict=True)],
                [max(v) - m for m, v in zip(middle, values, strict=True)],
            ]
            style = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 5, "capsize": 2, "lw": 1.3}
            panel.errorbar(at, middle, spread, label=name, **style)
        panel.axhline(1, color="0.6", lw=0.8)
        fixed = f"K = {group[0].tasks}" if what == "parameters" else f"{size(group[0]):,} to"
        fixed += "" if what == "parameters" else f" {size(group[-1]):,} parameters"
        panel.set(xscale="log", yscale="log", xlabel=label, title=f"{what}\n({fixed})")
    panels[0].set_ylabel("time of a step over a plain step's")
    panels[0].legend(fontsize=8)
    figure.savefig(out / "overhead.png")


def main():
    arguments = parser(__doc__, "overhead").parse_args()
    torch.set_num_threads(1)
    for every, found, repeats in measured(arguments):
        report(arguments, every, found, repeats)


def report(arguments, every, found, repeats):
    """Write the page of the repeats so far."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(arguments.out, every, found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = ["![ratio against tasks and parameters](overhead.png)"]
    for what, group in every.items():
        text += claim(what, group, found[what])
    if not HAS_TORCHJD:
        text.append("TorchJD was not installed: its rows are left out.")
    text += [
        "## What these numbers are",
        "*exact*, *online*, *budget* and *features* are mtlsk's engines with ConicGrad, a whole "
        "step. *K gradients* is a backward pass a task and J J^T, written by hand, without solving "
        "for weights, the head's gradient included. *TorchJD backward* is its `backward` with its "
        "own MGDA, a whole step; *TorchJD autogram* its Gramian and one weighted backward pass, "
        "without solving. So the rows of mtlsk and TorchJD's `backward` do more than the others.",
        "In nets of up to a million parameters every route was compared with autograd's gradients "
        "before it was timed, and each timed step follows an untimed one of its own; in larger "
        "nets neither, and a median there is of two steps. Nets are multilayer "
        "perceptrons on synthetic rows, on a CPU: of convolutions, transformers and GPUs this says "
        "nothing. Verdicts compare the first column with the last and say nothing of those "
        "between.",
    ]
    how = (
        f"{repeats} repeats of the whole measurement, median (smallest to largest) of the "
        "ratios; float32, processor time of one thread, on a busy machine of two cores that other "
        "work shared: differences below 20 % mean nothing, and a range is no confidence "
        f"interval; peak memory {peak:.1f} GiB."
    )
    write(arguments.out, "What a step costs: tasks and parameters", text, how)


if __name__ == "__main__":
    main()
