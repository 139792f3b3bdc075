"""RandomWeighting: other random weights in each step."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Choice


class RandomWeighting(Aggregator):
    """Random loss weighting: w = softmax(z), z ~ N(0, I), drawn anew in each call.

    The expected weights are equal, so this is the mean loss with a noise of its own: a baseline
    that a method with learned weights has to beat. ``"dirichlet"`` draws w uniformly from the
    simplex (all Dirichlet parameters 1), which is ours in this role and noisier.

    Draws come from torch's CPU generator, which ``fit`` seeds: nothing is remembered.

    Parameters
    ----------
    distribution : "normal" or "dirichlet"

    **Reference** Lin, Ye, Zhang and Tsang, "Reasonable effectiveness of random weighting: a litmus
    test for multi-task learning", TMLR 2022: its random loss weighting (RLW), normal case.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    stochastic = True
    paper = "Lin et al. 2022, TMLR"
    cost = "K random numbers"
    properties = frozenset({"simplex"})
    domains = {"distribution": Choice("normal", "dirichlet")}

    def __init__(self, distribution: str = "normal") -> None:
        self.distribution = distribution

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return random weights on the simplex, shape (K,)."""
        if self.distribution == "normal":
            return torch.softmax(torch.randn(len(losses), dtype=torch.float64), 0)
        # uniform on the simplex: exponential variables over their sum
        draws = torch.empty(len(losses), dtype=torch.float64).exponential_()
        return draws / draws.sum()
