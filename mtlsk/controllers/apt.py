"""APT: momentum from the cosine similarity of successive gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlsk.controllers.base import Change, Controller, Live
from mtlsk.domains import Choice, Interval
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class APT(Controller):
    """Momentum beta_t = beta_min + (beta_max - beta_min) (1 + s_t) / 2, s_t = cos(d_t, d_{t-1}).

    d_t is the update direction over the shared parameters that the aggregator made; the first
    step takes beta_min. With an unchanged gradient the momentum is beta_max, with an opposite one
    beta_min. It acts in the very step it is computed in: m_t = beta_t m_{t-1} + (1 - beta_t) d_t.
    ``beta_min == beta_max`` is the host optimizer bit for bit. What is driven is every first
    momentum of the optimizer: ``betas[0]`` of ``"Adam"``, ``"AdamW"`` and ``"RAdam"`` with the
    bias correction 1 - prod_i beta_i, of ``"NAdam"`` by its own product of momenta; on ``"Muon"``
    that of the matrices, and ``betas[0]`` of its AdamW part; on ``"SGD"`` momentum and dampening
    together.

    The source says that the momentum follows the cosine of successive gradients between two
    bounds; no formula is public: the affine map, the first step, the choice of gradient and all
    options are our reading. It helps where gradients flip abruptly; in stationary noise it is
    worse than a constant momentum, and where they turn steadily only ``reference="momentum"``
    helps (``studies/apt_tracking``).

    Parameters
    ----------
    beta_min, beta_max : float
        Bounds of the momentum, 0 <= beta_min <= beta_max < 1.
    reference : "gradient" or "momentum"
        ``"momentum"`` takes s_t = cos(d_t, m_{t-1}), m the optimizer's own buffer over the shared
        parameters before this step.
    map : "affine" or "relu"
        ``"relu"`` is beta_min + (beta_max - beta_min) max(s_t, 0).
    scope : "global" or "tensor"
        ``"tensor"`` gives every shared parameter tensor its own s_t and momentum, and leaves those
        of the tasks' own parameters alone. The optimizer's groups are split for it when training
        starts: make a scheduler of the learning rate after that.

    Attributes
    ----------
    previous_ : tensor of shape (M,)
        The last direction over all shared parameters (``reference="gradient"``). Memory.
    beta_ : float, or list of floats
        The momentum last set, of each shared tensor with ``scope="tensor"``. Memory.

    Raises
    ------
    ValueError
        If the optimizer has no momentum that can be driven exactly.

    **Reference** arXiv 2604.08939 (adaptive momentum from gradient cosines).
    """

    paper = "arXiv 2604.08939"
    drives = frozenset({"momentum"})
    domains = {
        "beta_min": Interval(0.0, 1.0, open_high=True, search=(0.0, 0.9)),
        "beta_max": Interval("beta_min", 1.0, open_high=True, search=(0.0, 0.99)),
        "reference": Choice("gradient", "momentum"),
        "map": Choice("affine", "relu"),
        "scope": Choice("global", "tensor"),
    }

    previous_: Tensor
    beta_: float | list[float]

    def __init__(
        self,
        beta_min: float = 0.5,
        beta_max: float = 0.95,
        reference: str = "gradient",
        map: str = "affine",
        scope: str = "global",
    ) -> None:
        self.beta_min = beta_min
        self.beta_max = beta_max
        self.reference = reference
        self.map = map
        self.scope = scope

    def bind(self, live: Live) -> None:
        """Find where the optimizer keeps its momenta; one group a shared tensor by ``scope``."""
        super().bind(live)
        check_host(live.optimizer)
        self._drives_dampening = "dampening" in live.optimizer.defaults
        words = ["momentum", "dampening"] if self._drives_dampening else ["momentum"]
        if self.scope == "global":
            # the word of the whole is that of Muon's matrices: its AdamW groups are named beside
            beside = [
                f"param_groups__{i}__momentum"
                for i, group in enumerate(live.optimizer.param_groups)
                if "momentum" in live.optimizer.defaults and "betas" in group
            ]
            self._names = [[f"optimizer__{word}" for word in (*words, *beside)]]
            return
        places = isolate(live.optimizer, live.shared)
        self._names = [
            [f"optimizer__param_groups__{places[id(p)]}__{word}" for word in words]
            if id(p) in places
            else []
            for p in live.shared
        ]

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the momenta of this step."""
        parts = [d.reshape(-1) for d in record.direction]
        whole = joined(parts)
        before: list[Tensor] | None
        if self.reference == "momentum":
            before = momenta(self._live.optimizer, self._live.shared)
            if before is not None and self.scope == "global":
                before = [joined(before)]
        else:
            previous = getattr(self, "previous_", None)
            sizes = [len(d) for d in parts] if self.scope == "tensor" else [len(whole)]
            if previous is not None:  # loaded memories are on the CPU
                before = list(torch.split(previous.to(whole.device), sizes))
            else:
                before = None
            self.previous_ = whole
        now = parts if self.scope == "tensor" else [whole]
        # the first step takes beta_min
        angles = [-1.0] * len(now) if before is None else cosines(now, before)
        betas = [momentum(self.beta_min, self.beta_max, s, self.map) for s in angles]
        self.beta_ = betas if self.scope == "tensor" else betas[0]
        changes: dict[str, Change] = {}
        for beta, names in zip(betas, self._names, strict=True):
            if self._drives_dampening and self.beta_min < self.beta_max:
                # torch keeps no buffer at momentum 0: the least positive number is 0 in products
                beta = max(beta, sys.float_info.min)
            changes |= {name: Change(beta, REASONS[self.reference]) for name in names}
        return changes


REASONS = {
    "gradient": "cosine of successive updates",
    "momentum": "cosine of update and momentum",
}
EXACT = "'SGD', 'Adam', 'AdamW', 'NAdam', 'RAdam' or 'Muon'"


def check_host(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for an optimizer whose momentum cannot be driven exactly."""
    name = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
    group = optimizer.defaults
    if getattr(optimizer, "corrects_varying_beta1", False):
        return
    if "momentum" in group and "dampening" in group:
        if any(g.get("nesterov") for g in (group, *optimizer.param_groups)):
            raise ValueError(
                f"APT drives momentum and dampening of {name} together, which nesterov=True "
                "excludes; set optimizer__nesterov=False"
            )
    elif "betas" in group:
        raise ValueError(
            f"APT cannot drive {name}: its bias correction is wrong when betas[0] changes; use "
            f"optimizer={EXACT}, by these names, which are exact"
        )
    else:
        raise ValueError(
            f"APT needs a momentum it can drive exactly, with dampening or as betas[0], and "
            f"{name} has none; use optimizer={EXACT}, by these names"
        )


def isolate(optimizer: torch.optim.Optimizer, shared: Iterable[Tensor]) -> dict[int, int]:
    """Split an optimizer's groups until each shared tensor is one of its own; return id -> index.

    Doing it again changes nothing, so a saved state fits an optimizer that was split alike.
    """
    wanted = {id(p) for p in shared}
    groups = []
    for group in optimizer.param_groups:
        params = group["params"]
        alone = [i for i, p in enumerate(params) if id(p) in wanted]
        rest = [i for i, p in enumerate(params) if id(p) not in wanted]
        parts = [[i] for i in alone] + ([rest] if rest else [])
        for part in parts if len(parts) > 1 else []:
            new = {**group, "params": [params[i] for i in part]}
            if "param_names" in group:
                new["param_names"] = [group["param_names"][i] for i in part]
            groups.append(new)
        if len(parts) <= 1:
            groups.append(group)
    optimizer.param_groups[:] = groups
    places = {id(group["params"][0]): i for i, group in enumerate(groups) if group["params"]}
    return {key: i for key, i in places.items() if key in wanted}


def momenta(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[Tensor] | None:
    """Return the optimizer's buffers, flat; zeros where there is none, None if there is nowhere."""
    states = [optimizer.state.get(p, {}) for p in parameters]
    found = [state.get("momentum_buffer", state.get("exp_avg")) for state in states]
    if all(m is None for m in found):
        return None
    pairs = zip(found, parameters, strict=True)
    return [(torch.zeros_like(p) if m is None else m).detach().reshape(-1) for m, p in pairs]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return parts as one vector."""
    return torch.cat(list(parts)) if parts else torch.zeros(0)


def momentum(beta_min: float, beta_max: float, s: float, map: str = "affine") -> float:
    """Return the momentum for a cosine s, kept in the bounds against rounding.

    beta_min + (beta_max - beta_min) times (1 + s) / 2, or max(s, 0) for ``map="relu"``.
    """
    share = max(s, 0.0) if map == "relu" else (1 + s) / 2
    return min(max(beta_min + (beta_max - beta_min) * share, beta_min), beta_max)


def cosines(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[float]:
    """Return the cosines of pairs of vectors, in float64; 0 where either is zero."""
    products = []
    for x, y in zip(a, b, strict=True):
        v, w = x.double(), y.double()  # |d| = 1e-30 must give the same as |d| = 1
        products.append(torch.stack([v @ w, v @ v, w @ w]))
    values = torch.stack(products).tolist() if products else []  # one transfer
    return [
        max(-1.0, min(1.0, dot / math.sqrt(first) / math.sqrt(second))) if first and second else 0.0
        for dot, first, second in values
    ]


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two directions (M,), in float64; 0 if either is zero."""
    return cosines([a], [b])[0]
