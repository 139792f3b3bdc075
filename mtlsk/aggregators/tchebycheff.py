"""Tchebycheff: the weighted loss that is farthest from its reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Either, Interval, PerTask, Simplex

REFERENCE = Either(PerTask(Interval(-math.inf, math.inf, search=(0.0, 1.0))), (None,))
"""Domain of a reference point."""


class Tchebycheff(Aggregator):
    """Tchebycheff scalarization: minimise max_k lambda_k (L_k - z_k), w = lambda on the argmax.

    Every weakly Pareto-optimal point is a minimum for some preference, in a non-convex part of
    the front too, where linear scalarization reaches none. Tasks that tie share equally, each with
    its lambda_k over their number: one subgradient of the many.

    The preference is scaled to mean 1 over all K tasks (ours), so equal ones give lambda_k = 1:
    then the weights sum to 1 and the update is the worst task's gradient. An unequal preference
    keeps the lengths of the gradients lambda_k g_k. A task with lambda_k = 0 never counts (ours:
    its 0 would be the maximum where all others are below their references).

    With a reference other than 0 the argmax depends on the unit of the losses: ``unit_free`` is
    false for it.

    Parameters
    ----------
    preference : list of K floats, or None
        lambda, non-negative; its sum does not matter. None: equal.
    reference : float, list of K floats, or None
        The reference (utopia) point z, in units of the losses; None is 0.

    Raises
    ------
    ValueError
        If a list has not one entry a task.

    **Reference** Bowman, "On the relationship of the Tchebycheff norm and the efficient frontier of
    multiple-criteria objectives", 1976; Miettinen, "Nonlinear multiobjective optimization", 1999,
    section 3.4.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    paper = "Bowman 1976"
    cost = "O(K)"
    domains = {"preference": Simplex(optional=True), "reference": REFERENCE}

    def __init__(
        self,
        preference: Sequence[float] | None = None,
        reference: float | Sequence[float] | None = None,
    ) -> None:
        self.preference = preference
        self.reference = reference

    @property
    def properties(self) -> frozenset[str]:
        """On the simplex where all tasks are preferred alike."""
        return frozenset({"simplex"} if self.preference is None else ())

    @property
    def unit_free(self) -> bool:  # type: ignore[override]
        """Whether the reference is 0."""
        given = self.reference
        return given is None or not any(given if isinstance(given, Sequence) else [given])

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return lambda on the argmax, shared among those that tie, shape (K,)."""
        scale, gaps = weighted_gaps(self, self.preference, self.reference, losses)
        ties = gaps == gaps.max()
        return scale * ties / ties.sum()


def weighted_gaps(
    aggregator: Aggregator,
    preference: Sequence[float] | None,
    reference: float | Sequence[float] | None,
    losses: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return (lambda, lambda (L - z)), both (K,); -inf in the second where lambda is 0."""
    k = len(losses)
    if preference is None:
        scale = torch.ones_like(losses)
    else:
        scale = aggregator.entries("preference", k) * (len(preference) / sum(preference))
    if isinstance(reference, Sequence):
        losses = losses - aggregator.entries("reference", k)
    elif reference is not None:
        losses = losses - reference
    finite = (scale * losses).nan_to_num()  # a product that overflows is a very large one
    return scale, torch.where(scale > 0, finite, -math.inf)
