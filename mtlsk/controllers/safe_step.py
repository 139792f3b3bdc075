"""SafeStep: a learning rate that a certificate says is not too long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlsk.certificates import gram_step, self_bounding_step
from mtlsk.controllers.base import Change, Controller, Live
from mtlsk.domains import Choice, Either, Interval
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class SafeStep(Controller):
    """Keep the learning rate below a bound on the step along d: eta_t = min(lr, share * bound).

    With h = (1/K) sum_k L_k^2 and d = J^T w the update of the shared parameters:

    - ``"gram"``: L'G w / (w'G^2 w), the minimiser of h along -d with the losses linearised
      (:func:`mtlsk.certificates.gram_step`). A heuristic: it knows nothing of curvature.
    - ``"self-bounding"``: <grad h, d> / (9 beta sqrt(h) |d|^2)
      (:func:`mtlsk.certificates.self_bounding_step`). Where every L_k is non-negative and
      beta-smooth, h then falls in every step that has <grad h, d> > 0. The bound is short while h
      is large and grows as h falls: a warmup nobody had to schedule.

    Both hold for the plain step theta - eta d, so the optimizer must be ``"SGD"`` without
    momentum or weight decay. They speak of the shared parameters with the task parameters
    standing still; these move with the same learning rate, which no bound here covers. Where d
    points uphill on h (<grad h, d> <= 0) the learning rate is 0 in that step.

    Parameters
    ----------
    bound : "self-bounding" or "gram"
    beta : float or None
        Smoothness of the task losses (Lipschitz constant of each gradient, over the shared
        parameters). None takes the largest |g_k|^2 / (2 L_k) seen so far, which beta can only
        exceed: an estimate from below, so **nothing is guaranteed** (ours).
    share : float
        Share of the bound, in (0, 1].

    Attributes
    ----------
    lrs_, written_ : list of float
        The upper limits, the learning rates that the optimizer's groups began with or that
        somebody else has set since; and those last set here. Memory.
    beta_ : float
        The estimate of beta. Memory.

    Raises
    ------
    ValueError
        If the optimizer takes other steps than -lr d; for a negative loss, naming the task, with
        ``"self-bounding"``.

    **Reference** CANON, doi 10.5281/zenodo.19454888 (adaptive bound with emergent warmup, for
    d = grad h); for other directions ours.
    """

    paper = "CANON, doi 10.5281/zenodo.19454888"
    domains = {
        "bound": Choice("self-bounding", "gram"),
        "beta": Either(
            Interval(0.0, math.inf, open_low=True, log=True, search=(1e-2, 1e3)), (None,)
        ),
        "share": Interval(0.0, 1.0, open_low=True, search=(0.1, 1.0)),
    }
    needs_gramian = True
    exact = True
    drives = frozenset({"lr", "momentum"})  # which stays 0

    lrs_: list[float]
    written_: list[float]
    beta_: float

    def __init__(
        self, bound: str = "self-bounding", beta: float | None = None, share: float = 1.0
    ) -> None:
        self.bound = bound
        self.beta = beta
        self.share = share

    def bind(self, live: Live) -> None:
        """Look whether the optimizer takes the step -lr d."""
        super().bind(live)
        name, groups = type(live.optimizer).__name__, live.optimizer.param_groups
        turns = ("momentum", "weight_decay", "nesterov")
        plain = not any(group.get(name) for group in groups for name in turns)
        if not plain or not isinstance(live.optimizer, torch.optim.SGD):
            raise ValueError(
                f"SafeStep bounds the plain step theta - lr d, which {name} as configured does "
                "not take; use optimizer='SGD' without momentum and weight decay"
            )

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the learning rate of this step."""
        g = record.task_gramian
        if g is None:  # weights are kept in this step, and so is the learning rate
            return {}
        now = [float(group["lr"]) for group in self._live.optimizer.param_groups]
        if getattr(self, "lrs_", None) is None:
            self.lrs_ = self.written_ = now
        # a rate that somebody else has set since (the user, a scheduler) is the new limit
        triples = zip(now, self.written_, self.lrs_, strict=True)
        self.lrs_ = [lr if lr != written else limit for lr, written, limit in triples]
        present = list(record.present)
        if self.bound == "self-bounding" and bool((record.losses[present] < 0).any()):
            k = next(k for k in present if float(record.losses[k]) < 0)
            raise ValueError(
                f"SafeStep: the self-bounding step needs losses that are never negative, and that "
                f"of task {self._live.task_names[k]!r} is {float(record.losses[k]):g}; "
                "take bound='gram'"
            )
        bound, words = self._bound(record.losses[present], g, record.weights[present])
        changes = {}
        for i, lr in enumerate(self.lrs_):
            name = "lr" if len(self.lrs_) == 1 else f"optimizer__param_groups__{i}__lr"
            reason = f"{self.bound} bound {words}" if bound < lr else "below every bound"
            changes[name] = Change(min(lr, bound), reason)
        self.written_ = [min(lr, bound) for lr in self.lrs_]
        return changes

    def _bound(self, losses: Tensor, gramian: Tensor, weights: Tensor) -> tuple[float, str]:
        if self.bound == "gram":
            step = gram_step(losses, gramian, weights)
        else:
            beta = self.beta
            if beta is None:
                ratios = torch.where(losses > 0, gramian.diagonal() / (2 * losses), 0.0)
                beta = self.beta_ = max(getattr(self, "beta_", 0.0), float(ratios.max()))
            step = math.inf if beta == 0 else self_bounding_step(losses, beta, gramian, weights)
        if step <= 0:
            return 0.0, "on an update that points uphill"
        return self.share * step, "on the step"
