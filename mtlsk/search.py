"""The search space of a study: the [search] table of a study file and what classes declare.

Names in stored studies: ``lr``, ``task_scale[0]``, ``aggregator``, and for the parameter of a
component ``aggregator[ConicGrad]__c``, sampled only when ConicGrad is.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlsk.aggregators import AGGREGATORS
from mtlsk.component import Registry, closest, parameter_names
from mtlsk.controllers import CONTROLLERS
from mtlsk.domains import Choice, Domain, Interval, Simplex, Trial, is_real
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.optimizers import OPTIMIZERS, optimizer_arguments
from mtlsk.studyfile import StudyError
from mtlsk.taskmap import SCALE

REGISTRIES: dict[str, Registry[Any]] = {
    "aggregator": AGGREGATORS,
    "controller": CONTROLLERS,
    "optimizer": OPTIMIZERS,
}
OWN_DOMAINS: dict[str, Domain] = {
    "lr": Interval(0.0, math.inf, log=True, search=(1e-4, 1e-1)),
    "task_scale": SCALE,
    "update_norm": Choice("native", "mean"),
}
"""Domains of the estimator's own parameters that ``{}`` may ask for."""

EQUAL = 0.5
"""The number that makes every entry of a searched simplex equal."""


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
        open_ended = isinstance(own, Interval) and bool(_bounding(own))
        if own is not None and not open_ended:
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


@dataclass
class SearchSpace:
    """What a study searches, parsed and checked against the classes it names.

    Attributes
    ----------
    estimator : dict
        The fixed keyword arguments of the estimator.
    choices : dict
        Component -> names to choose among, as the file writes them ("none" for no controller).
    own : dict
        Parameter of the estimator -> domain.
    parts : dict
        (component, class name, parameter) -> domain.
    """

    estimator: dict[str, Any]
    choices: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, Domain] = field(default_factory=dict)
    parts: dict[tuple[str, str, str], Domain] = field(default_factory=dict)

    @classmethod
    def parse(cls, estimator: Mapping[str, Any], search: Mapping[str, Any]) -> SearchSpace:
        """Parse the [estimator] and [search] tables.

        Raises
        ------
        StudyError
            Naming the key and the closest allowed one.
        """
        known = [n for n in _estimator_parameters() if n not in ("module", "iterator_train")]
        for name in estimator:
            if "__" not in name and name not in known:
                raise StudyError(
                    f"[estimator] unknown key {name!r}{closest(name, known)}; "
                    f"allowed: {', '.join(known)}"
                )
        space = cls(dict(estimator))
        for owner in ("aggregator", "controller"):
            space.classes(owner)  # also a name that [search] overrides must exist
        for name, spec in search.items():
            if name in REGISTRIES:
                space._add_choices(name, spec)
        space._check_fixed_parts()
        for name, spec in search.items():
            owner, _, parameter = name.partition("__")
            if name in REGISTRIES:
                continue
            if parameter and owner in REGISTRIES:
                space._add_part(owner, parameter, spec)
            elif name in known or (parameter and owner == "module"):
                space.own[name] = parse_domain(f"[search] {name}", spec, OWN_DOMAINS.get(name))
            else:
                allowed = [*known, "aggregator__c", "controller__beta_max", "optimizer__momentum"]
                raise StudyError(
                    f"[search] unknown key {name!r}{closest(name, allowed)}; allowed: parameters "
                    "of MultiTaskRegressor and of the components it searches, e.g. aggregator__c"
                )
        return space

    def _add_choices(self, owner: str, spec: Any) -> None:
        names = spec if isinstance(spec, list) and spec else None
        if names is None or not all(isinstance(n, str) for n in names):
            raise StudyError(f'[search] {owner}={spec!r} must be a list of names, e.g. ["APT"]')
        for name in names:
            if not (name.lower() == "none" and owner == "controller"):
                _find(owner, name, f"[search] {owner}")
        self.choices[owner] = list(names)

    def classes(self, owner: str) -> dict[str, type | None]:
        """Return the words for a component in this study -> class (None for no controller)."""
        spec = self.estimator.get(owner, _estimator_parameters()[owner].default)
        words = self.choices.get(owner, [spec])
        found: dict[str, type | None] = {}
        for word in words:
            if word is None or (isinstance(word, str) and word.lower() == "none"):
                found["none"] = None
            else:
                inner = word.get("name", word) if isinstance(word, Mapping) else word
                key = inner if isinstance(inner, str) else str(inner)
                found[key] = _find(owner, word, f"[estimator] {owner}")
        return found

    def _check_fixed_parts(self) -> None:
        """Raise for a fixed ``aggregator__x`` that none of the aggregators named here has."""
        for name in self.estimator:
            owner, _, parameter = name.partition("__")
            if not parameter or owner not in ("aggregator", "controller"):
                continue
            classes = [c for c in self.classes(owner).values() if c is not None]
            valid = sorted({p for c in classes for p in parameter_names(c)})
            if parameter not in valid:
                raise StudyError(
                    f"[estimator] {name}: none of {', '.join(self.classes(owner))} has a parameter "
                    f"{parameter!r}{closest(parameter, valid)}; theirs: "
                    f"{', '.join(valid) or 'none'}"
                )

    def _add_part(self, owner: str, parameter: str, spec: Any) -> None:
        where = f"[search] {owner}__{parameter}"
        holders = []
        candidates: set[str] = set()
        for cls in self.classes(owner).values():
            if cls is None:
                continue
            if owner == "optimizer":
                valid = [parameter] if _optimizer_takes(cls, parameter) else []
            else:
                valid = parameter_names(cls)
            candidates |= set(valid)
            if parameter in valid:
                own = getattr(cls, "domains", {}).get(parameter)
                self.parts[owner, cls.__name__, parameter] = parse_domain(where, spec, own)
                holders.append(cls)
        if not holders:
            names = ", ".join(self.classes(owner))
            listed = ", ".join(sorted(candidates)) or "none"
            raise StudyError(
                f"{where}: none of {names} has a parameter {parameter!r}"
                f"{closest(parameter, candidates)}; theirs: {listed}"
            )

    def baseline(self) -> SearchSpace:
        """Return the space of linear scalarization: its weights, and what else is searched.

        Learning rate, optimizer and architecture are searched as in the study itself; task scales
        are what the weights are, and no controller takes part.
        """
        kept = {
            name: value
            for name, value in self.estimator.items()
            if name.partition("__")[0] not in ("aggregator", "controller") and name != "task_scale"
        }
        return SearchSpace(
            {**kept, "aggregator": "LinearScalarization", "controller": None},
            {k: v for k, v in self.choices.items() if k == "optimizer"},
            {k: v for k, v in self.own.items() if k != "task_scale"},
            {k: v for k, v in self.parts.items() if k[0] == "optimizer"}
            | {("aggregator", "LinearScalarization", "weights"): Simplex()},
        )

    def suggest(self, trial: Trial, n_tasks: int) -> dict[str, Any]:
        """Ask a trial for all keyword arguments of the estimator, fixed and searched.

        A fixed parameter of a searched component goes to the classes that have it.
        """
        searched = self._suggest(trial, n_tasks)
        params = {**self.estimator, **searched}
        for owner in self.choices:
            if owner == "optimizer":
                continue
            word = searched[owner]
            valid = [] if word is None else parameter_names(_find(owner, word, owner))
            for name in [n for n in self.estimator if n.startswith(f"{owner}__")]:
                if name.partition("__")[2] not in valid:
                    del params[name]
        return params

    def _suggest(self, trial: Trial, n_tasks: int) -> dict[str, Any]:
        params: dict[str, Any] = {}
        aggregator: type | None = None
        for name, domain in self.own.items():
            params[name] = domain.suggest(trial, name, n_tasks)
        for owner in REGISTRIES:
            classes = self.classes(owner)
            word = next(iter(classes))
            if owner in self.choices:
                stored, choices = owner, self.choices[owner]
                if owner == "controller":
                    stored, choices = self._fitting(choices, aggregator)
                word = trial.suggest_categorical(stored, choices)
                params[owner] = None if word.lower() == "none" else word
            cls = classes.get(word, classes.get("none"))
            aggregator = cls if owner == "aggregator" else aggregator
            if cls is not None:
                params |= self._suggest_parts(trial, owner, cls, n_tasks)
        return params

    def _fitting(self, words: list[str], aggregator: type | None) -> tuple[str, list[str]]:
        """Return the stored name and the controllers among ``words`` that fit an aggregator.

        Where some do not, the choice among the others is a parameter of its own.
        """
        classes = self.classes("controller")
        fitting = [
            word
            for word in words
            if (cls := classes.get(word)) is None or aggregator is None or cls.fits(aggregator)  # type: ignore[attr-defined]
        ]
        if not fitting and aggregator is not None:
            raise StudyError(
                f"[search] controller: none of {', '.join(words)} fits {aggregator.__name__}; "
                'add "none" to the list'
            )
        if fitting == words or aggregator is None:
            return "controller", words
        return f"controller[{aggregator.__name__}]", fitting

    def _suggest_parts(self, trial: Trial, owner: str, cls: type, n_tasks: int) -> dict[str, Any]:
        """Ask for a component's parameters, those that bound others first."""
        domains = {p: d for (o, c, p), d in self.parts.items() if (o, c) == (owner, cls.__name__)}
        declared = getattr(cls, "domains", {})
        siblings = {n: p.default for n, p in inspect.signature(cls).parameters.items()} | {
            n.partition("__")[2]: v for n, v in self.estimator.items() if n.startswith(f"{owner}__")
        }
        names = sorted(domains, key=lambda n: len(_bounding(declared.get(n))))
        for name in names:
            domain = domains[name]
            own = declared.get(name)
            if own is not None:
                domain = _within(domain, own.resolve(siblings))
            siblings[name] = domain.suggest(trial, f"{owner}[{cls.__name__}]__{name}", n_tasks)
        return {f"{owner}__{name}": siblings[name] for name in names}

    def simplexes(self, params: Mapping[str, Any]) -> dict[str, list[float]]:
        """Return stored name -> vector of the searched simplexes among suggested parameters."""
        found = {n: params[n] for n, d in self.own.items() if isinstance(d, Simplex)}
        for (owner, name, parameter), domain in self.parts.items():
            classes = self.classes(owner)
            chosen = classes.get(params.get(owner, next(iter(classes))))
            if isinstance(domain, Simplex) and chosen is not None and chosen.__name__ == name:
                found[f"{owner}[{name}]__{parameter}"] = params[f"{owner}__{parameter}"]
        return found

    def equal_weights(self, n_tasks: int) -> dict[str, float]:
        """Return the stored parameters of equal weights, the first trial of a baseline."""
        name = "aggregator[LinearScalarization]__weights"
        return {f"{name}[{k}]": EQUAL for k in range(n_tasks)}


def _bounding(domain: Domain | None) -> list[str]:
    ends = (domain.low, domain.high) if isinstance(domain, Interval) else ()
    return [e for e in ends if isinstance(e, str)]


def _within(domain: Domain, own: Domain) -> Domain:
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


def _find(owner: str, spec: Any, where: str) -> type:
    try:
        return REGISTRIES[owner].resolve(spec)[0]
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from None


def _optimizer_takes(cls: type, parameter: str) -> bool:
    try:
        optimizer_arguments(cls, {parameter: None})
    except ValueError:
        return False
    return True


def _estimator_parameters() -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(MultiTaskRegressor).parameters)
    del parameters["kwargs"]
    return parameters
