"""Trials of linear scalarization in one run: which may share it, and what each comes to."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtlsk.domains import Simplex
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.estimators.stacked import is_stackable
from mtlsk.estimators.together import fit_together, why_apart
from mtlsk.evaluation import Evaluation, Tally, seeded
from mtlsk.problem import Fold, Problem, Rehearsal, rehearsals
from mtlsk.search import SearchSpace
from mtlsk.search_entries import choices_of

AT_MOST = 16
"""Trials in one run: beyond that a trial gains little and much is lost with the run."""

WORK = 1 << 24
"""Multiplications in one pass of one net on a CPU beyond which nets gain nothing together."""

WEIGHTS = "aggregator__weights"

Params = Mapping[str, Any]
Outcome = Evaluation | Exception


def members_at_once(space: SearchSpace, problem: Problem) -> int:
    """Return how many trials of a baseline's space are worth one run: ``AT_MOST`` or 1.

    It is 1 where nets cannot be trained together or gain nothing, and where more is searched, of
    what members share, than a few choices: hardly two trials would be alike.
    """
    common = [d for n, d in space.own.items() if n != "lr"]
    common += [d for d in space.parts.values() if not isinstance(d, Simplex)]
    words = [len(names) for names in [*space.choices.values(), space.presets] if names]
    # an interval has no choices
    if not 0 < math.prod([*words, *(len(choices_of(d)) for d in common)]) < AT_MOST:
        return 1
    X, y = problem.folds[0].train
    for fixed in rehearsals(space):
        net = MultiTaskRegressor(**space.suggest(Rehearsal(fixed), problem.n_tasks))
        net.initialize_for(X[:64], np.nan_to_num(y[:64]))
        rows = len(X) if net.batch_size == -1 else min(net.batch_size, len(X))
        work = rows * sum(p.numel() for p in net.module_.parameters())
        if can_join(net) and (work <= WORK or net._device().type != "cpu"):
            return AT_MOST
    return 1


def can_join(net: MultiTaskRegressor) -> bool:
    """Say whether an initialised net can be trained together with others."""
    return why_apart(net) is None and is_stackable(net.module_)


def evaluate_each(
    problem: Problem, wanted: Sequence[Params], repeats: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Train and measure trials of a baseline, those with equal nets and data order in one run.

    Also one alone is trained the way several are: how trials were grouped leaves no trace in what
    they come to, up to rounding, and on one thread none at all.

    Parameters
    ----------
    problem : Problem
    wanted : list of dict
        Keyword arguments of the estimator, a trial each.
    repeats : int
        Seeds of each trial.

    Yields
    ------
    number in ``wanted``, and its Evaluation or what went wrong with it; as soon as it is known.
    """
    groups: dict[str, list[int]] = {}
    for i, params in enumerate(wanted):
        groups.setdefault(json.dumps(shared(params), sort_keys=True, default=repr), []).append(i)
    for members in groups.values():
        yield from _evaluate_group(problem, wanted, members, repeats)


def shared(params: Params) -> dict[str, Any]:
    """Return what members of one run must have in common: all but weights and learning rate."""
    own = {WEIGHTS, "lr"} if has_rate(params) else {WEIGHTS}
    return {name: value for name, value in params.items() if name not in own}


def has_rate(params: Params) -> bool:
    """Say whether ``lr`` is what the optimizer gets."""
    optimizer = params.get("optimizer")
    named = isinstance(optimizer, Mapping) and "lr" in optimizer
    return "lr" in params and not named and "optimizer__lr" not in params


def _evaluate_group(
    problem: Problem, wanted: Sequence[Params], members: list[int], repeats: int
) -> Iterator[tuple[int, Outcome]]:
    tallies = {i: Tally(problem) for i in members}
    fits = [(repeat, fold) for repeat in range(repeats) for fold in problem.folds]
    for n, (repeat, fold) in enumerate(fits):
        start = time.perf_counter()
        left = list(tallies)
        try:
            nets = _fit(problem, [seeded(wanted[i], repeat) for i in left], fold)
        except Exception as error:
            if len(left) == 1:
                yield left[0], error
                return
            nets = None  # each by itself: whose fault it was shows then
        if nets is None:
            for i in left:
                yield from _evaluate_group(problem, wanted, [i], repeats)
            return
        share = (time.perf_counter() - start) / max(1, len(left))
        for i, net in zip(left, nets, strict=True):
            tallies[i].seconds += share
            try:
                if isinstance(net, Exception):
                    raise net
                tallies[i].add(repeat, fold, [net])
            except Exception as error:
                del tallies[i]
                yield i, error
                continue
            if n == len(fits) - 1:
                yield i, tallies[i].evaluation()


def _fit(
    problem: Problem, wanted: Sequence[Params], fold: Fold
) -> Sequence[MultiTaskRegressor | Exception] | None:
    """Return the nets of trials that share all they must; None if several cannot be one run."""
    if not wanted:
        return []
    X, y = problem.training(fold)
    net = MultiTaskRegressor(**shared(wanted[0])).initialize_for(X, y)
    if not can_join(net) or WEIGHTS not in wanted[0]:
        return None if len(wanted) > 1 else [MultiTaskRegressor(**wanted[0]).fit(X, y)]
    rates = [float(params["lr"]) for params in wanted] if has_rate(wanted[0]) else None
    weights = np.array([params[WEIGHTS] for params in wanted], dtype=np.float64)
    return fit_together(net, weights, rates, X, y)
