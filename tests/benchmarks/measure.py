"""Interleaved timing: every case takes one timed call in turn, so that all see the same machine."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes
    ----------
    name : str
    call : function of the round's number
    base : str
        The case whose median it is compared with.
    period : int
        How many calls one timing holds: what acts in every 4th step only is timed four by four.
    lead : int
        How many calls run untimed first, so that code and data are in the caches as in training.
    before : function of the round's number, or None
        Runs untimed right before the timed calls.
    """

    name: str
    call: Callable[[int], object]
    base: str
    period: int = 1
    lead: int = 0
    before: Callable[[int], object] | None = None

    def seconds(self, number: int) -> float:
        """Return the seconds that one call takes."""
        first = number * (self.lead + self.period) + self.lead
        for i in range(first - self.lead, first):
            self.call(i)
        if self.before is not None:
            self.before(first)
        begin = time.perf_counter()
        for i in range(first, first + self.period):
            self.call(i)
        return (time.perf_counter() - begin) / self.period


@dataclass(frozen=True)
class Result:
    """What one case gave in one setting: a value a round, and those of its base.

    ``values`` is empty where a call takes longer than was allowed, or the case does not exist.
    """

    section: str
    setting: str
    case: str
    values: tuple[float, ...]
    base: tuple[float, ...] = ()
    unit: str = "second"

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median over the median of the base in the same rounds."""
        return self.median / statistics.median(self.base) if self.values and self.base else None

    @property
    def quartiles(self) -> tuple[float, float]:
        """The quartiles of the ratios taken round by round."""
        pairs = [v / b for v, b in zip(self.values, self.base, strict=True)]
        if len(pairs) < 2:
            return pairs[0], pairs[0]
        low, _, high = statistics.quantiles(pairs, n=4, method="inclusive")
        return low, high


@dataclass
class Results:
    """All results so far, found by section, setting and case."""

    every: list[Result] = field(default_factory=list)

    def add(self, results: Sequence[Result]) -> None:
        """Add some."""
        self.every.extend(results)

    def of(self, section: str, setting: str, case: str) -> Result | None:
        """Return one, None where it was not measured."""
        for r in self.every:
            if (r.section, r.setting, r.case) == (section, setting, case) and r.values:
                return r
        return None

    def ratio(self, section: str, setting: str, case: str) -> float | None:
        """Return the ratio of one to its base."""
        found = self.of(section, setting, case)
        return None if found is None else found.ratio

    def settings(self, section: str) -> list[str]:
        """Return the names of the settings of a section, in order."""
        return list(dict.fromkeys(r.setting for r in self.every if r.section == section))


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    seconds : float
        About so long in all cases of one setting together.
    limit : float
        Cases that take longer than so many seconds a call are left out.
    least, most : int
        Bounds of the number of rounds.
    """

    seconds: float
    limit: float
    least: int = 15
    most: int = 200


_share = 1.0


def take_share(share: float) -> None:
    """Take a share of the time of each setting: fewer rounds, wider quartiles."""
    global _share
    _share = share


def time_share() -> float:
    """Return the share of the time that is taken."""
    return _share


def interleave(
    section: str, setting: str, cases: Sequence[Case], effort: Effort, n_warm: int = 2
) -> list[Result]:
    """Time the cases in turn, in another order in each round; the first calls do not count."""
    running, cost = [], 0.0
    for case in cases:
        last = whole = 0.0
        for number in range(n_warm):
            begin = time.perf_counter()
            last = case.seconds(number)
            whole = time.perf_counter() - begin
            if last > 3 * effort.limit:
                break
        if last <= effort.limit:
            running.append(case)
            cost += whole
    n_rounds = int(effort.seconds * time_share() / max(cost, 1e-9))
    n_rounds = max(effort.least, min(effort.most, n_rounds))
    print(f"{section}: {setting}, {n_rounds} rounds of {cost:.2f} s", file=sys.stderr, flush=True)
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    order, rng = list(running), random.Random(0)
    for number in range(n_warm, n_warm + n_rounds):
        rng.shuffle(order)  # nobody always runs in the caches that a hungry neighbour left
        for case in order:
            times[case.name].append(case.seconds(number))
    return [
        Result(section, setting, c.name, tuple(times[c.name]), tuple(times.get(c.base, ())))
        for c in cases
    ]
