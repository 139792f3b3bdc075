"""The targets that the measurements decide, with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.benchmarks import fit, memory, solve, steps
from tests.benchmarks.measure import Results
from tests.benchmarks.report import Table, short

Value = float | None


@dataclass(frozen=True)
class Target:
    """A line: what, what is allowed, and the measured value (None: not measured)."""

    what: str
    bound: float
    value: Value
    at_least: bool = False

    def row(self) -> list[str]:
        """Return the line as text."""
        sign = ">=" if self.at_least else "<="
        if self.value is None:
            return [self.what, f"{sign} {self.bound:g}", "-", "not measured"]
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return [self.what, f"{sign} {self.bound:g}", short(self.value), "met" if met else "missed"]


def largest(values: Iterable[Value]) -> Value:
    """Return the largest of those that were measured."""
    return max((v for v in values if v is not None), default=None)


def share(a: Value, b: Value) -> Value:
    """Return a / b."""
    return None if a is None or b is None else a / b


class Steps:
    """What the targets ask of the section of steps."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.shapes = {
            (width, rows, k): f"H{width} n{rows} K{k}"
            for (width, rows), tasks in steps.SHAPES.items()
            for k in tasks
        }

    def worst(self, case: str, where: Callable[[int, int, int], bool]) -> Value:
        """Return the largest ratio of a case in the settings (H, n, K) chosen."""
        names = [name for shape, name in self.shapes.items() if where(*shape)]
        return largest(self.results.ratio(steps.SECTION, name, case) for name in names)

    def against_torchjd(self, case: str, k: int) -> Value:
        """Return the largest share of TorchJD's best time at K tasks."""
        shares = []
        for (_, _, tasks), name in self.shapes.items():
            if tasks == k:
                theirs = [self.results.ratio(steps.SECTION, name, c) for c in steps.TORCHJD]
                best = min((v for v in theirs if v is not None), default=None)
                shares.append(share(self.results.ratio(steps.SECTION, name, case), best))
        return largest(shares)

    def flatness(self, case: str) -> Value:
        """Return the largest ratio over the smallest for one trunk and batch, any K."""
        found = []
        for shape in steps.SHAPES:
            values = [
                self.results.ratio(steps.SECTION, name, case)
                for (width, rows, _), name in self.shapes.items()
                if (width, rows) == shape
            ]
            there = [v for v in values if v is not None]
            if len(there) > 1:
                found.append(max(there) / min(there))
        return largest(found)


def of_steps(results: Results) -> list[Target]:
    """Return the targets of one step."""
    s = Steps(results)
    online, exact = steps.ONLINE, steps.EXACT
    return [
        Target("online, H64, n <= 256, any K", 1.8, s.worst(online, lambda h, n, k: h == 64)),
        Target("online, anywhere", 2.4, s.worst(online, lambda h, n, k: True)),
        Target("online, largest over smallest, any K", 1.15, s.flatness(online)),
        Target(
            "any module (loss difference), any K",
            2.2,
            s.worst(steps.DIFFERENCE, lambda h, n, k: True),
        ),
        Target("online over TorchJD's best, K = 7", 0.6, s.against_torchjd(online, 7)),
        Target("online over TorchJD's best, K = 40", 0.15, s.against_torchjd(online, 40)),
        Target("exact, K = 7, H64", 2.2, s.worst(exact, lambda h, n, k: k == 7 and h == 64)),
        Target("exact, K = 7, n >= H", 5, s.worst(exact, lambda h, n, k: k == 7 and n >= h)),
        Target("exact over TorchJD's best, K = 7", 0.8, s.against_torchjd(exact, 7)),
        Target(
            "row budget, K <= 40, n = 256",
            2.0,
            s.worst(steps.BUDGET, lambda h, n, k: k <= 40 and n == 256),
        ),
        Target(
            "one label a row, exact, any K",
            2.0,
            s.worst(steps.ONE_LABEL_EXACT, lambda h, n, k: True),
        ),
    ]


def of_solve(results: Results) -> list[Target]:
    """Return the targets of solving for the weights."""
    bounds = {
        ("MGDA, cold", "K7"): 0.1,
        ("MGDA, cold", "K40"): 0.2,
        ("CAGrad, warm", "K7"): 0.4,
        ("CAGrad, warm", "K40"): 1.2,
        ("ConicGrad, warm", "K7"): 0.5,
        ("ConicGrad, warm", "K40"): 1.5,
    }
    return [
        Target(f"solve, {case}, {k}", bound, results.ratio(solve.SECTION, k, case))
        for (case, k), bound in bounds.items()
    ]


def of_fit(results: Results) -> list[Target]:
    """Return the targets of fit: 5 % of noise are allowed against MLPRegressor."""

    def worst(case: str, batch: int) -> Value:
        names = [f"H{h} b{b}" for h, b in fit.SETTINGS if b == batch]
        return largest(results.ratio(fit.SECTION, name, case) for name in names)

    names = [f"H{h} b{b}" for h, b in fit.SETTINGS]
    against = largest(
        share(
            results.ratio(fit.SECTION, name, fit.SCALARIZED),
            results.ratio(fit.SECTION, name, fit.MLP),
        )
        for name in names
    )
    return [
        Target("fit, LinearScalarization, b256", 1.2, worst(fit.SCALARIZED, 256)),
        Target("fit, LinearScalarization, b1024", 1.1, worst(fit.SCALARIZED, 1024)),
        Target("fit, LinearScalarization over MLPRegressor", 1.05, against),
    ]


def of_memory(results: Results) -> list[Target]:
    """Return the targets of memory: what is kept between steps counts as well."""

    def whole(case: str, k: int) -> Value:
        names = [s for s in results.settings(memory.SECTION) if s.endswith(f" K{k}")]
        found = [results.of(part, s, case) for s in names for part in (memory.SECTION, memory.KEPT)]
        there = [r.median for r in found if r is not None]
        return sum(there) if there else None

    online, forty = steps.ONLINE, whole(steps.ONLINE, 40)
    return [
        Target("memory, online over plain, K = 40", 8, share(forty, whole("plain", 40))),
        Target("memory, online, K = 40 over K = 7", 1.15, share(forty, whole(online, 7))),
    ]


def table(results: Results, more: Iterable[Target]) -> Table:
    """Return the table of all targets."""
    found = [*of_steps(results), *of_solve(results), *of_fit(results), *of_memory(results), *more]
    return Table(
        "Targets",
        "The largest ratio over the settings measured that the line speaks of.",
        ["", "target", "measured", ""],
        [t.row() for t in found],
    )
