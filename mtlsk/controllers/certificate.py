"""CertificateController: acts on what the conditioning of the task gradients says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from mtlsk.component import shown
from mtlsk.controllers.base import Change, Controller, Live
from mtlsk.domains import Choice, Interval
from mtlsk.engines.base import TaskGradients
from mtlsk.gramian import condition_number, cosines
from mtlsk.record import StepRecord
from mtlsk.taskmap import TaskMap

LIGHTEST, HEAVIEST = 0.05, 5.0
"""Bounds of the weights of rebalanced tasks, as in the source."""


class CertificateController(Controller):
    """Watch kappa of the task gradients, and act on the cause when it is too large and rising.

    A moving average of the cosines C, squared norms and losses is kept a task. ``"escalation"``
    looks at it every ``period`` steps: with G what the aggregator sees (scaled and grouped) and
    h = (1/K) sum L_k^2, it acts when kappa(G) > kappa_max and kappa or h rose over the last
    ``window`` looks. Of three actions it takes the first that can act on the cause:

    1. halve the learning rate, if h is rising; at most ``repeats`` times at once;
    2. rebalance the tasks by task_scale ~ 1/|g_k|, within [.05, 5], if unequal norms are the
       cause: kappa(C) <= kappa(G) / 2; at most ``repeats`` times at once;
    3. merge the two groups with the largest |cosine|, if kappa(C) > kappa_max.

    After ``window`` looks in a row with kappa(G) <= kappa_max, with the scales or without them,
    and h not rising it takes back one thing: the last merge if kappa(C) stays below kappa_max
    without it, else the scales if kappa(G) does, else one halving of the learning rate.

    ``"groups"`` looks in every step: tasks are clustered by average linkage on 1 - |C|, cut at
    1 - ``threshold``; if these groups differ from the present ones ``patience`` times in a row,
    and ``cooldown`` steps after the last change, they become the task groups. So tasks that no
    longer agree are split again.

    The source's escalation watches kappa(C) only, which reacts to neither of its first two
    actions, scales by 1/L_k, and never restores the learning rate: what each action is bound to,
    the scales and all that is taken back are ours. Tasks whose gradient is zero have no direction
    and are left out of every kappa.

    Parameters
    ----------
    form : "escalation" or "groups"
    kappa_max : float
        Largest condition number that is left alone, at least 1.
    window : int
        Looks over which a trend is measured, and after which something is taken back.
    period : int
        Steps between two looks (ours: the source does not say); ``"escalation"`` only.
    repeats : int
        How many times the learning rate is halved and the tasks are rebalanced at once.
    threshold : float
        |cosine| from which tasks belong together; ``"groups"`` only.
    patience, cooldown : int
        Steps; ``"groups"`` only.
    smoothing : float
        Weight of a new step in the moving averages, in (0, 1].

    Attributes
    ----------
    cosines_ : float64 tensor of shape (K, K)
        Averaged cosines, NaN for pairs never seen together. Memory.
    squares_, losses_ : float64 tensors of shape (K,)
        Averaged squared gradient norms (0: the last was zero) and losses. Memory.
    kappas_, hs_ : list of float
        Condition numbers and h of the last looks. Memory.
    halvings_, rebalanced_, quiet_, looks_, cooled_ : int
        Halvings and rebalancings in force, looks in a row (quiet ones; those that want other
        groups), steps so far, and the step from which groups may change again. Memory.
    merges_ : list of lists of lists of int
        The groups before each merge in force. Memory.
    base_scale_, scale_ : list of float or None
        The user's task_scale, and the one in force. Memory.

    Raises
    ------
    ValueError
        If the aggregator has a parameter of one number a task: groups have none.

    **Reference** CANON, doi 10.5281/zenodo.19454888, both forms of its certificate controller as
    publicly described.
    """

    paper = "CANON, doi 10.5281/zenodo.19454888"
    needs_gramian = True
    drives = frozenset({"lr", "task_scale", "task_groups"})
    domains = {
        "form": Choice("escalation", "groups"),
        "kappa_max": Interval(1.0, math.inf, log=True, search=(3.0, 300.0)),
        "window": Interval(2, 10**6, integer=True, log=True, search=(3, 20)),
        "period": Interval(1, 10**9, integer=True, log=True, search=(1, 100)),
        "repeats": Interval(0, 100, integer=True, search=(0, 5)),
        "threshold": Interval(0.0, 1.0, open_low=True, open_high=True, search=(0.2, 0.9)),
        "patience": Interval(1, 10**9, integer=True, log=True, search=(1, 50)),
        "cooldown": Interval(0, 10**9, integer=True, search=(0, 1000)),
        "smoothing": Interval(0.0, 1.0, open_low=True, log=True, search=(0.01, 1.0)),
    }

    cosines_: Tensor
    squares_: Tensor
    losses_: Tensor
    kappas_: list[float]
    hs_: list[float]
    halvings_: int
    rebalanced_: int
    quiet_: int
    looks_: int
    cooled_: int
    merges_: list[list[list[int]]]
    base_scale_: list[float] | None
    scale_: list[float] | None

    def __init__(
        self,
        form: str = "escalation",
        kappa_max: float = 10.0,
        window: int = 5,
        period: int = 20,
        repeats: int = 3,
        threshold: float = 0.5,
        patience: int = 5,
        cooldown: int = 500,
        smoothing: float = 0.1,
    ) -> None:
        self.form = form
        self.kappa_max = kappa_max
        self.window = window
        self.period = period
        self.repeats = repeats
        self.threshold = threshold
        self.patience = patience
        self.cooldown = cooldown
        self.smoothing = smoothing

    def bind(self, live: Live) -> None:
        """Look whether the aggregator can do with groups of tasks."""
        super().bind(live)
        for name, value in live.aggregator.get_params(deep=False).items():
            if isinstance(value, list | tuple):
                raise ValueError(
                    f"CertificateController merges tasks, and {type(live.aggregator).__name__} has "
                    f"{name}={shown(value)}, one number a task; give one number, None, or weigh "
                    "the tasks by task_scale"
                )

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return what is done about the conditioning, and why; mostly nothing."""
        if record.task_gramian is None:  # the weights are kept in this step
            return {}
        self._average(record, record.task_gramian)
        self.looks_ += 1
        if self.form == "groups":
            return self._regroup()
        return {} if self.looks_ % self.period else self._look()

    # ---- what is known

    def _average(self, record: StepRecord, gramian: Tensor) -> None:
        """Take a step into the moving averages of its tasks."""
        k, tasks = len(record.losses), list(record.present)
        if getattr(self, "cosines_", None) is None:
            self.cosines_ = torch.full((k, k), math.nan, dtype=torch.float64)
            self.squares_ = torch.full((k,), math.nan, dtype=torch.float64)
            self.losses_ = torch.full((k,), math.nan, dtype=torch.float64)
            self.kappas_, self.hs_, self.merges_ = [], [], []
            self.halvings_ = self.rebalanced_ = self.quiet_ = self.looks_ = self.cooled_ = 0
            self.base_scale_ = self.scale_ = self._task_map.scale
        if self._task_map.scale != self.scale_:  # the user has set another
            self.base_scale_ = self.scale_ = self._task_map.scale
            self.rebalanced_ = 0
        squares = gramian.diagonal()
        losses, norms = self.losses_.clone(), self.squares_.clone()
        losses[tasks] = self._mixed(losses[tasks], record.losses[tasks])
        before = torch.where(norms[tasks] > 0, norms[tasks], math.nan)
        norms[tasks] = torch.where(squares > 0, self._mixed(before, squares), 0.0)
        there = [task for task, square in zip(tasks, squares.tolist(), strict=True) if square > 0]
        pairs = np.ix_(there, there)
        matrix = self.cosines_.clone()
        matrix[pairs] = self._mixed(matrix[pairs], cosines(gramian[squares > 0][:, squares > 0]))
        self.losses_, self.squares_, self.cosines_ = losses, norms, matrix

    def _mixed(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the moving average, ``new`` where there is none yet."""
        return torch.where(old.isnan(), new, (1 - self.smoothing) * old + self.smoothing * new)

    def _seen(self, *, grouped: bool = True, scaled: bool = True) -> Tensor | None:
        """Return the averaged Gramian that the aggregator would see, None while pairs are unknown.

        Averages of pairs with different histories (missing labels) need not be a Gramian: with an
        eigenvalue clearly below zero nothing is known either.
        """
        alive = [k for k, square in enumerate(self.squares_.tolist()) if square > 0]
        norms = self.squares_[alive].sqrt()
        gramian = self.cosines_[alive][:, alive] * norms[:, None] * norms
        if len(alive) == 0 or bool(gramian.isnan().any()):
            return None
        eigenvalues = torch.linalg.eigvalsh(self.cosines_[alive][:, alive])
        if float(eigenvalues[0]) < -1e-8:
            return None
        groups = self._task_map.groups if grouped else self.merges_[-1]
        scale = self._task_map.scale if scaled else self.base_scale_
        p, _ = TaskMap(len(self.squares_), scale, groups).matrix(alive)
        return gramian if p is None else p @ gramian @ p.T

    @property
    def _task_map(self) -> TaskMap:
        task_map: TaskMap = self._live.task_map
        return task_map

    # ---- escalation

    def _look(self) -> dict[str, Change]:
        gramian = self._seen()
        if gramian is None:
            return {}
        kappa, turned = condition_number(gramian), condition_number(cosines(gramian))
        known = self.losses_[~self.losses_.isnan()]
        self.kappas_ = [*self.kappas_, kappa][-self.window :]
        self.hs_ = [*self.hs_, float((known**2).mean())][-self.window :]
        rising, worse = self._rises(self.hs_), self._rises([math.log(x) for x in self.kappas_])
        fine = kappa <= self.kappa_max
        # scales that balanced other gradients than today's are a cause themselves
        fine = fine or (self.rebalanced_ > 0 and self._fine(self._seen(scaled=False)))
        self.quiet_ = self.quiet_ + 1 if fine and not rising else 0
        if self.quiet_ >= self.window:
            return self._take_back()
        act = not fine and (rising or worse)
        return self._act(gramian, kappa, turned, rising) if act else {}

    def _rises(self, values: list[float]) -> bool:
        """Say whether the least-squares line over a full window has a positive slope."""
        if len(values) < self.window:
            return False
        slope = float(np.polyfit(np.arange(len(values)), values, 1)[0])
        return slope > 1e-9 * max(map(abs, values))  # not rounding

    def _act(self, gramian: Tensor, kappa: float, turned: float, rising: bool) -> dict[str, Change]:
        """Take the first action that can act on the cause."""
        why = f"kappa {kappa:.3g} > {self.kappa_max:g}"
        changes: dict[str, Change] = {}
        if rising and self.halvings_ < self.repeats:
            self.halvings_ += 1
            changes = self._times_lr(0.5, f"{why} and h rising: learning rate halved")
        elif turned <= kappa / 2 and self.rebalanced_ < self.repeats:
            self.rebalanced_ += 1
            self.scale_ = self._balance()
            changes = {"task_scale": Change(self.scale_, f"{why}: gradients balanced")}
        elif turned > self.kappa_max and len(gramian) > 1:
            groups, pair = self._merged(gramian)
            words = f"{why}: {pair} merged"
            changes = {"task_groups": Change(groups, words)}
        if changes:
            self._begin_anew()
        return changes

    def _begin_anew(self) -> None:
        """Forget the looks before a change: trends are measured from here on."""
        self.kappas_, self.hs_, self.quiet_ = [], [], 0

    def _take_back(self) -> dict[str, Change]:
        """Undo one action that is no longer needed."""
        why = f"kappa <= {self.kappa_max:g} in {self.window} looks"
        changes: dict[str, Change] = {}
        if self.merges_ and self._fine(self._seen(grouped=False), normalised=True):
            groups = self.merges_.pop()
            value = None if all(len(group) == 1 for group in groups) else groups
            changes = {"task_groups": Change(value, f"{why}: last merge taken back")}
        elif self.rebalanced_ and self._fine(self._seen(scaled=False)):
            self.rebalanced_ = 0
            self.scale_ = self.base_scale_
            changes = {"task_scale": Change(self.base_scale_, f"{why}: balance taken back")}
        elif self.halvings_:
            self.halvings_ -= 1
            changes = self._times_lr(2.0, f"{why}: learning rate doubled again")
        if changes:
            self._begin_anew()
        return changes

    def _fine(self, gramian: Tensor | None, *, normalised: bool = False) -> bool:
        if gramian is None:
            return False
        return condition_number(cosines(gramian) if normalised else gramian) <= self.kappa_max

    def _times_lr(self, factor: float, reason: str) -> dict[str, Change]:
        """Multiply every learning rate as it is now: a scheduler's changes are kept."""
        groups = self._live.optimizer.param_groups
        if len(groups) == 1:
            return {"lr": Change(groups[0]["lr"] * factor, reason)}
        return {
            f"optimizer__param_groups__{i}__lr": Change(group["lr"] * factor, reason)
            for i, group in enumerate(groups)
        }

    def _balance(self) -> list[float]:
        """Return scales ~ 1/|g_k| with mean 1, within bounds, times the user's."""
        norms = self.squares_.sqrt()
        there = norms > 0
        inverse = torch.where(there, 1 / norms, 0.0)
        scale = torch.where(there, inverse / inverse[there].mean(), 1.0)
        scale = scale.clamp(LIGHTEST, HEAVIEST)
        base = self.base_scale_ or [1.0] * len(scale)
        return [s * b for s, b in zip(scale.tolist(), base, strict=True)]

    def _merged(self, gramian: Tensor) -> tuple[list[list[int]], str]:
        """Return the groups with the two most correlated in one, and the names of these."""
        n_tasks = len(self.squares_)
        groups = self._task_map.groups or [[k] for k in range(n_tasks)]
        self.merges_.append(groups)
        alive = {k for k, square in enumerate(self.squares_.tolist()) if square > 0}
        rows = [i for i, group in enumerate(groups) if alive & set(group)]
        matrix = cosines(gramian).abs().fill_diagonal_(-1.0)
        first, second = sorted(divmod(int(matrix.argmax()), len(matrix)))
        i, j = rows[first], rows[second]
        joined = [sorted(g + groups[j]) if n == i else g for n, g in enumerate(groups) if n != j]
        names = ["+".join(self._live.task_names[k] for k in groups[n]) for n in (i, j)]
        return joined, f"{names[0]} and {names[1]} (|cos| {float(matrix[first, second]):.2f})"

    # ---- groups

    def _regroup(self) -> dict[str, Change]:
        present = self._task_map.groups or [[k] for k in range(len(self.squares_))]
        wanted = self._clusters()
        self.quiet_ = self.quiet_ + 1 if wanted != sorted(map(sorted, present)) else 0
        if self.quiet_ < self.patience or self.looks_ < self.cooled_:
            return {}
        self.quiet_, self.cooled_ = 0, self.looks_ + self.cooldown
        names = self._live.task_names
        words = ", ".join("+".join(names[k] for k in group) for group in wanted)
        value = None if len(wanted) == len(self.squares_) else wanted
        why = f"|cos| >= {self.threshold:g} within {words}, {self.patience} steps in a row"
        return {"task_groups": Change(value, why)}

    def _clusters(self) -> list[list[int]]:
        """Return groups by average linkage on 1 - |C|; a task without a direction is alone."""
        n = len(self.squares_)
        if n == 1:
            return [[0]]
        distance = 1 - torch.nan_to_num(self.cosines_, nan=0.0).abs().numpy()
        dead = ~(self.squares_.numpy() > 0)
        distance[dead, :] = distance[:, dead] = 1.0
        condensed = np.clip(distance[np.triu_indices(n, 1)], 0.0, 1.0)
        labels = fcluster(linkage(condensed, "average"), 1 - self.threshold, "distance")
        return sorted([k for k in range(n) if labels[k] == label] for label in set(labels))
