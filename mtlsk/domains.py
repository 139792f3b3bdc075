"""Domains of parameters: one declaration validates a value and searches over it.

``value in domain`` validates, ``str(domain)`` is what an error message says is allowed and
``domain.suggest(trial, name, n_tasks)`` asks an Optuna trial for a member. Nothing heavy is
imported here.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


class Trial(Protocol):
    """The part of ``optuna.Trial`` that a domain uses."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Ask for a real number."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Ask for a whole number."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Ask for one of the choices."""


@runtime_checkable
class Domain(Protocol):
    """Anything that validates values, prints what is allowed and can be searched."""

    def __contains__(self, value: object) -> bool: ...

    def resolve(self, siblings: Mapping[str, Any]) -> Domain:
        """Return the domain with bounds that name a sibling parameter replaced by its value."""

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> Any:
        """Ask ``trial`` for a member of this domain under ``name``."""


def is_real(value: object) -> bool:
    """Say whether ``value`` is a real number (booleans are not)."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Interval:
    """The numbers between ``low`` and ``high``, ends included unless said otherwise.

    Parameters
    ----------
    low, high : float or str
        The ends; a string names the sibling parameter whose value is the end. ``inf`` ends are
        open by nature.
    open_low, open_high : bool
        Leave the end itself out.
    integer : bool
        Whole numbers only.
    log : bool
        Search on a logarithmic scale.
    search : (float, float) or None
        The part that a study searches when the whole is too wide (or infinite) to.
    """

    low: float | str
    high: float | str
    open_low: bool = False
    open_high: bool = False
    integer: bool = False
    log: bool = False
    search: tuple[float, float] | None = None

    def __contains__(self, value: object) -> bool:
        """Validate one number; bounds that name a sibling must have been resolved before."""
        if not is_real(value):
            return False
        if self.integer and not isinstance(value, numbers.Integral):
            return False
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:  # an integer beyond every float
            return False
        if math.isinf(number):
            return False
        low, high = self._ends()
        above = number > low if self.open_low else number >= low
        below = number < high if self.open_high else number <= high
        return above and below  # NaN compares false with both

    def _ends(self) -> tuple[float, float]:
        if isinstance(self.low, str) or isinstance(self.high, str):
            raise ValueError(f"{self} names a sibling parameter: resolve it first")
        return float(self.low), float(self.high)

    def resolve(self, siblings: Mapping[str, Any]) -> Interval:
        """Replace an end that names a sibling by that sibling's value."""
        low = siblings[self.low] if isinstance(self.low, str) else self.low
        high = siblings[self.high] if isinstance(self.high, str) else self.high
        return Interval(
            low, high, self.open_low, self.open_high, self.integer, self.log, self.search
        )

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> float | int:
        """Ask for a number in ``search`` (or in the whole interval), open ends kept out."""
        whole_low, whole_high = low, high = self._ends()
        if self.search is not None:
            # a resolved sibling bound may lie inside the searched part
            low, high = max(low, self.search[0]), min(high, self.search[1])
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name}: {self} has no end to search to; give bounds in [search]")
        if low > high:
            raise ValueError(f"{name}: nothing to search between {low:g} and {high:g}")
        if self.integer:
            first, last = math.ceil(low), math.floor(high)
            first += int(self.open_low and first == low)
            last -= int(self.open_high and last == high)
            return trial.suggest_int(name, first, last, log=self.log)
        width = high - low  # an open end is kept out by a thousandth
        low += 1e-3 * width if self.open_low and low == whole_low else 0.0
        high -= 1e-3 * width if self.open_high and high == whole_high else 0.0
        return trial.suggest_float(name, low, high, log=self.log)

    def __str__(self) -> str:
        left = "(" if self.open_low or self.low == -math.inf else "["
        right = ")" if self.open_high or self.high == math.inf else "]"
        kind = "an integer" if self.integer else "a number"
        ends = [e if isinstance(e, str) else f"{e:g}" for e in (self.low, self.high)]
        return f"{kind} in {left}{ends[0]}, {ends[1]}{right}"


@dataclass(frozen=True)
class Choice:
    """One of a few plain values (compared by value and type, so 1 is not True)."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def __contains__(self, value: object) -> bool:
        """Say whether ``value`` is one of the values; numpy's scalars count as Python's."""
        value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value
        value = str(value) if isinstance(value, str) else value  # numpy's strings have a length
        return any(type(value) is type(v) and value == v for v in self.values)

    def resolve(self, siblings: Mapping[str, Any]) -> Choice:
        """Return itself: a choice names no sibling."""
        return self

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> Any:
        """Ask for one of the values."""
        return trial.suggest_categorical(name, self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(v) for v in self.values)


@dataclass(frozen=True)
class Simplex:
    """One non-negative finite number a task, not all zero; searched with a given total.

    Parameters
    ----------
    total : "one" or "n_tasks"
        What the searched vector sums to: weights of a mean sum to 1, scales of tasks to K (so
        that equal scales are 1). Validation does not ask for a sum.
    optional : bool
        Whether None (all equal) is a member.
    """

    total: str = "one"
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        """Validate a sequence of numbers."""
        if value is None:
            return self.optional
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            return False
        if not all(is_real(v) and math.isfinite(v) and v >= 0 for v in value):
            return False
        return any(v > 0 for v in value)

    def resolve(self, siblings: Mapping[str, Any]) -> Simplex:
        """Return itself: a simplex names no sibling."""
        return self

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> list[float]:
        """Ask for a point of the simplex, uniform where the trial's numbers are.

        K uniform numbers u_k under the names ``name[k]`` give x_k = -ln u_k / sum_j -ln u_j, which
        is uniform on the simplex; u_k = 1/2 for all k is its centre.
        """
        u = [trial.suggest_float(f"{name}[{k}]", 1e-3, 1 - 1e-3) for k in range(n_tasks)]
        x = [-math.log(v) for v in u]
        scale = (n_tasks if self.total == "n_tasks" else 1) / sum(x)
        return [v * scale for v in x]

    def __str__(self) -> str:
        extra = " (or None: all equal)" if self.optional else ""
        return f"a list of one non-negative number a task, not all zero{extra}"


@dataclass(frozen=True)
class Either:
    """The members of one domain, or some words besides; only the domain is searched.

    Parameters
    ----------
    domain : Interval, Choice, Simplex or PerTask
    words : tuple
        Further values: strings or None.
    """

    domain: Interval | Choice | Simplex | PerTask
    words: tuple[Any, ...]

    def __contains__(self, value: object) -> bool:
        """Validate one of the words or a member of the wrapped domain."""
        word = value is None or isinstance(value, str)
        return (word and value in self.words) or value in self.domain

    def resolve(self, siblings: Mapping[str, Any]) -> Either:
        """Resolve the wrapped domain."""
        return Either(self.domain.resolve(siblings), self.words)

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> Any:
        """Ask for a member of the wrapped domain: the words are not searched."""
        return self.domain.suggest(trial, name, n_tasks)

    def __str__(self) -> str:
        return ", or ".join(
            [str(self.domain), *(str(w) if w is None else repr(w) for w in self.words)]
        )


@dataclass(frozen=True)
class PerTask:
    """A number of an interval for all tasks, or a list of one a task; one number is searched.

    Parameters
    ----------
    domain : Interval
    """

    domain: Interval

    def __contains__(self, value: object) -> bool:
        """Validate a number or a sequence of numbers."""
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return len(value) > 0 and all(v in self.domain for v in value)
        return value in self.domain

    def resolve(self, siblings: Mapping[str, Any]) -> PerTask:
        """Resolve the interval."""
        return PerTask(self.domain.resolve(siblings))

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> float | int:
        """Ask for one number."""
        return self.domain.suggest(trial, name, n_tasks)

    def __str__(self) -> str:
        return f"{self.domain}, or a list of such numbers, one a task"
