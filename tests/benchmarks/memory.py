"""Memory of one step on the CPU: every allocation of torch's, as its profiler reports them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.measure import Result, Results
from tests.benchmarks.peers import HAS_TORCHJD, SeparateGradients, TorchJDAutogram
from tests.benchmarks.problem import LAYERS, NORMED, Problem, Setting
from tests.benchmarks.report import Table, short
from tests.benchmarks.routes import Plain, Route
from tests.benchmarks.steps import BUDGET, DIFFERENCE, EXACT, ONLINE, Maker, makers

SECTION = "memory"
KEPT = "memory kept"
MIB = 2**20
NAMES = {
    LAYERS: ("plain", ONLINE, EXACT, BUDGET, "ConicGrad features"),
    NORMED: ("layer norm: plain", DIFFERENCE),
}


def allocations(act: Callable[[], object]) -> list[int]:
    """Return the bytes that torch allocates (above zero) and frees (below), in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        act()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]


def peak(changes: Iterable[int]) -> int:
    """Return the largest sum of the first changes, 0 at least."""
    total = largest = 0
    for change in changes:
        total += change
        largest = max(largest, total)
    return largest


def check() -> None:
    """Raise AssertionError unless allocations are seen: 3 MiB at once here, 2 of them kept."""
    kept = []

    def act() -> None:
        a = torch.empty(MIB, dtype=torch.uint8)
        kept.append(torch.empty(2 * MIB, dtype=torch.uint8))
        del a

    changes = allocations(act)
    assert (peak(changes), sum(changes)) == (3 * MIB, 2 * MIB), changes


def of_step(make: Maker, problem: Problem) -> tuple[int, int]:
    """Return the peak of one step over the state before it, and that state, both in bytes.

    The state is what two steps leave: parameters, gradients, the optimizer's moments, and whatever
    the route keeps to use again.
    """
    gc.collect()
    routes: list[Route] = []

    def start() -> None:
        routes.append(make(problem))
        routes[0].step(0)
        routes[0].step(1)
        gc.collect()

    state = sum(allocations(start))
    return peak(allocations(lambda: routes[0].step(2))), state


def run(results: Results, quick: bool) -> list[Table]:
    """Measure K = 7 and 40."""
    check()
    width = 256 if quick else 1024
    settings = [Setting(width, 256, k) for k in (7, 40)]
    for setting in settings:
        for kind, names in NAMES.items():
            problem, made = Problem(setting, kind), makers(kind)
            chosen: dict[str, Maker] = {name: made[name] for name in names}
            if kind == LAYERS:
                chosen["K separate gradients by hand"] = SeparateGradients
                if HAS_TORCHJD:
                    chosen["TorchJD autogram"] = TorchJDAutogram
            found = {name: of_step(make, problem) for name, make in chosen.items()}
            base_peak, base_state = found[names[0]]
            assert makers(kind)[names[0]] is Plain
            for name, (most, state) in found.items():
                results.add([Result(SECTION, str(setting), name, (most,), (base_peak,), "byte")])
                kept = float(max(0, state - base_state))
                results.add([Result(KEPT, str(setting), name, (kept,), (), "byte")])
    rows = []
    for case in dict.fromkeys(r.case for r in results.every if r.section == SECTION):
        row = [case]
        for setting in settings:
            for section in (SECTION, KEPT):
                result = results.of(section, str(setting), case)
                row.append("-" if result is None else short(result.median / MIB))
        rows.append(row)
    header = ["", *(f"K{s.tasks} {what}" for s in settings for what in ("peak", "kept"))]
    return [
        Table(
            f"Memory of one step in MiB, H{width} n256",
            "Peak: the most that torch holds at once during the step beyond what it held before "
            "it. Kept: what the route holds between steps beyond the plain one, which holds "
            "parameters, gradients and the optimizer's moments.",
            header,
            rows,
        )
    ]
