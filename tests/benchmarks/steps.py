"""One training step by every route, against the plain step of the same net."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

from tests.benchmarks.checks import check, reference_gramian
from tests.benchmarks.measure import Case, Effort, Results, interleave
from tests.benchmarks.peers import (
    HAS_TORCHJD,
    BatchedGradients,
    SeparateGradients,
    TorchJDAutogram,
    TorchJDBackward,
    TorchJDMultiTask,
    torchjd_mgda,
)
from tests.benchmarks.problem import LAYERS, NORMED, ONE_LABEL, Problem, Setting
from tests.benchmarks.report import Table, ratios
from tests.benchmarks.routes import Ours, Plain, Route

SECTION = "steps"
TASKS = (2, 7, 40, 100)
SHAPES = {  # trunk and batch -> numbers of tasks
    (64, 256): TASKS,
    (256, 256): TASKS,
    (64, 64): TASKS,
    (1024, 64): (40,),
}
QUICK = {(64, 256): (2, 7, 40)}

EVERY = {4: "ConicGrad exact, every 4th step", 10: "ConicGrad exact, every 10th step"}
ONLINE = "ConicGrad online"
EXACT = "ConicGrad exact"
MGDA_EXACT = "MGDA exact"
BUDGET = "ConicGrad budget"
DIFFERENCE = "layer norm: ConicGrad online, loss difference"
DOUBLE = "layer norm: ConicGrad online, double backward"
ONE_LABEL_EXACT = "one label a row: ConicGrad exact"
TORCHJD = ("TorchJD backward", "TorchJD mtl_backward", "TorchJD autogram")
"""Any weights by TorchJD: the weights themselves are constant and cost nothing."""

Maker = Callable[[Problem], Route]


def makers(kind: str) -> dict[str, Maker]:
    """Return the routes of a kind of problem; the first is the plain one."""
    if kind == NORMED:
        return {
            "layer norm: plain": Plain,
            DIFFERENCE: partial(Ours, aggregator="ConicGrad", gramian="online"),
            DOUBLE: partial(Ours, aggregator="ConicGrad", gramian="online", again=False),
            "layer norm: ConicGrad budget": partial(Ours, aggregator="ConicGrad", gramian="budget"),
        }
    if kind == ONE_LABEL:
        return {
            "one label a row: plain": Plain,
            ONE_LABEL_EXACT: partial(Ours, aggregator="ConicGrad"),
            "one label a row: MGDA exact": partial(Ours, aggregator="MGDA"),
        }
    slow = {"name": "exact", "route": "autograd"}
    found: dict[str, Maker] = {
        "plain": Plain,
        "LinearScalarization": partial(Ours, aggregator="LinearScalarization"),
        ONLINE: partial(Ours, aggregator="ConicGrad", gramian="online"),
        EXACT: partial(Ours, aggregator="ConicGrad", gramian="exact"),
        MGDA_EXACT: partial(Ours, aggregator="MGDA", gramian="exact"),
        BUDGET: partial(Ours, aggregator="ConicGrad", gramian="budget"),
        "ConicGrad features": partial(Ours, aggregator="ConicGrad", gramian="features"),
    }
    for every, name in EVERY.items():
        gramian = {"name": "exact", "every": every}
        found[name] = partial(Ours, aggregator="ConicGrad", gramian=gramian)
    found["K separate gradients: ConicGrad exact by autograd"] = partial(
        Ours, aggregator="ConicGrad", gramian=slow
    )
    found["K separate gradients by hand"] = SeparateGradients
    found["torch is_grads_batched"] = BatchedGradients
    if HAS_TORCHJD:
        found |= dict(
            zip(TORCHJD, (TorchJDBackward, TorchJDMultiTask, TorchJDAutogram), strict=True)
        )
        found["TorchJD backward, its MGDA"] = torchjd_mgda
    return found


def cases(setting: Setting) -> list[Case]:
    """Return the cases of a setting, each checked."""
    period = {name: every for every, name in EVERY.items()}
    found = []
    for kind in (LAYERS, NORMED, ONE_LABEL):
        problem = Problem(setting, kind)
        gramian = reference_gramian(problem)
        made = makers(kind)
        base = next(iter(made))
        for name, make in made.items():
            check(make(problem), gramian)
            found.append(Case(name, make(problem).step, base, period.get(name, 1), lead=1))
    return found


def run(results: Results, quick: bool) -> list[Table]:
    """Measure all settings and return a table a shape."""
    tables = []
    effort = Effort(5.0, 0.2, least=10) if quick else Effort(40.0, 3.0, least=5)
    for (width, rows), tasks in (QUICK if quick else SHAPES).items():
        names = []
        for k in tasks:
            setting = Setting(width, rows, k)
            results.add(interleave(SECTION, str(setting), cases(setting), effort))
            names.append(str(setting))
            gc.collect()
        tables.append(
            ratios(
                results,
                SECTION,
                f"One step, trunk of three layers of {width}, batch of {rows}",
                "Ratio to the plain step: mean loss, one backward pass, fused AdamW; "
                'the rows of "layer norm" and "one label a row" to their own plain step. Each '
                "timed step follows an untimed one of its own, as in training.",
                names,
            )
        )
    return tables
