"""Solving for the task weights from a Gramian, against a plain step and TorchJD's weightings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtlsk.aggregators import MGDA, Aggregator, CAGrad, ConicGrad
from tests.benchmarks.measure import Case, Effort, Results, interleave
from tests.benchmarks.problem import Problem, Setting
from tests.benchmarks.report import Table, short, shown_ratio
from tests.benchmarks.routes import Plain

SECTION = "solve"
BASE = "plain step"
OURS: dict[str, Callable[[], Aggregator]] = {
    "MGDA": MGDA,
    "CAGrad": lambda: CAGrad(c=0.5),
    "ConicGrad": lambda: ConicGrad(c=0.5),
}
N_GRAMIANS = 256
STEP = 0.03
"""Move of each task gradient from one Gramian to the next, relative to its length: about that of
consecutive batches of a net in training without the batches' own noise."""


def walk(n_tasks: int) -> list[Tensor]:
    """Return Gramians of a J that moves slowly: conflicting rows, of lengths a decade apart."""
    rng = torch.Generator().manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(n_tasks, 4 * n_tasks, generator=rng, dtype=torch.float64)

    common = 0.7 * normal()[:1]
    scale = torch.logspace(-0.5, 0.5, n_tasks, dtype=torch.float64).unsqueeze(1)
    own, found = normal(), []
    for _ in range(N_GRAMIANS):
        own = (1 - STEP**2) ** 0.5 * own + STEP * normal()
        j = (own + common) * scale
        found.append(j @ j.T)
    return found


def their_weighting(name: str) -> Any:
    """Return TorchJD's weighting of a name, None where it is not there."""
    try:
        from torchjd import aggregation

        if name == "CAGrad":
            return aggregation.CAGradWeighting(c=0.5)
        return {"MGDA": aggregation.MGDAWeighting}[name]()
    except (ImportError, KeyError):
        return None


def cases(n_tasks: int) -> list[Case]:
    """Return the solvers for K tasks."""
    plain = Plain(Problem(Setting(64, 256, n_tasks)))
    gramians = walk(n_tasks)
    singles = [g.float() for g in gramians]
    losses = torch.ones(n_tasks, dtype=torch.float64)
    found = [Case(BASE, plain.step, BASE, lead=1)]

    def solve(aggregator: Aggregator, number: int) -> Tensor:
        return aggregator.task_weights(gramians[number % N_GRAMIANS], losses)

    def weigh(weighting: Any, number: int) -> Any:
        return weighting(singles[number % N_GRAMIANS])

    def forget(aggregator: Aggregator, _: int) -> None:
        aggregator.reset()

    for name, make in OURS.items():
        cold, warm, after = make(), make(), make()
        found += [
            Case(f"{name}, cold", partial(solve, cold), BASE, lead=1, before=partial(forget, cold)),
            Case(f"{name}, warm", partial(solve, warm), BASE, lead=1),
            Case(f"{name}, warm, after a step", partial(solve, after), BASE, before=plain.step),
        ]
        theirs = their_weighting(name)
        if theirs is not None:
            check(name, make(), theirs, gramians[0])
            found.append(Case(f"{name}, TorchJD", partial(weigh, theirs), BASE, lead=1))
    return found


def check(name: str, ours: Aggregator, theirs: Any, gramian: Tensor) -> None:
    """Raise AssertionError unless the two solve one problem: ours as well at least."""
    mine = ours.task_weights(gramian, torch.ones(len(gramian), dtype=torch.float64))
    other = theirs(gramian.float()).double()
    if name == "MGDA":  # the shorter is the better; Frank-Wolfe stops above the minimum
        a, b = (float(w @ gramian @ w) for w in (mine, other))
        assert a <= b * (1 + 1e-6), f"MGDA: {a} is above {b}"
        return
    off = float((mine - other) @ gramian @ (mine - other))
    assert off < 1e-2 * float(mine @ gramian @ mine), f"{name}: the updates differ by {off}"


def run(results: Results, quick: bool) -> list[Table]:
    """Measure K = 7 and 40; the medians in ms beside the ratios."""
    effort = Effort(3.0 if quick else 20.0, 1.0, least=20)
    names = []
    for k in (7, 40):
        results.add(interleave(SECTION, f"K{k}", cases(k), effort))
        names.append(f"K{k}")
    all_cases = dict.fromkeys(r.case for r in results.every if r.section == SECTION)
    rows = []
    for case in all_cases:
        row = [case]
        for setting in names:
            found = results.of(SECTION, setting, case)
            row += ["-" if found is None else short(1e3 * found.median), shown_ratio(found)]
        rows.append(row)
    counts = [len(r.values) if (r := results.of(SECTION, s, BASE)) else 0 for s in names]
    rows.append(["rounds", *(cell for c in counts for cell in (str(c), ""))])
    header = ["", *(f"{s} {what}" for s in names for what in ("ms", "ratio"))]
    return [
        Table(
            "Solving for the task weights",
            "`task_weights(G, L)` of Gramians of a J that moves slowly; the ratio is to a plain "
            "step of H64 n256. Cold: the aggregator forgets what it knew before each call; warm: "
            "it keeps it. Each call follows another one of its own, or a plain step (which pushes "
            "code and data out of the caches) where it says so.",
            header,
            rows,
        )
    ]
