"""What one entry of [search] means: choices, bounds, a simplex, or a class's own domain."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtlsk.component import closest
from mtlsk.domains import Choice, Domain, Interval, Simplex, Trial, is_real
from mtlsk.studyfile import StudyError
from mtlsk.taskmap import SCALE


@dataclass(frozen=True)
class Labelled:
    """A choice among values that Optuna cannot store (lists, tables), by their JSON text."""

    values: list[Any]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def resolve(self, siblings: Mapping[str, Any]) -> Labelled:
        """Return itself."""
        return self

    def suggest(self, trial: Trial, name: str, n_tasks: int) -> Any:
        """Ask for one of the values."""
        return json.loads(trial.suggest_categorical(name, self.labels()))

    def labels(self) -> list[str]:
        """Return the JSON texts that stand for the values."""
        return [json.dumps(v) for v in self.values]


ARCHITECTURES = Labelled([[32], [64], [128], [32, 32], [64, 64], [128, 128], [64, 64, 64]])
OWN_DOMAINS: dict[str, Domain] = {
    "lr": Interval(0.0, math.inf, log=True, search=(1e-4, 1e-1)),
    "task_scale": SCALE,
    "update_norm": Choice("native", "mean"),
    "hidden_layer_sizes": ARCHITECTURES,
    "batch_size": Interval(1, math.inf, integer=True, log=True, search=(16, 512)),
}
"""Domains of the estimator's own parameters that ``{}`` may ask for."""


def choices_of(domain: Domain) -> list[Any]:
    """Return what a trial is asked to choose among for a domain, nothing for an interval."""
    if isinstance(domain, Choice):
        return list(domain.values)
    return domain.labels() if isinstance(domain, Labelled) else []


def parse_domain(where: str, spec: Any, own: Domain | None) -> Domain:
    """Return the domain that a value of [search] means; ``own`` is what the class declares."""
    if isinstance(spec, list):
        if not spec:
            raise StudyError(f"{where}: an empty list has nothing to choose; list the choices")
        scalar = all(isinstance(v, (str, bool, int, float)) for v in spec)
        if not scalar and not all(isinstance(v, (str, bool, int, float, list)) for v in spec):
            raise StudyError(f"{where}: choices are numbers, words or lists, got {spec!r}")
        domain: Domain = Choice(*spec) if scalar else Labelled(spec)
        open_ended = isinstance(own, Interval) and bool(bounding(own))
        # a list of architectures is what {} searches, not all that there may be
        if own is not None and not open_ended and not isinstance(own, Labelled):
            for value in spec:
                if value not in own:
                    raise StudyError(f"{where}: {value!r} is not allowed; it must be {own}")
        return domain
    if not isinstance(spec, dict):
        raise StudyError(
            f"{where}={spec!r} is no search; write a list of choices, {{low = ..., high = ...}}, "
            "{simplex = true}, or {} for the parameter's own domain"
        )
    if not spec:
        if own is None:
            raise StudyError(
                f"{where}: it declares no domain; give {{low = ..., high = ...}} or a list"
            )
        return own
    if set(spec) == {"simplex"} and spec["simplex"] is True:
        return own if isinstance(own, Simplex) else Simplex()
    allowed = ("low", "high", "log", "integer")
    for key in spec:
        if key not in allowed:
            raise StudyError(
                f"{where}: unknown key {key!r}{closest(key, allowed)}; allowed: low, high, log, "
                "integer, or simplex = true alone"
            )
    low: Any = spec.get("low")
    high: Any = spec.get("high")
    if not all(is_real(end) and math.isfinite(end) for end in (low, high)):
        raise StudyError(f"{where}: bounds need finite numbers low and high, got {spec!r}")
    if low > high or (spec.get("log") and low <= 0):
        raise StudyError(f"{where}: low={low}, high={high} is empty (log needs low > 0)")
    whole = spec.get("integer", isinstance(low, int) and isinstance(high, int))
    if isinstance(own, Interval):
        whole = spec.get("integer", own.integer)
        for end in (low, high):
            outside = not isinstance(own.low, str) and not isinstance(own.high, str)
            if outside and (int(end) if own.integer else end) not in own:
                raise StudyError(f"{where}: {end} is outside the parameter's domain, {own}")
    return Interval(low, high, integer=whole, log=bool(spec.get("log", False)))


def bounding(domain: Domain | None) -> list[str]:
    """Return the siblings that bound a domain."""
    ends = (domain.low, domain.high) if isinstance(domain, Interval) else ()
    return [e for e in ends if isinstance(e, str)]


def within(domain: Domain, own: Domain) -> Domain:
    """Keep a searched interval inside the class's own domain, whose ends may be siblings."""
    if not (isinstance(domain, Interval) and isinstance(own, Interval)):
        return domain
    low = own.low if isinstance(domain.low, str) else max(float(domain.low), float(own.low))
    high = own.high if isinstance(domain.high, str) else min(float(domain.high), float(own.high))
    return Interval(
        low,
        max(float(low), float(high)),
        own.open_low and low == own.low,
        own.open_high and high == own.high,
        domain.integer,
        domain.log,
        domain.search,
    )
