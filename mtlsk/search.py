"""The search space of a study: the [search] table of a study file and what classes declare.

Names in stored studies: ``lr``, ``task_scale[0]``, ``aggregator``, and for the parameter of a
component ``aggregator[ConicGrad]__c``, sampled only when ConicGrad is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtlsk.aggregators import AGGREGATORS
from mtlsk.component import Registry, closest, parameter_names
from mtlsk.controllers import CONTROLLERS
from mtlsk.domains import Domain, Simplex, Trial
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.optimizers import OPTIMIZERS, optimizer_arguments
from mtlsk.search_entries import OWN_DOMAINS, bounding, parse_domain, within
from mtlsk.studyfile import StudyError

REGISTRIES: dict[str, Registry[Any]] = {
    "aggregator": AGGREGATORS,
    "controller": CONTROLLERS,
    "optimizer": OPTIMIZERS,
}
EQUAL = 0.5
"""The number that makes every entry of a searched simplex equal."""


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
    presets : dict
        Name -> keyword arguments of the estimator that are chosen together; empty for none.
    """

    estimator: dict[str, Any]
    choices: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, Domain] = field(default_factory=dict)
    parts: dict[tuple[str, str, str], Domain] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        estimator: Mapping[str, Any],
        search: Mapping[str, Any],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> SearchSpace:
        """Parse the [estimator], [search] and [presets] tables.

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
        search = dict(search)
        space._add_presets(search.pop("preset", None), presets or {}, search)
        for name, spec in search.items():
            if name in REGISTRIES:
                space._add_choices(name, spec)
        space._check_fixed_parts()
        # a class's own entry after the one for all classes: it has the last word
        for name, spec in sorted(search.items(), key=lambda item: "[" in item[0]):
            owner, _, parameter = name.partition("__")
            owner, only = _owner_and_class(owner)
            if name in REGISTRIES:
                continue
            if parameter and owner in REGISTRIES:
                space._add_part(owner, parameter, spec, only)
            elif name in known or (parameter and owner in ("module", "regularizer")):
                space.own[name] = parse_domain(f"[search] {name}", spec, OWN_DOMAINS.get(name))
            else:
                allowed = [*known, "aggregator__c", "controller__beta_max", "optimizer__momentum"]
                raise StudyError(
                    f"[search] unknown key {name!r}{closest(name, allowed)}; allowed: parameters "
                    "of MultiTaskRegressor and of the components it searches, e.g. aggregator__c"
                )
        return space

    def _add_presets(
        self, names: Any, presets: Mapping[str, Mapping[str, Any]], search: Mapping[str, Any]
    ) -> None:
        if names is None:
            if presets:
                raise StudyError(
                    f"[presets] {', '.join(presets)}: nothing chooses among them; write "
                    "preset = {} in [search] (all of them), or a list of names"
                )
            return
        chosen = list(presets) if names == {} else names
        if not isinstance(chosen, list) or not chosen:
            raise StudyError(f"[search] preset={names!r} must be a list of names, or {{}} for all")
        families = {_owner_and_class(name.partition("__")[0])[0] for name in search}
        for name in chosen:
            if chosen.count(name) > 1:
                raise StudyError(f"[search] preset={names!r} names {name!r} twice; once is enough")
            if name not in presets:
                raise StudyError(
                    f"[search] preset: there is no [presets.{name}]"
                    f"{closest(str(name), presets)}; there is: {', '.join(presets) or 'none'}"
                )
            for key in presets[name]:
                if key.partition("__")[0] in families:
                    raise StudyError(
                        f"[presets.{name}] {key} is also searched; leave it out of one of the two"
                    )
            try:
                SearchSpace.parse({**self.estimator, **presets[name]}, {})
            except StudyError as error:
                text = str(error).removeprefix("[estimator] ")
                raise StudyError(f"[presets.{name}] {text}") from None
        self.presets = {name: dict(presets[name]) for name in chosen}

    def at(self, preset: str) -> SearchSpace:
        """Return the space that is left when a preset is chosen."""
        fixed = {**self.estimator, **self.presets[preset]}
        return SearchSpace(fixed, self.choices, self.own, self.parts)

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

    def _add_part(self, owner: str, parameter: str, spec: Any, only: str | None = None) -> None:
        where = f"[search] {owner}{'' if only is None else f'[{only}]'}__{parameter}"
        holders = []
        candidates: set[str] = set()
        classes = [c for c in self.classes(owner).values() if c is not None]
        if only is not None and only not in {c.__name__ for c in classes}:
            there = [c.__name__ for c in classes]
            raise StudyError(
                f"{where}: {only} is not searched{closest(only, there)}; "
                f"this study has {', '.join(there) or 'none'}"
            )
        for cls in classes:
            if only not in (None, cls.__name__):
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

    def baseline(self, *, weights: bool = True) -> SearchSpace:
        """Return the space of linear scalarization: its weights, and what else is searched.

        Learning rate, optimizer and architecture are searched as in the study itself; task scales
        are what the weights are, and no controller takes part. Without ``weights`` they are not
        searched.
        """
        presets = {name: _without_method(preset) for name, preset in self.presets.items()}
        fixed = _without_method(self.estimator)
        if presets and all(preset == next(iter(presets.values())) for preset in presets.values()):
            fixed |= next(iter(presets.values()))
            presets = {}
        simplex: dict[tuple[str, str, str], Domain] = {
            ("aggregator", "LinearScalarization", "weights"): Simplex()
        }
        return SearchSpace(
            {**fixed, "aggregator": "LinearScalarization", "controller": None},
            {k: v for k, v in self.choices.items() if k == "optimizer"},
            {k: v for k, v in self.own.items() if k != "task_scale"},
            {k: v for k, v in self.parts.items() if k[0] == "optimizer"}
            | (simplex if weights else {}),
            presets,
        )

    def suggest(self, trial: Trial, n_tasks: int) -> dict[str, Any]:
        """Ask a trial for all keyword arguments of the estimator, fixed and searched.

        A fixed parameter of a searched component goes to the classes that have it.
        """
        if self.presets:
            preset = trial.suggest_categorical("preset", list(self.presets))
            return self.at(preset).suggest(trial, n_tasks)
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
        names = sorted(domains, key=lambda n: len(bounding(declared.get(n))))
        for name in names:
            domain = domains[name]
            own = declared.get(name)
            if own is not None:
                domain = within(domain, own.resolve(siblings))
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


def _owner_and_class(word: str) -> tuple[str, str | None]:
    """Return component and class of ``aggregator[ConicGrad]``; None for a name without class."""
    match = re.fullmatch(r"(\w+)\[(.+)\]", word)
    return (match[1], match[2]) if match else (word, None)


def _without_method(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments without what says how gradients become an update."""
    return {
        name: value
        for name, value in params.items()
        if name.partition("__")[0] not in ("aggregator", "controller") and name != "task_scale"
    }


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
